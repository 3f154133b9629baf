/* Records of flows; see record.h. */
#include "gatewayd/relay/record.h"

#include <errno.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/relay/loop.h"

enum flow_why record_end_of_connect(int error)
{
	return error == -ETIMEDOUT ? FLOW_END_connect_timeout : FLOW_END_connect_failed;
}

enum flow_why record_end_of_refusal(enum stats_counter counter)
{
	static const struct {
		enum stats_counter counter;
		enum flow_why end;
	} known[] = { { STATS_refused_no_target, FLOW_END_no_target },
		{ STATS_refused_target_full, FLOW_END_no_target }, { STATS_refused_no_listener, FLOW_END_no_listener },
		{ STATS_refused_no_descriptor, FLOW_END_no_resources }, { STATS_proxy_missing, FLOW_END_proxy_header },
		{ STATS_proxy_malformed, FLOW_END_proxy_header }, { STATS_proxy_timeout, FLOW_END_proxy_header } };

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (known[i].counter == counter)
			return known[i].end;
	return FLOW_END_unknown;
}

static bool is_wanted(const struct loop *loop, enum stats_record_kind kind, uint64_t id)
{
	return loop->place.memory && stats_record_is_wanted(&loop->place.memory->wanted, kind, id);
}

static bool is_row_wanted(const struct loop *loop, enum stats_record_kind kind, uint32_t row)
{
	return row != STATS_ROW_NONE && is_wanted(loop, kind, stats_row_id(&loop->place.rows->row[row]));
}

static void put(const struct loop *loop, const struct stats_record *record)
{
	if (!stats_ring_put(loop->place.ring, record))
		stats_add(loop->stats, STATS_flow_records_lost, 1);
}

void record_start(const struct loop *loop, uint32_t row)
{
	struct stats_record record = { .at_ms = loop->now_ms, .kind = STATS_RECORD_START };

	if (!is_row_wanted(loop, STATS_RECORD_START, row))
		return;
	stats_row_copy(loop->place.rows, row, &record.flow);
	put(loop, &record);
}

void record_end(const struct loop *loop, uint32_t row, enum flow_why why)
{
	struct stats_record record = { .at_ms = loop->now_ms, .kind = STATS_RECORD_END, .end = (uint8_t)why };

	if (!is_row_wanted(loop, STATS_RECORD_END, row))
		return;
	stats_row_copy(loop->place.rows, row, &record.flow);
	put(loop, &record);
}

void record_end_flow(const struct loop *loop, const struct stats_flow *flow, enum flow_why why)
{
	struct stats_record record = {
		.at_ms = loop->now_ms, .kind = STATS_RECORD_END, .end = (uint8_t)why, .flow = *flow
	};

	if (is_wanted(loop, STATS_RECORD_END, flow->id))
		put(loop, &record);
}
