/* TCP flows that the kernel carries; see tcp_stitch.h. */
#include "gatewayd/relay/tcp_stitch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "gatewayd/base/bpf_map.h"
#include "gatewayd/base/bpf_stitch.h"
#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/clock.h"
#include "gatewayd/base/shortcut_key.h"
#include "gatewayd/base/stitch_map.h"
#include "gatewayd/relay/account.h"
#include "gatewayd/relay/keep.h"
#include "gatewayd/relay/life.h"
#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/mover.h"
#include "gatewayd/relay/shape.h"
#include "gatewayd/relay/tcp.h"
#include "gatewayd/relay/tcp_forge.h"
#include "gatewayd/relay/tcp_sockmap.h"

#define STATE_ESTABLISHED 1
/* tcpi_options: timestamps, selective acknowledgements, explicit congestion notification. */
#define OPTION_TIMESTAMPS 1U
#define OPTIONS_ALIKE     (OPTION_TIMESTAMPS | 2U | 8U)
/* Of a header. */
#define TIMESTAMPS_BYTES 12
/* Timestamps in microseconds, of kernels from 6.7. */
#define OPTION_MICROSECONDS 64U

static int ways(const struct loop *loop)
{
	return loop->shortcut->fd[PROTO_SHORTCUT_WAYS];
}

static int stitches(const struct loop *loop)
{
	return loop->shortcut->fd[PROTO_SHORTCUT_STITCHES];
}

/* The mover of both directions: the relay moves nothing. */
static int no_pump(struct loop *loop, struct flow *flow, enum flow_side from, size_t budget, size_t *ret_moved)
{
	(void)loop, (void)flow, (void)from, (void)budget;
	*ret_moved = 0;
	return MOVER_BLOCKED;
}

static void no_release(struct loop *loop, struct flow *flow, enum flow_side from)
{
	(void)loop, (void)flow, (void)from;
}

const struct mover tcp_kernel = { .pump = no_pump, .release = no_release };

/* --- entry --- */

struct numbers {
	struct tcp_info info;
	uint32_t clock;
	struct addr own;
	uint16_t own_port;
};

static int numbers_read(int fd, struct numbers *ret)
{
	uint32_t now, now_ms = (uint32_t)(clock_us() / 1000);
	struct sockaddr_storage sa;
	socklen_t length = sizeof(ret->info);

	memset(ret, 0, sizeof(*ret));
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ret->info, &length) < 0)
		return -errno;
	length = sizeof(now);
	if (getsockopt(fd, IPPROTO_TCP, TCP_TIMESTAMP, &now, &length) < 0)
		return -errno;
	ret->clock = now - now_ms + 1; /* rather a little ahead: timestamps must not go back */
	length = sizeof(sa);
	if (getsockname(fd, (struct sockaddr *)&sa, &length) < 0)
		return -errno;
	return addr_from_sockaddr(&sa, &ret->own, &ret->own_port);
}

/* The largest IP packet that the peer of this socket sends. */
static uint32_t size_max(const struct numbers *numbers, int family)
{
	return numbers->info.tcpi_advmss + (family == AF_INET ? 20 : 40) + 20;
}

/* The largest payload that this socket's peer takes, with the room that timestamps need. Rather less than it said, if
 * its window is tiny. */
static uint32_t takes_max(const struct numbers *numbers)
{
	return numbers->info.tcpi_snd_mss + (numbers->info.tcpi_options & OPTION_TIMESTAMPS ? TIMESTAMPS_BYTES : 0);
}

