/* Flows without sockets; see straight.h. */
#include "gatewayd/relay/straight.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gatewayd/base/bpf_map.h"
#include "gatewayd/base/bpf_stitch.h"
#include "gatewayd/base/clock.h"
#include "gatewayd/base/log.h"
#include "gatewayd/base/shortcut_key.h"
#include "gatewayd/base/stitch_map.h"
#include "gatewayd/relay/account.h"
#include "gatewayd/relay/life.h"
#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/mover.h"
#include "gatewayd/relay/route.h"
#include "gatewayd/relay/syn.h"
#include "gatewayd/relay/tcp.h"
#include "gatewayd/relay/tcp_forge.h"
#include "gatewayd/relay/tcp_stitch.h"

#define PORT_FIRST 1024
/* Headers of IP and TCP without options. */
#define HEADERS_V4 40
#define HEADERS_V6 60
/* The MTU of an interface is asked for again after so long. */
#define MTU_LASTS_MS 1000
#define EVENTS_EACH  512

/* There has been a flow without sockets, or is one. */
static atomic_bool lived;

static int ways(const struct loop *loop)
{
	return loop->shortcut->fd[PROTO_SHORTCUT_WAYS];
}

static int stitches(const struct loop *loop)
{
	return loop->shortcut->fd[PROTO_SHORTCUT_STITCHES];
}

/* A call costs more than what it does. */
static_assert(sizeof(struct bpf_straight_begin) <= BPF_PACKET_MAX &&
                      BPF_STRAIGHT_SETTLE_MAX * sizeof(struct bpf_straight_settle) <= BPF_PACKET_MAX,
        "it fits");

void straight_settle(struct loop *loop)
{
	struct straight *straight = &loop->straight;
	int r;

	if (straight->n_settled == 0)
		return;
	r = bpf_program_call(loop->shortcut->fd[PROTO_SHORTCUT_SETTLE], straight->settled,
	        straight->n_settled * sizeof(straight->settled[0]));
	if (r < 0)
		log_error("the kernel cannot be told what has become of flows: %s", strerror(-r));
	straight->n_settled = 0;
}

static void settle(struct loop *loop, uint64_t id, enum bpf_straight_settled what)
{
	struct straight *straight = &loop->straight;

	straight->settled[straight->n_settled++] = (struct bpf_straight_settle){ .flow = id, .what = what };
	if (straight->n_settled == BPF_STRAIGHT_SETTLE_MAX)
		straight_settle(loop);
}

int straight_init(struct straight *straight)
{
	straight->lingering = calloc(STRAIGHT_LINGER_MAX, sizeof(*straight->lingering));
	straight->lingers_until = calloc(STRAIGHT_LINGER_MAX, sizeof(*straight->lingers_until));
	return straight->lingering && straight->lingers_until ? straight_choice_init(&straight->choice) : -ENOMEM;
}

void straight_destroy(struct straight *straight)
{
	ring_close(&straight->ring);
	free(straight->lingering);
	free(straight->lingers_until);
	straight_choice_destroy(&straight->choice);
}

/* Whether SYNs are taken: says it for all threads. What comes to rings that are not read yet waits there. */
static void say(const struct loop *loop, bool full)
{
	unsigned threads = loop->shortcut->threads;
	struct bpf_straight_control control = { .rings = threads < BPF_STRAIGHT_RINGS ? threads : BPF_STRAIGHT_RINGS,
		.full = full,
		.run = (uint32_t)getpid() };
	uint32_t zero = 0;
	int r = bpf_map_put(loop->shortcut->fd[PROTO_SHORTCUT_STRAIGHT], &zero, &control);

	if (r < 0)
		log_error("the kernel cannot be told whether SYNs are taken: %s", strerror(-r));
}

/* Whether more flows are in the making than should be (SYNs of clients that are not there, maybe), or in the maps than
 * is this thread's part of them. */
static bool is_crowded(const struct loop *loop)
{
	return loop->flows.makings.used >= STRAIGHT_MAKING_MAX ||
	       loop->flows.stitches.used + loop->straight.n >= STRAIGHT_FLOWS_MAX / loop->shortcut->threads;
}

/* --- ways that linger --- */

static void linger_end(struct loop *loop)
{
	struct straight *straight = &loop->straight;
	uint64_t id = straight->lingering[straight->first];

	straight->first = (straight->first + 1) % STRAIGHT_LINGER_MAX;
	straight->n--;
	settle(loop, id, BPF_STRAIGHT_DONE);
}

