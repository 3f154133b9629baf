/*
 * The control thread; see control.h, and proto.def for the messages.
 *
 * Theory of operation: each order to the loops gets the next sequence number
 * and a loop publishes the last one that it carried out. What the daemon waits
 * for (COMMITTED, PONG) is answered when every loop has reached the number of
 * the order behind it, so a loop that hangs is an answer that never comes.
 */
#include "gatewayd/relay/control.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/clock.h"
#include "gatewayd/base/log.h"
#include "gatewayd/base/msg.h"
#include "gatewayd/relay/probe.h"
#include "gatewayd/relay/udp_socket.h"

struct held_socket {
	struct proto_listen key; /* the port does not count */
	int fd;
};

struct control {
	const struct control_params *params;
	struct msg_channel *channel; /* NULL while there is no daemon */
	bool lonely;                 /* a daemon was there and has gone */
	bool greeted;                /* the daemon's HELLO was read */
	bool foreign;                /* it speaks another version: only the stable messages count */
	bool greet_later;            /* a new daemon waits for ours until a commit is through */
	uint64_t generation;         /* in force; 0: none, or known to be incomplete */
	struct config_batch *batch;  /* being collected or READY */
	bool ready;
	bool commit_pending, ping_pending, kill_pending;
	bool overloaded;   /* as the daemon was told */
	uint64_t sequence; /* of the last order */
	uint64_t commit_sequence, ping_sequence, stats_sequence, kill_sequence;
	uint64_t kill_id;
	unsigned kill_loop;
	uint64_t ping_cookie;
	struct stats_memory *stats, *stats_old; /* the old one is unmapped when no loop uses it any more */
	int stats_fd;
	struct proto_stats_memory stats_place;
	struct held_socket sockets[CONTROL_SOCKETS_MAX];
	unsigned n_sockets;
	uint64_t health_told, resets_ordered; /* of health_changes and health_resets */
	struct sockmap_set sockmap;
	struct shortcut_maps shortcut;
	struct probes probes;
	bool draining, handing_over;
	uint64_t drain_deadline_ms;
	int exit_status; /* -1 while the relay is to go on */
};

static uint64_t clock_ms(void)
{
	return clock_us() / 1000;
}

/* --- the loops --- */

/* Gives an order to one loop. */
static int order_one(struct control *control, unsigned loop, struct order *order)
{
	order->sequence = ++control->sequence;
	return loop_order(control->params->loops[loop], order);
}

/* Gives the same order to all loops; the sequence number that stands for all of them, unless ret_sequence is NULL. */
static int order_all(struct control *control, struct order *order, uint64_t *ret_sequence)
{
	uint64_t sequence = ++control->sequence;
	int r = 0;

	order->sequence = sequence;
	for (unsigned i = 0; i < control->params->n_loops; i++) {
		int s = loop_order(control->params->loops[i], order);

		r = r < 0 ? r : s;
	}
	if (ret_sequence)
		*ret_sequence = sequence;
	return r;
}

/* The same sequence number for the health thread, if there is one. */
static int order_health(struct control *control, struct health_order *order, uint64_t sequence)
{
	order->sequence = sequence;
	return control->params->health ? health_order(control->params->health, order) : 0;
}

static bool health_has_done(const struct control *control, uint64_t sequence)
{
	return !control->params->health || health_done(control->params->health) >= sequence;
}

static bool all_done(const struct control *control, uint64_t sequence)
{
	for (unsigned i = 0; i < control->params->n_loops; i++)
		if (atomic_load_explicit(&control->params->loops[i]->done, memory_order_acquire) < sequence)
			return false;
	return true;
}

static uint32_t open_flows(const struct control *control)
{
	uint32_t sum = 0;

	for (unsigned i = 0; i < control->params->n_loops; i++)
		sum += atomic_load_explicit(&control->params->loops[i]->open_flows, memory_order_relaxed);
	return sum;
}

/* --- the channel --- */

static void batch_forget(struct control *control)
{
	config_batch_free(control->batch);
	control->batch = NULL;
	control->ready = false;
}

