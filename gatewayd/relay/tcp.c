/* Connections from admission to their end; see tcp.h, and flow.h for the states. */
#include "gatewayd/relay/tcp.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gatewayd/base/clock.h"
#include "gatewayd/relay/account.h"
#include "gatewayd/relay/connect.h"
#include "gatewayd/relay/keep.h"
#include "gatewayd/relay/life.h"
#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/mover.h"
#include "gatewayd/relay/proxy.h"
#include "gatewayd/relay/record.h"
#include "gatewayd/relay/retry.h"
#include "gatewayd/relay/route.h"
#include "gatewayd/relay/shape.h"
#include "gatewayd/relay/straight.h"
#include "gatewayd/relay/tcp_sockmap.h"
#include "gatewayd/relay/tcp_stitch.h"

static enum stats_counter mover_counter(uint8_t mover)
{
	return mover == MOVER_KERNEL    ? STATS_bytes_stitched
	       : mover == MOVER_SOCKMAP ? STATS_bytes_sockmap
	       : mover == MOVER_SPLICE  ? STATS_bytes_spliced
	                                : STATS_bytes_copied;
}

static void target_answered(struct loop *loop, const struct flow *flow)
{
	const struct flow_way *way = flow_way(&loop->flows, flow);

	retry_target_answered(loop, &way->objects, way->slot);
}

static void count_moved(struct loop *loop, struct flow *flow, enum flow_side side, uint8_t mover, size_t moved)
{
	if (moved == 0)
		return;
	if (side == FLOW_TARGET && !flow->direction[side].moved)
		target_answered(loop, flow);
	flow->direction[side].moved = true;
	flow->active_ms = loop->now_ms;
	account_moved(loop, flow, side, moved);
	shape_moved(loop, flow);
	stats_add(loop->stats, mover_counter(mover), moved);
}

bool tcp_account(struct loop *loop, struct flow *flow)
{
	uint64_t active_ms = flow->active_ms;
	bool any = false;

	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		size_t moved = tcp_sockmap_account(loop, flow, (enum flow_side)side, &active_ms);

		count_moved(loop, flow, (enum flow_side)side, MOVER_SOCKMAP, moved);
		any |= moved > 0;
	}
	flow->active_ms = active_ms;
	return any;
}

void tcp_carried_moved(struct loop *loop, struct flow *flow, enum flow_side side, uint64_t bytes, uint64_t active_ms)
{
	uint64_t before_ms = flow->active_ms;

	count_moved(loop, flow, side, MOVER_KERNEL, bytes);
	flow->active_ms = active_ms > before_ms ? active_ms : before_ms;
}

static bool flow_in_map(const struct flow *flow)
{
	return flow->direction[FLOW_CLIENT].mover == MOVER_SOCKMAP ||
	       flow->direction[FLOW_TARGET].mover == MOVER_SOCKMAP;
}

/* --- connect --- */

static void count_connect_failure(struct loop *loop, const struct flow *flow, int error)
{
	const struct flow_origin origin = flow_get_origin(&loop->flows, flow);
	enum stats_counter counter = STATS_connect_failed;

	if (error == -EADDRNOTAVAIL)
		counter = STATS_source_ports_exhausted;
	else if (error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM)
		counter = STATS_refused_no_descriptor;
	else if (error == -ETIMEDOUT)
		counter = STATS_connect_timeout;
	if (counter == STATS_refused_no_descriptor)
		overload_starved(&loop->overload, loop->now_ms);
	stats_add(loop->stats, counter, 1);
	account_count(loop, flow, STATS_OBJECT_connect_failed);
	loop_warn_of(loop, counter, error, &origin);
}

static enum mover_reason reason_at_start(const struct flow *flow, unsigned wish)
{
	if (flow->straight)
		return wish == PROTO_MOVER_KERNEL ? MOVER_REASON_FORCED : MOVER_REASON_OFTEN;
	return flow->mode == PROTO_MOVER_AUTO ? MOVER_REASON_START : MOVER_REASON_FORCED;
}

