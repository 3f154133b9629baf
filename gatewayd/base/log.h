/*
 * Log lines: to the journal with fields where standard error is the journal
 * (base/journal.h), else to standard error, with the priority prefix that
 * service managers read. A message that comes too often is thinned out
 * (base/log_limit.h). Called by main programs and by the modules that decide;
 * library layers return their errors instead. Never give it a secret.
 */
#ifndef GW_BASE_LOG_H
#define GW_BASE_LOG_H

#include <stddef.h>
#include <syslog.h>

/* What a line is about, for those who look for it: "LISTENER" is the journal's field GATEWAY_LISTENER. Names are of A-Z
 * and _. */
struct log_field {
	const char *name;
	const char *text; /* NULL: the number */
	long long number;
};
#define LOG_TEXT(key, value)                                                                                           \
	{                                                                                                              \
		.name = (key), .text = (value)                                                                         \
	}
#define LOG_NUMBER(key, value)                                                                                         \
	{                                                                                                              \
		.name = (key), .number = (value)                                                                       \
	}

/* A list of fields for log_write_about: LOG_ABOUT(LOG_TEXT("TARGET", target), LOG_NUMBER("REVISION", 7)). */
#define LOG_ABOUT(...) ((const struct log_field[]){ __VA_ARGS__, { .name = NULL } })

/* Sets the least urgent priority that is still printed (LOG_ERR ... LOG_DEBUG) and the program name in front, and looks
 * whether there is a journal: before rights are given up. */
void log_setup(const char *program, int max_priority);

/* Parses "error", "warning", "notice", "info" or "debug" to a priority; -EINVAL for anything else. */
int log_level_parse(const char *text);

/* One line, formatted as by printf, without a newline at its end. Keeps errno. */
void log_write(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same with fields: LOG_ABOUT(...). The words must tell them too, for not all read a journal. */
void log_write_about(int priority, const struct log_field *fields, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

#define log_error(...)   log_write(LOG_ERR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, __VA_ARGS__)
#define log_notice(...)  log_write(LOG_NOTICE, __VA_ARGS__)
#define log_info(...)    log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...)   log_write(LOG_DEBUG, __VA_ARGS__)

#endif
