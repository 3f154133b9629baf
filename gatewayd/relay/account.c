/* Counters, histograms and rows of flows; see account.h. */
#include "gatewayd/relay/account.h"

#include <assert.h>
#include <string.h>

#include "gatewayd/base/clock.h"
#include "gatewayd/relay/account_object.h"
#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/mover.h"
#include "gatewayd/relay/record.h"
#include "gatewayd/relay/shape.h"

/* What an idle relayed connection costs in the relay: its own memory, and the row that it shares with the daemon. */
#define FLOW_BYTES_MAX 304
static_assert(sizeof(struct flow) + sizeof(struct stats_row) <= FLOW_BYTES_MAX, "the kernel has its share besides");
static_assert((int)FLOW_CLIENT == STATS_TO_TARGET && (int)FLOW_TARGET == STATS_TO_CLIENT, "a side is its direction");

static struct stats_object *object_of(const struct loop *loop, const struct flow *flow, enum stats_kind kind)
{
	const struct flow_way *way = flow_way(&loop->flows, flow);

	return account_object(loop, &way->objects, way->slot, kind);
}

void account_count(struct loop *loop, const struct flow *flow, enum stats_object_counter counter)
{
	const struct flow_way *way = flow_way(&loop->flows, flow);

	account_objects_count(loop, &way->objects, way->slot, counter, 1);
}

/* The listener's and the upstream's own histogram beside the thread's. */
static void note(struct loop *loop, const struct flow *flow, enum stats_histogram which, uint64_t value)
{
	histogram_record(&loop->stats->histogram[which], &loop->stats->histogram_sum[which], value);
	for (unsigned kind = 0; kind < STATS_OWN_KINDS; kind++) {
		struct stats_own *own = stats_own(&loop->place, flow_way(&loop->flows, flow)->slot[kind]);

		if (own && object_of(loop, flow, (enum stats_kind)kind))
			histogram_record(&own->histogram[which], &own->sum[which], value);
	}
}

/* --- the row --- */

static uint32_t number_of(const struct loop *loop, const struct flow *flow)
{
	return stats_place_number(&loop->place, STATS_CONNECTIONS, flow_index(&loop->flows, flow));
}

static struct stats_row *row_of(const struct loop *loop, const struct flow *flow)
{
	return stats_place_row(&loop->place, STATS_CONNECTIONS, flow_index(&loop->flows, flow));
}

/* A flow that ends as soon as it is adopted may have no mover. */
static struct stats_flow_status status_of(const struct loop *loop, const struct flow *flow)
{
	struct stats_flow_status status = { .state = flow->state == FLOW_RELAYING ? STATS_FLOW_RELAYING
		                                                                  : STATS_FLOW_CONNECTING,
		.at_rate = shape_of(loop, flow)->at_rate,
		.retries = flow->n_tried,
		.connect_us = flow->account.connect_us };

	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		const struct flow_direction *direction = &flow->direction[side];

		status.ended[side] = direction->state == DIRECTION_ENDED;
		status.mover[side] = direction->mover;
		status.reason[side] = (uint8_t)mover_reason_shown(direction->reason);
	}
	return status;
}

static void row_fill(const struct loop *loop, const struct flow *flow, struct stats_flow *ret)
{
	const struct flow_origin origin = flow_get_origin(&loop->flows, flow);

	*ret = account_row_of(&origin, IPPROTO_TCP);
	ret->active_ms = flow->active_ms ? flow->active_ms : origin.started_ms;
	ret->status = status_of(loop, flow);
	ret->limit = shape_of(loop, flow)->limit;
	for (unsigned side = 0; side < FLOW_SIDES; side++)
		ret->bytes[side] = flow->account.bytes[side];
}

static void row_show(struct loop *loop, const struct flow *flow)
{
	uint32_t number = number_of(loop, flow);
	struct stats_rows *rows = loop->place.rows;
	struct stats_flow shown;

	if (number == STATS_ROW_NONE)
		return;
	row_fill(loop, flow, &shown);
	if (stats_row_id(&rows->row[number]) == flow->id)
		stats_row_get_name(rows, number, shown.sni);
	stats_row_write(rows, number, &shown);
	account_row_touched(loop, STATS_CONNECTIONS, flow_index(&loop->flows, flow));
}

void account_changed(struct loop *loop, const struct flow *flow)
{
	struct stats_row *row = row_of(loop, flow);
	struct stats_flow_status status = status_of(loop, flow);

	if (row)
		stats_row_set_status(row, &status);
}

void account_shown(struct loop *loop, const struct flow *flow)
{
	row_show(loop, flow);
}

