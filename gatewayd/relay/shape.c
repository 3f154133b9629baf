/* Rates of single flows; see shape.h. */
#include "gatewayd/relay/shape.h"

#include <sys/socket.h>

#include "gatewayd/relay/account.h"
#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/tcp_stitch.h"

/* --- sockets --- */

/* The kernel's word for no limit, which is 0 here. */
#define UNPACED (~0UL)
/* The two sockets of a flow have different rates: a relay has died in between. */
#define PACED_UNKNOWN UINT64_MAX

static void pace(int fd, uint64_t rate)
{
	unsigned long value = rate ? rate : UNPACED;

	if (fd >= 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &value, sizeof(value));
}

static uint64_t paced(int fd)
{
	unsigned long value = UNPACED;
	socklen_t length = sizeof(value);

	if (getsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &value, &length) < 0 || value == UNPACED)
		return 0;
	return value;
}

const struct flow_shape *shape_of(const struct loop *loop, const struct flow *flow)
{
	static const struct flow_shape none = { .slot = STATS_SLOT_NONE };
	const struct flow_shape *shape = flow_shape(&loop->flows, flow);

	return shape ? shape : &none;
}

static struct flow_shape *part_take(struct loop *loop, struct flow *flow)
{
	if (!flow->shape) {
		flow->shape = parts_take(&loop->flows.shapes);
		flow_shape(&loop->flows, flow)->slot = STATS_SLOT_NONE;
	}
	return flow_shape(&loop->flows, flow);
}

/* A part that says what no part says is given back. */
static void part_give(struct loop *loop, struct flow *flow)
{
	const struct flow_shape *shape = shape_of(loop, flow);

	if (shape->limit || shape->counted || shape->rate || shape->paced || shape->slot != STATS_SLOT_NONE)
		return;
	parts_give(&loop->flows.shapes, flow->shape);
	flow->shape = 0;
}

void shape_read(struct loop *loop, struct flow *flow)
{
	uint64_t client = paced(flow->end[FLOW_CLIENT].fd), target = paced(flow->end[FLOW_TARGET].fd);

	if (client || target)
		part_take(loop, flow)->paced = client == target ? client : PACED_UNKNOWN;
}

void shape_inherit(struct loop *loop, struct flow *flow, uint32_t limit, bool at_rate)
{
	struct flow_shape *shape;

	if (!limit)
		return;
	shape = part_take(loop, flow);
	shape->counted = limit;
	shape->at_rate = at_rate;
}

void shape_target(const struct loop *loop, const struct flow *flow)
{
	if (flow->shape && shape_of(loop, flow)->paced > 0)
		pace(flow->end[FLOW_TARGET].fd, shape_of(loop, flow)->paced);
}

/* --- what is counted at the limit --- */

static struct stats_object *object_of(const struct loop *loop, const struct flow *flow)
{
	const struct flow_shape *shape = shape_of(loop, flow);

	return stats_object(&loop->place, shape->slot, shape->limit);
}

static void enter(const struct loop *loop, const struct flow *flow)
{
	const struct flow_shape *shape = shape_of(loop, flow);
	struct stats_object *object = stats_claim(&loop->place, shape->slot, shape->limit);

	if (object)
		stats_word_add(&object->active, 1);
}

static void leave(const struct loop *loop, const struct flow *flow)
{
	struct stats_object *object = object_of(loop, flow);

	if (object)
		stats_word_add(&object->active, (uint64_t)-1);
}

/* The limit, or another rate of it, came to be in force for the flow, if no relay has counted that already. */
static void count(const struct loop *loop, const struct flow *flow, struct flow_shape *shape)
{
	struct stats_object *object = object_of(loop, flow);

	if (shape->limit == shape->counted)
		return;
	shape->counted = shape->limit;
	shape->at_rate = false;
	if (object)
		stats_word_add(&object->counter[STATS_OBJECT_flows_opened], 1);
}

static void look_from_here(const struct loop *loop, const struct flow *flow, struct flow_shape *shape)
{
	shape->since_ms = loop->now_ms;
	for (unsigned side = 0; side < FLOW_SIDES; side++)
		shape->since_bytes[side] = flow->account.bytes[side];
}

