/* A thread's event loop and its mailbox; see loop.h. */
#include "gatewayd/relay/loop.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/log.h"
#include "gatewayd/relay/account.h"
#include "gatewayd/relay/account_udp.h"
#include "gatewayd/relay/sample.h"
#include "gatewayd/relay/shape.h"
#include "gatewayd/relay/tcp.h"
#include "gatewayd/relay/tcp_sockmap.h"

/* The mailbox's number among the cookies that are no flows; listening sockets have those below. */
#define COOKIE_MAILBOX  LISTEN_SOCKETS_MAX
#define COOKIE_KEEP     (LISTEN_SOCKETS_MAX + 1)
#define COOKIE_NOTICES  (LISTEN_SOCKETS_MAX + 2)
#define COOKIE_STRAIGHT (LISTEN_SOCKETS_MAX + 3)

static_assert((LOOP_ORDERS_MAX & (LOOP_ORDERS_MAX - 1)) == 0, "a power of two");

static uint64_t clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Ids are microseconds since 1970 and the thread's number, and grow by one microsecond per flow: as long as a thread
 * has fewer flows than a million a second, a relay that is started later begins behind all that were given. */
static uint64_t flow_id_seed(unsigned number)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return ((uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000) * STATS_THREADS_MAX + number;
}

uint64_t loop_next_flow_id(struct loop *loop)
{
	return loop->flow_id += STATS_THREADS_MAX;
}

static int waits_init(struct loop *loop, uint32_t max_flows)
{
	void *memory = mmap(NULL, (size_t)max_flows * sizeof(*loop->waits), PROT_READ | PROT_WRITE,
	        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		return -ENOMEM;
	loop->waits = memory;
	return 0;
}

static int mailbox_init(struct loop *loop)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = flow_cookie_other(COOKIE_MAILBOX) };

	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->epoll_fd < 0 || loop->wake_fd < 0)
		return -errno;
	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event) < 0 ? -errno : 0;
}

