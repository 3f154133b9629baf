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
#include "gatewayd/relay/straight_private.h"
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
#define EVENTS_ONCE  64
/* A failure that comes again and again is told of this often. */
#define FAILED_EACH_MS 10000

/* There has been a flow without sockets, or is one. */
atomic_bool straight_lived;

/* What the kernel was told last: a bit for each thread that is to be spared, whether the maps are full, and whether
 * this relay has begun to take SYNs. */
#define SAID_FULL  (1U << 31)
#define SAID_BEGUN (1U << 30)
static atomic_uint said;

int straight_ways(const struct loop *loop)
{
	return loop->shortcut->fd[PROTO_SHORTCUT_WAYS];
}

int straight_stitches(const struct loop *loop)
{
	return loop->shortcut->fd[PROTO_SHORTCUT_STITCHES];
}

static_assert(sizeof(struct bpf_straight_begin) <= BPF_PACKET_MAX &&
                      BPF_STRAIGHT_SETTLE_MAX * sizeof(struct bpf_straight_settle) <= BPF_PACKET_MAX,
        "what is told in one call fits into one packet");
static_assert(BPF_STRAIGHT_RESULT > XDP_REDIRECT, "no result is a verdict");

/* Such a failure would come with each flow. */
static void call_failed(struct loop *loop, int r)
{
	if (loop->straight.failed_ms && loop->now_ms < loop->straight.failed_ms + FAILED_EACH_MS)
		return;
	loop->straight.failed_ms = loop->now_ms;
	log_error("the kernel cannot be told of flows without sockets: %s", strerror(-r));
}

static void settle_all(struct loop *loop)
{
	struct straight *straight = &loop->straight;
	int r;

	if (straight->n_settled == 0)
		return;
	r = bpf_program_call(loop->shortcut->fd[PROTO_SHORTCUT_SETTLE], straight->settled,
	        straight->n_settled * sizeof(straight->settled[0]));
	if (r < 0)
		call_failed(loop, r);
	straight->n_settled = 0;
}

