/*
 * What becomes of flows, one record for each beginning and end, in a ring of
 * each relay thread in shared memory (stats.h). The thread writes, the daemon
 * reads: one writer and one reader, neither waits for the other. A ring that
 * is full loses the record, and the thread counts that (flow_records_lost).
 * Rings outlive relays and daemons as the memory does; what a dead relay has
 * left in one is still read.
 *
 * Nothing is written that the daemon does not want: it says of how many flows
 * it wants one, for beginnings and ends apart. Which one depends on the flow's
 * id alone, so that beginning and end of a flow are both told or neither.
 */
#ifndef GW_BASE_STATS_RECORD_H
#define GW_BASE_STATS_RECORD_H

#include "gatewayd/base/stats_row.h"

/* Records of one ring; a power of two. At ten thousand flows a second of one thread the daemon may be busy with
 * something else for 0.4 s, or twice that if only ends are wanted. */
#define STATS_RECORDS_MAX 8192U

enum flow_why {
#define FLOW_END(member, reason, who, doc) FLOW_END_##member,
#include "gatewayd/base/flow_end.def"
#undef FLOW_END
	FLOW_ENDS
};

enum stats_record_kind { STATS_RECORD_START, STATS_RECORD_END, STATS_RECORD_KINDS };

struct stats_record {
	uint64_t at_ms; /* CLOCK_MONOTONIC */
	uint8_t kind;   /* enum stats_record_kind */
	uint8_t end;    /* enum flow_why */
	uint8_t spare[6];
	struct stats_flow flow; /* as its row was */
};

struct stats_ring {
	_Alignas(64) _Atomic uint64_t head; /* the writer's: records so far */
	_Alignas(64) _Atomic uint64_t tail; /* the reader's: records it has taken, or left behind */
	_Alignas(64) struct stats_record record[STATS_RECORDS_MAX];
};

/* What the daemon wants: one of so many flows; 0: none. */
struct stats_wanted {
	_Atomic uint32_t every[STATS_RECORD_KINDS];
};

/* Whether the flow is the one of so many. */
static inline bool stats_record_is_sampled(uint64_t id, uint32_t every)
{
	/* The low bits of ids are the thread's, the next ones count: both are spread over the upper half. */
	return every != 0 && (every == 1 || (uint32_t)((id * UINT64_C(0x9e3779b97f4a7c15)) >> 32) % every == 0);
}

static inline bool stats_record_is_wanted(const struct stats_wanted *wanted, enum stats_record_kind kind, uint64_t id)
{
	return stats_record_is_sampled(id, atomic_load_explicit(&wanted->every[kind], memory_order_relaxed));
}

/* --- the writer --- */

/* False if the ring is full. */
bool stats_ring_put(struct stats_ring *ring, const struct stats_record *record);

/* --- the reader --- */

/* The next record, to be trusted as far as stats_row_read says. False: there is none. A writer that has gone mad cannot
 * make the reader go on for ever: what does not fit the ring is left behind. */
bool stats_ring_take(struct stats_ring *ring, struct stats_record *ret);
/* Records that wait. */
uint32_t stats_ring_waiting(const struct stats_ring *ring);

/* The reason, "" if not known, and who ended the flow, as in flow_end.def. */
const char *flow_end_reason(enum flow_why end);
const char *flow_end_who(enum flow_why end);

#endif
