/*
 * One flow as the keeper has it (keeper.c, which alone uses this): its sockets
 * and what the next relay is told of it, in as little room as that takes: for
 * as long as a flow is idle this is what it costs in the daemon.
 */
#ifndef GW_KEEPER_ENTRY_H
#define GW_KEEPER_ENTRY_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "gatewayd/base/addr_trio.h"
#include "gatewayd/base/keep.h"
#include "gatewayd/base/stats.h"

enum keeper_entry_state {
	ENTRY_FREE,    /* legal: a message names it -> HELD */
	ENTRY_HELD,    /* legal: GONE -> FREE, the relay's death -> ORPHAN */
	ENTRY_ORPHAN,  /* in a channel's list or waiting for one; legal: sent -> OFFERED */
	ENTRY_OFFERED, /* legal: GONE -> FREE, END -> HELD, the relay's death -> ORPHAN, or FREE after too many offers
	                */
	ENTRY_STATES
};

/* What many flows have in common: whose they are. */
struct keeper_way {
	uint32_t listener, upstream, target_id, idle_timeout_ms;
};

/* And what their counters begin with: that of a flow outside the sockmap is one of few. */
struct keeper_ledger {
	uint64_t base_up, base_down;
	int32_t offset_up, offset_down;
};

/* Where entries have what they share. */
struct keeper_pools {
	struct addr_pool addrs;
	struct shared ways, ledgers;
};

struct keeper_entry {
	uint64_t id, started_ms;
	uint32_t way, ledger; /* numbers in their pools */
	int fd[KEEP_DESCRIPTORS_EACH];
	uint32_t next;    /* in its bucket, or in the free list */
	uint32_t sibling; /* in the list of a channel's orphans */
	uint16_t client_port, original_port, target_port;
	struct addr_trio addrs;
	uint8_t mover_up : 2, mover_down : 2, ended : 2;
	bool mute : 1;
	uint8_t thread;
	uint8_t state;
	uint8_t crashes; /* of relays in a row that it was offered to */
};
static_assert(sizeof(struct keeper_entry) <= 64, "a flow is small");
static_assert(KEEP_MOVERS <= 1 << 2 && STATS_THREADS_MAX <= UINT8_MAX, "members are wide enough");

/* Room for what so many entries share. 0 or -ENOMEM; keeper_pools_destroy in any case. */
int keeper_pools_init(struct keeper_pools *pools, uint32_t entries);
/* Legal for all zero. */
void keeper_pools_destroy(struct keeper_pools *pools);
/* Notes what the message says, which the keeper has checked; the rest is all zero, what was there is not looked at. The
 * pools have room for all entries. */
void keeper_entry_fill(struct keeper_entry *entry, struct keeper_pools *pools, const struct keep_flow *flow);
/* Gives back what it shares. */
void keeper_entry_leave(struct keeper_entry *entry, struct keeper_pools *pools);
/* The same message again. */
struct keep_flow keeper_entry_flow(const struct keeper_entry *entry, const struct keeper_pools *pools);

#endif