static void channel_close(struct control *control, const char *why)
{
	if (!control->channel)
		return;
	log_warning("the daemon's connection is closed (%s); flows go on", why);
	msg_channel_free(control->channel);
	control->channel = NULL;
	control->lonely = true;
	control->greeted = false;
	control->foreign = false;
	control->greet_later = false;
	control->ping_pending = control->kill_pending = false;
	if (!control->commit_pending)
		batch_forget(control);
}

/* Sends at once. A daemon that does not take it is let go. */
static void tell(struct control *control, const struct proto_message *message, int fd)
{
	int r;

	if (!control->channel)
		return;
	r = msg_send(control->channel, message, fd, CONTROL_SEND_TIMEOUT_MS);
	if (r == 0)
		r = msg_flush(control->channel, CONTROL_SEND_TIMEOUT_MS);
	if (r < 0)
		channel_close(control, strerror(-r));
}

static void tell_failed(struct control *control, uint64_t generation, const char *reason)
{
	struct proto_message message = { .type = PROTO_FAILED, .failed.generation = generation };

	strncpy(message.failed.reason, reason, sizeof(message.failed.reason) - 1);
	tell(control, &message, -1);
}

/* Tells the daemon whether a thread is overloaded, if that is news. */
static void tell_overload(struct control *control)
{
	struct proto_message message = { .type = PROTO_OVERLOAD };
	bool on = false;

	for (unsigned i = 0; i < control->params->n_loops; i++)
		on = on || atomic_load_explicit(&control->params->loops[i]->overload.on, memory_order_relaxed);
	if (on == control->overloaded)
		return;
	control->overloaded = on;
	message.overload.on = on;
	tell(control, &message, -1);
}

static void greet(struct control *control)
{
	struct proto_message hello = { .type = PROTO_HELLO,
		.hello = { .version = PROTO_VERSION,
		        .keep_version = KEEP_VERSION,
		        .build = GW_VERSION,
		        .generation = control->generation,
		        .pid = (uint32_t)getpid(),
		        .threads = control->params->n_loops,
		        .max_flows = control->params->max_flows } };
	struct proto_message end = { .type = PROTO_HELLO_END };

	struct proto_message stats = { .type = PROTO_STATS_MEMORY, .stats_memory = control->stats_place };

	if (control->params->program)
		snprintf(hello.hello.program, sizeof(hello.hello.program), "%s", control->params->program);
	tell(control, &hello, -1);
	for (unsigned i = 0; i < control->n_sockets; i++) {
		struct proto_message listen = { .type = PROTO_LISTEN, .listen = control->sockets[i].key };

		tell(control, &listen, control->sockets[i].fd);
	}
	if (control->stats)
		tell(control, &stats, control->stats_fd);
	tell(control, &end, -1);
	control->overloaded = false; /* which is what a daemon takes for granted */
	tell_overload(control);
}

/* Takes the descriptor over and speaks first. */
static void channel_open(struct control *control, int fd)
{
	int r = msg_channel_new(fd, PROTO_UP, &control->channel);

	if (r < 0) {
		log_error("cannot serve the daemon: %s", strerror(-r));
		close(fd);
		return;
	}
	control->greet_later = control->commit_pending;
	if (!control->greet_later)
		greet(control);
}

/* A daemon connects to the relay that it found running. The newest one counts. */
static void daemon_accept(struct control *control)
{
	int fd = accept4(CONTROL_LISTEN_FD, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct ucred peer = { .uid = (uid_t)-1 };
	socklen_t length = sizeof(peer);

	if (fd < 0)
		return;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0 ||
	        (peer.uid != 0 && peer.uid != control->params->daemon_uid)) {
		log_warning("user %u is not the daemon's", (unsigned)peer.uid);
		close(fd);
		return;
	}
	channel_close(control, "another daemon has connected");
	log_info("a daemon has connected, process %d", (int)peer.pid);
	channel_open(control, fd);
}

/* --- messages from the daemon; each returns 0, or -EBADMSG for nonsense --- */

