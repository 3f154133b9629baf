/* The sockmap mover; see tcp_sockmap.h for how it works. */
#include "gatewayd/relay/tcp_sockmap.h"

#include <errno.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "gatewayd/base/bpf_flow.h"
#include "gatewayd/base/bpf_map.h"
#include "gatewayd/base/log.h"
#include "gatewayd/base/tcp_counters.h"
#include "gatewayd/relay/ledger.h"
#include "gatewayd/relay/life.h"
#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/mover.h"

/* Looks at a queue of the kernel's in immediate turns, before pauses come between them. */
#define SOCKMAP_LOOKS 16

/* --- the maps --- */

/* What a flow that is in the maps, or about to be, knows of a direction. */
static struct flow_map_direction *own_of(const struct loop *loop, const struct flow *flow, enum flow_side side)
{
	return &flow_map(&loop->flows, flow)->direction[side];
}

static int direction_read(const struct loop *loop, uint64_t cookie, struct bpf_flow_direction *ret)
{
	return bpf_map_get(loop->sockmap->directions, &cookie, ret);
}

/* Tells the program how far the relay is, and where to send notices. */
static int control_write(const struct loop *loop, const struct flow *flow, enum flow_side side)
{
	const struct flow_map_direction *own = own_of(loop, flow, side);
	struct bpf_flow_control control = {
		.consumed = own->consumed,
		.counted = own->counted,
		.tag = flow_cookie(&loop->flows, flow, side),
		.in_base = own->in_base,
		.out_base = own->out_base,
		.ring = loop->sockmap->ring[loop->number].number,
		.limit = SOCKMAP_LIMIT,
	};

	return bpf_map_put(loop->sockmap->controls, &own->cookie, &control);
}

/* The direction has gone from the map's hands; its counters were read. */
static void forget(const struct loop *loop, const struct flow *flow, enum flow_side side)
{
	uint64_t cookie = own_of(loop, flow, side)->cookie;

	bpf_map_delete(loop->sockmap->directions, &cookie);
	bpf_map_delete(loop->sockmap->controls, &cookie);
}

static int socket_put(const struct loop *loop, int map, const struct flow *flow, enum flow_side side)
{
	uint64_t fd = (uint64_t)flow->end[side].fd, cookie = own_of(loop, flow, side)->cookie;

	return bpf_map_put(map, &cookie, &fd);
}

static int cookie_get(int fd, uint64_t *ret)
{
	socklen_t length = sizeof(*ret);

	return getsockopt(fd, SOL_SOCKET, SO_COOKIE, ret, &length) < 0 ? -errno : 0;
}

/* The flow has a part for what the maps are about, and both cookies are in it. */
static int begin(struct loop *loop, struct flow *flow)
{
	struct flow_map *map;
	int r = 0;

	if (!flow->map)
		flow->map = parts_take(&loop->flows.maps);
	map = flow_map(&loop->flows, flow);
	map->wait_at = FLOW_NONE;
	map->account_ms = SOCKMAP_ACCOUNT_MS;
	for (unsigned side = 0; side < FLOW_SIDES && r == 0; side++)
		r = cookie_get(flow->end[side].fd, &map->direction[side].cookie);
	return r;
}

void tcp_sockmap_left(struct loop *loop, struct flow *flow)
{
	loop_unwait(loop, flow);
	parts_give(&loop->flows.maps, flow->map);
	flow->map = 0;
	flow->sockmap_tried = true;
}

/* --- entry --- */

static bool end_may_enter(const struct loop *loop, const struct flow *flow, enum flow_side side)
{
	const struct flow_end *end = &flow->end[side];
	const struct flow_direction *direction = &flow->direction[side];

	if (end->hangup || end->broken || end->urgent || direction->held > 0 || direction->state != DIRECTION_OPEN)
		return false;
	/* Either nothing was ever read, or the last read has emptied the queue: nothing in it was read in part. */
	return direction->taken + flow_ledger(&loop->flows, flow).base[side] == 0 || !end->readable ||
	       mover_nothing_waits(end->fd);
}

bool tcp_sockmap_may_enter(const struct loop *loop, const struct flow *flow)
{
	return loop->sockmap && !flow->sockmap_tried && end_may_enter(loop, flow, FLOW_CLIENT) &&
	       end_may_enter(loop, flow, FLOW_TARGET);
}