/* Whether the connections differ in nothing but their numbers. */
static bool are_alike(const struct flow_origin *origin, const struct numbers numbers[FLOW_SIDES])
{
	const struct tcp_info *client = &numbers[FLOW_CLIENT].info, *target = &numbers[FLOW_TARGET].info;
	int family = origin->client.family;

	return family == origin->target.family && family == origin->original.family &&
	       client->tcpi_state == STATE_ESTABLISHED && target->tcpi_state == STATE_ESTABLISHED &&
	       ((client->tcpi_options ^ target->tcpi_options) & OPTIONS_ALIKE) == 0 &&
	       ((client->tcpi_options | target->tcpi_options) & OPTION_MICROSECONDS) == 0 &&
	       client->tcpi_advmss <= takes_max(&numbers[FLOW_TARGET]) &&
	       target->tcpi_advmss <= takes_max(&numbers[FLOW_CLIENT]) &&
	       size_max(&numbers[FLOW_CLIENT], family) <= target->tcpi_pmtu &&
	       size_max(&numbers[FLOW_TARGET], family) <= client->tcpi_pmtu;
}

/* How packets of both sides come in. */
static void keys_of(const struct flow_origin *origin, const struct numbers numbers[FLOW_SIDES],
        struct bpf_shortcut_key ret[FLOW_SIDES])
{
	const struct numbers *client = &numbers[FLOW_CLIENT], *target = &numbers[FLOW_TARGET];

	ret[FLOW_CLIENT] = shortcut_key(&origin->client, origin->client_port, &client->own, client->own_port);
	ret[FLOW_TARGET] = shortcut_key(&origin->target, origin->target_port, &target->own, target->own_port);
}

/* Takes the flow out of the maps; see stitch_map_delete. */
static void ways_delete(const struct loop *loop, const struct flow *flow, struct bpf_stitch *stitch)
{
	stitch_map_delete(ways(loop), stitches(loop), flow->id, stitch);
}

/* A flow has this part as long as it is in the maps. */
static struct flow_stitch *part_take(struct loop *loop, struct flow *flow)
{
	struct flow_stitch *own;

	if (!flow->stitch)
		flow->stitch = parts_take(&loop->flows.stitches);
	own = flow_stitch(&loop->flows, flow);
	own->look_ms = STITCH_LOOK_MS;
	return own;
}

static void part_give(struct loop *loop, struct flow *flow)
{
	parts_give(&loop->flows.stitches, flow->stitch);
	flow->stitch = 0;
}

/* Legal only while there is no other element, or it is this flow's. */
static int way_put(
        const struct loop *loop, const struct flow *flow, enum flow_side side, const struct bpf_shortcut_key *key)
{
	const struct flow_stitch *own = flow_stitch(&loop->flows, flow);
	struct bpf_stitch_way way = { .flow = flow->id,
		.side = side,
		.ring = loop->number,
		.owner = flow_cookie(&loop->flows, flow, FLOW_CLIENT),
		.counted = own->bytes[side] };

	return bpf_map_put(ways(loop), key, &way);
}

static bool is_carried(const struct bpf_stitch *stitch)
{
	return stitch->state != BPF_STITCH_WAITING && stitch->state != BPF_STITCH_SPOILT;
}

static void enter(struct loop *loop, struct flow *flow, const struct flow_origin *origin,
        const struct numbers numbers[FLOW_SIDES])
{
	const struct flow_ledger ledger = flow_ledger(&loop->flows, flow);
	struct bpf_stitch stitch = { .state = BPF_STITCH_WAITING };
	struct bpf_shortcut_key keys[FLOW_SIDES];
	int r;

	keys_of(origin, numbers, keys);
	if (numbers[FLOW_CLIENT].info.tcpi_options & OPTION_TIMESTAMPS)
		stitch.options |= BPF_STITCH_TIMESTAMPS;
	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		const struct numbers *own = &numbers[side];

		stitch.side[side] = (struct bpf_stitch_side){ .in = keys[side],
			.out = shortcut_key_reverse(&keys[!side]),
			.offset = (uint64_t)ledger.offset[side],
			.clock = own->clock,
			.size_max = size_max(own, origin->client.family),
			.scale_in = own->info.tcpi_snd_wscale,
			.scale_own = own->info.tcpi_rcv_wscale };
	}
	part_take(loop, flow);
	r = bpf_map_put(stitches(loop), &flow->id, &stitch);
	for (unsigned side = 0; side < FLOW_SIDES && r == 0; side++)
		r = way_put(loop, flow, (enum flow_side)side, &keys[side]);
	if (r < 0) {
		ways_delete(loop, flow, &stitch);
		part_give(loop, flow);
		stats_add(loop->stats, STATS_shortcut_refused, 1);
	}
}