int loop_new(unsigned number, enum proto_mover mode, uint32_t max_flows, int reply_fd, struct loop **ret)
{
	struct loop *loop = mmap(NULL, sizeof(*loop), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int r;

	if (loop == MAP_FAILED)
		return -ENOMEM;
	loop->mode = mode;
	loop->number = number;
	loop->epoll_fd = -1;
	loop->wake_fd = -1;
	loop->keep.fd = loop->keep.memory_fd = -1;
	loop->reply_fd = reply_fd;
	loop->stats = &loop->early_stats;
	loop->place = (struct stats_place){ .thread = loop->stats };
	loop->queue_head = FLOW_NONE;
	loop->queue_tail = FLOW_NONE;
	loop->shape_next = FLOW_NONE;
	loop->sample_next = FLOW_NONE;
	loop->reap.next = FLOW_NONE;
	loop->now_ms = clock_ms();
	loop->flow_id = flow_id_seed(number);
	wheel_init(&loop->wheel, loop->now_ms);
	r = keep_init(&loop->keep, BUFFERS_MAX, BUFFER_SIZE, max_flows);
	if (r == 0) {
		pipes_init(&loop->pipes, &loop->keep.memory);
		r = listen_init(&loop->listen);
	}
	if (r == 0)
		r = mailbox_init(loop);
	if (r == 0)
		r = buffers_init(&loop->buffers, &loop->keep.memory);
	if (r == 0)
		r = flow_table_init(&loop->flows, max_flows);
	if (r == 0)
		r = udp_new(max_flows, &loop->udp);
	if (r == 0)
		r = straight_init(&loop->straight);
	if (r == 0)
		r = waits_init(loop, max_flows);
	if (r == 0)
		r = config_new(&loop->config);
	if (r < 0) {
		loop_free(loop);
		return r;
	}
	*ret = loop;
	return 0;
}

void loop_free(struct loop *loop)
{
	config_free(loop->config);
	udp_free(loop->udp);
	straight_destroy(&loop->straight);
	if (loop->waits)
		munmap(loop->waits, (size_t)loop->flows.size * sizeof(*loop->waits));
	flow_table_destroy(&loop->flows);
	buffers_destroy(&loop->buffers);
	pipes_destroy(&loop->pipes);
	keep_destroy(&loop->keep);
	cleanup_close(&loop->listen.reserve_fd);
	cleanup_close(&loop->wake_fd);
	cleanup_close(&loop->epoll_fd);
	munmap(loop, sizeof(*loop));
}

uint64_t loop_keep_cookie(void)
{
	return flow_cookie_other(COOKIE_KEEP);
}

uint64_t loop_straight_cookie(void)
{
	return flow_cookie_other(COOKIE_STRAIGHT);
}

/* --- flows with more to do --- */

void loop_queue(struct loop *loop, struct flow *flow)
{
	uint32_t index = flow_index(&loop->flows, flow);

	if (flow->queued)
		return;
	flow->queued = true;
	flow->next = FLOW_NONE;
	flow->prev = loop->queue_tail;
	if (loop->queue_tail == FLOW_NONE)
		loop->queue_head = index;
	else
		loop->flows.flows[loop->queue_tail].next = index;
	loop->queue_tail = index;
}

void loop_unqueue(struct loop *loop, struct flow *flow)
{
	if (!flow->queued)
		return;
	flow->queued = false;
	if (flow->prev == FLOW_NONE)
		loop->queue_head = flow->next;
	else
		loop->flows.flows[flow->prev].next = flow->next;
	if (flow->next == FLOW_NONE)
		loop->queue_tail = flow->prev;
	else
		loop->flows.flows[flow->next].prev = flow->prev;
}

/* One turn for each flow that is in the list now; those that come back wait until events were looked at. */
static void run_queue(struct loop *loop)
{
	uint32_t last = loop->queue_tail;

	while (loop->queue_head != FLOW_NONE) {
		uint32_t index = loop->queue_head;
		struct flow *flow = &loop->flows.flows[index];

		loop_unqueue(loop, flow);
		tcp_continue(loop, flow);
		if (index == last)
			break;
	}
}

/* --- flows that wait for what nobody tells --- */

void loop_wait(struct loop *loop, struct flow *flow)
{
	struct flow_map *map = flow_map(&loop->flows, flow);

	if (map->wait_at != FLOW_NONE)
		return;
	/* The first look comes with the next turn, a millisecond away at most. */
	map->wait_due_ms = loop->now_ms + map->wait_ms;
	map->wait_ms = map->wait_ms == 0 ? 1 : map->wait_ms * 2;
	if (map->wait_ms > LOOP_WAIT_MAX_MS)
		map->wait_ms = LOOP_WAIT_MAX_MS;
	map->wait_at = loop->n_waits;
	loop->waits[loop->n_waits++] = flow_index(&loop->flows, flow);
}

void loop_unwait(struct loop *loop, struct flow *flow)
{
	struct flow_map *map = flow_map(&loop->flows, flow);
	uint32_t last;

	if (!map || map->wait_at == FLOW_NONE)
		return;
	last = loop->waits[--loop->n_waits];
	loop->waits[map->wait_at] = last;
	flow_map(&loop->flows, &loop->flows.flows[last])->wait_at = map->wait_at;
	map->wait_at = FLOW_NONE;
}

/* From the end, where the last one moves to when another is taken out, and where those that wait again are put. */
static void run_waits(struct loop *loop)
{
	for (uint32_t i = loop->n_waits; i-- > 0;) {
		struct flow_map *map;
		struct flow *flow;
		uint32_t generation;

		if (i >= loop->n_waits)
			continue; /* others have ended meanwhile */
		flow = &loop->flows.flows[loop->waits[i]];
		map = flow_map(&loop->flows, flow);
		if (loop->now_ms < map->wait_due_ms)
			continue;
		generation = flow->generation;
		loop_unwait(loop, flow);
		tcp_continue(loop, flow);
		if (flow->generation == generation && flow->map && map->wait_at == FLOW_NONE)
			map->wait_ms = 0;
	}
}

/* --- orders --- */

int loop_order(struct loop *loop, const struct order *order)
{
	uint32_t head = atomic_load_explicit(&loop->orders_head, memory_order_relaxed);
	uint32_t tail = atomic_load_explicit(&loop->orders_tail, memory_order_acquire);
	static const uint64_t one = 1;

	if (head - tail == LOOP_ORDERS_MAX)
		return -EAGAIN;
	loop->orders[head % LOOP_ORDERS_MAX] = *order;
	atomic_store_explicit(&loop->orders_head, head + 1, memory_order_release);
	return write(loop->wake_fd, &one, sizeof(one)) == sizeof(one) ? 0 : -errno;
}

/* Counters so far move along: memory that the daemon could not take over from us begins with nothing, though our flows
 * live on. */
static void stats_switch(struct loop *loop, const struct stats_place *place)
{
	for (unsigned i = 0; i < STATS_COUNTERS; i++)
		stats_add(place->thread, (enum stats_counter)i,
		        atomic_load_explicit(&loop->stats->counter[i], memory_order_relaxed));
	loop->stats = place->thread;
	loop->place = *place;
	account_move(loop);
	shape_move(loop);
	account_udp_move(loop);
}

/* The maps are there: flows may enter, and notices may come. */
static void sockmap_begin(struct loop *loop, struct sockmap_set *set)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.u64 = flow_cookie_other(COOKIE_NOTICES) };

	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, set->ring[loop->number].fd, &event) < 0)
		log_error("cannot be told of packets in the sockmap: %s", strerror(errno));
	else
		loop->sockmap = set;
}

