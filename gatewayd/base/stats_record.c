/* Rings of records of flows; see stats_record.h. */
#include "gatewayd/base/stats_record.h"

#include <string.h>

#include "gatewayd/base/cleanup.h"

static_assert((STATS_RECORDS_MAX & (STATS_RECORDS_MAX - 1)) == 0, "a power of two");

static const struct {
	const char *reason, *who;
} ends[] = {
#define FLOW_END(member, reason, who, doc) { reason, who },
#include "gatewayd/base/flow_end.def"
#undef FLOW_END
};
static_assert(ARRAY_SIZE(ends) == FLOW_ENDS && FLOW_ENDS <= UINT8_MAX, "one row each, in a byte");

const char *flow_end_reason(enum flow_why end)
{
	return ends[end].reason;
}

const char *flow_end_who(enum flow_why end)
{
	return ends[end].who;
}

bool stats_ring_put(struct stats_ring *ring, const struct stats_record *record)
{
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

	if (head - atomic_load_explicit(&ring->tail, memory_order_acquire) >= STATS_RECORDS_MAX)
		return false;
	ring->record[head % STATS_RECORDS_MAX] = *record;
	atomic_store_explicit(&ring->head, head + 1, memory_order_release);
	return true;
}

bool stats_ring_take(struct stats_ring *ring, struct stats_record *ret)
{
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
	uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);

	if (head == tail)
		return false;
	if (head - tail > STATS_RECORDS_MAX) {
		atomic_store_explicit(&ring->tail, head, memory_order_release);
		return false;
	}
	*ret = ring->record[tail % STATS_RECORDS_MAX];
	atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
	stats_flow_clean(&ret->flow);
	if (ret->kind >= STATS_RECORD_KINDS)
		ret->kind = STATS_RECORD_END;
	if (ret->end >= FLOW_ENDS)
		ret->end = FLOW_END_unknown;
	return true;
}

uint32_t stats_ring_waiting(const struct stats_ring *ring)
{
	uint64_t waiting = atomic_load_explicit(&ring->head, memory_order_relaxed) -
	                   atomic_load_explicit(&ring->tail, memory_order_relaxed);

	return waiting < STATS_RECORDS_MAX ? (uint32_t)waiting : STATS_RECORDS_MAX;
}