static void linger(struct loop *loop, uint64_t id)
{
	struct straight *straight = &loop->straight;
	uint32_t place;

	if (straight->n == STRAIGHT_LINGER_MAX)
		linger_end(loop);
	place = (straight->first + straight->n++) % STRAIGHT_LINGER_MAX;
	straight->lingering[place] = id;
	straight->lingers_until[place] = loop->now_ms + STRAIGHT_LINGER_MS;
	if (!wheel_is_set(&straight->timer))
		wheel_set(&loop->wheel, &straight->timer, loop->now_ms + STRAIGHT_LINGER_MS);
}

void straight_timer(struct loop *loop)
{
	struct straight *straight = &loop->straight;

	for (unsigned i = 0; i < EVENTS_EACH && straight->n > 0; i++) {
		if (straight->lingers_until[straight->first] > loop->now_ms)
			break;
		linger_end(loop);
	}
	if (straight->full_until && straight->full_until <= loop->now_ms) {
		straight->full_until = is_crowded(loop) ? loop->now_ms + STRAIGHT_LINGER_MS : 0;
		if (!straight->full_until)
			say(loop, false);
	}
	if (straight->full_until)
		wheel_set(&loop->wheel, &straight->timer, straight->full_until);
	if (straight->n > 0) {
		uint64_t due = straight->lingers_until[straight->first];

		wheel_set(&loop->wheel, &straight->timer, due > loop->now_ms ? due : loop->now_ms + 1);
	}
}

/* --- opening --- */

/* What segments may come in by this interface; 0: it is not known. */
static uint16_t mss_of(struct loop *loop, uint32_t ifindex, int family)
{
	struct straight *straight = &loop->straight;
	struct ifreq request = { .ifr_ifindex = (int)ifindex };
	uint32_t headers = family == AF_INET ? HEADERS_V4 : HEADERS_V6;
	int fd = loop->listen.socket[0].fd;

	if (straight->ifindex != ifindex || loop->now_ms - straight->mtu_ms > MTU_LASTS_MS) {
		straight->mtu = 0;
		if (ioctl(fd, SIOCGIFNAME, &request) == 0 && ioctl(fd, SIOCGIFMTU, &request) == 0)
			straight->mtu = (uint32_t)request.ifr_mtu;
		straight->ifindex = ifindex;
		straight->mtu_ms = loop->now_ms;
	}
	return straight->mtu > headers && straight->mtu <= UINT16_MAX ? (uint16_t)(straight->mtu - headers) : 0;
}

/* The way of packets that come from this side, of which so many bytes are counted. */
static struct bpf_stitch_way way_of(
        const struct loop *loop, const struct flow *flow, enum flow_side side, uint64_t counted)
{
	return (struct bpf_stitch_way){ .flow = flow->id,
		.side = side,
		.ring = loop->number,
		.owner = flow_cookie(&loop->flows, flow, FLOW_CLIENT),
		.counted = counted };
}

static void element_fill(const struct loop *loop, const struct flow *flow, const struct flow_origin *origin,
        const struct syn *syn, uint16_t port, struct bpf_stitch *ret)
{
	struct bpf_shortcut_key in =
	        shortcut_key(&origin->client, origin->client_port, &origin->original, origin->original_port);
	struct bpf_shortcut_key out = shortcut_key(&origin->client, port, &origin->target, origin->target_port);

	*ret = (struct bpf_stitch){ .state = BPF_STITCH_OPENING,
		.options = BPF_STITCH_STRAIGHT,
		.side = { { .in = in,
		                  .out = out,
		                  .size_max = UINT16_MAX,
		                  .scale_in = syn->scale,
		                  .end = syn->seq + 1,
		                  .seen = 1 },
		        { .in = shortcut_key_reverse(&out),
		                .out = shortcut_key_reverse(&in),
		                .size_max = UINT16_MAX,
		                .scale_own = syn->scale,
		                .ack = syn->seq + 1 } },
		.straight = { .started_us = flow->account.started_us,
		        .routed_us = flow->account.routed_us,
		        .objects = { origin->objects.listener, origin->objects.upstream, origin->objects.target },
		        .ifindex = origin->ifindex,
		        .idle_timeout_ms = flow_way(&loop->flows, flow)->idle_timeout_ms } };
}