static int on_hello(struct control *control, const struct proto_message *message, int *fd)
{
	(void)fd;
	control->foreign = message->hello.version != PROTO_VERSION;
	if (control->foreign)
		log_notice("the daemon speaks protocol %u, this relay %u", (unsigned)message->hello.version,
		        (unsigned)PROTO_VERSION);
	if (control->foreign && message->hello.keep_version != KEEP_VERSION) {
		log_error("flows cannot be handed over: the daemon keeps them by version %u, this relay by %u",
		        (unsigned)message->hello.keep_version, (unsigned)KEEP_VERSION);
		control->exit_status = CONTROL_EXIT_VERSION;
		return 0;
	}
	control->greeted = true;
	if (!control->foreign && control->params->enclosed)
		tell(control, control->params->enclosed, -1);
	return 0;
}

static int on_hello_end(struct control *control, const struct proto_message *message, int *fd)
{
	(void)control, (void)message, (void)fd;
	return 0;
}

static bool socket_is_held(const struct control *control, const struct proto_listen *key)
{
	for (unsigned i = 0; i < control->n_sockets; i++) {
		const struct proto_listen *held = &control->sockets[i].key;

		if (held->protocol == key->protocol && held->family == key->family && held->thread == key->thread)
			return true;
	}
	return false;
}

/* What accepted sockets are to inherit: a reset on every unexpected end, no delay of small segments, and urgent bytes
 * in their place, so that a first read before the first event leaves none out. The listening socket itself must never
 * make a thread wait. */
static int socket_prepare(int fd)
{
	static const struct linger reset = { 1, 0 };
	static const int on = 1, off = 0;
	int listening = 0;
	socklen_t length = sizeof(listening);

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) < 0 || !listening)
		return -ENOTSOCK;
	if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) < 0 ||
	        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ||
	        setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on)) < 0 ||
	        setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &off, sizeof(off)) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

/* The thread of this number accepts from the socket, and those after it help. */
static int order_listen(struct control *control, unsigned thread, int fd)
{
	unsigned n = control->params->n_loops;
	struct order order = { .kind = ORDER_LISTEN, .fd = fd };
	int r = order_one(control, thread % n, &order);

	order.kind = ORDER_HELP;
	for (unsigned i = 1; i <= LISTEN_HELPERS && i < n && r >= 0; i++)
		r = order_one(control, (thread + i) % n, &order);
	return r;
}

/* The thread of this number reads datagrams from the socket. */
static int order_udp(struct control *control, unsigned thread, int fd)
{
	struct order order = { .kind = ORDER_UDP, .fd = fd };

	return order_one(control, thread % control->params->n_loops, &order);
}

static int on_listen(struct control *control, const struct proto_message *message, int *fd)
{
	const struct proto_listen *key = &message->listen;
	bool udp = key->protocol == IPPROTO_UDP;
	struct sockmark mark;
	int socket = *fd, r;

	if (key->protocol != IPPROTO_TCP && !udp) {
		log_warning("a listening socket of protocol %u is not served", (unsigned)key->protocol);
		return 0;
	}
	r = udp ? udp_socket_check(*fd, &mark) : socket_prepare(*fd);
	if (control->n_sockets == CONTROL_SOCKETS_MAX || socket_is_held(control, key) || r < 0)
		return -EBADMSG;
	if (control->draining)
		return 0;
	control->sockets[control->n_sockets++] = (struct held_socket){ *key, TAKE_FD(*fd) };
	r = udp ? order_udp(control, key->thread, socket) : order_listen(control, key->thread, socket);
	if (r < 0)
		log_error("a thread takes no orders");
	return 0;
}

static int on_keep_channel(struct control *control, const struct proto_message *message, int *fd)
{
	struct order order = { .kind = ORDER_KEEP, .fd = *fd };

	if (message->keep_channel.thread >= control->params->n_loops)
		return -EBADMSG;
	if (fcntl(*fd, F_SETFL, O_NONBLOCK) < 0 || order_one(control, message->keep_channel.thread, &order) < 0)
		log_error("flows of thread %u cannot be kept", (unsigned)message->keep_channel.thread);
	else
		*fd = -1;
	return 0;
}

