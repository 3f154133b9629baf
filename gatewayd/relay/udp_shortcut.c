/* The short cut of UDP flows; see udp_shortcut.h. */
#include "gatewayd/relay/udp_shortcut.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <arpa/inet.h>

#include "gatewayd/base/bpf_map.h"
#include "gatewayd/base/bpf_shortcut.h"
#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/shortcut_key.h"
#include "gatewayd/relay/account_udp.h"
#include "gatewayd/relay/loop.h"

/* --- addresses --- */

/* How the target sees the client: the address of the flow's socket. */
static int own_end(const struct udp_flow *flow, struct addr *ret, uint16_t *ret_port)
{
	struct sockaddr_storage sa;
	socklen_t length = sizeof(sa);

	return getsockname(flow->fd, (struct sockaddr *)&sa, &length) < 0 ? -errno
	                                                                  : addr_from_sockaddr(&sa, ret, ret_port);
}

/* Both sides of the flow: [FLOW_CLIENT] as datagrams come from the client, [FLOW_TARGET] from the target. */
static int keys_of(const struct udp_flow *flow, struct bpf_shortcut_key ret[FLOW_SIDES])
{
	const struct flow_origin *origin = &flow->origin;
	struct addr own;
	uint16_t own_port;
	int r = own_end(flow, &own, &own_port);

	if (r < 0)
		return r;
	ret[FLOW_CLIENT] = shortcut_key(&origin->client, origin->client_port, &origin->original, origin->original_port);
	ret[FLOW_TARGET] = shortcut_key(&origin->target, origin->target_port, &own, own_port);
	return 0;
}

/* --- entering --- */

static int control_read(const struct loop *loop, struct bpf_shortcut_control *ret)
{
	__u32 zero = 0;

	return bpf_map_get(loop->shortcut->fd[PROTO_SHORTCUT_CONTROL], &zero, ret);
}

/* Makes one direction's element for this epoch. One that is there rests, for it is of another epoch: what it has
 * counted stays. */
static int direction_put(const struct loop *loop, const struct udp_flow *flow, enum flow_side side,
        const struct bpf_shortcut_key keys[FLOW_SIDES], uint32_t epoch)
{
	struct bpf_shortcut way = { 0 };

	if (!flow->shortcut.in || bpf_map_get(loop->shortcut->fd[PROTO_SHORTCUT_FLOWS], &keys[side], &way) < 0)
		way = (struct bpf_shortcut){ .datagrams = flow->shortcut.datagrams[side],
			.bytes = flow->shortcut.bytes[side] };
	way.out = shortcut_key_reverse(&keys[!side]);
	way.epoch = epoch;
	/* Answers come in wherever the first one does. */
	way.ifindex = side == FLOW_CLIENT ? flow->shortcut.ifindex : 0;
	return bpf_map_put(loop->shortcut->fd[PROTO_SHORTCUT_FLOWS], &keys[side], &way);
}

static void keys_delete(const struct loop *loop, const struct bpf_shortcut_key keys[FLOW_SIDES])
{
	for (unsigned side = 0; side < FLOW_SIDES; side++)
		(void)bpf_map_delete(loop->shortcut->fd[PROTO_SHORTCUT_FLOWS], &keys[side]);
}

static void enter(struct loop *loop, struct udp_flow *flow, uint32_t epoch)
{
	struct bpf_shortcut_key keys[FLOW_SIDES];

	if (keys_of(flow, keys) < 0)
		return;
	for (unsigned side = 0; side < FLOW_SIDES; side++)
		if (direction_put(loop, flow, (enum flow_side)side, keys, epoch) < 0) {
			keys_delete(loop, keys);
			flow->shortcut.in = false;
			stats_add(loop->stats, STATS_shortcut_refused, 1);
			return;
		}
	if (!flow->shortcut.in)
		stats_add(loop->stats, STATS_shortcut_flows, 1);
	flow->shortcut.in = true;
	flow->shortcut.epoch = epoch;
	flow->shortcut.look_ms = UDP_SHORTCUT_LOOK_MS;
	wheel_set(&loop->wheel, &flow->timer, loop->now_ms + UDP_SHORTCUT_LOOK_MS);
	account_udp_mover(loop, flow, STATS_MOVER_KERNEL);
}

void udp_shortcut_consider(struct loop *loop, struct udp_flow *flow, unsigned datagrams)
{
	struct bpf_shortcut_control control;

	if (!loop->shortcut || !flow->shortcut.allowed || !flow->answered)
		return;
	flow->shortcut.long_way += datagrams;
	if (flow->shortcut.long_way < UDP_SHORTCUT_AFTER)
		return;
	flow->shortcut.long_way = 0;
	/* In the epoch in force already: these are datagrams that the program does not take. */
	if (control_read(loop, &control) == 0 && control.open &&
	        !(flow->shortcut.in && flow->shortcut.epoch == control.epoch))
		enter(loop, flow, control.epoch);
}

/* --- what has passed --- */

static bool direction_look(
        struct loop *loop, struct udp_flow *flow, enum flow_side side, const struct bpf_shortcut_key keys[FLOW_SIDES])
{
	struct bpf_shortcut way;
	uint64_t datagrams, bytes, active_ms;

	if (bpf_map_get(loop->shortcut->fd[PROTO_SHORTCUT_FLOWS], &keys[side], &way) < 0)
		return false;
	datagrams = way.datagrams - flow->shortcut.datagrams[side];
	bytes = way.bytes - flow->shortcut.bytes[side];
	if (datagrams == 0)
		return false;
	flow->shortcut.datagrams[side] = way.datagrams;
	flow->shortcut.bytes[side] = way.bytes;
	active_ms = way.active_ns / 1000000;
	if (active_ms > flow->active_ms)
		flow->active_ms = active_ms;
	stats_add(loop->stats, side == FLOW_CLIENT ? STATS_datagrams_to_target : STATS_datagrams_to_client, datagrams);
	stats_add(loop->stats, side == FLOW_CLIENT ? STATS_bytes_to_target : STATS_bytes_to_client, bytes);
	stats_add(loop->stats, STATS_bytes_shortcut, bytes);
	account_udp_moved(loop, flow, side, bytes);
	return true;
}

static bool directions_look(struct loop *loop, struct udp_flow *flow, const struct bpf_shortcut_key keys[FLOW_SIDES])
{
	bool moved = false;

	for (unsigned side = 0; side < FLOW_SIDES; side++)
		moved = direction_look(loop, flow, (enum flow_side)side, keys) || moved;
	return moved;
}

bool udp_shortcut_look(struct loop *loop, struct udp_flow *flow)
{
	struct bpf_shortcut_key keys[FLOW_SIDES];

	return flow->shortcut.in && keys_of(flow, keys) == 0 && directions_look(loop, flow, keys);
}

void udp_shortcut_leave(struct loop *loop, struct udp_flow *flow)
{
	struct bpf_shortcut_key keys[FLOW_SIDES];

	if (!flow->shortcut.in || keys_of(flow, keys) < 0)
		return;
	(void)directions_look(loop, flow, keys);
	keys_delete(loop, keys);
	flow->shortcut.in = false;
}