/* wish: of the listener. */
static void directions_init(struct flow *flow, unsigned wish)
{
	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		struct flow_direction *direction = &flow->direction[side];

		direction->mover = flow->straight                     ? MOVER_KERNEL
		                   : flow->mode == PROTO_MOVER_SPLICE ? MOVER_SPLICE
		                                                      : MOVER_COPY;
		direction->reason = (uint8_t)reason_at_start(flow, wish);
		direction->store = UINT32_MAX;
	}
}

/* The same for a flow without sockets. */
static int straight_try(struct loop *loop, struct flow *flow)
{
	uint64_t look_ms = loop->now_ms + STITCH_LOOK_MS, deadline_ms = flow_making(&loop->flows, flow)->deadline_ms;
	int r = straight_connect(loop, flow);

	if (r == 0)
		wheel_set(&loop->wheel, &flow->timer, deadline_ms && deadline_ms < look_ms ? deadline_ms : look_ms);
	return r;
}

/* One attempt. 0 or a negative errno. */
static int connect_try(struct loop *loop, struct flow *flow, const struct config_listener *listener)
{
	struct flow_making *making = flow_making(&loop->flows, flow);
	const struct flow_origin origin = flow_get_origin(&loop->flows, flow);
	uint64_t quiet_ms = loop->now_ms + TCP_CONNECT_QUIET_MS;
	enum connect_port port;
	bool taken;
	int r;

	flow->state = FLOW_CONNECTING;
	flow->proxy = listener->proxy & 3U;
	making->proxy_sent = 0;
	making->deadline_ms = listener->connect_timeout_ms > 0 ? loop->now_ms + listener->connect_timeout_ms : 0;
	if (flow->straight)
		return straight_try(loop, flow);
	taken = listener->source == CONNECT_AS_CLIENT && straight_has_port(loop, &origin);
	r = connect_start(&origin, taken ? CONNECT_AS_CLIENT_ANY_PORT : (enum connect_source)listener->source,
	        atomic_load_explicit(&loop->tracked, memory_order_relaxed), &port);
	loop_count_port(loop, taken ? CONNECT_PORT_TAKEN : port);
	if (r >= 0) {
		flow->end[FLOW_TARGET].fd = r;
		shape_target(loop, flow);
		r = life_poll(loop, flow, FLOW_TARGET);
	}
	if (r < 0)
		return r;
	wheel_set(&loop->wheel, &flow->timer,
	        making->deadline_ms && making->deadline_ms < quiet_ms ? making->deadline_ms : quiet_ms);
	return 0;
}

/* Begins to connect to the flow's target, or goes on with another one. */
static void connect_begin(struct loop *loop, struct flow *flow, const struct config_listener *listener)
{
	int r;

	do {
		r = connect_try(loop, flow, listener);
		if (r >= 0)
			return;
		count_connect_failure(loop, flow, r);
	} while (retry_next(loop, flow, listener, r));
	life_reset(loop, flow, record_end_of_connect(r));
}

void tcp_connect_failed(struct loop *loop, struct flow *flow, int error)
{
	const struct config_listener *listener =
	        config_listener(loop->config, flow_way(&loop->flows, flow)->objects.listener);

	count_connect_failure(loop, flow, error);
	/* An adopted one, without the SYN that another target would be sent, has this one only. */
	if (flow->straight && flow_making(&loop->flows, flow)->syn_length == 0) {
		retry_target_failed(loop, &flow_way(&loop->flows, flow)->objects, flow_way(&loop->flows, flow)->slot);
		listener = NULL;
	}
	if (listener && retry_next(loop, flow, listener, error))
		connect_begin(loop, flow, listener);
	else
		life_reset(loop, flow, record_end_of_connect(error));
}

void tcp_connect_again(struct loop *loop, struct flow *flow)
{
	const struct config_listener *listener =
	        config_listener(loop->config, flow_way(&loop->flows, flow)->objects.listener);

	if (listener)
		connect_begin(loop, flow, listener);
	else
		life_reset(loop, flow, record_end_of_connect(-EADDRNOTAVAIL));
}

/* --- first bytes --- */

static void refuse(struct loop *loop, struct flow *flow, enum stats_counter counter)
{
	const struct flow_origin origin = flow_get_origin(&loop->flows, flow);

	stats_add(loop->stats, counter, 1);
	loop_warn_of(loop, counter, 0, &origin);
	life_reset(loop, flow, record_end_of_refusal(counter));
}