/* An adopted flow does not know any more what its listener wants. */
static bool listener_allows(const struct loop *loop, const struct flow *flow)
{
	const struct config_listener *listener =
	        config_listener(loop->config, flow_way(&loop->flows, flow)->objects.listener);

	return listener && listener->shortcut;
}

static bool may_enter(const struct loop *loop, const struct flow *flow)
{
	return loop->shortcut && !flow->stitch_tried && flow->mode == PROTO_MOVER_AUTO && flow->kept.measured &&
	       flow->kept.shared && flow->kept.epoch == loop->keep.epoch &&
	       flow->direction[FLOW_CLIENT].state == DIRECTION_OPEN &&
	       flow->direction[FLOW_TARGET].state == DIRECTION_OPEN && !flow->end[FLOW_CLIENT].urgent &&
	       !flow->end[FLOW_TARGET].urgent;
}

void tcp_stitch_consider(struct loop *loop, struct flow *flow)
{
	struct numbers numbers[FLOW_SIDES];
	bool may = may_enter(loop, flow);
	struct flow_origin origin;

	/* Once: what stands against it by then stays. */
	if (loop->shortcut && flow->kept.shared && flow->kept.epoch == loop->keep.epoch)
		flow->stitch_tried = true;
	if (!may)
		return;
	origin = flow_get_origin(&loop->flows, flow);
	if (listener_allows(loop, flow) && numbers_read(flow->end[FLOW_CLIENT].fd, &numbers[FLOW_CLIENT]) == 0 &&
	        numbers_read(flow->end[FLOW_TARGET].fd, &numbers[FLOW_TARGET]) == 0 && are_alike(&origin, numbers))
		enter(loop, flow, &origin, numbers);
}

/* The ways go first: without them no packet can make it ACTIVE but one that has found them already. Whether one has is
 * seen when that must be over (is_withdrawn). */
bool tcp_stitch_withdraw(struct loop *loop, struct flow *flow)
{
	struct flow_stitch *own = flow_stitch(&loop->flows, flow);
	struct bpf_stitch stitch;

	flow->stitch_tried = true;
	if (!own || own->withdrawn != 0)
		return !flow->carried;
	if (flow->carried)
		return false;
	if (bpf_map_get(stitches(loop), &flow->id, &stitch) < 0)
		return true; /* somebody has taken it out already */
	if (is_carried(&stitch))
		return false;
	stitch_map_close(ways(loop), flow->id, &stitch);
	own->withdrawn = (uint32_t)loop->now_ms ? (uint32_t)loop->now_ms : UINT32_MAX;
	own->look_ms = STITCH_LOOK_MS;
	wheel_set(&loop->wheel, &flow->timer, loop->now_ms + STITCH_LOOK_MS);
	return true;
}

/* A packet was quicker: the flow is the kernel's, and needs its ways. */
static void withdraw_undo(const struct loop *loop, struct flow *flow, const struct bpf_stitch *stitch)
{
	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		struct bpf_stitch_way other;

		if (bpf_map_get(ways(loop), &stitch->side[side].in, &other) < 0)
			(void)way_put(loop, flow, (enum flow_side)side, &stitch->side[side].in);
	}
	flow_stitch(&loop->flows, flow)->withdrawn = 0;
}

static bool is_withdrawn(const struct loop *loop, const struct flow_stitch *own)
{
	return own->withdrawn != 0 && (uint32_t)loop->now_ms - own->withdrawn >= STITCH_WITHDRAW_MS;
}

uint64_t tcp_stitch_due_ms(const struct loop *loop, const struct flow *flow)
{
	if (flow->stitch)
		return loop->now_ms + flow_stitch(&loop->flows, flow)->look_ms;
	/* It is being told to the daemon, and can be considered when that is done. */
	return loop->shortcut && !flow->stitch_tried && flow->mode == PROTO_MOVER_AUTO && loop->keep.fd >= 0
	               ? loop->now_ms + STITCH_LOOK_MS + flow_index(&loop->flows, flow) % STITCH_SPREAD_MS
	               : UINT64_MAX;
}

