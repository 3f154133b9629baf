/* Flows without sockets of an earlier relay; see straight.h. */
#include "gatewayd/relay/straight.h"

#include <arpa/inet.h>

#include "gatewayd/base/bpf_map.h"
#include "gatewayd/base/shortcut_key.h"
#include "gatewayd/base/stitch_map.h"
#include "gatewayd/relay/life.h"
#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/mover.h"
#include "gatewayd/relay/straight_private.h"
#include "gatewayd/relay/tcp_stitch.h"

/* As its element and its ways have it. */
static void origin_read(uint64_t id, const struct bpf_stitch *stitch, struct flow_origin *ret)
{
	const struct bpf_shortcut_key *client = &stitch->side[FLOW_CLIENT].in, *target = &stitch->side[FLOW_TARGET].in;
	const struct bpf_stitch_straight *told = &stitch->straight;

	*ret = (struct flow_origin){ .id = id,
		.started_ms = told->started_us / 1000,
		.client = shortcut_key_source(client),
		.original = shortcut_key_destination(client),
		.target = shortcut_key_source(target),
		.client_port = ntohs(client->source_port),
		.original_port = ntohs(client->destination_port),
		.target_port = ntohs(target->source_port),
		.objects = { told->objects[0], told->objects[1], told->objects[2] },
		.ifindex = told->ifindex };
}

/* What is told of the flow is for us from here on; what was counted of it is known. */
static void ways_take(struct loop *loop, struct flow *flow, const struct bpf_stitch *stitch)
{
	struct flow_stitch *own = flow_stitch(&loop->flows, flow);

	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		const struct bpf_shortcut_key *key = &stitch->side[side].in;
		struct bpf_stitch_way way;

		if (!stitch_map_way(straight_ways(loop), key, flow->id, &way))
			continue;
		own->bytes[side] = way.counted;
		way = straight_way(loop, flow, (enum flow_side)side, way.counted);
		(void)bpf_map_put(straight_ways(loop), key, &way);
	}
}

/* Whether the relay before has counted the end of a flow, or was about to. */
static bool end_was_counted(const struct loop *loop, uint64_t id, const struct bpf_stitch *stitch)
{
	struct bpf_straight_shown shown;
	struct bpf_stitch_way way;

	bpf_straight_show(stitch, &shown);
	return straight_has_ended(&shown) &&
	       (!stitch_map_way(straight_ways(loop), &stitch->side[FLOW_CLIENT].in, id, &way) ||
	               way.ring == BPF_STITCH_COUNTED);
}

/* Elements that come and go make the walk begin anew: whether the flow is ours already. */
static bool is_adopted(const struct loop *loop, uint64_t id, const struct bpf_stitch *stitch)
{
	struct bpf_stitch_way way;
	enum flow_side side;
	const struct flow *flow;

	if (!stitch_map_way(straight_ways(loop), &stitch->side[FLOW_CLIENT].in, id, &way))
		return false;
	flow = flow_from_cookie(&loop->flows, way.owner, &side);
	return flow && flow->straight && flow->id == id;
}

static enum mover_reason adopted_reason(const struct loop *loop, uint32_t listener)
{
	const struct config_listener *found = config_listener(loop->config, listener);

	return found && found->mover == PROTO_MOVER_AUTO ? MOVER_REASON_OFTEN : MOVER_REASON_FORCED;
}

/* How long a flow may stay in the making that has begun with the relay before; 0: for ever. */
static uint64_t adopted_deadline_ms(const struct loop *loop, uint32_t listener)
{
	const struct config_listener *found = config_listener(loop->config, listener);

	if (!found)
		return loop->now_ms;
	return found->connect_timeout_ms > 0 ? loop->now_ms + found->connect_timeout_ms : 0;
}

static void adopt_one(struct loop *loop, uint64_t id, const struct bpf_stitch *stitch)
{
	const struct bpf_stitch_straight *told = &stitch->straight;
	uint64_t from_us = told->started_us + told->routed_us, opened_us = told->opened_ns / 1000;
	struct flow_origin origin;
	struct flow_way way;
	struct flow *flow;

	if (is_adopted(loop, id, stitch))
		return;
	if (end_was_counted(loop, id, stitch)) {
		straight_linger(loop, id);
		return;
	}
	atomic_store_explicit(&straight_lived, true, memory_order_relaxed);
	flow = flow_alloc(&loop->flows);
	if (!flow) {
		stats_add(loop->stats, STATS_flows_lost, 1);
		return;
	}
	origin_read(id, stitch, &origin);
	flow_put_origin(&loop->flows, flow, &origin);
	flow->account.started_us = told->started_us;
	flow->account.routed_us = (uint32_t)told->routed_us;
	flow->account.connect_us = opened_us > from_us ? (uint32_t)(opened_us - from_us) : 0;
	flow->straight = flow->carried = true;
	flow->active_ms = loop->now_ms;
	flow->stitch = parts_take(&loop->flows.stitches);
	flow_stitch(&loop->flows, flow)->look_ms = STITCH_LOOK_MS;
	if (told->told & 1U << BPF_STRAIGHT_OPENED) {
		flow->state = FLOW_RELAYING;
	} else {
		flow->making = parts_take(&loop->flows.makings);
		flow_making(&loop->flows, flow)->deadline_ms = adopted_deadline_ms(loop, told->objects[0]);
	}
	ways_take(loop, flow, stitch);
	for (unsigned side = 0; side < FLOW_SIDES; side++)
		flow->direction[side] = (struct flow_direction){ .mover = MOVER_KERNEL,
			.reason = (uint8_t)adopted_reason(loop, told->objects[0]),
			.store = UINT32_MAX,
			.moved = stitch->side[side].bytes > 0 };
	life_begin(loop, flow, true);
	way = *flow_way(&loop->flows, flow);
	way.idle_timeout_ms = told->idle_timeout_ms;
	flow_set_way(&loop->flows, flow, &way);
	loop->keep.adopt.adopted++;
	wheel_set(&loop->wheel, &flow->timer, loop->now_ms + STITCH_LOOK_MS);
}

static bool falls_to(const struct loop *loop, uint64_t id)
{
	unsigned threads = loop->shortcut->threads < BPF_STRAIGHT_RINGS ? loop->shortcut->threads : BPF_STRAIGHT_RINGS;

	return id % STATS_THREADS_MAX % threads == loop->number;
}

void straight_adopt(struct loop *loop)
{
	uint64_t id, last = 0;
	bool first = true;

	/* Elements that come and go meanwhile may begin the walk anew; it does not go on for ever. */
	for (unsigned i = 0; i < 2 * BPF_STITCH_MAX; i++) {
		struct bpf_stitch stitch;

		if (bpf_map_next(straight_stitches(loop), first ? NULL : &last, &id) < 0)
			return;
		if (falls_to(loop, id) && bpf_map_get(straight_stitches(loop), &id, &stitch) == 0 &&
		        (stitch.options & BPF_STITCH_STRAIGHT))
			adopt_one(loop, id, &stitch);
		last = id;
		first = false;
	}
}
