/*
 * Walking the rows in which the relay shows its flows (base/stats_row.h), and
 * keeping the first few of many. Reads shared memory and nothing else: the
 * relay does not notice. Called by core_flows.c.
 */
#ifndef GW_FLOWS_H
#define GW_FLOWS_H

#include "gatewayd/base/stats.h"

/* Where a row is. All zero is the place before the first one. */
struct flows_place {
	unsigned bank, table; /* table: as base/stats.h numbers them */
	uint32_t row;
};

struct flows_found {
	struct stats_flow flow;
	struct flows_place place;
	uint64_t rank; /* the owner's; larger ones come first */
};

/* What a flow must be to be found; all zero: any. */
struct flows_filter {
	uint32_t listener, upstream; /* ids */
	uint8_t protocol;
	bool has_client, has_target;
	struct prefix client;
	struct addr target;
	uint16_t target_port; /* 0: any */
	const char *sni;      /* a value of FIRST_SNI (base/first_route.h); NULL: any, also none */
};

/* Whether the flow is as the filter says. */
bool flows_match(const struct flows_filter *filter, const struct stats_flow *flow);
/* Looks at the row at `place` and those behind it, at most *budget, for a flow; both are moved on. False: no more, or
 * the budget is used up (then *budget is 0). */
bool flows_next(const struct stats_memory *memory, struct flows_place *place, size_t *budget, struct flows_found *ret);
/* The flow of this id. */
bool flows_find(const struct stats_memory *memory, uint64_t id, struct flows_found *ret);

/* The first `room` of those that were offered, by rank and then by id. */
struct flows_top {
	size_t room, n;
	struct flows_found **heap; /* the last one of those kept is on top, until flows_top_sort */
	struct flows_found *memory;
};

/* -ENOMEM. */
int flows_top_init(struct flows_top *top, size_t room);
void flows_top_clear(struct flows_top *top);
void flows_top_offer(struct flows_top *top, const struct flows_found *found);
/* Puts heap[0..n) into order; nothing can be offered any more. */
void flows_top_sort(struct flows_top *top);
/* Whether a flow of this rank and id comes before one of the other. */
bool flows_before(uint64_t rank, uint64_t id, uint64_t other_rank, uint64_t other_id);

#endif