/* What both directions have to know, into the maps, before any packet is judged. */
static int numbers_make(struct loop *loop, struct flow *flow)
{
	int r = begin(loop, flow);

	for (unsigned side = 0; side < FLOW_SIDES && r == 0; side++) {
		struct flow_map_direction *own = own_of(loop, flow, (enum flow_side)side);
		struct bpf_flow_direction value = { .peer = own_of(loop, flow, (enum flow_side) !side)->cookie };

		own->in_base = flow->direction[side].taken + flow_ledger(&loop->flows, flow).base[side];
		r = tcp_counters_written_exactly(flow->end[!side].fd, &own->out_base);
		if (r == 0)
			r = bpf_map_put(loop->sockmap->directions, &own->cookie, &value);
		if (r == 0)
			r = control_write(loop, flow, (enum flow_side)side);
	}
	return r;
}

/* Makes the kernel look at what had arrived before the socket was in the map. */
static void kick(int fd)
{
	char byte;

	(void)!recv(fd, &byte, sizeof(byte), MSG_PEEK | MSG_DONTWAIT);
}

/* From here on the kernel judges the packets of this end. */
static bool direction_enter(struct loop *loop, struct flow *flow, enum flow_side side, uint8_t reason)
{
	struct flow_direction *direction = &flow->direction[side];

	if (socket_put(loop, loop->sockmap->rx, flow, side) < 0) {
		forget(loop, flow, side);
		direction->reason = MOVER_REASON_NO_MAP;
		stats_add(loop->stats, STATS_sockmap_refused, 1);
		return false;
	}
	direction->mover = MOVER_SOCKMAP;
	direction->reason = reason;
	kick(flow->end[side].fd);
	return true;
}

static void poll_less(const struct loop *loop, const struct flow *flow)
{
	for (unsigned side = 0; side < FLOW_SIDES; side++)
		life_poll_again(loop, flow, (enum flow_side)side);
}

unsigned tcp_sockmap_enter(struct loop *loop, struct flow *flow, uint8_t reason)
{
	unsigned entered = 0;
	int r = numbers_make(loop, flow);

	flow->sockmap_tried = true;
	if (r == 0)
		r = socket_put(loop, loop->sockmap->tx, flow, FLOW_CLIENT);
	if (r == 0)
		r = socket_put(loop, loop->sockmap->tx, flow, FLOW_TARGET);
	if (r < 0) {
		/* One that is in tx alone behaves like any other socket. */
		for (unsigned side = 0; side < FLOW_SIDES; side++) {
			forget(loop, flow, (enum flow_side)side);
			flow->direction[side].reason = MOVER_REASON_NO_MAP;
		}
		tcp_sockmap_left(loop, flow);
		stats_add(loop->stats, STATS_sockmap_refused, FLOW_SIDES);
		return 0;
	}
	entered += direction_enter(loop, flow, FLOW_CLIENT, reason);
	entered += direction_enter(loop, flow, FLOW_TARGET, reason);
	if (entered == 0) {
		tcp_sockmap_left(loop, flow);
		return 0;
	}
	stats_add(loop->stats, STATS_sockmap_flows, 1);
	poll_less(loop, flow);
	return entered;
}

bool tcp_sockmap_find(struct loop *loop, struct flow *flow)
{
	struct bpf_flow_direction state;
	uint64_t cookie;

	for (unsigned side = 0; side < FLOW_SIDES && loop->sockmap; side++)
		if (cookie_get(flow->end[side].fd, &cookie) == 0 && direction_read(loop, cookie, &state) == 0)
			return begin(loop, flow) == 0;
	return false;
}

bool tcp_sockmap_had_ended(const struct loop *loop, const struct flow *flow, enum flow_side side)
{
	struct bpf_flow_control control;
	uint64_t received, written;

	if (bpf_map_get(loop->sockmap->controls, &own_of(loop, flow, side)->cookie, &control) < 0 ||
	        tcp_counters_received(flow->end[side].fd, &received) < 0 ||
	        tcp_counters_written(flow->end[!side].fd, &written) < 0)
		return false;
	/* Both ends of stream count as a byte, the received and the sent one. */
	return received - control.in_base == written - control.out_base;
}

