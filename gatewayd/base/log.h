/*
 * Log lines to standard error, with the priority prefix that journald reads.
 * Called by main programs and by the modules that decide; library layers
 * return their errors instead. Never give it a secret.
 */
#ifndef GW_BASE_LOG_H
#define GW_BASE_LOG_H

#include <syslog.h>

/* Sets the least urgent priority that is still printed (LOG_ERR ... LOG_DEBUG) and the program name in front. */
void log_setup(const char *program, int max_priority);

/* Parses "error", "warning", "notice", "info" or "debug" to a priority; -EINVAL for anything else. */
int log_level_parse(const char *text);

/* One line, formatted as by printf, without a newline at its end. Keeps errno. */
void log_write(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)   log_write(LOG_ERR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, __VA_ARGS__)
#define log_notice(...)  log_write(LOG_NOTICE, __VA_ARGS__)
#define log_info(...)    log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...)   log_write(LOG_DEBUG, __VA_ARGS__)

#endif