/* The port by which the target is to know the client: its own at first. */
static uint16_t port_of(const struct flow *flow, const struct flow_origin *origin, unsigned attempt)
{
	uint64_t number = flow->id * 40503 + attempt * UINT64_C(9973);

	return attempt == 0 ? origin->client_port : (uint16_t)(PORT_FIRST + number % (UINT16_MAX - PORT_FIRST));
}

/* Has packets of both sides translated; the target sees this port. 0, -EADDRINUSE: another flow has it, or -ENOBUFS. */
static int begin(const struct loop *loop, const struct flow *flow, const struct flow_origin *origin,
        const struct syn *syn, uint16_t port)
{
	struct bpf_straight_begin begin = { .flow = flow->id,
		.way = { way_of(loop, flow, FLOW_CLIENT, 0), way_of(loop, flow, FLOW_TARGET, 0) } };
	int r;

	element_fill(loop, flow, origin, syn, port, &begin.stitch);
	r = bpf_program_call(loop->shortcut->fd[PROTO_SHORTCUT_BEGIN], &begin, sizeof(begin));
	return r == BPF_STRAIGHT_BEGUN ? 0 : r == BPF_STRAIGHT_IN_USE ? -EADDRINUSE : -ENOBUFS;
}

/* The same; *ret: the port that the target sees. */
static int begin_somehow(
        struct loop *loop, struct flow *flow, const struct flow_origin *origin, const struct syn *syn, uint16_t *ret)
{
	unsigned attempt = flow_making(&loop->flows, flow)->ports_taken;
	int r;

	for (r = -EADDRINUSE; r == -EADDRINUSE && attempt <= STRAIGHT_PORTS_TRIED; attempt++) {
		*ret = port_of(flow, origin, attempt);
		r = begin(loop, flow, origin, syn, *ret);
	}
	return r;
}

/* For a moment connections go the long way. */
static void maps_full(struct loop *loop)
{
	struct straight *straight = &loop->straight;

	stats_add(loop->stats, STATS_shortcut_refused, 1);
	straight->full_until = loop->now_ms + STRAIGHT_LINGER_MS;
	say(loop, true);
	wheel_set(&loop->wheel, &straight->timer, loop->now_ms + STRAIGHT_LINGER_MS);
}

bool straight_has_port(const struct loop *loop, const struct flow_origin *origin)
{
	struct bpf_shortcut_key key =
	        shortcut_key(&origin->target, origin->target_port, &origin->client, origin->client_port);
	struct bpf_stitch_way way;

	return loop->shortcut && atomic_load_explicit(&lived, memory_order_relaxed) &&
	       bpf_map_get(ways(loop), &key, &way) == 0;
}

int straight_connect(struct loop *loop, struct flow *flow)
{
	const struct flow_origin origin = flow_get_origin(&loop->flows, flow);
	const struct flow_making *making = flow_making(&loop->flows, flow);
	uint8_t header[SYN_HEADER_MAX];
	struct bpf_stitch stitch;
	uint16_t port, mss;
	struct syn syn;
	int r;

	if (syn_read(making->syn, making->syn_length, &syn) < 0)
		return -EOWNERDEAD; /* the relay that has had the SYN */
	if (!straight_choice_reaches(loop, &origin.target))
		return -EXDEV;
	if (!flow->stitch)
		flow->stitch = parts_take(&loop->flows.stitches);
	else if (bpf_map_get(stitches(loop), &flow->id, &stitch) == 0)
		stitch_map_close(ways(loop), flow->id, &stitch); /* of another target, or port */
	flow_stitch(&loop->flows, flow)->look_ms = STITCH_LOOK_MS;
	atomic_store_explicit(&lived, true, memory_order_relaxed);
	r = begin_somehow(loop, flow, &origin, &syn, &port);
	if (r == -ENOBUFS) {
		maps_full(loop);
		return -EXFULL;
	}
	if (r < 0)
		return r == -EADDRINUSE ? -EADDRNOTAVAIL : r;
	loop_count_port(loop, port == origin.client_port ? CONNECT_PORT_KEPT : CONNECT_PORT_TAKEN);
	memcpy(header, making->syn, making->syn_length);
	mss = mss_of(loop, origin.ifindex, origin.client.family);
	if (mss && syn.mss > mss)
		syn_set_mss(header, &syn, mss);
	return tcp_forge_header(&origin.client, port, &origin.target, origin.target_port, header, making->syn_length);
}