/* --- what the kernel does --- */

/* Nothing that comes to the socket by a way of its own is acknowledged to a peer. A new connection, or the end of one
 * that the peer knows to be over, is let in. */
static void deafen(int fd)
{
	static struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),                  /* the TCP header's flags */
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x02 | 0x04, 0, 1), /* SYN, RST */
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	static const struct sock_fprog program = { ARRAY_SIZE(code), code };

	(void)setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

/* The sockets are deaf and dumb from here on. */
static void carried_begin(struct loop *loop, struct flow *flow)
{
	static const int off = 0;

	(void)tcp_account(loop, flow);
	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		struct flow_direction *direction = &flow->direction[side];
		struct flow_end *end = &flow->end[side];

		mover_table[direction->mover]->release(loop, flow, (enum flow_side)side);
		direction->mover = MOVER_KERNEL;
		direction->reason = MOVER_REASON_STEADY;
		if (end->polled)
			(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, end->fd, NULL);
		end->polled = false;
		(void)setsockopt(end->fd, SOL_SOCKET, SO_KEEPALIVE, &off, sizeof(off));
		deafen(end->fd);
	}
	loop_unqueue(loop, flow);
	loop_unwait(loop, flow);
	tcp_sockmap_left(loop, flow);
	flow->carried = true;
	keep_mute(loop, flow);
	shape_lost(loop, flow);
	account_changed(loop, flow);
}

static bool count(struct loop *loop, struct flow *flow, const struct bpf_stitch *stitch)
{
	struct flow_stitch *own = flow_stitch(&loop->flows, flow);
	bool any = false;

	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		const struct bpf_stitch_side *from = &stitch->side[side];
		uint64_t bytes = from->bytes - own->bytes[side], active_ms = from->active_ns / 1000000;
		struct bpf_stitch_way way;

		if (active_ms > flow->active_ms)
			flow->active_ms = active_ms;
		if (bytes == 0)
			continue;
		any = true;
		own->bytes[side] = from->bytes;
		tcp_carried_moved(loop, flow, (enum flow_side)side, bytes, active_ms);
		if (stitch_map_way(ways(loop), &from->in, flow->id, &way))
			(void)way_put(loop, flow, (enum flow_side)side, &from->in);
	}
	return any;
}

/* Whether it has ended by itself, and how. */
static bool is_over(const struct loop *loop, const struct bpf_stitch *stitch, bool *ret_reset)
{
	uint64_t now_ms = loop->now_ms, closed_ms = stitch->closed_ns / 1000000, reset_ms = stitch->reset_ns / 1000000;

	*ret_reset = stitch->state != BPF_STITCH_CLOSED;
	if (stitch->state == BPF_STITCH_GONE || stitch->side[FLOW_CLIENT].too_big || stitch->side[FLOW_TARGET].too_big)
		return true;
	if (stitch->state == BPF_STITCH_CLOSED)
		return stitch->closed_ns && now_ms >= closed_ms + STITCH_LINGER_MS;
	return stitch->reset_ns && now_ms >= reset_ms + STITCH_LINGER_MS;
}

static void look_later(struct flow_stitch *own)
{
	own->look_ms = own->look_ms < STITCH_LOOK_MAX_MS ? own->look_ms * 2 : STITCH_LOOK_MAX_MS;
}

/* Of one that is in the maps and not carried. */
static void look_at_waiting(struct loop *loop, struct flow *flow, struct bpf_stitch *stitch)
{
	struct flow_stitch *own = flow_stitch(&loop->flows, flow);

	if (stitch->state != BPF_STITCH_SPOILT && !is_withdrawn(loop, own)) {
		look_later(own);
		return;
	}
	ways_delete(loop, flow, stitch);
	part_give(loop, flow);
}

