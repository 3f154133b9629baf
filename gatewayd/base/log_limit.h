/*
 * So that one message that comes again and again neither fills the disk nor
 * hides the others: each message, which is a place in the source, may be
 * written so many times in a while; the next one after that tells how many
 * were left out. Called by log.c, from any thread.
 */
#ifndef GW_BASE_LOG_LIMIT_H
#define GW_BASE_LOG_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

/* Lines of one message in one window. */
#define LOG_LIMIT_LINES     50
#define LOG_LIMIT_WINDOW_MS 10000

/* Whether a line of the message of this format (the string's place counts, not its letters) is to be written now, at
 * `now_ms`; ret_left_out: how many were not since the last that was. */
bool log_limit_pass(const char *format, uint64_t now_ms, uint32_t *ret_left_out);

#endif