void account_sampled(
        struct loop *loop, const struct flow *flow, struct stats_flow_tcp client, struct stats_flow_tcp target)
{
	uint32_t number = number_of(loop, flow);

	if (number != STATS_ROW_NONE)
		stats_row_set_sample(loop->place.rows, number, client, target, loop->now_ms);
}

void account_name(struct loop *loop, const struct flow *flow, const char *name, size_t length)
{
	uint32_t number = number_of(loop, flow);
	struct stats_flow shown;

	if (number == STATS_ROW_NONE)
		return;
	row_fill(loop, flow, &shown);
	memcpy(shown.sni, name, length < sizeof(shown.sni) ? length : sizeof(shown.sni) - 1);
	stats_row_write(loop->place.rows, number, &shown);
}

/* --- a flow's life --- */

/* From the moment that the flow got its target. */
static uint64_t since_routed_us(const struct flow *flow, uint64_t at_us)
{
	uint64_t from_us = flow->account.started_us + flow->account.routed_us;

	return at_us > from_us ? at_us - from_us : 0;
}

static uint32_t bounded(uint64_t time_us)
{
	return time_us < UINT32_MAX ? (uint32_t)time_us : UINT32_MAX;
}

/* The flow's part in its target's count: what it is beside the run that the flow has noted is where it counts. */
static struct load_hold hold_of(const struct loop *loop, const struct flow *flow)
{
	const struct flow_way *way = flow_way(&loop->flows, flow);

	return (struct load_hold){
		.run = flow->account.hold_run, .slot = way->slot[STATS_TARGET], .id = way->objects.target
	};
}

static void hold_take(struct loop *loop, struct flow *flow)
{
	const struct flow_way *way = flow_way(&loop->flows, flow);
	struct load_hold hold = hold_of(loop, flow);

	account_hold(loop, &way->objects, way->slot, &hold);
	flow->account.hold_run = hold.run;
}

static void hold_give(struct loop *loop, struct flow *flow)
{
	struct load_hold hold = hold_of(loop, flow);

	load_give(&loop->place, &hold);
	flow->account.hold_run = 0;
}

/* Counts the flow as one that is here now, and shows it. */
static void enter(struct loop *loop, struct flow *flow)
{
	const struct flow_way *way = flow_way(&loop->flows, flow);

	hold_take(loop, flow);
	account_objects_enter(loop, STATS_CONNECTIONS, &way->objects, way->slot);
	row_show(loop, flow);
}

void account_begin(struct loop *loop, struct flow *flow, bool adopted)
{
	const struct flow_stitch *stitch = flow_stitch(&loop->flows, flow);
	struct flow_way way = *flow_way(&loop->flows, flow);

	account_slots(loop, &way.objects, way.slot);
	flow_set_way(&loop->flows, flow, &way);
	if (way.slot[STATS_LISTENER] == STATS_SLOT_NONE)
		loop->account_late = true; /* flows are adopted before there is a configuration */
	flow->begun = true;
	for (unsigned side = 0; side < FLOW_SIDES; side++)
		flow->account.bytes[side] =
		        flow->direction[side].taken - flow->direction[side].held + (stitch ? stitch->bytes[side] : 0);
	enter(loop, flow);
	if (!adopted)
		account_count(loop, flow, STATS_OBJECT_flows_opened);
}

/* The flow is counted as one of those objects that were not known when it was adopted. */
static void enter_late(struct loop *loop, struct flow *flow)
{
	struct flow_way way = *flow_way(&loop->flows, flow);
	uint32_t slot[STATS_KINDS];

	account_slots(loop, &way.objects, slot);
	for (unsigned kind = 0; kind < STATS_KINDS; kind++) {
		struct stats_object *object;

		if (way.slot[kind] != STATS_SLOT_NONE)
			continue;
		way.slot[kind] = slot[kind];
		object = account_object_claim(loop, &way.objects, slot, (enum stats_kind)kind);
		if (object)
			stats_word_add(&object->active, 1);
	}
	flow_set_way(&loop->flows, flow, &way);
	hold_take(loop, flow);
}

void account_configured(struct loop *loop)
{
	if (!loop->account_late)
		return;
	loop->account_late = false;
	for (uint32_t i = 0; i < loop->flows.touched; i++) {
		struct flow *flow = &loop->flows.flows[i];

		if (flow->state != FLOW_FREE && flow->begun)
			enter_late(loop, flow);
	}
}

