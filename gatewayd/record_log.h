/*
 * Where lines of records of flows go: a file in the directory of logs, or
 * standard error, which is the journal's. Lines are gathered and written
 * together. Used by records.c; never waits for a reader: what cannot be written
 * stays until there is room for it, and what does not fit beside it is refused.
 *
 * A file is appended to, and is nobody else's way to another one (a symbolic
 * link, a device). Once another file has its name, or none has, lines go to
 * one of that name: a rotation by renaming is noticed with the next line.
 */
#ifndef GW_RECORD_LOG_H
#define GW_RECORD_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that wait to be written: some five hundred lines. */
#define RECORD_LOG_BUFFER ((size_t)256 * 1024)
/* Bytes of standard error's at once: less than a pipe takes as one, so that no other line comes in between. */
#define RECORD_LOG_PIECE 4096

struct record_log;

/* directory: of files; made when it is needed. It must outlive the log. -ENOMEM. */
int record_log_new(const char *directory, struct record_log **ret);
void record_log_free(struct record_log *log);
/* Lines go to this file from now on; NULL: to standard error. What waits is written first, or lost. */
void record_log_open(struct record_log *log, const char *file);
/* Nowhere. */
void record_log_close(struct record_log *log);
/* Takes a line, with its line break. False: there is no room, it is lost. */
bool record_log_put(struct record_log *log, const char *line, size_t length);
/* Writes what waits, as far as it goes. Lines that were written to their end. */
size_t record_log_flush(struct record_log *log);
/* Why nothing can be written, as of the last time; NULL: it can. */
const char *record_log_fault(const struct record_log *log);

#endif
