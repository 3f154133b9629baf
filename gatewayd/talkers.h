/*
 * Who talked to whom: sums of flows that have ended, for each client and
 * destination (the name that it said, else the address), listener, upstream and
 * protocol. Bounded: the pair that was not seen for longest makes room, and is
 * counted. In the daemon's memory, so relays come and go without it noticing.
 * Filled by records.c, shown by core_flows.c; knows neither rings nor documents.
 */
#ifndef GW_TALKERS_H
#define GW_TALKERS_H

#include "gatewayd/base/stats_row.h"

struct talker {
	/* Of the flows: client, original and original_port (zeros if there is a name), sni, listener, upstream,
	 * protocol; bytes are sums. The rest is zero. */
	struct stats_flow flow;
	uint64_t ended, refused;   /* refused: of them, came to no target */
	int64_t first_ms, last_ms; /* when the first of them began, and the last one ended: of the day */
	uint32_t bucket, next;     /* where it is found, and the next one there */
	uint32_t older, newer;
};

struct talkers;

/* Room for so many; 0: none are kept. 0 or -ENOMEM. */
int talkers_new(uint32_t max, struct talkers **ret);
void talkers_free(struct talkers *talkers);
/* A flow has ended. clock_ms: what its times lag behind those of the day. */
void talkers_add(struct talkers *talkers, const struct stats_flow *flow, uint64_t at_ms, int64_t clock_ms);
/* Adds the sums of another list, the oldest first, as far as there is room. */
void talkers_take(struct talkers *talkers, const struct talkers *from);
/* How many there are, most there can be, and how many had to make room. */
uint32_t talkers_count(const struct talkers *talkers);
uint32_t talkers_max(const struct talkers *talkers);
uint64_t talkers_evicted(const struct talkers *talkers);
/* The one that was seen last, and the one seen before this one; NULL: no more. */
const struct talker *talkers_newest(const struct talkers *talkers);
const struct talker *talkers_older(const struct talkers *talkers, const struct talker *talker);

#endif
