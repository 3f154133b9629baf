/* Log lines to the journal or to standard error; see log.h. */
#include "gatewayd/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/clock.h"
#include "gatewayd/base/journal.h"
#include "gatewayd/base/log_limit.h"

/* A message longer than this is cut: one line is one write, so that lines of two processes never mix. */
#define LOG_LINE_MAX 1024

static const char *log_program = "gatewayd";
static int log_max = LOG_INFO;
static int log_journal = -1; /* a socket */

void log_setup(const char *program, int max_priority)
{
	log_program = program;
	log_max = max_priority;
	log_journal = journal_open(JOURNAL_SOCKET, STDERR_FILENO);
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

/* As text, one write for the whole line. */
static void write_text(int priority, const char *message)
{
	char line[LOG_LINE_MAX + 64];
	int length = snprintf(line, sizeof(line), "<%d>%s: %s\n", priority, log_program, message);

	(void)!write(STDERR_FILENO, line, (size_t)length);
}

__attribute__((format(printf, 3, 0))) static void write_line(
        int priority, const struct log_field *fields, const char *format, va_list args)
{
	char message[LOG_LINE_MAX];
	uint32_t left_out;
	int length;

	if (!log_limit_pass(format, clock_us() / 1000, &left_out))
		return;
	length = vsnprintf(message, sizeof(message), format, args);
	if (length < 0)
		return;
	if (left_out && (size_t)length < sizeof(message))
		snprintf(message + length, sizeof(message) - (size_t)length, " (%u lines like this one were left out)",
		        (unsigned)left_out);
	if (log_journal < 0 || journal_send(log_journal, priority, log_program, message, fields) < 0)
		write_text(priority, message);
}

void log_write(int priority, const char *format, ...)
{
	int saved_errno = errno;
	va_list args;

	if (priority > log_max)
		return;
	va_start(args, format);
	write_line(priority, NULL, format, args);
	va_end(args);
	errno = saved_errno;
}

void log_write_about(int priority, const struct log_field *fields, const char *format, ...)
{
	int saved_errno = errno;
	va_list args;

	if (priority > log_max)
		return;
	va_start(args, format);
	write_line(priority, fields, format, args);
	va_end(args);
	errno = saved_errno;
}