void account_routed(struct loop *loop, struct flow *flow)
{
	flow->account.routed_us = bounded(clock_us() - flow->account.started_us);
	enter_late(loop, flow);
	for (unsigned kind = STATS_UPSTREAM; kind <= STATS_TARGET; kind++) {
		struct stats_object *object = object_of(loop, flow, (enum stats_kind)kind);

		if (object)
			stats_word_add(&object->counter[STATS_OBJECT_flows_opened], 1);
	}
	row_show(loop, flow);
}

void account_target_left(struct loop *loop, struct flow *flow)
{
	struct stats_object *object = object_of(loop, flow, STATS_TARGET);
	struct flow_way way = *flow_way(&loop->flows, flow);

	account_count(loop, flow, STATS_OBJECT_connect_retried);
	if (object) {
		stats_word_add(&object->counter[STATS_OBJECT_flows_closed], 1);
		stats_word_add(&object->active, (uint64_t)-1);
	}
	hold_give(loop, flow);
	way.slot[STATS_TARGET] = STATS_SLOT_NONE;
	flow_set_way(&loop->flows, flow, &way);
}

void account_routed_again(struct loop *loop, struct flow *flow)
{
	struct stats_object *object;

	enter_late(loop, flow);
	object = object_of(loop, flow, STATS_TARGET);
	if (object)
		stats_word_add(&object->counter[STATS_OBJECT_flows_opened], 1);
	row_show(loop, flow);
}

void account_connected(struct loop *loop, struct flow *flow, uint64_t at_us)
{
	uint64_t took = since_routed_us(flow, at_us);

	flow->account.connect_us = bounded(took);
	note(loop, flow, STATS_HISTOGRAM_connect_time, took);
	account_changed(loop, flow);
	record_start(loop, number_of(loop, flow));
}

void account_first_byte(struct loop *loop, struct flow *flow, uint64_t at_us)
{
	note(loop, flow, STATS_HISTOGRAM_first_byte, since_routed_us(flow, at_us));
}

void account_moved(struct loop *loop, struct flow *flow, enum flow_side side, size_t bytes)
{
	enum stats_object_counter counter =
	        side == FLOW_CLIENT ? STATS_OBJECT_bytes_to_target : STATS_OBJECT_bytes_to_client;
	const struct flow_way *way = flow_way(&loop->flows, flow);
	struct stats_row *row = row_of(loop, flow);

	if (side == FLOW_TARGET && flow->account.bytes[side] == 0 && !flow->straight)
		account_first_byte(loop, flow, clock_us());
	flow->account.bytes[side] += bytes;
	stats_add(loop->stats, side == FLOW_CLIENT ? STATS_bytes_to_target : STATS_bytes_to_client, bytes);
	account_objects_count(loop, &way->objects, way->slot, counter, bytes);
	if (row) {
		stats_row_set(row, bytes[side], flow->account.bytes[side]);
		stats_row_set(row, active_ms, loop->now_ms);
	}
}

/* --- its end --- */

static void leave(struct loop *loop, struct flow *flow)
{
	const struct flow_way *way = flow_way(&loop->flows, flow);
	struct stats_row *row = row_of(loop, flow);

	hold_give(loop, flow);
	account_objects_leave(loop, STATS_CONNECTIONS, &way->objects, way->slot);
	if (row)
		stats_row_clear(row);
}

void account_end(struct loop *loop, struct flow *flow, bool counted)
{
	if (!flow->begun)
		return;
	if (flow->end_why != FLOW_END_unknown)
		record_end(loop, number_of(loop, flow), (enum flow_why)flow->end_why);
	if (counted)
		account_count(loop, flow, STATS_OBJECT_flows_closed);
	if (counted && flow->state == FLOW_RELAYING) {
		note(loop, flow, STATS_HISTOGRAM_duration, clock_us() - flow->account.started_us);
		note(loop, flow, STATS_HISTOGRAM_flow_bytes,
		        flow->account.bytes[FLOW_CLIENT] + flow->account.bytes[FLOW_TARGET]);
	}
	leave(loop, flow);
}

void account_refused(struct loop *loop, const struct flow_objects *objects)
{
	uint32_t slot[STATS_KINDS];

	account_slots(loop, objects, slot);
	for (unsigned kind = 0; kind < STATS_KINDS; kind++) {
		struct stats_object *object = account_object_claim(loop, objects, slot, (enum stats_kind)kind);

		if (object)
			stats_word_add(&object->counter[STATS_OBJECT_refused], 1);
	}
}

void account_move(struct loop *loop)
{
	for (uint32_t i = 0; i < loop->flows.touched; i++)
		if (loop->flows.flows[i].state != FLOW_FREE && loop->flows.flows[i].begun)
			enter(loop, &loop->flows.flows[i]);
}