static int stats_map(const struct proto_stats_memory *message, int fd, struct stats_memory **ret)
{
	struct stats_memory *memory;

	/* lseek, for the C library's fstat is a call that takes paths, which the filter forbids. */
	if (message->bank >= STATS_BANKS || message->size < sizeof(*memory) ||
	        lseek(fd, 0, SEEK_END) < (off_t)sizeof(*memory))
		return -EBADMSG;
	memory = mmap(NULL, sizeof(*memory), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		return -errno;
	if (memory->layout != STATS_LAYOUT) {
		munmap(memory, sizeof(*memory));
		return -EBADMSG;
	}
	/* A core dump is to hold what went wrong, not gigabytes of empty rows. */
	(void)madvise(memory, sizeof(*memory), MADV_DONTDUMP);
	*ret = memory;
	return 0;
}

/* Gives a loop its rows of one table, those from `first` on. Where the next one's begin. */
static uint32_t rows_deal(struct stats_place *place, enum stats_table kind, uint32_t n, uint32_t first)
{
	if (n > STATS_ROWS_MAX - first)
		n = 0;
	place->first[kind] = first;
	place->n_rows[kind] = n;
	atomic_store_explicit(&place->thread->active[kind], 0, memory_order_relaxed);
	atomic_store_explicit(&place->thread->rows_touched[kind], 0, memory_order_relaxed);
	atomic_store_explicit(&place->thread->rows_first[kind], first, memory_order_relaxed);
	n = (n + STATS_ROWS_ALIGN - 1) / STATS_ROWS_ALIGN * STATS_ROWS_ALIGN;
	return n < STATS_ROWS_MAX - first ? first + n : STATS_ROWS_MAX;
}

/* Sends each loop to its place. Rows are dealt out in the loops' order, each as many as it can have flows. */
static void stats_deal(struct control *control)
{
	struct stats_bank *bank = &control->stats->bank[control->stats_place.bank];
	uint32_t first = 0;

	for (unsigned i = 0; i < control->params->n_loops; i++) {
		const struct loop *loop = control->params->loops[i];
		struct order order = { .kind = ORDER_STATS,
			.place = { .thread = &bank->thread[i],
			        .rows = &control->stats->rows[control->stats_place.bank],
			        .memory = control->stats,
			        .run = control->stats_place.run } };

		order.place.ring = &control->stats->ring[control->stats_place.bank][i];
		first = rows_deal(&order.place, STATS_CONNECTIONS, loop->flows.size, first);
		first = rows_deal(&order.place, STATS_UDP, loop->udp->table.size, first);
		if (order_one(control, i, &order) < 0)
			log_error("a thread takes no orders");
	}
	control->stats_sequence = control->sequence - control->params->n_loops + 1;
	/* Once it has seen the last of the loops' numbers it is as far as all of them. */
	if (order_health(control, &(struct health_order){ .kind = HEALTH_ORDER_MEMORY, .memory = control->stats },
	            control->sequence) < 0)
		log_error("the health thread takes no orders");
}

static int on_stats_memory(struct control *control, const struct proto_message *message, int *fd)
{
	struct stats_memory *memory = NULL;
	int r = control->stats_old ? -EBADMSG : stats_map(&message->stats_memory, *fd, &memory);

	if (r < 0) {
		log_error("the counters' memory cannot be used: %s", strerror(-r));
		return -EBADMSG;
	}
	control->stats_old = control->stats;
	if (control->stats)
		close(control->stats_fd);
	control->stats = memory;
	control->stats_fd = TAKE_FD(*fd);
	control->stats_place = message->stats_memory;
	stats_deal(control);
	return 0;
}

static int on_sockmap(struct control *control, const struct proto_message *message, int *fd)
{
	struct order order = { .kind = ORDER_SOCKMAP, .sockmap = &control->sockmap };
	bool before = control->sockmap.complete;
	int r = sockmap_set_add(&control->sockmap, &message->sockmap, control->params->n_loops, fd);

	if (r == -EBADMSG)
		return r;
	if (r < 0)
		log_error("a map of the sockmap mover cannot be used: %s", strerror(-r));
	else if (r > 0 && !before && order_all(control, &order, NULL) < 0)
		log_error("a thread takes no orders");
	return 0;
}

static int on_shortcut(struct control *control, const struct proto_message *message, int *fd)
{
	struct order order = { .kind = ORDER_SHORTCUT, .shortcut = &control->shortcut };
	int r = shortcut_maps_add(&control->shortcut, &message->shortcut, fd);

	control->shortcut.threads = control->params->n_loops;
	if (r > 0 && order_all(control, &order, NULL) < 0)
		log_error("a thread takes no orders");
	return r < 0 ? r : 0;
}

static int on_config_begin(struct control *control, const struct proto_message *message, int *fd)
{
	const struct proto_config_begin *begin = &message->config_begin;

	(void)fd;
	if (control->commit_pending)
		return -EBADMSG;
	batch_forget(control);
	if (begin->base != 0 && begin->base != control->generation) {
		tell_failed(control, begin->generation, "the base is not the generation in force");
		return 0;
	}
	if (config_batch_new(begin->base, begin->generation, &control->batch) < 0)
		tell_failed(control, begin->generation, "out of memory");
	return 0;
}

/* Items of a batch that has failed already are passed over in silence. */
static int on_item(struct control *control, const struct proto_message *message, int *fd)
{
	char reason[128];
	uint64_t generation;
	int r;

	(void)fd;
	if (control->ready || control->commit_pending)
		return -EBADMSG;
	if (!control->batch)
		return 0;
	r = config_batch_add(control->batch, message);
	if (r == 0)
		return 0;
	generation = config_batch_generation(control->batch);
	snprintf(reason, sizeof(reason), "%s, change %u: %s", proto_name(message->type),
	        (unsigned)config_batch_count(control->batch), strerror(-r));
	batch_forget(control);
	tell_failed(control, generation, reason);
	return 0;
}

static int on_config_end(struct control *control, const struct proto_message *message, int *fd)
{
	struct proto_message ready = { .type = PROTO_READY };

	(void)fd;
	if (control->ready || control->commit_pending)
		return -EBADMSG;
	if (!control->batch)
		return 0;
	ready.ready.generation = config_batch_generation(control->batch);
	if (message->config_end.items != config_batch_count(control->batch)) {
		batch_forget(control);
		tell_failed(control, ready.ready.generation, "the number of changes is not the one announced");
		return 0;
	}
	control->ready = true;
	tell(control, &ready, -1);
	return 0;
}

static int on_config_commit(struct control *control, const struct proto_message *message, int *fd)
{
	struct order order = { .kind = ORDER_APPLY, .batch = control->batch };

	(void)fd;
	if (!control->ready || control->commit_pending ||
	        message->config_commit.generation != config_batch_generation(control->batch))
		return -EBADMSG;
	control->commit_pending = true;
	if (order_all(control, &order, &control->commit_sequence) < 0 ||
	        order_health(control, &(struct health_order){ .kind = HEALTH_ORDER_APPLY, .batch = control->batch },
	                control->commit_sequence) < 0)
		log_error("a thread takes no orders");
	return 0;
}

static int on_config_abort(struct control *control, const struct proto_message *message, int *fd)
{
	(void)message, (void)fd;
	if (control->commit_pending)
		return -EBADMSG;
	batch_forget(control);
	return 0;
}

static int on_ping(struct control *control, const struct proto_message *message, int *fd)
{
	struct order order = { .kind = ORDER_PING };

	(void)fd;
	control->ping_cookie = message->ping.cookie; /* a later one stands for those before it */
	control->ping_pending = true;
	for (unsigned i = 0; i < control->params->n_loops; i++)
		atomic_store_explicit(&control->params->loops[i]->tracked, message->ping.tracked, memory_order_relaxed);
	if (order_all(control, &order, &control->ping_sequence) < 0 ||
	        order_health(control, &(struct health_order){ .kind = HEALTH_ORDER_PING }, control->ping_sequence) < 0)
		log_error("a thread takes no orders");
	return 0;
}

/* All loops look for flows that are to be reset. */
static void reap(struct control *control)
{
	struct order order = { .kind = ORDER_REAP };

	if (order_all(control, &order, NULL) < 0)
		log_error("a thread takes no orders");
}

static int on_reap(struct control *control, const struct proto_message *message, int *fd)
{
	(void)message, (void)fd;
	reap(control);
	return 0;
}

static int on_flow_sample(struct control *control, const struct proto_message *message, int *fd)
{
	struct order order = { .kind = ORDER_SAMPLE };

	(void)message, (void)fd;
	if (order_all(control, &order, NULL) < 0)
		log_error("a thread takes no orders");
	return 0;
}

static int on_flow_kill(struct control *control, const struct proto_message *message, int *fd)
{
	const struct proto_flow_kill *kill = &message->flow_kill;
	struct order order = { .kind = ORDER_KILL,
		.kill = { .id = kill->id, .row = kill->row, .table = kill->table % STATS_TABLES } };
	unsigned thread = kill->table / STATS_TABLES;

	(void)fd;
	if (thread >= control->params->n_loops)
		return -EBADMSG;
	if (order_one(control, thread, &order) < 0)
		log_error("a thread takes no orders");
	control->kill_pending = true; /* the daemon waits for one at a time; of an earlier one it has given up */
	control->kill_id = kill->id;
	control->kill_loop = thread;
	control->kill_sequence = order.sequence;
	return 0;
}

/* One that cannot be made is answered all the same, so that nobody waits for it. */
static int on_probe(struct control *control, const struct proto_message *message, int *fd)
{
	struct proto_message probed = { .type = PROTO_PROBED,
		.probed = { .cookie = message->probe.cookie, .as_client = PROTO_PROBE_LOCAL } };
	int r = probes_begin(&control->probes, &message->probe, clock_ms());

	(void)fd;
	if (r < 0 && r != -EBADMSG)
		tell(control, &probed, -1);
	return r == -EBADMSG ? r : 0;
}

static void drain(struct control *control, uint32_t deadline_ms)
{
	struct order order = { .kind = ORDER_DRAIN };

	control->draining = true;
	control->drain_deadline_ms = clock_ms() + deadline_ms;
	log_info("ending; %u flows have %u ms", (unsigned)open_flows(control), (unsigned)deadline_ms);
	if (order_all(control, &order, NULL) < 0)
		log_error("a thread takes no orders");
}

static int on_shutdown(struct control *control, const struct proto_message *message, int *fd)
{
	(void)fd;
	drain(control, message->shutdown.deadline_ms);
	return 0;
}

static int on_handover(struct control *control, const struct proto_message *message, int *fd)
{
	struct order order = { .kind = ORDER_HANDOVER, .deadline_ms = message->handover.deadline_ms };

	(void)fd;
	if (control->draining || control->handing_over)
		return 0;
	control->handing_over = true;
	log_info("handing over %u flows", (unsigned)open_flows(control));
	if (order_all(control, &order, NULL) < 0)
		log_error("a thread takes no orders");
	return 0;
}

static int (*const handlers[PROTO_TYPES])(struct control *, const struct proto_message *, int *) = {
	[PROTO_HELLO] = on_hello,
	[PROTO_HELLO_END] = on_hello_end,
	[PROTO_LISTEN] = on_listen,
	[PROTO_STATS_MEMORY] = on_stats_memory,
	[PROTO_SOCKMAP] = on_sockmap,
	[PROTO_SHORTCUT] = on_shortcut,
	[PROTO_KEEP_CHANNEL] = on_keep_channel,
	[PROTO_HANDOVER] = on_handover,
	[PROTO_CONFIG_BEGIN] = on_config_begin,
	[PROTO_LISTENER_PUT] = on_item,
	[PROTO_TRUST_PUT] = on_item,
	[PROTO_ROUTE_PUT] = on_item,
	[PROTO_ROUTE_VALUE] = on_item,
	[PROTO_LISTENER_DEL] = on_item,
	[PROTO_UPSTREAM_PUT] = on_item,
	[PROTO_HEALTH_PUT] = on_item,
	[PROTO_UPSTREAM_DEL] = on_item,
	[PROTO_TARGET_PUT] = on_item,
	[PROTO_TARGET_DEL] = on_item,
	[PROTO_MATCH_PUT] = on_item,
	[PROTO_MATCH_DEL] = on_item,
	[PROTO_CONFIG_END] = on_config_end,
	[PROTO_CONFIG_COMMIT] = on_config_commit,
	[PROTO_CONFIG_ABORT] = on_config_abort,
	[PROTO_PING] = on_ping,
	[PROTO_FLOW_SAMPLE] = on_flow_sample,
	[PROTO_FLOW_KILL] = on_flow_kill,
	[PROTO_REAP] = on_reap,
	[PROTO_PROBE] = on_probe,
	[PROTO_SHUTDOWN] = on_shutdown,
};

static int handle(struct control *control, const struct proto_message *message, int fd)
{
	_cleanup_close_ int owned = fd;

	if (!handlers[message->type] || (!control->greeted && message->type != PROTO_HELLO) ||
	        (control->foreign && message->type > PROTO_STABLE_LAST))
		return -EBADMSG;
	return handlers[message->type](control, message, &owned);
}

static void channel_read(struct control *control)
{
	while (control->channel && control->exit_status < 0) {
		struct proto_message message;
		int fd, r = msg_receive(control->channel, &message, &fd, 0);

		if (r == -EAGAIN)
			return;
		if (r == 0)
			r = handle(control, &message, fd);
		if (r < 0)
			channel_close(control, r == -EPIPE ? "the daemon is gone" : strerror(-r));
	}
}

/* --- answers that wait for the loops --- */

static int apply_result(const struct control *control)
{
	for (unsigned i = 0; i < control->params->n_loops; i++) {
		int r = atomic_load_explicit(&control->params->loops[i]->apply_result, memory_order_relaxed);

		if (r < 0)
			return r;
	}
	return control->params->health ? health_apply_result(control->params->health) : 0;
}

/* All loops have carried the batch out, or one of them could not: then no generation is in force any more, and
 * the daemon has to send everything, from base 0. */
static void commit_finish(struct control *control)
{
	uint64_t generation = config_batch_generation(control->batch);
	struct proto_message committed = { .type = PROTO_COMMITTED, .committed.generation = generation };
	int r = apply_result(control);

	control->commit_pending = false;
	control->generation = r < 0 ? 0 : generation;
	batch_forget(control);
	/* A new relay finds targets down whose flows it has adopted; and the new rules may be others. */
	reap(control);
	if (r < 0)
		log_error("generation %" PRIu64 " could not be applied: %s", generation, strerror(-r));
	if (control->greet_later) {
		control->greet_later = false;
		greet(control);
	} else if (r < 0) {
		tell_failed(control, generation, strerror(-r));
	} else {
		tell(control, &committed, -1);
	}
}

static void kill_finish(struct control *control)
{
	const struct loop *loop = control->params->loops[control->kill_loop];
	struct proto_message killed = { .type = PROTO_FLOW_KILLED, .flow_killed.id = control->kill_id };

	if (atomic_load_explicit(&loop->done, memory_order_acquire) < control->kill_sequence)
		return;
	killed.flow_killed.found = atomic_load_explicit(&loop->kill_found, memory_order_relaxed);
	control->kill_pending = false;
	tell(control, &killed, -1);
}

/* What the health thread has found is in shared memory; here it is only said that there is something. */
static void health_read(struct control *control)
{
	struct proto_message message = { .type = PROTO_HEALTH_CHANGED };
	uint64_t changes, resets;

	if (!control->params->health)
		return;
	changes = health_changes(control->params->health);
	resets = health_resets(control->params->health);
	if (resets != control->resets_ordered)
		reap(control);
	control->resets_ordered = resets;
	if (changes != control->health_told)
		tell(control, &message, -1);
	control->health_told = changes;
}

static void probes_read(struct control *control)
{
	struct proto_message message = { .type = PROTO_PROBED };

	while (probes_next(&control->probes, clock_ms(), &message.probed))
		tell(control, &message, -1);
}

static void replies_read(struct control *control)
{
	uint64_t rung;

	(void)!read(control->params->reply_fd, &rung, sizeof(rung));
	if (control->commit_pending && all_done(control, control->commit_sequence) &&
	        health_has_done(control, control->commit_sequence))
		commit_finish(control);
	if (control->stats_old && all_done(control, control->stats_sequence) &&
	        health_has_done(control, control->stats_sequence)) {
		munmap(control->stats_old, sizeof(*control->stats_old));
		control->stats_old = NULL;
	}
	if (control->kill_pending)
		kill_finish(control);
	if (control->ping_pending && all_done(control, control->ping_sequence) &&
	        health_has_done(control, control->ping_sequence)) {
		struct proto_message pong = { .type = PROTO_PONG, .pong.cookie = control->ping_cookie };

		control->ping_pending = false;
		tell(control, &pong, -1);
	}
	tell_overload(control);
	health_read(control);
}

/* --- the thread --- */

enum polled { POLLED_CHANNEL, POLLED_LISTEN, POLLED_REPLY, POLLED_SIGNAL, POLLED_PROBES, POLLED };

/* Without a daemon there is reason to go on only for what a later one would miss: sockets and flows. */
static void check_needed(struct control *control)
{
	if (control->lonely && !control->channel && control->n_sockets == 0 && control->exit_status < 0) {
		log_info("the daemon is gone before it gave anything to keep");
		control->exit_status = EXIT_SUCCESS;
	}
}

static void check_drained(struct control *control)
{
	if (control->draining && (open_flows(control) == 0 || clock_ms() >= control->drain_deadline_ms))
		control->exit_status = EXIT_SUCCESS;
}

/* All threads have given away what they had and touch it no more. */
static void check_handed_over(struct control *control)
{
	struct proto_message message = { .type = PROTO_HANDED_OVER };

	for (unsigned i = 0; i < control->params->n_loops; i++)
		if (!atomic_load_explicit(&control->params->loops[i]->parked, memory_order_acquire))
			return;
	if (control->exit_status >= 0)
		return;
	log_info("all flows are handed over");
	tell(control, &message, -1);
	control->exit_status = EXIT_SUCCESS;
}

static void control_turn(struct control *control)
{
	const struct control_params *params = control->params;
	struct pollfd fds[POLLED] = {
		[POLLED_CHANNEL] = { .fd = control->channel ? msg_channel_fd(control->channel) : -1, .events = POLLIN },
		[POLLED_LISTEN] = { .fd = params->has_listen ? CONTROL_LISTEN_FD : -1, .events = POLLIN },
		[POLLED_REPLY] = { .fd = params->reply_fd, .events = POLLIN },
		[POLLED_SIGNAL] = { .fd = params->signal_fd, .events = POLLIN },
		[POLLED_PROBES] = { .fd = control->probes.epoll_fd, .events = POLLIN },
	};
	int longest = control->draining ? CONTROL_DRAIN_POLL_MS : -1;

	if (poll(fds, POLLED, probes_timeout(&control->probes, clock_ms(), longest)) < 0)
		return;
	probes_read(control);
	if (fds[POLLED_REPLY].revents)
		replies_read(control);
	if (fds[POLLED_CHANNEL].revents)
		channel_read(control);
	if (fds[POLLED_LISTEN].revents)
		daemon_accept(control);
	/* Whoever sends a signal wants the relay gone now; the daemon drains with SHUTDOWN. */
	if (fds[POLLED_SIGNAL].revents && control->exit_status < 0)
		drain(control, 0);
	check_drained(control);
	check_handed_over(control);
	check_needed(control);
}

int control_run(const struct control_params *params)
{
	static struct control control;

	control.params = params;
	control.exit_status = -1;
	sockmap_set_init(&control.sockmap);
	control.shortcut = (struct shortcut_maps)SHORTCUT_MAPS_NONE;
	probes_init(&control.probes);
	if (params->has_channel)
		channel_open(&control, CONTROL_CHANNEL_FD);
	while (control.exit_status < 0)
		control_turn(&control);
	return control.exit_status;
}
