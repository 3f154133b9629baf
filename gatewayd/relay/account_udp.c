/* Counters and rows of UDP flows; see account_udp.h. */
#include "gatewayd/relay/account_udp.h"

#include <netinet/in.h>

#include "gatewayd/relay/account_object.h"
#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/record.h"

static uint32_t number_of(const struct loop *loop, const struct udp_flow *flow)
{
	return stats_place_number(&loop->place, STATS_UDP, udp_table_index(&loop->udp->table, flow));
}

static struct stats_row *row_of(const struct loop *loop, const struct udp_flow *flow)
{
	return stats_place_row(&loop->place, STATS_UDP, udp_table_index(&loop->udp->table, flow));
}

static void enter(struct loop *loop, struct udp_flow *flow)
{
	uint32_t number = number_of(loop, flow);
	struct stats_flow shown = account_row_of(&flow->origin, IPPROTO_UDP);

	account_hold(loop, &flow->origin.objects, flow->slot, &flow->hold);
	account_objects_enter(loop, STATS_UDP, &flow->origin.objects, flow->slot);
	if (number == STATS_ROW_NONE)
		return;
	shown.active_ms = flow->active_ms;
	shown.status.state = STATS_FLOW_RELAYING;
	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		shown.bytes[side] = flow->bytes[side];
		shown.status.mover[side] = flow->shortcut.in ? STATS_MOVER_KERNEL : STATS_MOVER_NONE;
	}
	stats_row_write(loop->place.rows, number, &shown);
	account_row_touched(loop, STATS_UDP, udp_table_index(&loop->udp->table, flow));
}

void account_udp_begin(struct loop *loop, struct udp_flow *flow)
{
	account_slots(loop, &flow->origin.objects, flow->slot);
	enter(loop, flow);
	account_udp_count(loop, flow, STATS_OBJECT_flows_opened);
}

void account_udp_count(struct loop *loop, const struct udp_flow *flow, enum stats_object_counter counter)
{
	account_objects_count(loop, &flow->origin.objects, flow->slot, counter, 1);
}

void account_udp_moved(struct loop *loop, struct udp_flow *flow, enum flow_side side, size_t bytes)
{
	enum stats_object_counter counter =
	        side == FLOW_CLIENT ? STATS_OBJECT_bytes_to_target : STATS_OBJECT_bytes_to_client;
	struct stats_row *row = row_of(loop, flow);

	flow->bytes[side] += bytes;
	account_objects_count(loop, &flow->origin.objects, flow->slot, counter, bytes);
	if (!row)
		return;
	stats_row_set(row, bytes[side], flow->bytes[side]);
	stats_row_set(row, active_ms, flow->active_ms);
}

void account_udp_mover(struct loop *loop, const struct udp_flow *flow, enum stats_mover mover)
{
	struct stats_row *row = row_of(loop, flow);

	if (row)
		stats_row_set_mover(row, mover);
}

void account_udp_started(const struct loop *loop, const struct udp_flow *flow)
{
	record_start(loop, number_of(loop, flow));
}

void account_udp_end(struct loop *loop, struct udp_flow *flow, enum flow_why why)
{
	struct stats_row *row = row_of(loop, flow);

	record_end(loop, number_of(loop, flow), why);
	account_udp_count(loop, flow, STATS_OBJECT_flows_closed);
	load_give(&loop->place, &flow->hold);
	account_objects_leave(loop, STATS_UDP, &flow->origin.objects, flow->slot);
	if (row)
		stats_row_clear(row);
}

void account_udp_move(struct loop *loop)
{
	const struct udp_table *table = &loop->udp->table;

	for (uint32_t i = table->oldest; i != FLOW_NONE; i = table->flows[i].newer)
		enter(loop, &table->flows[i]);
}