/* --- SYNs --- */

/* Tells a client whose SYN it was. */
static void refuse(const struct flow_origin *origin, const struct syn *syn)
{
	(void)tcp_forge_reset(
	        &origin->original, origin->original_port, &origin->client, origin->client_port, 0, syn->seq + 1);
}

/* Whether the listener's flows can do without sockets. */
static bool suits(const struct config_listener *listener)
{
	return listener->shortcut && listener->routes.n == 0 && listener->proxy == 0 &&
	       listener->source == CONNECT_AS_CLIENT &&
	       (listener->mover == PROTO_MOVER_KERNEL || listener->mover == PROTO_MOVER_AUTO);
}

void straight_came(struct loop *loop, const struct config_listener *listener, const struct flow_origin *origin)
{
	if (!loop->straight.begun || loop->mode != PROTO_MOVER_AUTO || listener->mover != PROTO_MOVER_AUTO ||
	        !suits(listener))
		return;
	straight_choice_came(loop, origin->original_port, &origin->target);
	if (straight_choice_any() && !loop->straight.wanted)
		straight_configured(loop); /* another thread has chosen */
}

/* The listener, if it allows such flows; NULL: nobody answers. */
static const struct config_listener *classify(
        const struct loop *loop, const struct flow_origin *origin, uint32_t ifindex)
{
	struct match_packet packet = { .protocol = IPPROTO_TCP,
		.src = origin->client,
		.dst = origin->original,
		.dst_port = origin->original_port };
	const struct config_listener *listener =
	        route_classify(loop->config, &packet, (int)ifindex, loop->listen.socket[0].fd);

	return listener && suits(listener) && !trust_has(&listener->trust, &origin->client) ? listener : NULL;
}

static void on_syn(struct loop *loop, const struct bpf_straight_event *event)
{
	struct tcp_route route = { .origin = { .client = shortcut_key_source(&event->packet.key),
		                           .client_port = ntohs(event->packet.key.source_port),
		                           .original = shortcut_key_destination(&event->packet.key),
		                           .original_port = ntohs(event->packet.key.destination_port),
		                           .ifindex = event->packet.ifindex } };
	struct syn syn;
	int refusal;

	/* What has waited for a relay to come is not wanted any more: its client has asked again. */
	if (clock_us() > event->packet.at_ns / 1000 + STRAIGHT_STALE_US ||
	        syn_read(event->packet.header, event->packet.length, &syn) < 0)
		return;
	route.listener = classify(loop, &route.origin, event->packet.ifindex);
	if (!route.listener) {
		stats_add(loop->stats, STATS_shortcut_refused, 1);
		return;
	}
	if (is_crowded(loop)) {
		maps_full(loop);
		return;
	}
	route.origin.objects.listener = route.listener->id;
	refusal = route_find(loop, route.listener, &route.origin, &route.hold);
	if (refusal == 0 && !straight_choice_reaches(loop, &route.origin.target)) {
		/* The client asks again. */
		load_give(&loop->place, &route.hold);
		straight_choice_pass(loop, route.origin.original_port);
		stats_add(loop->stats, STATS_shortcut_refused, 1);
		return;
	}
	if (refusal == 0 && route.listener->mover == PROTO_MOVER_AUTO)
		straight_choice_came(loop, route.origin.original_port, &route.origin.target);
	if (refusal || route.origin.target.family != route.origin.client.family) {
		stats_add(loop->stats, refusal ? (enum stats_counter)refusal : STATS_refused_no_target, 1);
		account_refused(loop, &route.origin.objects);
		refuse(&route.origin, &syn);
	} else if (!tcp_start_straight(loop, &route, event->packet.header, event->packet.length)) {
		refuse(&route.origin, &syn);
	}
}

/* What a router would tell the sender if it knew the addresses that the sender uses. */
static void on_narrow(const struct bpf_straight_event *event)
{
	const struct addr sender = shortcut_key_source(&event->packet.key),
	                  receiver = shortcut_key_destination(&event->packet.key);

	(void)tcp_forge_too_big(&sender, ntohs(event->packet.key.source_port), &receiver,
	        ntohs(event->packet.key.destination_port), event->packet.seq, event->packet.mtu);
}

/* --- what becomes of them --- */

