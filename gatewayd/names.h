/*
 * Listeners, upstreams, targets and rate limits by their row ids, which is what
 * the relay counts by. Made anew when the configuration has changed and somebody asks.
 */
#ifndef GW_NAMES_H
#define GW_NAMES_H

#include "gatewayd/base/stats.h"
#include "rules/snapshot.h"

/* Longest "[address]:port" with its terminator. */
#define NAMES_TARGET_MAX 64

struct name {
	uint32_t id;
	const struct row *row;
	const struct upstream *upstream; /* of a target; else NULL */
};

/* All zero is one without a configuration. */
struct names {
	struct snapshot *snapshot; /* a reference, so that the rows stay */
	struct name *items[STATS_SLOT_KINDS];
	size_t n[STATS_SLOT_KINDS]; /* each sorted by id */
};

/* Makes names those of this snapshot, if they are not already. 0 or -ENOMEM: then there are none. */
int names_follow(struct names *names, const struct snapshot *snapshot);
void names_clear(struct names *names);
/* NULL if there is no such object (any more). */
const struct name *names_find(const struct names *names, enum stats_kind kind, uint32_t id);
/* "10.0.0.1:80" or "[fd00::1]:80", as targets are addressed in the API; returns the buffer. */
const char *names_target(const struct target *target, char buffer[NAMES_TARGET_MAX]);

/* Whether the relay ever writes into histograms of its own: of datagrams there are none, and reading where nothing was
 * written makes pages of the shared memory. */
bool names_has_histograms(enum stats_kind kind, const struct name *name);

#endif