/* Takes bytes that were written to the peer out of the source's queue. They are there: they were peeked at. */
static int passed_drop(const struct loop *loop, int fd, size_t size)
{
	uint8_t *scratch = buffers_data(&loop->buffers, loop->buffers.scratch);

	while (size > 0) {
		ssize_t got = recv(fd, scratch, size < BUFFER_SIZE ? size : BUFFER_SIZE, MSG_DONTWAIT);

		if (got <= 0)
			return -EIO;
		size -= (size_t)got;
	}
	return 0;
}

/* Reads what the other relay left about one direction. 1: it is in the map, 0: it is not. */
static int direction_adopt(struct loop *loop, struct flow *flow, enum flow_side side)
{
	struct flow_map_direction *own = own_of(loop, flow, side);
	struct bpf_flow_direction state;
	struct bpf_flow_control control;
	int r = direction_read(loop, own->cookie, &state);

	if (r == 0)
		r = bpf_map_get(loop->sockmap->controls, &own->cookie, &control);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	own->in_base = control.in_base;
	own->out_base = control.out_base;
	own->consumed = control.consumed;
	own->counted = control.counted;
	flow->direction[side].mover = MOVER_SOCKMAP;
	own->passing = true; /* to be looked at: a notice may have gone to the other relay */
	r = control_write(loop, flow, side);
	return r < 0 ? r : 1;
}

/* Bytes of what was passed that were taken from the source. */
static int dropped_get(int fd, const struct flow_map_direction *own, uint64_t redirected, uint64_t *ret)
{
	struct ledger ledger;
	int r = ledger_read(fd, &ledger);

	if (r < 0)
		return r;
	/* In an orderly end whose state is gone (adopt.c) the end of stream still counts as a byte. */
	if (ledger.life == LEDGER_CLOSED)
		ledger.taken--;
	/* Redirected bytes count as taken too. */
	*ret = ledger.taken - own->in_base - redirected;
	return r;
}

/* Finds out how far the other relay was in writing what was passed, which it publishes only in pauses. It writes only
 * while nothing redirected is on its way, and nothing is redirected before it has published all: so what the peer has
 * beyond the redirected bytes is what was written. What of it was not taken from the source is dropped now. -EIO: the
 * numbers do not add up. */
static int unpublished_settle(struct loop *loop, struct flow *flow, enum flow_side side)
{
	struct flow_map_direction *own = own_of(loop, flow, side);
	struct bpf_flow_direction state;
	uint64_t written, sent, dropped = 0;
	/* In this order, for the kernel may go on redirecting meanwhile. */
	int r = tcp_counters_written(flow->end[!side].fd, &written);

	if (r == 0)
		r = direction_read(loop, own->cookie, &state);
	if (r < 0)
		return r;
	if (!state.passing)
		return written - own->out_base > state.redirected + own->consumed ? -EIO : 0;
	r = tcp_counters_written_exactly(flow->end[!side].fd, &written);
	if (r < 0)
		return r;
	written -= own->out_base;
	sent = written < state.redirected + own->consumed ? own->consumed : written - state.redirected;
	r = dropped_get(flow->end[side].fd, own, state.redirected, &dropped);
	if (r < 0)
		return r;
	if (dropped > sent || sent > state.passed)
		return -EIO;
	r = passed_drop(loop, flow->end[side].fd, sent - dropped);
	own->consumed = sent;
	return r < 0 ? r : control_write(loop, flow, side);
}

int tcp_sockmap_adopt(struct loop *loop, struct flow *flow, enum flow_side side, bool ended)
{
	int r;

	if (!flow->map)
		return 0;
	r = direction_adopt(loop, flow, side);
	if (r <= 0)
		return r;
	flow->sockmap_tried = true;
	if (ended) {
		own_of(loop, flow, side)->passing = false;
		return 1;
	}
	r = unpublished_settle(loop, flow, side);
	return r < 0 ? r : 1;
}

uint32_t tcp_sockmap_events(const struct flow *flow, enum flow_side side, uint32_t events)
{
	/* EPOLLPRI is among what each packet wakes for. */
	if (flow->direction[side].mover == MOVER_SOCKMAP)
		events &= ~(uint32_t)(EPOLLIN | EPOLLPRI);
	return events;
}

/* --- what the kernel passed to us --- */

/* Outcomes of the steps below, besides a negative errno. */
enum step {
	STEP_DONE,  /* nothing passed is left: the program redirects again */
	STEP_FULL,  /* the peer is full: an event will go on */
	STEP_LATER, /* something in the kernel has to happen first, of which nobody tells */
	STEP_MORE   /* the budget is used up */
};