static void carry_out(struct loop *loop, const struct order *order)
{
	int r;

	switch (order->kind) {
	case ORDER_PING:
		break;
	case ORDER_LISTEN:
	case ORDER_HELP:
		r = listen_add(loop, order->fd, order->kind == ORDER_HELP);
		if (r < 0)
			log_error("cannot accept from a listening socket: %s", strerror(-r));
		break;
	case ORDER_UDP:
		r = udp_listen(loop, order->fd);
		if (r < 0)
			log_error("cannot read from a UDP socket: %s", strerror(-r));
		break;
	case ORDER_APPLY:
		r = config_batch_apply(order->batch, &loop->config);
		if (r == 0)
			listen_open(loop);
		if (r == 0)
			straight_configured(loop);
		if (r == 0)
			udp_config_changed(loop);
		if (r == 0)
			account_configured(loop);
		if (r == 0)
			shape_configured(loop);
		atomic_store_explicit(&loop->apply_result, r, memory_order_relaxed);
		break;
	case ORDER_SOCKMAP:
		sockmap_begin(loop, order->sockmap);
		break;
	case ORDER_SHORTCUT:
		loop->shortcut = order->shortcut;
		straight_configured(loop);
		break;
	case ORDER_SAMPLE:
		sample_begin(loop);
		break;
	case ORDER_KILL:
		atomic_store_explicit(&loop->kill_found,
		        order->kill.table == STATS_UDP ? udp_kill(loop, order->kill.row, order->kill.id)
		                                       : tcp_kill(loop, order->kill.row, order->kill.id),
		        memory_order_relaxed);
		break;
	case ORDER_REAP:
		reap_begin(loop);
		break;
	case ORDER_STATS:
		stats_switch(loop, &order->place);
		break;
	case ORDER_KEEP:
		keep_open(loop, order->fd);
		break;
	case ORDER_HANDOVER:
		listen_drain(loop);
		udp_drain(loop); /* the next relay makes a flow again with its next datagram */
		straight_forget_all(loop);
		loop->handover_ms = loop->now_ms + order->deadline_ms;
		keep_hand_over(loop);
		break;
	case ORDER_DRAIN:
		listen_drain(loop);
		udp_drain(loop);
		break;
	}
	atomic_store_explicit(&loop->done, order->sequence, memory_order_release);
}

