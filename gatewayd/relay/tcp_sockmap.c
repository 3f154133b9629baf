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

static int direction_read(
        const struct loop *loop, const struct flow_direction *direction, struct bpf_flow_direction *ret)
{
	return bpf_map_get(loop->sockmap->directions, &direction->map.cookie, ret);
}

/* Tells the program how far the relay is, and where to send notices. */
static int control_write(const struct loop *loop, const struct flow *flow, enum flow_side side)
{
	const struct flow_direction *direction = &flow->direction[side];
	struct bpf_flow_control control = {
		.consumed = direction->map.consumed,
		.counted = direction->map.counted,
		.tag = flow_cookie(&loop->flows, flow, side),
		.in_base = direction->map.in_base,
		.out_base = direction->map.out_base,
		.ring = loop->sockmap->ring[loop->number].number,
		.limit = SOCKMAP_LIMIT,
	};

	return bpf_map_put(loop->sockmap->controls, &direction->map.cookie, &control);
}

void tcp_sockmap_forget(const struct loop *loop, const struct flow_direction *direction)
{
	bpf_map_delete(loop->sockmap->directions, &direction->map.cookie);
	bpf_map_delete(loop->sockmap->controls, &direction->map.cookie);
}

static int socket_put(int map, const struct flow *flow, enum flow_side side)
{
	uint64_t fd = (uint64_t)flow->end[side].fd;

	return bpf_map_put(map, &flow->direction[side].map.cookie, &fd);
}

static int cookie_get(int fd, uint64_t *ret)
{
	socklen_t length = sizeof(*ret);

	return getsockopt(fd, SOL_SOCKET, SO_COOKIE, ret, &length) < 0 ? -errno : 0;
}

static int cookies_get(struct flow *flow)
{
	int r = cookie_get(flow->end[FLOW_CLIENT].fd, &flow->direction[FLOW_CLIENT].map.cookie);

	return r < 0 ? r : cookie_get(flow->end[FLOW_TARGET].fd, &flow->direction[FLOW_TARGET].map.cookie);
}

/* --- entry --- */

static bool end_may_enter(const struct flow *flow, enum flow_side side)
{
	const struct flow_end *end = &flow->end[side];
	const struct flow_direction *direction = &flow->direction[side];

	if (end->hangup || end->broken || end->urgent || direction->held > 0 || direction->state != DIRECTION_OPEN)
		return false;
	/* Either nothing was ever read, or the last read has emptied the queue: nothing in it was read in part. */
	return direction->taken + flow->kept.base[side] == 0 || !end->readable || mover_nothing_waits(end->fd);
}

bool tcp_sockmap_may_enter(const struct loop *loop, const struct flow *flow)
{
	return loop->sockmap && !flow->sockmap_tried && end_may_enter(flow, FLOW_CLIENT) &&
	       end_may_enter(flow, FLOW_TARGET);
}

