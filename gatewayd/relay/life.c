/* Begin and end of flows; see life.h. */
#include "gatewayd/relay/life.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gatewayd/relay/account.h"
#include "gatewayd/relay/keep.h"
#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/mover.h"
#include "gatewayd/relay/shape.h"
#include "gatewayd/relay/tcp.h"
#include "gatewayd/relay/tcp_sockmap.h"
#include "gatewayd/relay/tcp_stitch.h"

#define POLLED_EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET)

void life_begin(struct loop *loop, struct flow *flow, bool adopted)
{
	stats_add(loop->stats, adopted ? STATS_flows_adopted : STATS_flows_opened, 1);
	shape_begin(loop, flow);
	account_begin(loop, flow, adopted);
}

static struct epoll_event polled_event(const struct loop *loop, const struct flow *flow, enum flow_side side)
{
	return (struct epoll_event){ .events = tcp_sockmap_events(flow, side, POLLED_EVENTS),
		.data.u64 = flow_cookie(&loop->flows, flow, side) };
}

void life_poll_again(const struct loop *loop, const struct flow *flow, enum flow_side side)
{
	struct epoll_event event = polled_event(loop, flow, side);

	(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, flow->end[side].fd, &event);
}

int life_poll(struct loop *loop, struct flow *flow, enum flow_side side)
{
	struct epoll_event event = polled_event(loop, flow, side);

	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, flow->end[side].fd, &event) < 0)
		return -errno;
	flow->end[side].polled = true;
	return 0;
}

static void end_reset(const struct flow *flow, enum flow_side side)
{
	static const struct sockaddr nowhere = { .sa_family = AF_UNSPEC };

	if (flow->kept.shared)
		(void)connect(flow->end[side].fd, &nowhere, sizeof(nowhere));
}

/* Both peers are told at once, by the sockets or, if these know nothing any more, past them. */
static void reset_both(struct loop *loop, struct flow *flow)
{
	if (tcp_stitch_leave(loop, flow, true))
		return;
	end_reset(flow, FLOW_CLIENT);
	end_reset(flow, FLOW_TARGET);
}

/* STATS_COUNTERS: nothing is counted. */
#define UNCOUNTED STATS_COUNTERS

/* Lets go of all that the flow holds. The daemon's copies of polled sockets would go on giving us events, for epoll
 * knows the connection and not the descriptor: they are taken out by name. */
static void release(struct loop *loop, struct flow *flow, enum stats_counter counter)
{
	(void)tcp_stitch_leave(loop, flow, false);
	(void)tcp_account(loop, flow);
	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		struct flow_direction *direction = &flow->direction[side];
		struct flow_end *end = &flow->end[side];

		if (direction->mover != MOVER_NONE)
			mover_table[direction->mover]->release(loop, flow, (enum flow_side)side);
		if (end->polled && flow->kept.shared)
			(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, end->fd, NULL);
		if (end->fd >= 0)
			close(end->fd);
	}
	shape_end(loop, flow);
	keep_gone(loop, flow);
	/* These two at once: whether the row is still shown tells the next relay whether the end was counted (adopt.c).
	 */
	account_end(loop, flow, counter == STATS_flows_closed);
	if (counter != UNCOUNTED)
		stats_add(loop->stats, counter, 1);
	wheel_clear(&loop->wheel, &flow->timer);
	loop_unqueue(loop, flow);
	loop_unwait(loop, flow);
	flow_free(&loop->flows, flow);
}

void life_reset(struct loop *loop, struct flow *flow, enum flow_why why)
{
	if (flow->end_why == FLOW_END_unknown)
		flow->end_why = (uint8_t)why;
	reset_both(loop, flow);
	stats_add(loop->stats, STATS_flows_reset, 1);
	account_count(loop, flow, STATS_OBJECT_flows_reset);
	release(loop, flow, STATS_flows_closed);
}

/* From here on closing sends what is left and the end of stream in the background. */
static void end_both(const struct flow *flow)
{
	static const struct linger off = { 0, 0 };

	if (flow->carried)
		return;
	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		if (flow->kept.shared)
			(void)shutdown(flow->end[side].fd, SHUT_WR);
		setsockopt(flow->end[side].fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
	}
}

void life_close(struct loop *loop, struct flow *flow, enum flow_why why)
{
	flow->end_why = (uint8_t)why;
	end_both(flow);
	release(loop, flow, STATS_flows_closed);
}

void life_forget(struct loop *loop, struct flow *flow)
{
	end_both(flow);
	release(loop, flow, UNCOUNTED);
}

void life_lose(struct loop *loop, struct flow *flow)
{
	reset_both(loop, flow);
	release(loop, flow, STATS_flows_lost);
}