static void wake_control(const struct loop *loop)
{
	static const uint64_t one = 1;

	(void)!write(loop->reply_fd, &one, sizeof(one));
}

static void mailbox_read(struct loop *loop)
{
	uint32_t tail = atomic_load_explicit(&loop->orders_tail, memory_order_relaxed);
	uint64_t rung;

	(void)!read(loop->wake_fd, &rung, sizeof(rung));
	while (tail != atomic_load_explicit(&loop->orders_head, memory_order_acquire)) {
		carry_out(loop, &loop->orders[tail % LOOP_ORDERS_MAX]);
		atomic_store_explicit(&loop->orders_tail, ++tail, memory_order_release);
	}
	wake_control(loop);
}

/* --- the loop --- */

static void timer_fired(struct wheel_entry *entry, void *context)
{
	struct loop *loop = context;

	if (entry == &loop->listen.rest)
		listen_rested(loop);
	else if (entry == &loop->reap.timer)
		reap_begin(loop);
	else if (entry == &loop->straight.timer)
		straight_timer(loop);
	else if (entry == &loop->straight.choice.timer)
		straight_choice_timer(loop);
	else if (entry == &loop->keep.timer)
		keep_timer(loop);
	else if (!udp_timer(loop, entry))
		tcp_timer(loop, (struct flow *)((char *)entry - offsetof(struct flow, timer)));
}

static void dispatch(struct loop *loop, const struct epoll_event *event)
{
	uint64_t cookie = event->data.u64;
	enum flow_side side;
	struct flow *flow;
	uint32_t number;

	if (udp_event(loop, cookie))
		return;
	if (!flow_cookie_is_other(cookie, &number)) {
		flow = flow_from_cookie(&loop->flows, cookie, &side);
		if (flow) /* else the event was queued for one that has ended in this very turn */
			tcp_event(loop, flow, side, event->events);
	} else if (number == COOKIE_MAILBOX) {
		mailbox_read(loop);
	} else if (number == COOKIE_NOTICES) {
		tcp_sockmap_notices(loop);
	} else if (number == COOKIE_STRAIGHT) {
		loop->straight.more = true;
	} else if (number == COOKIE_KEEP) {
		keep_event(loop);
	} else {
		listen_accept(loop, number);
	}
}

static void turn(struct loop *loop)
{
	struct epoll_event events[LOOP_EVENTS];
	bool busy = loop->queue_head != FLOW_NONE || loop->again || loop->sample_next != FLOW_NONE ||
	            loop->shape_next != FLOW_NONE || loop->reap.next != FLOW_NONE || loop->straight.more;
	int timeout = busy ? 0 : wheel_timeout(&loop->wheel, loop->now_ms), n;

	if (loop->n_waits > 0 && (timeout < 0 || timeout > 1))
		timeout = 1;
	n = epoll_wait(loop->epoll_fd, events, LOOP_EVENTS, timeout);

	loop->now_ms = clock_ms();
	for (int i = 0; i < n; i++)
		dispatch(loop, &events[i]);
	if (loop->straight.more)
		straight_events(loop);
	udp_flush(loop);
	run_queue(loop);
	run_waits(loop);
	if (loop->shape_next != FLOW_NONE)
		shape_continue(loop);
	if (loop->sample_next != FLOW_NONE)
		sample_continue(loop);
	if (loop->reap.next != FLOW_NONE)
		reap_continue(loop);
	wheel_advance(&loop->wheel, loop->now_ms, timer_fired, loop);
	straight_turn(loop);
	loop->again = keep_turn(loop);
	atomic_store_explicit(&loop->open_flows, loop->flows.open, memory_order_relaxed);
	if (overload_update(&loop->overload, loop->now_ms, loop->flows.open, loop->flows.size))
		wake_control(loop);
}