/* Writes what was passed until the source has no more, the peer is full or the budget is used up. Bytes are taken from
 * the source only when they are written: so nothing is held here, however long the peer does not read, and nothing is
 * lost with this process. */
static int passed_move(struct loop *loop, struct flow *flow, enum flow_side side, size_t *budget)
{
	struct flow_map_direction *own = own_of(loop, flow, side);
	struct flow_end *from = &flow->end[side], *to = &flow->end[!side];
	uint8_t *scratch = buffers_data(&loop->buffers, loop->buffers.scratch);

	while (*budget > 0) {
		ssize_t got, sent;
		int r;

		got = recv(from->fd, scratch, BUFFER_SIZE, MSG_PEEK | MSG_DONTWAIT);
		if (got <= 0) /* the end of stream is told by the counters */
			return got == 0 || errno == EAGAIN ? STEP_DONE : -errno;
		sent = send(to->fd, scratch, (size_t)got, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno != EAGAIN)
			return -errno;
		if (sent > 0) {
			r = passed_drop(loop, from->fd, (size_t)sent);
			if (r < 0)
				return r;
			own->consumed += (uint64_t)sent;
			flow->active_ms = loop->now_ms;
			*budget -= (size_t)sent < *budget ? (size_t)sent : *budget;
		}
		if (sent < got) {
			to->writable = false;
			return STEP_FULL;
		}
	}
	return STEP_MORE;
}

/* Whether all that was redirected, or written by us, has arrived in the peer's socket: only then may we write to it. */
static int queue_is_empty(const struct loop *loop, const struct flow *flow, enum flow_side side,
        const struct bpf_flow_direction *state, bool *ret_empty)
{
	const struct flow_map_direction *own = own_of(loop, flow, side);
	uint64_t written;
	int r = tcp_counters_written(flow->end[!side].fd, &written);

	if (r == 0)
		*ret_empty = written - own->out_base >= state->redirected + own->consumed;
	return r;
}

/* Works off what was passed. A step or a negative errno. What was written is published only when there is a reason to
 * stop: as long as it is not, the program does not redirect past us. */
static int passed_pump(struct loop *loop, struct flow *flow, enum flow_side side, size_t budget)
{
	struct flow_map_direction *own = own_of(loop, flow, side);

	for (;;) {
		struct bpf_flow_direction state;
		bool empty = false;
		int step, r = direction_read(loop, own->cookie, &state);

		if (r == 0 && state.broken) {
			log_warning("a packet that overlaps what came before could not be cut: its flow is reset");
			r = -EIO;
		}
		if (r < 0)
			return r;
		if (state.passed == own->consumed)
			return STEP_DONE;
		if (!flow->end[!side].writable)
			return STEP_FULL;
		r = queue_is_empty(loop, flow, side, &state, &empty);
		if (r < 0 || !empty)
			return r < 0 ? r : STEP_LATER;
		step = passed_move(loop, flow, side, &budget);
		r = control_write(loop, flow, side);
		if (step < 0 || r < 0)
			return step < 0 ? step : r;
		if (step != STEP_DONE)
			return step;
		r = direction_read(loop, own->cookie, &state);
		if (r < 0)
			return r;
		if (state.passed == own->consumed)
			return STEP_DONE;
		if (budget == 0)
			return STEP_MORE;
		/* Passed, but not to be read yet: the receive buffer is over its limit, or more came just now. */
		if (own->stuck == own->consumed)
			return STEP_LATER;
		own->stuck = own->consumed;
	}
}

/* --- the end of stream --- */