/* What both directions have to know, into the maps, before any packet is judged. */
static int numbers_make(struct loop *loop, struct flow *flow)
{
	int r = cookies_get(flow);

	for (unsigned side = 0; side < FLOW_SIDES && r == 0; side++) {
		struct flow_direction *direction = &flow->direction[side];
		struct bpf_flow_direction value = { .peer = flow->direction[!side].map.cookie };

		direction->map.in_base = direction->taken + flow->kept.base[side];
		direction->map.consumed = 0;
		direction->map.counted = 0;
		r = tcp_counters_written_exactly(flow->end[!side].fd, &direction->map.out_base);
		if (r == 0)
			r = bpf_map_put(loop->sockmap->directions, &direction->map.cookie, &value);
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

	if (socket_put(loop->sockmap->rx, flow, side) < 0) {
		tcp_sockmap_forget(loop, direction);
		direction->reason = MOVER_REASON_NO_MAP;
		stats_add(loop->stats, STATS_sockmap_refused, 1);
		return false;
	}
	direction->mover = &tcp_sockmap;
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
		r = socket_put(loop->sockmap->tx, flow, FLOW_CLIENT);
	if (r == 0)
		r = socket_put(loop->sockmap->tx, flow, FLOW_TARGET);
	if (r < 0) {
		/* One that is in tx alone behaves like any other socket. */
		for (unsigned side = 0; side < FLOW_SIDES; side++) {
			tcp_sockmap_forget(loop, &flow->direction[side]);
			flow->direction[side].reason = MOVER_REASON_NO_MAP;
		}
		stats_add(loop->stats, STATS_sockmap_refused, FLOW_SIDES);
		return 0;
	}
	entered += direction_enter(loop, flow, FLOW_CLIENT, reason);
	entered += direction_enter(loop, flow, FLOW_TARGET, reason);
	if (entered == 0)
		return 0;
	flow->account_ms = SOCKMAP_ACCOUNT_MS;
	stats_add(loop->stats, STATS_sockmap_flows, 1);
	poll_less(loop, flow);
	return entered;
}

bool tcp_sockmap_is_in(const struct loop *loop, struct flow *flow)
{
	struct bpf_flow_direction state;

	return loop->sockmap && cookies_get(flow) == 0 &&
	       (direction_read(loop, &flow->direction[FLOW_CLIENT], &state) == 0 ||
	               direction_read(loop, &flow->direction[FLOW_TARGET], &state) == 0);
}

bool tcp_sockmap_had_ended(const struct loop *loop, const struct flow *flow, enum flow_side side)
{
	struct bpf_flow_control control;
	uint64_t received, written;

	if (bpf_map_get(loop->sockmap->controls, &flow->direction[side].map.cookie, &control) < 0 ||
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
	struct flow_direction *direction = &flow->direction[side];
	struct bpf_flow_direction state;
	struct bpf_flow_control control;
	int r = direction_read(loop, direction, &state);

	if (r == 0)
		r = bpf_map_get(loop->sockmap->controls, &direction->map.cookie, &control);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	direction->map.in_base = control.in_base;
	direction->map.out_base = control.out_base;
	direction->map.consumed = control.consumed;
	direction->map.counted = control.counted;
	direction->mover = &tcp_sockmap;
	direction->map.passing = true; /* to be looked at: a notice may have gone to the other relay */
	r = control_write(loop, flow, side);
	return r < 0 ? r : 1;
}

/* Bytes of what was passed that were taken from the source. */
static int dropped_get(int fd, const struct flow_direction *direction, uint64_t redirected, uint64_t *ret)
{
	struct ledger ledger;
	int r = ledger_read(fd, &ledger);

	if (r < 0)
		return r;
	/* In an orderly end whose state is gone (adopt.c) the end of stream still counts as a byte. */
	if (ledger.life == LEDGER_CLOSED)
		ledger.taken--;
	/* Redirected bytes count as taken too. */
	*ret = ledger.taken - direction->map.in_base - redirected;
	return r;
}

/* Finds out how far the other relay was in writing what was passed, which it publishes only in pauses. It writes only
 * while nothing redirected is on its way, and nothing is redirected before it has published all: so what the peer has
 * beyond the redirected bytes is what was written. What of it was not taken from the source is dropped now. -EIO: the
 * numbers do not add up. */
static int unpublished_settle(struct loop *loop, struct flow *flow, enum flow_side side)
{
	struct flow_direction *direction = &flow->direction[side];
	struct bpf_flow_direction state;
	uint64_t written, sent, dropped = 0;
	/* In this order, for the kernel may go on redirecting meanwhile. */
	int r = tcp_counters_written(flow->end[!side].fd, &written);

	if (r == 0)
		r = direction_read(loop, direction, &state);
	if (r < 0)
		return r;
	if (!state.passing)
		return written - direction->map.out_base > state.redirected + direction->map.consumed ? -EIO : 0;
	r = tcp_counters_written_exactly(flow->end[!side].fd, &written);
	if (r < 0)
		return r;
	written -= direction->map.out_base;
	sent = written < state.redirected + direction->map.consumed ? direction->map.consumed
	                                                            : written - state.redirected;
	r = dropped_get(flow->end[side].fd, direction, state.redirected, &dropped);
	if (r < 0)
		return r;
	if (dropped > sent || sent > state.passed)
		return -EIO;
	r = passed_drop(loop, flow->end[side].fd, sent - dropped);
	direction->map.consumed = sent;
	return r < 0 ? r : control_write(loop, flow, side);
}

int tcp_sockmap_adopt(struct loop *loop, struct flow *flow, enum flow_side side, bool ended)
{
	int r = loop->sockmap ? cookies_get(flow) : 0;

	if (!loop->sockmap)
		return 0;
	flow->account_ms = SOCKMAP_ACCOUNT_MS;
	if (r == 0)
		r = direction_adopt(loop, flow, side);
	if (r <= 0)
		return r;
	flow->sockmap_tried = true;
	if (ended) {
		flow->direction[side].map.passing = false;
		return 1;
	}
	r = unpublished_settle(loop, flow, side);
	return r < 0 ? r : 1;
}

uint32_t tcp_sockmap_events(const struct flow *flow, enum flow_side side, uint32_t events)
{
	/* EPOLLPRI is among what each packet wakes for. */
	if (flow->direction[side].mover == &tcp_sockmap)
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
	struct flow_direction *direction = &flow->direction[side];
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
			direction->map.consumed += (uint64_t)sent;
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
static int queue_is_empty(
        const struct flow *flow, enum flow_side side, const struct bpf_flow_direction *state, bool *ret_empty)
{
	const struct flow_direction *direction = &flow->direction[side];
	uint64_t written;
	int r = tcp_counters_written(flow->end[!side].fd, &written);

	if (r == 0)
		*ret_empty = written - direction->map.out_base >= state->redirected + direction->map.consumed;
	return r;
}

/* Works off what was passed. A step or a negative errno. What was written is published only when there is a reason to
 * stop: as long as it is not, the program does not redirect past us. */
static int passed_pump(struct loop *loop, struct flow *flow, enum flow_side side, size_t budget)
{
	struct flow_direction *direction = &flow->direction[side];

	for (;;) {
		struct bpf_flow_direction state;
		bool empty = false;
		int step, r = direction_read(loop, direction, &state);

		if (r == 0 && state.broken) {
			log_warning("a packet that overlaps what came before could not be cut: its flow is reset");
			r = -EIO;
		}
		if (r < 0)
			return r;
		if (state.passed == direction->map.consumed)
			return STEP_DONE;
		if (!flow->end[!side].writable)
			return STEP_FULL;
		r = queue_is_empty(flow, side, &state, &empty);
		if (r < 0 || !empty)
			return r < 0 ? r : STEP_LATER;
		step = passed_move(loop, flow, side, &budget);
		r = control_write(loop, flow, side);
		if (step < 0 || r < 0)
			return step < 0 ? step : r;
		if (step != STEP_DONE)
			return step;
		r = direction_read(loop, direction, &state);
		if (r < 0)
			return r;
		if (state.passed == direction->map.consumed)
			return STEP_DONE;
		if (budget == 0)
			return STEP_MORE;
		/* Passed, but not to be read yet: the receive buffer is over its limit, or more came just now. */
		if (direction->map.stuck == direction->map.consumed)
			return STEP_LATER;
		direction->map.stuck = direction->map.consumed;
	}
}

/* --- the end of stream --- */

/* Whether every byte that came from this end, up to its end of stream, was written to the other. 1, 0 or an error. */
static int is_drained(const struct flow *flow, enum flow_side side)
{
	const struct flow_direction *direction = &flow->direction[side];
	uint64_t received, written;
	int error = 0, r = tcp_counters_received(flow->end[side].fd, &received);
	socklen_t length = sizeof(error);

	if (r == 0)
		r = tcp_counters_written(flow->end[!side].fd, &written);
	if (r < 0)
		return r;
	/* The end of stream counts as a byte. */
	if (received - 1 - direction->map.in_base != written - direction->map.out_base)
		return 0;
	/* A reset looks like an end to everything above. */
	if (getsockopt(flow->end[side].fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
		return -errno;
	return error ? -error : 1;
}

/* Waits for the drain, unless nothing has moved for too long. */
static int drain_wait(struct loop *loop, struct flow *flow, enum flow_side side)
{
	struct flow_direction *direction = &flow->direction[side];

	if (direction->map.drain_counted != direction->map.counted || direction->map.drain_ms == 0) {
		direction->map.drain_counted = direction->map.counted;
		direction->map.drain_ms = loop->now_ms;
	} else if (loop->now_ms - direction->map.drain_ms > SOCKMAP_DRAIN_MS) {
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
	struct flow_direction *direction = &flow->direction[side];
	struct bpf_flow_direction state;
	uint64_t total, moved;

	if (direction->mover != &tcp_sockmap || direction_read(loop, direction, &state) < 0)
		return 0;
	if (state.active_ns / 1000000 > *active_ms)
		*active_ms = state.active_ns / 1000000;
	if (state.passing || state.broken)
		direction->map.passing = true; /* in case the notice was lost */
	total = state.redirected + direction->map.consumed;
	moved = total - direction->map.counted;
	direction->map.counted = total;
	if (moved > 0)
		(void)control_write(loop, flow, side); /* where the next relay goes on counting */
	return moved;
}

/* A work item of the kernel has to run first: most often it is about to, on this very processor or another, so the
 * next looks come at once, with the processor given away in between. */
static void later(struct loop *loop, struct flow *flow, struct flow_direction *direction)
{
	if (direction->map.looks >= SOCKMAP_LOOKS) {
		loop_wait(loop, flow);
		return;
	}
	direction->map.looks++;
	sched_yield();
	loop_queue(loop, flow);
}

static int passing_pump(struct loop *loop, struct flow *flow, enum flow_side side, size_t budget)
{
	struct flow_direction *direction = &flow->direction[side];
	int step = passed_pump(loop, flow, side, budget);

	if (step != STEP_LATER)
		direction->map.looks = 0;
	switch (step) {
	case STEP_DONE:
		direction->map.passing = false;
		return MOVER_BLOCKED;
	case STEP_FULL:
		return MOVER_BLOCKED;
	case STEP_LATER:
		later(loop, flow, direction);
		return MOVER_BLOCKED;
	case STEP_MORE:
		return MOVER_MORE;
	default:
		return step;
	}
}

static int sockmap_pump(struct loop *loop, struct flow *flow, enum flow_side side, size_t budget, size_t *ret_moved)
{
	struct flow_direction *direction = &flow->direction[side];
	int r = MOVER_BLOCKED;

	*ret_moved = 0;
	/* Whoever is broken gets the flow reset; what a counter says about it now could only mislead. */
	if (flow->end[side].broken || flow->end[!side].broken)
		return -ECONNRESET;
	if (direction->map.passing)
		r = passing_pump(loop, flow, side, budget);
	if (r < 0 || !flow->end[side].hangup)
		return r;
	*ret_moved = tcp_sockmap_account(loop, flow, side, &flow->active_ms);
	if (r == MOVER_MORE)
		return r;
	r = is_drained(flow, side);
	if (r < 0)
		return r;
	return r ? MOVER_ENDED : drain_wait(loop, flow, side);
}

static void sockmap_release(struct loop *loop, struct flow_direction *direction)
{
	tcp_sockmap_forget(loop, direction);
}

const struct mover tcp_sockmap = { "sockmap", sockmap_pump, sockmap_release };

void tcp_sockmap_notices(struct loop *loop)
{
	struct sockmap_set *set = loop->sockmap;
	enum flow_side side;
	struct flow *flow;
	uint64_t tag;

	while (ring_next(&set->ring[loop->number].ring, &tag)) {
		flow = flow_from_cookie(&loop->flows, tag, &side);
		if (!flow || flow->direction[side].mover != &tcp_sockmap || flow->direction[side].map.passing)
			continue;
		flow->direction[side].map.passing = true;
		loop_queue(loop, flow);
	}
}
