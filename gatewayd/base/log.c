/* Log lines to standard error; see log.h. */
#include "gatewayd/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"

/* A line longer than this is cut: one line is one write, so that lines of two processes never mix. */
#define LOG_LINE_MAX 1024

static const char *log_program = "gatewayd";
static int log_max = LOG_INFO;

void log_setup(const char *program, int max_priority)
{
	log_program = program;
	log_max = max_priority;
}

int log_level_parse(const char *text)
{
	static const struct {
		const char *name;
		int priority;
	} levels[] = { { "error", LOG_ERR }, { "warning", LOG_WARNING }, { "notice", LOG_NOTICE }, { "info", LOG_INFO },
		{ "debug", LOG_DEBUG } };

	for (size_t i = 0; i < ARRAY_SIZE(levels); i++)
		if (strcmp(levels[i].name, text) == 0)
			return levels[i].priority;
	return -EINVAL;
}

void log_write(int priority, const char *format, ...)
{
	char line[LOG_LINE_MAX];
	int saved_errno = errno;
	int head, body;
	size_t length;
	va_list args;

	if (priority > log_max)
		return;
	head = snprintf(line, sizeof(line), "<%d>%s: ", priority, log_program);
	va_start(args, format);
	body = vsnprintf(line + head, sizeof(line) - (size_t)head - 1, format, args);
	va_end(args);
	if (body < 0)
		return;
	length = strlen(line);
	line[length++] = '\n';
	(void)!write(STDERR_FILENO, line, length);
	errno = saved_errno;
}