/* The client has said what it had to: the flow gets its target, the listener's or that of a route. */
static void peek_done(struct loop *loop, struct flow *flow, const struct config_listener *listener,
        const struct first_routes_item *item)
{
	struct flow_origin origin = flow_get_origin(&loop->flows, flow);
	struct config_listener way = *listener;
	struct load_hold hold;
	int refusal;

	if (item)
		way.upstream = item->upstream;
	refusal = route_find(loop, &way, &origin, &hold);
	flow_put_origin(&loop->flows, flow, &origin);
	flow->account.hold_run = hold.run;
	if (refusal != 0) {
		refuse(loop, flow, (enum stats_counter)refusal);
		return;
	}
	account_routed(loop, flow);
	connect_begin(loop, flow, listener);
}

/* The routes decide about what the client has said. first: NULL if that was not understood. */
static void peek_decide(
        struct loop *loop, struct flow *flow, const struct config_listener *listener, const struct first *first)
{
	const struct first_routes_item *item = first_routes_find(&listener->routes, first);

	stats_add(loop->stats, item ? STATS_route_matched : STATS_route_default, 1);
	flow->route = item ? (uint8_t)(item - listener->routes.items + 1) : 0;
	if (first && *first->host)
		account_name(loop, flow, first->host, strlen(first->host));
	if (item && item->action == FIRST_ACTION_REJECT) {
		stats_add(loop->stats, STATS_route_rejected, 1);
		life_reset(loop, flow, FLOW_END_rejected);
		return;
	}
	peek_done(loop, flow, listener, item);
}

/* final: what is not there by now is not waited for. */
static void peek_first(struct loop *loop, struct flow *flow, const struct config_listener *listener, bool final)
{
	const struct first *first = NULL;
	enum stats_counter counter;
	int r = peek_look(&loop->peek, flow->end[FLOW_CLIENT].fd, final, &first, &counter);

	if (r < 0) {
		life_reset(loop, flow, FLOW_END_reset_by_client);
	} else if (r > 0) {
		stats_add(loop->stats, counter, 1);
		peek_decide(loop, flow, listener, first);
	}
}

/* Whether the PROXY header that the client's end begins with has been taken; if not, the flow waits, or is gone. */
static bool proxy_taken(struct loop *loop, struct flow *flow, bool final)
{
	struct flow_origin origin = flow_get_origin(&loop->flows, flow);
	enum stats_counter counter;
	int r = proxy_take(&loop->peek, flow->end[FLOW_CLIENT].fd, final, &origin, &counter);

	if (r > 0) {
		flow_put_origin(&loop->flows, flow, &origin);
		flow_set_ledger(&loop->flows, flow, &(struct flow_ledger){ .base[FLOW_CLIENT] = (uint64_t)r });
		flow_making(&loop->flows, flow)->proxy_awaited = false;
		stats_add(loop->stats, counter, 1);
	} else if (r == -EBADMSG) {
		refuse(loop, flow, counter);
	} else if (r < 0) {
		life_reset(loop, flow, FLOW_END_reset_by_client);
	}
	return r > 0;
}

/* Looks at what the client has said so far. */
static void peek_try(struct loop *loop, struct flow *flow, bool final)
{
	const struct config_listener *listener =
	        config_listener(loop->config, flow_way(&loop->flows, flow)->objects.listener);

	if (!listener) /* it was deleted meanwhile */
		refuse(loop, flow, STATS_refused_no_listener);
	else if (flow_making(&loop->flows, flow)->proxy_awaited && !proxy_taken(loop, flow, final))
		return;
	else if (listener->routes.n > 0)
		peek_first(loop, flow, listener, final);
	else
		peek_done(loop, flow, listener, NULL);
}

