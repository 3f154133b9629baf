/* Beginning and end of UDP flows; see udp_flow.h. */
#include "gatewayd/relay/udp_flow.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "gatewayd/relay/account.h"
#include "gatewayd/relay/account_udp.h"
#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/route.h"
#include "gatewayd/relay/udp_shortcut.h"
#include "gatewayd/relay/udp_socket.h"

static void refuse(struct loop *loop, enum stats_counter counter, int error, const struct flow_origin *origin)
{
	stats_add(loop->stats, counter, 1);
	loop_warn_of(loop, counter, error, origin);
}

uint64_t udp_flow_idle_ms(const struct udp_flow *flow)
{
	bool conversation = flow->answered && flow->from_client >= UDP_CONVERSATION;
	uint64_t most = conversation ? UDP_IDLE_MAX_MS : UDP_IDLE_SHORT_MS;

	return flow->idle_timeout_ms > 0 && flow->idle_timeout_ms < most ? flow->idle_timeout_ms : most;
}

/* --- the end --- */

void udp_flow_end(struct loop *loop, struct udp_flow *flow, enum flow_why why)
{
	struct udp *udp = loop->udp;

	udp_shortcut_leave(loop, flow);
	wheel_clear(&loop->wheel, &flow->timer);
	if (flow->fd >= 0)
		close(flow->fd);
	if (flow->reply != FLOW_NONE)
		udp_reply_leave(&udp->replies, flow->reply);
	account_udp_end(loop, flow, why);
	udp_table_remove(&udp->table, flow);
	stats_add(loop->stats, STATS_udp_flows_closed, 1);
}

/* The table does not see datagrams that take the short cut: a flow that looks old is asked first. */
static struct udp_flow *oldest(struct loop *loop)
{
	struct udp_flow *flow = NULL;

	for (unsigned i = 0; i < UDP_OLDEST_TRIES; i++) {
		flow = udp_table_oldest(&loop->udp->table);
		if (!flow || !udp_shortcut_look(loop, flow))
			break;
	}
	return flow;
}

bool udp_flow_evict(struct loop *loop)
{
	struct udp_flow *flow = oldest(loop);

	if (!flow)
		return false;
	refuse(loop, STATS_udp_evicted, 0, &flow->origin);
	/* Answers that wait to be sent name the flow's socket. */
	udp_flush(loop);
	udp_flow_end(loop, flow, FLOW_END_evicted);
	return true;
}

/* --- the beginning --- */

static bool table_is_full(const struct loop *loop)
{
	const struct udp_table *table = &loop->udp->table;

	return table->open >= table->size || loop->flows.open + table->open >= loop->flows.size;
}

/* The listener of a client's datagram. 0, or the counter of the refusal. */
static int classify(struct loop *loop, const struct udp_datagram *datagram, int fd, const struct config_listener **ret)
{
	const struct match_packet packet = { .protocol = IPPROTO_UDP,
		.dst = datagram->original,
		.src = datagram->source,
		.dst_port = datagram->original_port };

	if (route_is_loopback(&datagram->original))
		return STATS_refused_loop;
	*ret = route_classify(loop->config, &packet, datagram->ifindex, fd);
	return *ret ? 0 : STATS_refused_no_listener;
}

/* Whether the datagram comes from a target of the listener's own: an answer for a flow that has ended. As a client's it
 * would be sent to that target again, or another one like it. */
static bool is_late_answer(
        const struct loop *loop, const struct config_listener *listener, const struct udp_datagram *datagram)
{
	const struct config_upstream *upstream = config_upstream(loop->config, listener->upstream);
	const struct target *target = NULL;

	if (upstream)
		target = balance_find(&upstream->balance, &datagram->source, datagram->source_port);
	return target && target->port != 0;
}

/* Listener and target of a new flow. 0, or the counter of the refusal. */
static int admit(struct loop *loop, const struct udp_datagram *datagram, int fd,
        const struct config_listener **ret_listener, struct flow_origin *ret, struct load_hold *ret_hold)
{
	int refusal = classify(loop, datagram, fd, ret_listener);

	if (refusal != 0)
		return refusal;
	if (is_late_answer(loop, *ret_listener, datagram))
		return STATS_udp_late_answers;
	*ret = (struct flow_origin){ .client = datagram->source,
		.client_port = datagram->source_port,
		.original = datagram->original,
		.original_port = datagram->original_port,
		.objects.listener = (*ret_listener)->id,
		.ifindex = (uint32_t)datagram->ifindex };
	return route_find(loop, *ret_listener, ret, ret_hold);
}