/* Whether every byte that came from this end, up to its end of stream, was written to the other. 1, 0 or an error. */
static int is_drained(const struct loop *loop, const struct flow *flow, enum flow_side side)
{
	const struct flow_map_direction *own = own_of(loop, flow, side);
	uint64_t received, written;
	int error = 0, r = tcp_counters_received(flow->end[side].fd, &received);
	socklen_t length = sizeof(error);

	if (r == 0)
		r = tcp_counters_written(flow->end[!side].fd, &written);
	if (r < 0)
		return r;
	/* The end of stream counts as a byte. */
	if (received - 1 - own->in_base != written - own->out_base)
		return 0;
	/* A reset looks like an end to everything above. */
	if (getsockopt(flow->end[side].fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
		return -errno;
	return error ? -error : 1;
}

/* Waits for the drain, unless nothing has moved for too long. */
static int drain_wait(struct loop *loop, struct flow *flow, enum flow_side side)
{
	struct flow_map_direction *own = own_of(loop, flow, side);

	if (own->drain_counted != own->counted || own->drain_ms == 0) {
		own->drain_counted = own->counted;
		own->drain_ms = loop->now_ms;
	} else if (loop->now_ms - own->drain_ms > SOCKMAP_DRAIN_MS) {
		stats_add(loop->stats, STATS_sockmap_drain_timeout, 1);
		flow->end_why = FLOW_END_stalled;
		return -ETIMEDOUT;
	}
	loop_wait(loop, flow);
	return MOVER_BLOCKED;
}

/* --- the mover --- */

uint64_t tcp_sockmap_account(struct loop *loop, struct flow *flow, enum flow_side side, uint64_t *active_ms)
{
	struct flow_map_direction *own;
	struct bpf_flow_direction state;
	uint64_t total, moved;

	if (flow->direction[side].mover != MOVER_SOCKMAP)
		return 0;
	own = own_of(loop, flow, side);
	if (direction_read(loop, own->cookie, &state) < 0)
		return 0;
	if (state.active_ns / 1000000 > *active_ms)
		*active_ms = state.active_ns / 1000000;
	if (state.passing || state.broken)
		own->passing = true; /* in case the notice was lost */
	total = state.redirected + own->consumed;
	moved = total - own->counted;
	own->counted = total;
	if (moved > 0)
		(void)control_write(loop, flow, side); /* where the next relay goes on counting */
	return moved;
}

/* A work item of the kernel has to run first: most often it is about to, on this very processor or another, so the
 * next looks come at once, with the processor given away in between. */
static void later(struct loop *loop, struct flow *flow, struct flow_map_direction *own)
{
	if (own->looks >= SOCKMAP_LOOKS) {
		loop_wait(loop, flow);
		return;
	}
	own->looks++;
	sched_yield();
	loop_queue(loop, flow);
}

static int passing_pump(struct loop *loop, struct flow *flow, enum flow_side side, size_t budget)
{
	struct flow_map_direction *own = own_of(loop, flow, side);
	int step = passed_pump(loop, flow, side, budget);

	if (step != STEP_LATER)
		own->looks = 0;
	switch (step) {
	case STEP_DONE:
		own->passing = false;
		return MOVER_BLOCKED;
	case STEP_FULL:
		return MOVER_BLOCKED;
	case STEP_LATER:
		later(loop, flow, own);
		return MOVER_BLOCKED;
	case STEP_MORE:
		return MOVER_MORE;
	default:
		return step;
	}
}

static int sockmap_pump(struct loop *loop, struct flow *flow, enum flow_side side, size_t budget, size_t *ret_moved)
{
	int r = MOVER_BLOCKED;

	*ret_moved = 0;
	/* Whoever is broken gets the flow reset; what a counter says about it now could only mislead. */
	if (flow->end[side].broken || flow->end[!side].broken)
		return -ECONNRESET;
	if (own_of(loop, flow, side)->passing)
		r = passing_pump(loop, flow, side, budget);
	if (r < 0 || !flow->end[side].hangup)
		return r;
	*ret_moved = tcp_sockmap_account(loop, flow, side, &flow->active_ms);
	if (r == MOVER_MORE)
		return r;
	r = is_drained(loop, flow, side);
	if (r < 0)
		return r;
	return r ? MOVER_ENDED : drain_wait(loop, flow, side);
}

static void sockmap_release(struct loop *loop, struct flow *flow, enum flow_side side)
{
	forget(loop, flow, side);
}

const struct mover tcp_sockmap = { sockmap_pump, sockmap_release };

void tcp_sockmap_notices(struct loop *loop)
{
	struct sockmap_set *set = loop->sockmap;
	struct bpf_flow_notice notice;
	enum flow_side side;
	struct flow *flow;

	while (ring_next(&set->ring[loop->number].ring, &notice, sizeof(notice))) {
		flow = flow_from_cookie(&loop->flows, notice.tag, &side);
		if (!flow || flow->direction[side].mover != MOVER_SOCKMAP || own_of(loop, flow, side)->passing)
			continue;
		own_of(loop, flow, side)->passing = true;
		loop_queue(loop, flow);
	}
}