bool tcp_stitch_look(struct loop *loop, struct flow *flow)
{
	struct flow_stitch *own = flow_stitch(&loop->flows, flow);
	struct bpf_stitch stitch;
	bool moved, reset;

	if (!own)
		return true;
	if (bpf_map_get(stitches(loop), &flow->id, &stitch) < 0) {
		/* Somebody has taken it out: whoever did has told the peers, or wants it so. */
		part_give(loop, flow);
		if (flow->carried) {
			life_reset(loop, flow, FLOW_END_reset);
			return false;
		}
		return true;
	}
	if (!is_carried(&stitch)) {
		look_at_waiting(loop, flow, &stitch);
		return true;
	}
	if (own->withdrawn != 0)
		withdraw_undo(loop, flow, &stitch);
	if (!flow->carried) {
		carried_begin(loop, flow);
		stats_add(loop->stats, STATS_stitched_flows, 1);
	}
	moved = count(loop, flow, &stitch);
	if (is_over(loop, &stitch, &reset)) {
		if (reset)
			life_reset(loop, flow, FLOW_END_reset);
		else
			life_close(loop, flow, FLOW_END_closed);
		return false;
	}
	if (moved || stitch.state == BPF_STITCH_CLOSED || stitch.reset_ns)
		own->look_ms = STITCH_LOOK_MAX_MS / 4;
	else
		look_later(own);
	return true;
}

void tcp_stitch_told(struct loop *loop, struct flow *flow)
{
	const struct flow_stitch *own;

	if (!tcp_stitch_look(loop, flow))
		return;
	own = flow_stitch(&loop->flows, flow);
	if (own)
		wheel_set(&loop->wheel, &flow->timer, loop->now_ms + own->look_ms);
}

/* --- the end --- */

/* Tells the peer of this side, in the name of the other one. It takes a reset only with the number that it expects
 * next: what it has acknowledged last, or the end of what has been sent since. */
static void reset_peer(const struct bpf_stitch *stitch, enum flow_side side)
{
	const struct bpf_stitch_side *to = &stitch->side[side], *from = &stitch->side[!side];
	struct addr peer = shortcut_key_source(&to->in), own = shortcut_key_destination(&to->in);
	uint16_t peer_port = ntohs(to->in.source_port), own_port = ntohs(to->in.destination_port);
	uint32_t sent = from->end + from->fin + from->add_seq;

	(void)tcp_forge_reset(&own, own_port, &peer, peer_port, to->ack, to->end);
	if (sent != to->ack)
		(void)tcp_forge_reset(&own, own_port, &peer, peer_port, sent, to->end);
}

bool tcp_stitch_leave(struct loop *loop, struct flow *flow, bool reset)
{
	struct bpf_stitch stitch;
	bool known, carried;

	if (!flow->stitch)
		return flow->carried;
	known = bpf_map_get(stitches(loop), &flow->id, &stitch) == 0;
	if (known)
		ways_delete(loop, flow, &stitch);
	carried = known && is_carried(&stitch);
	if (carried)
		(void)count(loop, flow, &stitch);
	part_give(loop, flow);
	if (!carried)
		return flow->carried;
	flow->carried = true;
	if (reset) {
		reset_peer(&stitch, FLOW_CLIENT);
		reset_peer(&stitch, FLOW_TARGET);
	}
	return true;
}

bool tcp_stitch_find(struct loop *loop, struct flow *flow)
{
	struct bpf_stitch stitch;
	struct bpf_stitch_way way;
	struct flow_stitch *own;

	if (!loop->shortcut || bpf_map_get(stitches(loop), &flow->id, &stitch) < 0)
		return false;
	flow->stitch_tried = true;
	own = part_take(loop, flow);
	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		uint64_t active_ms = stitch.side[side].active_ns / 1000000;

		if (stitch_map_way(ways(loop), &stitch.side[side].in, flow->id, &way))
			own->bytes[side] = way.counted;
		if (active_ms > flow->active_ms)
			flow->active_ms = active_ms;
	}
	return is_carried(&stitch);
}

void tcp_stitch_adopt(struct loop *loop, struct flow *flow)
{
	carried_begin(loop, flow);
}