/* The client's socket tells of each arrival once, also of what has arrived already. */
static void peek_begin(struct loop *loop, struct flow *flow, const struct config_listener *listener)
{
	struct flow_making *making = flow_making(&loop->flows, flow);
	uint32_t wait_ms = PEEK_WAIT_MS;

	if (listener->connect_timeout_ms > 0 && listener->connect_timeout_ms < wait_ms)
		wait_ms = listener->connect_timeout_ms;
	flow->state = FLOW_PEEKING;
	making->deadline_ms = loop->now_ms + wait_ms;
	wheel_set(&loop->wheel, &flow->timer, making->deadline_ms);
	if (life_poll(loop, flow, FLOW_CLIENT) < 0)
		refuse(loop, flow, STATS_refused_no_descriptor);
}

/* The loop looks at the clock once a turn, and at a coarse one. */
static uint16_t lag_ms(const struct loop *loop, uint64_t now_us)
{
	uint64_t lag = now_us / 1000 - loop->now_ms;

	return lag > UINT16_MAX ? UINT16_MAX : (uint16_t)lag;
}

/* What the kernel is to carry and cannot is as flexible as others. */
static unsigned mode_of(const struct loop *loop, const struct config_listener *listener)
{
	unsigned mode = loop->mode != PROTO_MOVER_AUTO ? (unsigned)loop->mode : listener->mover;

	return mode == PROTO_MOVER_KERNEL ? PROTO_MOVER_AUTO : mode;
}

/* A flow for the route, which is counted and shown from here on; NULL: the table is full. client_fd: -1 for one without
 * sockets. */
static struct flow *start(struct loop *loop, const struct tcp_route *route, int client_fd)
{
	const struct config_listener *listener = route->listener;
	struct flow_origin origin = route->origin;
	struct load_hold unused;
	struct flow_way way;
	struct flow *flow;

	udp_yield(loop);
	flow = flow_alloc(&loop->flows);
	if (!flow) {
		stats_add(loop->stats, STATS_refused_table_full, 1);
		loop_warn(loop, STATS_refused_table_full, 0);
		account_refused(loop, &route->origin.objects);
		unused = route->hold;
		load_give(&loop->place, &unused);
		return NULL;
	}
	origin.id = loop_next_flow_id(loop);
	flow_put_origin(&loop->flows, flow, &origin);
	flow->account.started_us = clock_us();
	flow->lag_ms = lag_ms(loop, flow->account.started_us);
	flow->account.hold_run = route->hold.run;
	flow->making = parts_take(&loop->flows.makings);
	flow->straight = flow->carried = client_fd < 0;
	flow->end[FLOW_CLIENT].fd = client_fd;
	flow->mode = mode_of(loop, listener) & 7U;
	directions_init(flow, listener->mover);
	life_begin(loop, flow, false);
	way = *flow_way(&loop->flows, flow);
	way.idle_timeout_ms = listener->idle_timeout_s > UINT32_MAX / 1000 ? 0 : listener->idle_timeout_s * 1000;
	flow_set_way(&loop->flows, flow, &way);
	return flow;
}

void tcp_start(struct loop *loop, int client_fd, const struct tcp_route *route)
{
	const struct config_listener *listener = route->listener;
	struct flow *flow = start(loop, route, client_fd);

	if (!flow) {
		close(client_fd);
		return;
	}
	straight_came(loop, listener, &route->origin);
	flow_making(&loop->flows, flow)->proxy_awaited = route->proxied;
	if (listener->routes.n > 0 || route->proxied)
		peek_begin(loop, flow, listener);
	else
		connect_begin(loop, flow, listener);
}

bool tcp_start_straight(struct loop *loop, const struct tcp_route *route, const uint8_t *header, size_t length)
{
	struct flow *flow = start(loop, route, -1);
	struct flow_making *making;

	if (!flow)
		return false;
	making = flow_making(&loop->flows, flow);
	memcpy(making->syn, header, length);
	making->syn_length = (uint8_t)length;
	stats_add(loop->stats, STATS_straight_flows, 1);
	connect_begin(loop, flow, route->listener);
	return true;
}

/* --- moving --- */