static uint32_t between_us(uint64_t from_ns, uint64_t to_ns)
{
	uint64_t us = to_ns > from_ns ? (to_ns - from_ns) / 1000 : 0;

	return us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

/* There are no sockets to be asked for round-trip times: the handshake's are known. */
static void times_note(struct loop *loop, const struct flow *flow, const struct bpf_straight_shown *shown)
{
	uint64_t asked_us = flow->account.started_us + flow->account.routed_us;
	struct stats_flow_tcp client = { .rtt_us = between_us(shown->opened_ns, shown->answered_ns) },
	                      target = { .rtt_us = between_us(asked_us * 1000, shown->opened_ns) };

	account_sampled(loop, flow, client, target);
}

static void opened(struct loop *loop, struct flow *flow, const struct bpf_straight_shown *shown)
{
	flow->state = FLOW_RELAYING;
	flow_made(&loop->flows, flow);
	flow->active_ms = loop->now_ms;
	account_connected(loop, flow, shown->opened_ns / 1000);
	times_note(loop, flow, shown);
}

/* Whether any bytes had not been counted. */
static bool count(struct loop *loop, struct flow *flow, const struct bpf_straight_shown *shown)
{
	struct flow_stitch *own = flow_stitch(&loop->flows, flow);
	bool any = false;

	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		uint64_t bytes = shown->bytes[side] - own->bytes[side], active_ms = shown->active_ns[side] / 1000000;

		if (active_ms > flow->active_ms)
			flow->active_ms = active_ms;
		if (bytes == 0)
			continue;
		any = true;
		if (side == FLOW_TARGET && own->bytes[side] == 0)
			account_first_byte(loop, flow, shown->first_ns / 1000);
		own->bytes[side] = shown->bytes[side];
		tcp_carried_moved(loop, flow, (enum flow_side)side, bytes, active_ms);
	}
	return any;
}

/* What is counted of the flow, for a relay that comes after us. */
static void counted_note(const struct loop *loop, const struct flow *flow, const struct bpf_stitch *stitch)
{
	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		const struct bpf_stitch_side *from = &stitch->side[side];
		struct bpf_stitch_way way;

		if (!stitch_map_way(ways(loop), &from->in, flow->id, &way) || way.counted == from->bytes)
			continue;
		way = way_of(loop, flow, (enum flow_side)side, from->bytes);
		(void)bpf_map_put(ways(loop), &from->in, &way);
	}
}

/* The flow is over and its ways linger; nobody is told. A relay that comes after us does not count its end again. */
static void let_go(struct loop *loop, struct flow *flow)
{
	settle(loop, flow->id, BPF_STRAIGHT_COUNTED);
	linger(loop, flow->id);
	parts_give(&loop->flows.stitches, flow->stitch);
	flow->stitch = 0;
}

/* Whether the flow is over, as far as its packets say. */
static bool has_ended(const struct bpf_straight_shown *shown)
{
	return shown->state == BPF_STITCH_CLOSED || shown->state == BPF_STITCH_GONE || shown->reset_ns;
}

/* Ends a flow whose peers have, or do not know each other any more. Whether it was. */
static bool end(struct loop *loop, struct flow *flow, const struct bpf_straight_shown *shown)
{
	bool closed = shown->state == BPF_STITCH_CLOSED || (shown->state == BPF_STITCH_GONE && shown->closed_ns);

	if (shown->too_big) {
		life_reset(loop, flow, FLOW_END_reset);
		return true;
	}
	if (!has_ended(shown))
		return false;
	let_go(loop, flow);
	if (closed)
		life_close(loop, flow, FLOW_END_closed);
	else
		life_reset(loop, flow, FLOW_END_reset);
	return true;
}

/* The target has answered, and the client has said nothing to that so far. False: it is not waited for any longer. */
static bool client_wait(struct loop *loop, struct flow *flow)
{
	uint64_t deadline_ms = flow_making(&loop->flows, flow)->deadline_ms;

	if (!deadline_ms || loop->now_ms < deadline_ms)
		return true;
	life_reset(loop, flow, FLOW_END_client_gone);
	return false;
}

/* A socket of the gateway's own has the port by which the target was to know the client. */
static void port_taken(struct loop *loop, struct flow *flow)
{
	if (++flow_making(&loop->flows, flow)->ports_taken <= STRAIGHT_PORTS_TRIED)
		tcp_connect_again(loop, flow);
	else
		tcp_connect_failed(loop, flow, -EADDRNOTAVAIL);
}

