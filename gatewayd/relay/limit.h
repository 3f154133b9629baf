/*
 * Keeps messages that traffic can trigger from filling the log: one line per
 * kind and interval, with the number of those left out.
 */
#ifndef GW_RELAY_LIMIT_H
#define GW_RELAY_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#define LIMIT_INTERVAL_MS 10000

/* All zero is one that lets the first message through. */
struct limit {
	uint64_t next_ms;
	uint64_t left_out;
};

/* Whether the message may be written now; then ret_left_out says how many were not since the last one. */
static inline bool limit_pass(struct limit *limit, uint64_t now_ms, uint64_t *ret_left_out)
{
	if (now_ms < limit->next_ms) {
		limit->left_out++;
		return false;
	}
	*ret_left_out = limit->left_out;
	*limit = (struct limit){ .next_ms = now_ms + LIMIT_INTERVAL_MS };
	return true;
}

#endif