static bool is_closed(int fd)
{
	struct tcp_info info;
	socklen_t length = sizeof(info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 && info.tcpi_state == TCP_CLOSE;
}

/* Ends a flow that is broken. error: what its pump has met, or 0. A target that has reset it and never said anything
 * has failed: its socket is closed by now, whichever side showed the error first. */
static void broken(struct loop *loop, struct flow *flow, int error)
{
	const struct flow_way *way = flow_way(&loop->flows, flow);
	bool client = flow->end[FLOW_CLIENT].broken, target = flow->end[FLOW_TARGET].broken, closed;

	(void)tcp_account(loop, flow);
	closed = !client && !(target && flow->direction[FLOW_TARGET].moved) && is_closed(flow->end[FLOW_TARGET].fd);
	if (closed && !flow->direction[FLOW_TARGET].moved)
		retry_target_failed(loop, &way->objects, way->slot);
	target = target || closed;
	if (client == target)
		life_reset(loop, flow, client ? FLOW_END_reset : FLOW_END_reset_by_client);
	else if (error == -ETIMEDOUT)
		life_reset(loop, flow, client ? FLOW_END_client_gone : FLOW_END_target_gone);
	else
		life_reset(loop, flow, client ? FLOW_END_reset_by_client : FLOW_END_reset_by_target);
}

/* Lets the direction change its mover if the way it was used lately says so. Legal only while nothing is held. */
static void choose_mover(const struct flow *flow, struct flow_direction *direction)
{
	if (flow->mode != PROTO_MOVER_AUTO || direction->held > 0)
		return;
	if (direction->mover == MOVER_COPY && direction->streak >= MOVER_STREAK_MUCH && !direction->splice_denied) {
		direction->mover = MOVER_SPLICE;
		direction->reason = MOVER_REASON_MUCH;
		direction->streak = 0;
	} else if (direction->mover == MOVER_SPLICE && direction->streak >= MOVER_STREAK_LITTLE) {
		direction->mover = MOVER_COPY;
		direction->reason = MOVER_REASON_LITTLE;
		direction->streak = 0;
	}
}

static void deny_splice(struct flow_direction *direction, enum mover_reason reason)
{
	direction->mover = MOVER_COPY;
	direction->reason = (uint8_t)reason;
	direction->splice_denied = true;
	direction->streak = 0;
}

/* splice(2) never gets past the mark of urgent data: such a source is copied from. True if that changed just now. */
static bool leave_splice_for_urgent(struct flow_end *from, struct flow_direction *direction)
{
	if (!from->urgent || direction->mover != MOVER_SPLICE || direction->held > 0)
		return false;
	deny_splice(direction, MOVER_REASON_URGENT);
	from->readable = true;
	return true;
}

/* The flow goes into the sockmap if it is to and nothing stands against it. */
static void enter_sockmap(struct loop *loop, struct flow *flow, enum mover_reason reason)
{
	if (tcp_sockmap_may_enter(loop, flow) && keep_measure(loop, flow)) {
		if (tcp_sockmap_enter(loop, flow, (uint8_t)reason) > 0)
			wheel_set(&loop->wheel, &flow->timer, loop->now_ms + KEEP_AFTER_MS);
	} else if (reason == MOVER_REASON_FORCED) {
		for (unsigned side = 0; side < FLOW_SIDES; side++)
			flow->direction[side].reason = MOVER_REASON_NO_MAP;
	}
	account_changed(loop, flow);
}

/* An adopted flow does not know any more what its listener wants. */
static bool listener_forbids(const struct loop *loop, const struct flow *flow)
{
	const struct config_listener *listener =
	        config_listener(loop->config, flow_way(&loop->flows, flow)->objects.listener);

	return listener && listener->mover != PROTO_MOVER_AUTO && listener->mover != PROTO_MOVER_KERNEL;
}

/* After a pump that moved bytes: flows that only carry small messages go into the sockmap in time. */
static void consider_sockmap(struct loop *loop, struct flow *flow, size_t moved)
{
	/* Bytes right behind a PROXY header keep a forced flow from entering at once: their queue was read in part. */
	if (flow->mode == PROTO_MOVER_SOCKMAP && flow_ledger(&loop->flows, flow).base[FLOW_CLIENT] > 0 && moved > 0 &&
	        !flow->sockmap_tried)
		enter_sockmap(loop, flow, MOVER_REASON_FORCED);
	if (flow->mode != PROTO_MOVER_AUTO || !loop->sockmap || flow->sockmap_tried || moved == 0)
		return;
	flow->little = moved > SOCKMAP_MESSAGE_BYTES ? 0 : (uint8_t)(flow->little + 1);
	if (flow->little < SOCKMAP_MESSAGES)
		return;
	flow->little = SOCKMAP_MESSAGES - 1; /* the next small one tries again, should it not be the moment */
	if (!listener_forbids(loop, flow))
		enter_sockmap(loop, flow, MOVER_REASON_STEADY);
}

/* Moves what can be moved in one direction: a mover_outcome or a negative errno. */
static int direction_pump(struct loop *loop, struct flow *flow, enum flow_side side)
{
	struct flow_direction *direction = &flow->direction[side];
	const struct flow_direction before = *direction;
	size_t budget = MOVER_BUDGET, moved, all = 0;
	bool again;
	int r;

	leave_splice_for_urgent(&flow->end[side], direction);
	do {
		uint8_t mover = direction->mover;

		r = mover_table[mover]->pump(loop, flow, side, budget, &moved);
		count_moved(loop, flow, side, mover, moved);
		all += moved;
		budget -= moved < budget ? moved : budget;
		again = r == MOVER_BLOCKED && leave_splice_for_urgent(&flow->end[side], direction);
		if (r == MOVER_UNFIT) {
			stats_add(loop->stats, STATS_splice_fallback, 1);
			deny_splice(direction, MOVER_REASON_NO_PIPE);
			again = true;
		}
	} while (again);
	choose_mover(flow, direction);
	if (r == MOVER_BLOCKED)
		consider_sockmap(loop, flow, all);
	if (direction->mover != before.mover || direction->reason != before.reason)
		account_changed(loop, flow);
	return r;
}

/* End of stream of one direction: the other end learns of it. With both ended the flow is over.
 * 1: the flow goes on, 0: it is gone. */
static int direction_end(struct loop *loop, struct flow *flow, enum flow_side side)
{
	flow->direction[side].state = DIRECTION_ENDED;
	flow->active_ms = loop->now_ms;
	if (side == FLOW_TARGET && !flow->direction[side].moved)
		target_answered(loop, flow);
	if (flow->direction[!side].state == DIRECTION_ENDED) {
		life_close(loop, flow, side == FLOW_CLIENT ? FLOW_END_closed_by_target : FLOW_END_closed_by_client);
		return 0;
	}
	if (shutdown(flow->end[!side].fd, SHUT_WR) < 0) {
		life_reset(loop, flow, side == FLOW_CLIENT ? FLOW_END_reset_by_target : FLOW_END_reset_by_client);
		return 0;
	}
	account_changed(loop, flow);
	return 1;
}

/* Works on one direction. 1: the flow goes on, 0: it is gone. */
static int flow_pump(struct loop *loop, struct flow *flow, enum flow_side side)
{
	int r;

	if (flow->direction[side].state == DIRECTION_ENDED)
		return 1;
	r = direction_pump(loop, flow, side);
	if (r < 0) {
		broken(loop, flow, r);
		return 0;
	}
	if (r == MOVER_ENDED)
		return direction_end(loop, flow, side);
	if (r == MOVER_MORE)
		loop_queue(loop, flow);
	return 1;
}

/* --- events --- */

/* What has become of the connect: 1: the target is there, and knows from the PROXY header who the client is if it is to
 * be told; 0: it takes no more of the header now, another event will go on; or a negative errno. */
static int connect_outcome(struct loop *loop, struct flow *flow, uint32_t events)
{
	struct flow_origin origin;
	int error = 0, r;
	socklen_t length = sizeof(error);

	if (events & (EPOLLERR | EPOLLHUP)) {
		getsockopt(flow->end[FLOW_TARGET].fd, SOL_SOCKET, SO_ERROR, &error, &length);
		return error ? -error : -ECONNRESET;
	}
	if (flow->proxy == 0)
		return 1;
	origin = flow_get_origin(&loop->flows, flow);
	r = proxy_send(flow->end[FLOW_TARGET].fd, &origin, flow->proxy, &flow_making(&loop->flows, flow)->proxy_sent);
	if (r > 0)
		stats_add(loop->stats, STATS_proxy_sent, 1);
	return r;
}

/* A connect that has an answer: the flow relays from here on, or is gone. */
static void connect_done(struct loop *loop, struct flow *flow, uint32_t events)
{
	int r = connect_outcome(loop, flow, events);

	if (r == 0)
		return;
	if (r < 0) {
		tcp_connect_failed(loop, flow, r);
		return;
	}
	flow->state = FLOW_RELAYING;
	flow_made(&loop->flows, flow);
	flow->end[FLOW_CLIENT].readable = true; /* likely, and known without another turn */
	flow->end[FLOW_CLIENT].writable = true;
	flow->end[FLOW_TARGET].writable = true;
	flow->active_ms = loop->now_ms;
	account_connected(loop, flow, clock_us());
	wheel_set(&loop->wheel, &flow->timer, keep_due_ms(loop, flow));
	if (!flow->end[FLOW_CLIENT].polled && life_poll(loop, flow, FLOW_CLIENT) < 0) {
		stats_add(loop->stats, STATS_refused_no_descriptor, 1);
		life_reset(loop, flow, FLOW_END_no_resources);
		return;
	}
	if (flow->mode == PROTO_MOVER_SOCKMAP)
		enter_sockmap(loop, flow, MOVER_REASON_FORCED);
}

static void end_note(struct flow_end *end, uint32_t events)
{
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI))
		end->readable = true;
	if (events & EPOLLOUT)
		end->writable = true;
	if (events & EPOLLRDHUP)
		end->hangup = true;
	if (events & EPOLLERR)
		end->broken = true;
	if ((events & EPOLLPRI) && !end->urgent) {
		/* The urgent byte would otherwise be missing from the stream. */
		end->urgent = true;
		mover_take_urgent(end->fd);
	}
}