/* From here on the flows are another process's, though our descriptors are still open. The process ends soon. */
static void park(struct loop *loop)
{
	static const uint64_t one = 1;

	atomic_store_explicit(&loop->parked, true, memory_order_release);
	(void)!write(loop->reply_fd, &one, sizeof(one));
	for (;;)
		pause();
}

static void *loop_main(void *context)
{
	struct loop *loop = context;

	loop->now_ms = clock_ms();
	while (!loop->handover_ms || !keep_handed_over(loop))
		turn(loop);
	park(loop);
	return NULL;
}

int loop_start(struct loop *loop)
{
	return -pthread_create(&loop->thread, NULL, loop_main, loop);
}

#define LEFT_OUT_MAX 64

/* How many lines there were of which none was written; "" if none. */
static const char *left_out_text(uint64_t left_out, char text[LEFT_OUT_MAX])
{
	if (left_out == 0)
		return "";
	snprintf(text, LEFT_OUT_MAX, " (%" PRIu64 " more since the last such line)", left_out);
	return text;
}

void loop_warn(struct loop *loop, enum stats_counter counter, int error)
{
	char more[LEFT_OUT_MAX];
	uint64_t left_out;

	if (!limit_pass(&loop->limits[counter], loop->now_ms, &left_out))
		return;
	log_notice("%s: %s%s%s%s", stats_name(counter), stats_doc(counter), error ? ": " : "",
	        error ? strerror(-error) : "", left_out_text(left_out, more));
}

/* "" for an address that is none. */
static const char *end_text(const struct addr *addr, uint16_t port, char text[ADDR_END_MAX])
{
	return addr->family ? addr_format_end(addr, port, text) : "";
}

void loop_warn_of(struct loop *loop, enum stats_counter counter, int error, const struct flow_origin *origin)
{
	bool chosen = counter != STATS_refused_no_target && counter != STATS_refused_target_full, elsewhere;
	char address[ADDR_TEXT_MAX], client[ADDR_END_MAX], original[ADDR_END_MAX], room[ADDR_END_MAX],
	        more[LEFT_OUT_MAX];
	const char *target;
	uint64_t left_out;

	if (!limit_pass(&loop->limits[counter], loop->now_ms, &left_out))
		return;
	target = chosen ? end_text(&origin->target, origin->target_port, room) : "";
	elsewhere = *target &&
	            (!addr_equal(&origin->target, &origin->original) || origin->target_port != origin->original_port);
	log_write_about(LOG_NOTICE,
	        LOG_ABOUT(LOG_TEXT("CLIENT", origin->client.family ? addr_format(&origin->client, address) : ""),
	                LOG_TEXT("TARGET", target)),
	        "%s: %s%s%s; client %s to %s%s%s%s", stats_name(counter), stats_doc(counter), error ? ": " : "",
	        error ? strerror(-error) : "", end_text(&origin->client, origin->client_port, client),
	        end_text(&origin->original, origin->original_port, original), elsewhere ? ", target " : "",
	        elsewhere ? target : "", left_out_text(left_out, more));
}

void loop_count_port(struct loop *loop, enum connect_port port)
{
	switch (port) {
	case CONNECT_PORT_KEPT:
		stats_add(loop->stats, STATS_ports_kept, 1);
		break;
	case CONNECT_PORT_TAKEN:
		stats_add(loop->stats, STATS_ports_taken, 1);
		break;
	case CONNECT_PORT_PRIVILEGED:
		stats_add(loop->stats, STATS_ports_privileged, 1);
		break;
	case CONNECT_PORT_TRACKED:
		stats_add(loop->stats, STATS_ports_tracked, 1);
		break;
	case CONNECT_PORT_ANY:
	case CONNECT_PORTS:
		break;
	}
}