/* Both sockets of the flow, and the notice when the target answers. 0 or a negative errno. */
static int open_sockets(struct loop *loop, struct udp_flow *flow, enum connect_source source)
{
	struct udp *udp = loop->udp;
	struct flow_origin *origin = &flow->origin;
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = udp_table_cookie(&udp->table, flow) };
	bool taken = source == CONNECT_AS_CLIENT && udp_table_tuple_is_taken(&udp->table, origin);
	enum connect_port port;
	int r;

	r = udp_reply_use(&udp->replies, &origin->original, origin->original_port, &udp->mark, &flow->reply);
	if (r < 0)
		return r;
	r = udp_socket_to_target(origin, source, taken, &udp->mark, &port);
	if (r < 0)
		return r;
	flow->fd = r;
	loop_count_port(loop, port);
	if (port == CONNECT_PORT_KEPT)
		udp_table_keep_port(&udp->table, flow);
	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, flow->fd, &event) < 0 ? -errno : 0;
}

static bool is_want_of_descriptors(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM || error == -ENOSPC;
}

/* Notes what the listener, as it is now, means for the flow. */
static void follow(struct loop *loop, struct udp_flow *flow, const struct config_listener *listener)
{
	flow->config_version = loop->udp->config_version;
	flow->proxy = listener->proxy;
	flow->shortcut.allowed = listener->shortcut;
	if (!flow->shortcut.allowed)
		udp_shortcut_leave(loop, flow);
	flow->idle_timeout_ms = listener->idle_timeout_s > UINT32_MAX / 1000 ? 0 : listener->idle_timeout_s * 1000;
}

/* NULL if there is no flow (counted); the hold is taken over in any case. */
static struct udp_flow *begin(
        struct loop *loop, const struct config_listener *listener, struct flow_origin *origin, struct load_hold *hold)
{
	struct udp_flow *flow;
	int r;

	origin->id = loop_next_flow_id(loop);
	origin->started_ms = loop->now_ms;
	flow = udp_table_add(&loop->udp->table, origin, loop->now_ms);
	if (!flow) {
		load_give(&loop->place, hold);
		return NULL;
	}
	flow->hold = *hold;
	stats_add(loop->stats, STATS_udp_flows_opened, 1);
	account_udp_begin(loop, flow);
	follow(loop, flow, listener);
	r = open_sockets(loop, flow, (enum connect_source)listener->source);
	if (r < 0) {
		if (!is_want_of_descriptors(r))
			account_udp_count(loop, flow, STATS_OBJECT_connect_failed);
		udp_flow_end(loop, flow, is_want_of_descriptors(r) ? FLOW_END_no_resources : FLOW_END_connect_failed);
		if (is_want_of_descriptors(r))
			overload_starved(&loop->overload, loop->now_ms);
		refuse(loop, is_want_of_descriptors(r) ? STATS_refused_no_descriptor : STATS_connect_failed, r, origin);
		return NULL;
	}
	wheel_set(&loop->wheel, &flow->timer, loop->now_ms + udp_flow_idle_ms(flow));
	if (flow->proxy)
		stats_add(loop->stats, STATS_proxy_sent, 1);
	account_udp_started(loop, flow);
	return flow;
}

/* Whether the configuration, which has changed since the flow was looked at last, still means it: the same listener,
 * upstream and target. */
static bool is_still_meant(struct loop *loop, struct udp_flow *flow, const struct udp_datagram *datagram, int fd)
{
	const struct flow_origin *origin = &flow->origin;
	const struct config_upstream *upstream;
	const struct config_listener *listener;

	if (classify(loop, datagram, fd, &listener) != 0 || listener->id != origin->objects.listener ||
	        listener->upstream != origin->objects.upstream)
		return false;
	upstream = config_upstream(loop->config, origin->objects.upstream);
	if (upstream && !balance_find(&upstream->balance, &origin->target, origin->target_port))
		return false;
	follow(loop, flow, listener);
	return true;
}

struct udp_flow *udp_flow_of(struct loop *loop, const struct udp_datagram *datagram, int fd)
{
	struct udp_key key = { datagram->source, datagram->original, datagram->source_port, datagram->original_port };
	struct udp_flow *flow = udp_table_find(&loop->udp->table, &key);
	const struct config_listener *listener;
	struct flow_origin origin = { 0 };
	struct load_hold hold = { 0 };
	int refusal;

	if (flow && (flow->config_version == loop->udp->config_version || flow->held ||
	                    is_still_meant(loop, flow, datagram, fd)))
		return flow;
	if (flow) {
		udp_flush(loop);
		udp_flow_end(loop, flow, FLOW_END_reconfigured);
	}
	refusal = admit(loop, datagram, fd, &listener, &origin, &hold);
	if (refusal == 0 && table_is_full(loop) && !udp_flow_evict(loop))
		refusal = STATS_refused_table_full;
	if (refusal != 0) {
		load_give(&loop->place, &hold);
		origin.client = datagram->source;
		origin.client_port = datagram->source_port;
		origin.original = datagram->original;
		origin.original_port = datagram->original_port;
		refuse(loop, (enum stats_counter)refusal, 0, &origin);
		if (origin.objects.listener)
			account_refused(loop, &origin.objects);
		return NULL;
	}
	return begin(loop, listener, &origin, &hold);
}