/* An event before the flow relays. 1: the flow relays now. */
static int connecting_event(struct loop *loop, struct flow *flow, enum flow_side side, uint32_t events)
{
	uint32_t generation = flow->generation;

	if (side == FLOW_TARGET && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
		connect_done(loop, flow, events);
	else if (flow->end[side].broken)
		life_reset(loop, flow, FLOW_END_reset_by_client);
	return flow->generation == generation && flow->state == FLOW_RELAYING;
}

void tcp_event(struct loop *loop, struct flow *flow, enum flow_side side, uint32_t events)
{
	bool connecting = flow->state == FLOW_CONNECTING;
	struct flow_end *end = &flow->end[side];

	end_note(end, events);
	if (flow->state == FLOW_PEEKING) {
		if (end->broken)
			life_reset(loop, flow, FLOW_END_reset_by_client);
		else
			peek_try(loop, flow, end->hangup);
		return;
	}
	if (connecting && !connecting_event(loop, flow, side, events))
		return;
	if (!flow_pump(loop, flow, side) || !flow_pump(loop, flow, !side))
		return;
	if (connecting)
		connect_finish(flow);
	/* What could still be read of a broken connection has been passed on. */
	if (end->broken)
		broken(loop, flow, 0);
}

void tcp_continue(struct loop *loop, struct flow *flow)
{
	if (flow_pump(loop, flow, FLOW_CLIENT))
		flow_pump(loop, flow, FLOW_TARGET);
}

bool tcp_kill(struct loop *loop, uint32_t index, uint64_t id)
{
	struct flow *flow = index < loop->flows.touched ? &loop->flows.flows[index] : NULL;

	if (!flow || flow->state == FLOW_FREE || flow->id != id)
		return false;
	stats_add(loop->stats, STATS_killed, 1);
	account_count(loop, flow, STATS_OBJECT_killed);
	life_reset(loop, flow, FLOW_END_killed);
	return true;
}

/* --- timers --- */

static void peeking_timer(struct loop *loop, struct flow *flow)
{
	uint64_t deadline_ms = flow_making(&loop->flows, flow)->deadline_ms;

	if (loop->now_ms >= deadline_ms)
		peek_try(loop, flow, true);
	else
		wheel_set(&loop->wheel, &flow->timer, deadline_ms);
}

/* The next look at a flow without sockets that is in the making. */
static void straight_timer_set(struct loop *loop, struct flow *flow)
{
	uint64_t due = loop->now_ms + flow_stitch(&loop->flows, flow)->look_ms;
	uint64_t deadline_ms = flow_making(&loop->flows, flow)->deadline_ms;

	wheel_set(&loop->wheel, &flow->timer, deadline_ms && deadline_ms < due ? deadline_ms : due);
}

static void connecting_timer(struct loop *loop, struct flow *flow)
{
	uint64_t deadline_ms = flow_making(&loop->flows, flow)->deadline_ms;

	if (deadline_ms && loop->now_ms >= deadline_ms) {
		tcp_connect_failed(loop, flow, -ETIMEDOUT);
		return;
	}
	if (flow->straight) {
		straight_timer_set(loop, flow);
		return;
	}
	if (!flow->end[FLOW_CLIENT].polled && life_poll(loop, flow, FLOW_CLIENT) < 0) {
		stats_add(loop->stats, STATS_refused_no_descriptor, 1);
		life_reset(loop, flow, FLOW_END_no_resources);
		return;
	}
	if (deadline_ms)
		wheel_set(&loop->wheel, &flow->timer, deadline_ms);
}

/* When a flow that relays is to be looked at again by time. */
static void relaying_timer_set(struct loop *loop, struct flow *flow)
{
	uint32_t idle_timeout_ms = flow_way(&loop->flows, flow)->idle_timeout_ms;
	uint64_t idle = idle_timeout_ms ? flow->active_ms + idle_timeout_ms : UINT64_MAX;
	uint64_t account = flow_in_map(flow) ? loop->now_ms + flow_map(&loop->flows, flow)->account_ms : UINT64_MAX;
	uint64_t stitch = tcp_stitch_due_ms(loop, flow);
	uint64_t due = idle < account ? idle : account;

	if (stitch < due)
		due = stitch;
	if (!flow->straight && !keep_add(loop, flow) && loop->now_ms + KEEP_RETRY_MS < due)
		due = loop->now_ms + KEEP_RETRY_MS;
	if (due != UINT64_MAX)
		wheel_set(&loop->wheel, &flow->timer, due);
}

/* One timer serves the flow's being kept, its idleness and what the kernel moves by itself: whatever is due next. */
static void relaying_timer(struct loop *loop, struct flow *flow)
{
	uint32_t idle_timeout_ms;

	if (flow_in_map(flow)) {
		struct flow_map *map = flow_map(&loop->flows, flow);

		map->account_ms = tcp_account(loop, flow) ? SOCKMAP_ACCOUNT_MS : map->account_ms * 2;
		if (map->account_ms > SOCKMAP_ACCOUNT_MAX_MS)
			map->account_ms = SOCKMAP_ACCOUNT_MAX_MS;
		loop_queue(loop, flow);
	}
	tcp_stitch_consider(loop, flow);
	if (flow->straight ? !straight_look(loop, flow) : !tcp_stitch_look(loop, flow))
		return;
	idle_timeout_ms = flow_way(&loop->flows, flow)->idle_timeout_ms;
	if (idle_timeout_ms > 0 && loop->now_ms >= flow->active_ms + idle_timeout_ms) {
		stats_add(loop->stats, STATS_idle_timeout, 1);
		account_count(loop, flow, STATS_OBJECT_idle_timeout);
		life_reset(loop, flow, FLOW_END_idle);
		return;
	}
	relaying_timer_set(loop, flow);
}

/* Of a flow without sockets that is, as far as we know, in the making. */
static void straight_making_timer(struct loop *loop, struct flow *flow)
{
	if (!straight_look(loop, flow))
		return;
	if (flow->state == FLOW_RELAYING)
		relaying_timer_set(loop, flow);
	else
		connecting_timer(loop, flow);
}

void tcp_timer(struct loop *loop, struct flow *flow)
{
	if (flow->state == FLOW_PEEKING)
		peeking_timer(loop, flow);
	else if (flow->state == FLOW_CONNECTING && flow->straight)
		straight_making_timer(loop, flow);
	else if (flow->state == FLOW_CONNECTING)
		connecting_timer(loop, flow);
	else
		relaying_timer(loop, flow);
}