static void settle(struct loop *loop, uint64_t id, enum bpf_straight_settled what)
{
	struct straight *straight = &loop->straight;

	straight->settled[straight->n_settled++] = (struct bpf_straight_settle){ .flow = id, .what = what };
	if (straight->n_settled == BPF_STRAIGHT_SETTLE_MAX)
		settle_all(loop);
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

/* Tells the kernel whether SYNs are taken, and by whom, for all threads. What comes to rings that are not read yet
 * waits there. */
static void say(const struct loop *loop)
{
	unsigned threads = loop->shortcut->threads, now;
	uint32_t zero = 0;
	int r;

	/* Another thread may say something else at the same time: the last word is the newest. */
	do {
		struct bpf_straight_control control;

		now = atomic_load(&said);
		if (!(now & SAID_BEGUN))
			return;
		control = (struct bpf_straight_control){ .rings = threads < BPF_STRAIGHT_RINGS ? threads
			                                                                       : BPF_STRAIGHT_RINGS,
			.full = (now & SAID_FULL) != 0,
			.run = (uint32_t)getpid(),
			.spare = now & ~(SAID_FULL | SAID_BEGUN) };
		r = bpf_map_put(loop->shortcut->fd[PROTO_SHORTCUT_STRAIGHT], &zero, &control);
	} while (now != atomic_load(&said));
	if (r < 0)
		log_error("the kernel cannot be told whether SYNs are taken: %s", strerror(-r));
}

static void say_full(const struct loop *loop, bool full)
{
	if (full)
		atomic_fetch_or(&said, SAID_FULL);
	else
		atomic_fetch_and(&said, ~SAID_FULL);
	say(loop);
}

/* Packets may all come to one processor: its thread is spared when it has half of what it can have. */
static void spare(struct loop *loop)
{
	const struct flow_table *flows = &loop->flows;
	unsigned bit = 1U << loop->number;
	bool many = flows->open >= (loop->straight.spared ? flows->size * UINT64_C(3) / 8 : flows->size / 2);

	if (many == loop->straight.spared)
		return;
	loop->straight.spared = many;
	if (many)
		atomic_fetch_or(&said, bit);
	else
		atomic_fetch_and(&said, ~bit);
	say(loop);
}

void straight_turn(struct loop *loop)
{
	if (!loop->straight.begun)
		return;
	settle_all(loop);
	if (loop->straight.ring.consumed) /* else it is another relay's by now, or this thread has none */
		spare(loop);
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

void straight_linger(struct loop *loop, uint64_t id)
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
			say_full(loop, false);
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

struct bpf_stitch_way straight_way(
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
static int begin(struct loop *loop, const struct flow *flow, const struct flow_origin *origin, const struct syn *syn,
        uint16_t port)
{
	struct bpf_straight_begin begin = { .flow = flow->id,
		.way = { straight_way(loop, flow, FLOW_CLIENT, 0), straight_way(loop, flow, FLOW_TARGET, 0) } };
	int r;

	element_fill(loop, flow, origin, syn, port, &begin.stitch);
	r = bpf_program_call(loop->shortcut->fd[PROTO_SHORTCUT_BEGIN], &begin, sizeof(begin));
	if (r < 0)
		call_failed(loop, r);
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
	say_full(loop, true);
	wheel_set(&loop->wheel, &straight->timer, loop->now_ms + STRAIGHT_LINGER_MS);
}

bool straight_has_port(const struct loop *loop, const struct flow_origin *origin)
{
	struct bpf_shortcut_key key =
	        shortcut_key(&origin->target, origin->target_port, &origin->client, origin->client_port);
	struct bpf_stitch_way way;

	return loop->shortcut && atomic_load_explicit(&straight_lived, memory_order_relaxed) &&
	       bpf_map_get(straight_ways(loop), &key, &way) == 0;
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
	else if (bpf_map_get(straight_stitches(loop), &flow->id, &stitch) == 0)
		stitch_map_close(straight_ways(loop), flow->id, &stitch); /* of another target, or port */
	flow_stitch(&loop->flows, flow)->look_ms = STITCH_LOOK_MS;
	atomic_store_explicit(&straight_lived, true, memory_order_relaxed);
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
	/* Where there are sockets another thread may have room, or the client is told that none has. */
	if (is_crowded(loop) || loop->flows.open >= loop->flows.size) {
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

static void count(struct loop *loop, struct flow *flow, const struct bpf_straight_shown *shown)
{
	struct flow_stitch *own = flow_stitch(&loop->flows, flow);

	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		uint64_t bytes = shown->bytes[side] - own->bytes[side], active_ms = shown->active_ns[side] / 1000000;

		if (active_ms > flow->active_ms)
			flow->active_ms = active_ms;
		if (bytes == 0)
			continue;
		if (side == FLOW_TARGET && own->bytes[side] == 0)
			account_first_byte(loop, flow, shown->first_ns / 1000);
		own->bytes[side] = shown->bytes[side];
		tcp_carried_moved(loop, flow, (enum flow_side)side, bytes, active_ms);
	}
}

/* What is counted of the flow, for a relay that comes after us. */
static void counted_note(const struct loop *loop, const struct flow *flow, const struct bpf_stitch *stitch)
{
	for (unsigned side = 0; side < FLOW_SIDES; side++) {
		const struct bpf_stitch_side *from = &stitch->side[side];
		struct bpf_stitch_way way;

		if (!stitch_map_way(straight_ways(loop), &from->in, flow->id, &way) || way.counted == from->bytes)
			continue;
		way = straight_way(loop, flow, (enum flow_side)side, from->bytes);
		(void)bpf_map_put(straight_ways(loop), &from->in, &way);
	}
}

/* The flow is over and its ways linger; nobody is told. */
static void let_go(struct loop *loop, struct flow *flow)
{
	straight_linger(loop, flow->id);
	parts_give(&loop->flows.stitches, flow->stitch);
	flow->stitch = 0;
}

bool straight_has_ended(const struct bpf_straight_shown *shown)
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
	if (!straight_has_ended(shown))
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

/* Counts and does what the flow's packets have shown. `settled`: the next relay does not count its end. False: it is
 * gone, or was begun anew. */
static bool judge(struct loop *loop, struct flow *flow, const struct bpf_straight_shown *shown, bool settled)
{
	if (shown->state == BPF_STITCH_OPENING && !shown->reset_ns)
		return opening_look(loop, flow, shown);
	if (flow->state == FLOW_CONNECTING && !(shown->told & 1U << BPF_STRAIGHT_OPENED) && !straight_has_ended(shown))
		return client_wait(loop, flow);
	/* In this order what we leave uncounted when we are killed is lost, and never counted twice. */
	if (straight_has_ended(shown) && !settled) {
		settle(loop, flow->id, BPF_STRAIGHT_COUNTED);
		settle_all(loop);
	}
	if (flow->state == FLOW_CONNECTING && shown->opened_ns)
		opened(loop, flow, shown);
	count(loop, flow, shown);
	return !end(loop, flow, shown);
}

bool straight_look(struct loop *loop, struct flow *flow)
{
	struct flow_stitch *own = flow_stitch(&loop->flows, flow);
	struct bpf_straight_shown shown;
	struct bpf_stitch stitch;
	uint64_t bytes;

	if (!own || bpf_map_get(straight_stitches(loop), &flow->id, &stitch) < 0) {
		/* Somebody has taken it out: whoever did has told the peers, or wants it so. */
		parts_give(&loop->flows.stitches, flow->stitch);
		flow->stitch = 0;
		life_reset(loop, flow, FLOW_END_reset);
		return false;
	}
	bpf_straight_show(&stitch, &shown);
	bytes = own->bytes[FLOW_CLIENT] + own->bytes[FLOW_TARGET];
	if (!judge(loop, flow, &shown, false))
		return false;
	if (own->bytes[FLOW_CLIENT] + own->bytes[FLOW_TARGET] != bytes)
		counted_note(loop, flow, &stitch);
	if (flow->state == FLOW_RELAYING)
		own->look_ms = own->look_ms < STITCH_LOOK_MAX_MS ? own->look_ms * 2 : STITCH_LOOK_MAX_MS;
	return true;
}

/* --- what the kernel tells --- */

/* The flow that is told of, or NULL. What was told to the relay before us may have a cookie of ours. */
static struct flow *flow_of(const struct loop *loop, const struct bpf_straight_event *event)
{
	enum flow_side side;
	struct flow *flow = event->flow ? flow_from_cookie(&loop->flows, event->owner, &side) : NULL;

	return flow && flow->id == event->flow ? flow : NULL;
}

static void on_event(struct loop *loop, const struct bpf_straight_event *event)
{
	struct flow *flow = flow_of(loop, event);

	if (event->kind == BPF_STRAIGHT_SYN)
		on_syn(loop, event);
	else if (event->kind == BPF_STRAIGHT_NARROW)
		on_narrow(event);
	else if (flow && flow->straight && event->kind == BPF_STRAIGHT_ENDED && flow->stitch)
		(void)judge(loop, flow, &event->shown, true);
	else if (flow && flow->straight)
		(void)straight_look(loop, flow);
	else if (flow && flow->carried)
		tcp_stitch_told(loop, flow);
}

/* All ends among them are settled first, in one call. */
static void on_events(struct loop *loop, const struct bpf_straight_event *events, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		const struct flow *flow = flow_of(loop, &events[i]);

		if (flow && flow->straight && events[i].kind == BPF_STRAIGHT_ENDED)
			settle(loop, flow->id, BPF_STRAIGHT_COUNTED);
	}
	settle_all(loop);
	for (unsigned i = 0; i < n; i++)
		on_event(loop, &events[i]);
}

void straight_events(struct loop *loop)
{
	struct bpf_straight_event events[EVENTS_ONCE];

	loop->straight.more = false;
	for (unsigned i = 0; i < EVENTS_EACH; i += EVENTS_ONCE) {
		unsigned n = 0;

		while (n < EVENTS_ONCE && loop->straight.ring.consumed &&
		        ring_next(&loop->straight.ring, &events[n], sizeof(events[n])))
			n++;
		on_events(loop, events, n);
		if (n < EVENTS_ONCE)
			return;
	}
	loop->straight.more = true;
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
	} else if (wanted != loop->straight.wanted) {
		filter_set(loop, wanted);
	}
	loop->straight.wanted = wanted;
	/* Each time: a daemon that takes the relay for dead has it said otherwise. */
	if (loop->number == 0) {
		atomic_fetch_or(&said, SAID_BEGUN);
		say(loop);
	}
}

void straight_forget_all(struct loop *loop)
{
	settle_all(loop);
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