void shape_look(struct loop *loop, struct flow *flow)
{
	struct flow_shape *shape = flow_shape(&loop->flows, flow);
	uint64_t time_ms = loop->now_ms - shape->since_ms, most = 0;
	struct stats_object *object;

	if (shape->rate == 0 || shape->at_rate)
		return;
	if (shape->since_ms == 0)
		look_from_here(loop, flow, shape);
	if (shape->since_ms == loop->now_ms || time_ms < SHAPE_AT_RATE_MS)
		return;
	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		uint64_t moved = flow->account.bytes[side] - shape->since_bytes[side];

		most = moved > most ? moved : most;
	}
	look_from_here(loop, flow, shape);
	if (most * 1000 / time_ms < shape->rate / 100 * SHAPE_AT_RATE_PERCENT)
		return;
	shape->at_rate = true;
	object = object_of(loop, flow);
	if (object)
		stats_word_add(&object->counter[STATS_OBJECT_flows_at_rate], 1);
	account_count(loop, flow, STATS_OBJECT_flows_at_rate);
	account_changed(loop, flow);
}

/* --- what the configuration says --- */

static bool is_as_said(const struct flow_shape *shape, const struct config_listener *listener)
{
	return shape->limit == listener->shape.limit && shape->slot == listener->shape.slot &&
	       shape->rate == listener->shape.rate &&
	       shape->paced == (listener->shape.shadow ? 0 : listener->shape.rate);
}

/* True if that was another thing than before. */
static bool obey(struct loop *loop, struct flow *flow)
{
	const struct config_listener *listener =
	        config_listener(loop->config, flow_way(&loop->flows, flow)->objects.listener);
	struct flow_shape *shape;

	if (!listener || is_as_said(shape_of(loop, flow), listener))
		return false;
	if (listener->shape.rate > 0 && !tcp_stitch_withdraw(loop, flow))
		return false;
	leave(loop, flow);
	shape = part_take(loop, flow);
	if (shape->rate > 0 && shape->rate != listener->shape.rate)
		shape->counted = 0;
	shape->limit = listener->shape.limit;
	shape->slot = listener->shape.slot;
	shape->rate = listener->shape.rate;
	shape->paced = listener->shape.shadow ? 0 : listener->shape.rate;
	for (unsigned side = 0; side < FLOW_SIDES; side++)
		pace(flow->end[side].fd, shape->paced);
	enter(loop, flow);
	count(loop, flow, shape);
	shape->since_ms = 0;
	part_give(loop, flow);
	return true;
}

void shape_begin(struct loop *loop, struct flow *flow)
{
	(void)obey(loop, flow);
}

void shape_end(struct loop *loop, struct flow *flow)
{
	leave(loop, flow);
}

void shape_lost(struct loop *loop, struct flow *flow)
{
	struct flow_shape *shape = flow_shape(&loop->flows, flow);

	if (!shape)
		return;
	leave(loop, flow);
	*shape = (struct flow_shape){ .slot = STATS_SLOT_NONE, .counted = shape->counted };
	part_give(loop, flow);
}

void shape_configured(struct loop *loop)
{
	loop->shape_next = loop->flows.touched ? 0 : FLOW_NONE;
}

void shape_continue(struct loop *loop)
{
	unsigned changed = 0;

	for (unsigned i = 0; i < SHAPE_PASS && changed < SHAPE_SLICE; i++) {
		struct flow *flow;

		if (loop->shape_next >= loop->flows.touched) {
			loop->shape_next = FLOW_NONE;
			return;
		}
		flow = &loop->flows.flows[loop->shape_next++];
		if (flow->state == FLOW_FREE || !obey(loop, flow))
			continue;
		account_shown(loop, flow);
		changed++;
	}
}

void shape_move(struct loop *loop)
{
	for (uint32_t i = 0; i < loop->flows.touched; i++)
		if (loop->flows.flows[i].state != FLOW_FREE)
			enter(loop, &loop->flows.flows[i]);
}