/* The target has not answered so far. False: the flow is gone, or was begun anew. */
static bool opening_look(struct loop *loop, struct flow *flow, const struct bpf_straight_shown *shown)
{
	if (shown->told & 1U << BPF_STRAIGHT_TAKEN) {
		port_taken(loop, flow);
		return false;
	}
	if (shown->told & 1U << BPF_STRAIGHT_REFUSED) {
		tcp_connect_failed(loop, flow, -ECONNREFUSED);
		return false;
	}
	return true;
}

/* Counts and does what the flow's packets have shown. False: it is gone, or was begun anew. */
static bool judge(struct loop *loop, struct flow *flow, const struct bpf_straight_shown *shown, bool *ret_counted)
{
	if (shown->state == BPF_STITCH_OPENING && !shown->reset_ns)
		return opening_look(loop, flow, shown);
	if (flow->state == FLOW_CONNECTING && !(shown->told & 1U << BPF_STRAIGHT_OPENED) && !has_ended(shown))
		return client_wait(loop, flow);
	if (flow->state == FLOW_CONNECTING && shown->opened_ns)
		opened(loop, flow, shown);
	*ret_counted = count(loop, flow, shown);
	return !end(loop, flow, shown);
}

bool straight_look(struct loop *loop, struct flow *flow)
{
	struct flow_stitch *own = flow_stitch(&loop->flows, flow);
	struct bpf_straight_shown shown;
	struct bpf_stitch stitch;
	bool counted = false;

	if (!own || bpf_map_get(stitches(loop), &flow->id, &stitch) < 0) {
		/* Somebody has taken it out: whoever did has told the peers, or wants it so. */
		parts_give(&loop->flows.stitches, flow->stitch);
		flow->stitch = 0;
		life_reset(loop, flow, FLOW_END_reset);
		return false;
	}
	bpf_straight_show(&stitch, &shown);
	if (!judge(loop, flow, &shown, &counted))
		return false;
	if (counted)
		counted_note(loop, flow, &stitch);
	if (flow->state == FLOW_RELAYING)
		own->look_ms = own->look_ms < STITCH_LOOK_MAX_MS ? own->look_ms * 2 : STITCH_LOOK_MAX_MS;
	return true;
}

/* The flow has ended, and this is all that it has shown. */
static void on_end(struct loop *loop, struct flow *flow, const struct bpf_straight_shown *shown)
{
	bool counted;

	if (flow->stitch)
		(void)judge(loop, flow, shown, &counted);
}

/* --- what the kernel tells --- */

static void on_event(struct loop *loop, const struct bpf_straight_event *event)
{
	enum flow_side side;
	struct flow *flow;

	if (event->kind == BPF_STRAIGHT_SYN) {
		on_syn(loop, event);
		return;
	}
	if (event->kind == BPF_STRAIGHT_NARROW) {
		on_narrow(event);
		return;
	}
	flow = flow_from_cookie(&loop->flows, event->owner, &side);
	/* What was told to the relay before us may have a cookie of ours. */
	if (!flow || flow->id != event->flow)
		return;
	if (flow->straight && event->kind == BPF_STRAIGHT_ENDED)
		on_end(loop, flow, &event->shown);
	else if (flow->straight)
		(void)straight_look(loop, flow);
	else if (flow->carried)
		tcp_stitch_told(loop, flow);
}

void straight_events(struct loop *loop)
{
	struct bpf_straight_event event;

	loop->straight.more = false;
	for (unsigned i = 0; i < EVENTS_EACH; i++) {
		if (!loop->straight.ring.consumed || !ring_next(&loop->straight.ring, &event, sizeof(event)))
			return;
		on_event(loop, &event);
	}
	loop->straight.more = true;
}

/* --- flows of an earlier relay --- */

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

		if (!stitch_map_way(ways(loop), key, flow->id, &way))
			continue;
		own->bytes[side] = way.counted;
		way = way_of(loop, flow, (enum flow_side)side, way.counted);
		(void)bpf_map_put(ways(loop), key, &way);
	}
}

/* Whether a flow in the maps is over, as far as its packets say. */
static bool is_over(const struct bpf_stitch *stitch)
{
	return stitch->state == BPF_STITCH_CLOSED || stitch->state == BPF_STITCH_GONE || stitch->reset_ns;
}

/* Whether the relay before has counted the end of a flow, or was about to. */
static bool end_was_counted(const struct loop *loop, uint64_t id, const struct bpf_stitch *stitch)
{
	struct bpf_stitch_way way;

	return is_over(stitch) &&
	       (!stitch_map_way(ways(loop), &stitch->side[FLOW_CLIENT].in, id, &way) || way.ring == BPF_STITCH_COUNTED);
}

/* Elements that come and go make the walk begin anew: whether the flow is ours already. */
static bool is_adopted(const struct loop *loop, uint64_t id, const struct bpf_stitch *stitch)
{
	struct bpf_stitch_way way;
	enum flow_side side;
	const struct flow *flow;

	if (!stitch_map_way(ways(loop), &stitch->side[FLOW_CLIENT].in, id, &way))
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
		linger(loop, id);
		return;
	}
	lived = true;
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
			.reason = adopted_reason(loop, told->objects[0]),
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

/* Takes over the flows of an earlier relay that fall to this thread. */
static void straight_adopt(struct loop *loop)
{
	uint64_t id, last = 0;
	bool first = true;

	/* Elements that come and go meanwhile may begin the walk anew; it does not go on for ever. */
	for (unsigned i = 0; i < 2 * BPF_STITCH_MAX; i++) {
		struct bpf_stitch stitch;

		if (bpf_map_next(stitches(loop), first ? NULL : &last, &id) < 0)
			return;
		if (falls_to(loop, id) && bpf_map_get(stitches(loop), &id, &stitch) == 0 &&
		        (stitch.options & BPF_STITCH_STRAIGHT))
			adopt_one(loop, id, &stitch);
		last = id;
		first = false;
	}
}

/* --- begin and end of the relay --- */

/* Whether this thread has been told of SYNs before, or is from here on. */
static bool ring_begin(struct loop *loop)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.u64 = loop_straight_cookie() };
	int fd, r;

	if (loop->straight.ring.consumed || loop->number >= BPF_STRAIGHT_RINGS)
		return true;
	fd = loop->shortcut->fd[PROTO_SHORTCUT_RING_0 + loop->number];
	r = ring_open(fd, BPF_STRAIGHT_RING_BYTES, &loop->straight.ring);
	if (r == 0 && epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		r = -errno;
	if (r < 0) {
		log_error("flows without sockets cannot be told of: %s", strerror(-r));
		ring_close(&loop->straight.ring);
	}
	loop->straight.more = r == 0;
	return r == 0;
}

/* Whether any listener may have such flows. */
static bool is_wanted(const struct config *config)
{
	for (size_t i = 0; i < config->listeners.n; i++) {
		const struct config_listener *listener = config->listeners.items[i].value;

		if (listener->mover == PROTO_MOVER_KERNEL && listener->shortcut)
			return true;
	}
	return false;
}

/* What is accepted inherits the filter, so it is there only for those who want it. */
static void filter_set(const struct loop *loop, bool on)
{
	int program = loop->shortcut->fd[PROTO_SHORTCUT_SYNS];

	for (uint32_t i = 0; i < loop->listen.n; i++)
		if (!loop->listen.socket[i].helped &&
		        setsockopt(loop->listen.socket[i].fd, SOL_SOCKET, on ? SO_ATTACH_BPF : SO_DETACH_FILTER,
		                &program, sizeof(program)) < 0 &&
		        errno != ENOENT)
			log_error("SYNs cannot be taken from a listening socket: %s", strerror(errno));
}

void straight_configured(struct loop *loop)
{
	bool wanted = is_wanted(loop->config) || straight_choice_any();

	if (!loop->shortcut || !loop->listen.open || loop->listen.draining)
		return;
	if (!loop->straight.begun) {
		if (!ring_begin(loop))
			return;
		loop->straight.begun = true;
		filter_set(loop, wanted); /* an earlier relay may have left it */
		straight_adopt(loop);
		if (loop->number == 0)
			say(loop, false);
	} else if (wanted != loop->straight.wanted) {
		filter_set(loop, wanted);
	}
	loop->straight.wanted = wanted;
}

void straight_forget_all(struct loop *loop)
{
	straight_settle(loop);
	ring_close(&loop->straight.ring);
	for (uint32_t i = 0; i < loop->flows.touched; i++) {
		struct flow *flow = &loop->flows.flows[i];

		if (flow->state == FLOW_FREE || !flow->straight)
			continue;
		parts_give(&loop->flows.stitches, flow->stitch);
		flow->stitch = 0;
		life_forget(loop, flow);
	}
}
