/* The relay as the daemon sees it; see worker.h. */
#include "gatewayd/worker.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <time.h>

#include "gatewayd/base/clock.h"
#include "gatewayd/base/log.h"
#include "gatewayd/base/sockmark.h"
#include "gatewayd/movers.h"
#include "gatewayd/relay_config.h"
#include "gatewayd/shortcut.h"
#include "gatewayd/spawn.h"
#include "gatewayd/worker_private.h"
#include "rules/kernel_others.h"

/* First pause after a relay that died young; doubles up to the longest. One that lived long is replaced at once. */
#define RESTART_FIRST_MS   20
#define RESTART_LONGEST_MS 5000
#define RESTART_YOUNG_S    10
/* One that somebody else has killed is also replaced at once, unless it lived even shorter than this. */
#define RESTART_KILLED_S 1
/* A relay is asked for a sign of life each period, and killed when it has given none for so many. Periods are counted,
 * and not the time: a daemon that was kept from running, or was busy with the kernel for seconds, has not asked. */
#define PING_PERIOD_MS 1000
#define PINGS_MAX      5
/* Longest wait for a found relay to introduce itself. */
#define HELLO_MS 1000

static void worker_restart_later(struct worker *worker);
static void hear(struct worker *worker);

/* Of the configuration in force. */
static int64_t current_revision(const struct worker *worker)
{
	return worker->owner.snapshot(worker->owner.userdata)->revision;
}

static void set_state(struct worker *worker, enum worker_state state)
{
	if (worker->state == state)
		return;
	worker->state = state;
	worker->owner.state_changed(worker->owner.userdata);
}

static void close_channel(struct worker *worker)
{
	worker->channel_source = sd_event_source_disable_unref(worker->channel_source);
	msg_channel_free(TAKE_PTR(worker->channel));
}

static void forget_process(struct worker *worker)
{
	worker->pid_source = sd_event_source_disable_unref(worker->pid_source);
	worker->ping_source = sd_event_source_disable_unref(worker->ping_source);
	if (worker->pidfd >= 0)
		close(TAKE_FD(worker->pidfd));
	worker->pid = 0;
	worker->generation = worker->served = 0;
	if (worker->run)
		meter_bank_close(worker->meter, worker->bank);
	worker->run = 0;
	worker->foreign = worker->outdated = false;
	worker->handing_over = worker->handed_over = worker->killed = false;
	worker->keep_hung_up = false;
	worker->overloaded = false;
	worker->enclosed = (struct proto_enclosed){ 0 };
	for (unsigned i = 0; i < worker->n_sockets; i++)
		worker->sockets[i].handed = false;
}

static void forget_ended(struct worker *worker)
{
	shortcut_relay_ended(worker->owner.shortcut);
	forget_process(worker);
}

/* Says how the relay has ended. True: by its own fault, as far as one can tell. */
static bool log_exit(const struct worker *worker)
{
	siginfo_t info = { 0 };

	if (!worker->is_child || waitid(P_PIDFD, (id_t)worker->pidfd, &info, WEXITED | WNOHANG) < 0) {
		log_warning("relay %d has ended", (int)worker->pid);
		return worker->killed;
	}
	if (info.si_code == CLD_EXITED) {
		log_warning("relay %d has exited with status %d", (int)worker->pid, info.si_status);
		return info.si_status != 0 || worker->killed;
	}
	log_warning("relay %d was ended by signal %d", (int)worker->pid, info.si_status);
	return info.si_status != SIGKILL || worker->killed;
}

static int on_process_end(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct worker *worker = userdata;
	unsigned bank;
	bool handed_over;

	(void)source;
	(void)fd;
	(void)events;
	/* A daemon that was busy learns of the end and of the last words at once, in any order. */
	hear(worker);
	bank = worker->run ? worker->bank : STATS_BANKS;
	handed_over = worker->handed_over;
	if (handed_over) {
		worker->handovers++;
		worker->young_deaths = 0;
	} else {
		worker->restarts++;
	}
	worker->crashed = log_exit(worker) && !handed_over;
	close_channel(worker);
	forget_ended(worker);
	movers_sweep(worker->movers);
	worker_bequeath(worker, bank, handed_over);
	set_state(worker, WORKER_DOWN);
	worker_restart_later(worker);
	return 0;
}

/* Whatever is wrong with a relay, killing it is safe: its sockets are ours, and its flows go to the next one. The end
 * of the process is then noticed by on_process_end. Without a reason (it has hung up, so it is most likely dead)
 * nothing is said: on_process_end tells how it ended. */
void worker_kill(struct worker *worker, const char *why)
{
	if (worker->pidfd < 0)
		return;
	worker->killed = worker->killed || why;
	if (why)
		log_error("killing relay %d: %s", (int)worker->pid, why);
	close_channel(worker);
	if (pidfd_send_signal(worker->pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
		log_error("relay %d cannot be killed: %s", (int)worker->pid, strerror(errno));
	set_state(worker, WORKER_DOWN);
}

static int watch_process(struct worker *worker)
{
	int r = sd_event_add_io(worker->event, &worker->pid_source, worker->pidfd, EPOLLIN, on_process_end, worker);

	/* After what the relay still said, so that its last words are heard. */
	if (r >= 0)
		r = sd_event_source_set_priority(worker->pid_source, SD_EVENT_PRIORITY_NORMAL + 1);
	return r;
}

static int send_socket(struct worker *worker, unsigned index)
{
	const struct relay_socket *socket = &worker->sockets[index];
	struct proto_message message = { .type = PROTO_LISTEN };

	message.listen.protocol = socket->protocol;
	message.listen.family = socket->family;
	message.listen.thread = socket->thread;
	message.listen.port = socket->port;
	return msg_send(worker->channel, &message, socket->fd, WORKER_ANSWER_MS);
}

int worker_send_hello(struct worker *worker, int64_t generation)
{
	struct proto_message message = { .type = PROTO_HELLO };

	message.hello.version = PROTO_VERSION;
	message.hello.keep_version = KEEP_VERSION;
	snprintf(message.hello.build, sizeof(message.hello.build), "%s", GW_VERSION);
	message.hello.generation = (uint64_t)generation;
	message.hello.pid = (uint32_t)getpid();
	message.hello.threads = worker->threads;
	return msg_send(worker->channel, &message, -1, WORKER_ANSWER_MS);
}

/* A relay that was found with memory that we could take over goes on with it; others get a place in ours. */
static int send_stats_memory(struct worker *worker)
{
	struct proto_message message = { .type = PROTO_STATS_MEMORY };
	int r;

	if (worker->run)
		return 0;
	r = meter_bank_open(worker->meter, worker->relay_threads, &worker->bank, &worker->run);
	if (r < 0)
		return r;
	message.stats_memory.size = sizeof(struct stats_memory);
	message.stats_memory.bank = (uint8_t)worker->bank;
	message.stats_memory.run = worker->run;
	return msg_send(worker->channel, &message, meter_fd(worker->meter), WORKER_ANSWER_MS);
}

static int send_introduction(struct worker *worker)
{
	struct proto_message message = { .type = PROTO_HELLO_END };
	int r;

	r = worker_send_hello(worker, current_revision(worker));
	/* The maps before the flows that may be in them. */
	if (r == 0)
		r = movers_send(worker->movers, worker->channel, worker->threads, WORKER_ANSWER_MS);
	if (r == 0)
		r = shortcut_send(worker->owner.shortcut, worker->channel, WORKER_ANSWER_MS);
	if (r == 0)
		r = send_stats_memory(worker); /* before the flows that are counted in it */
	if (r == 0)
		r = worker_send_keep_channels(worker);
	for (unsigned i = 0; r == 0 && i < worker->n_sockets; i++)
		if (!worker->sockets[i].handed)
			r = send_socket(worker, i);
	if (r == 0)
		r = msg_send(worker->channel, &message, -1, WORKER_ANSWER_MS);
	return r < 0 ? r : msg_flush(worker->channel, WORKER_ANSWER_MS);
}

/* The sockmap can be used from now on. A relay that has not been introduced yet gets the maps with that. */
static void on_movers_ready(void *userdata)
{
	struct worker *worker = userdata;

	/* One that was found may have the maps from an earlier daemon. */
	if (worker->is_child || worker->pid == 0)
		movers_sweep(worker->movers);
	if (!worker->channel || worker->state < WORKER_CONFIGURING)
		return;
	if (movers_send(worker->movers, worker->channel, worker->threads, WORKER_ANSWER_MS) < 0 ||
	        msg_flush(worker->channel, WORKER_ANSWER_MS) < 0)
		worker_kill(worker, "it does not take the sockmap");
}

/* Sends the whole configuration; READY comes back as a message. */
static void configure(struct worker *worker)
{
	const struct snapshot *snapshot = worker->owner.snapshot(worker->owner.userdata);
	int r;

	meter_sweep(worker->meter, snapshot);
	r = relay_config_send_full(worker->channel, snapshot, worker->owner.model(worker->owner.userdata),
	        worker->meter, WORKER_ANSWER_MS);
	if (r < 0) {
		worker_kill(worker, "it does not take its configuration");
		return;
	}
	set_state(worker, WORKER_CONFIGURING);
}

static void introduce(struct worker *worker)
{
	if (send_introduction(worker) < 0)
		worker_kill(worker, "it does not listen");
	else
		configure(worker);
}

static int send_generation(struct worker *worker, enum proto_type type, int64_t generation)
{
	struct proto_message message = { .type = type };
	int r;

	static_assert(sizeof(message.config_commit) == sizeof(message.config_abort), "both are a generation");
	message.config_commit.generation = (uint64_t)generation;
	r = msg_send(worker->channel, &message, -1, WORKER_ANSWER_MS);
	return r < 0 ? r : msg_flush(worker->channel, WORKER_ANSWER_MS);
}

/* A whole configuration is ready. If a write has come in between it is old already: then once more. */
static void on_ready_full(struct worker *worker)
{
	int64_t current = current_revision(worker);

	if (worker->ready == current) {
		if (send_generation(worker, PROTO_CONFIG_COMMIT, current) < 0)
			worker_kill(worker, "it does not take its commit");
		return;
	}
	if (send_generation(worker, PROTO_CONFIG_ABORT, worker->ready) < 0)
		worker_kill(worker, "it does not take an abort");
	else
		configure(worker);
}

static int socket_index(const struct worker *worker, const struct proto_listen *message)
{
	for (unsigned i = 0; i < worker->n_sockets; i++)
		if (worker->sockets[i].protocol == message->protocol && worker->sockets[i].family == message->family &&
		        worker->sockets[i].thread == message->thread)
			return (int)i;
	return -ENOENT;
}

/* A found relay hands up the sockets of the daemon that died. */
static void on_listen(struct worker *worker, const struct proto_listen *message, int fd)
{
	struct relay_socket *more;

	if (socket_index(worker, message) >= 0 || worker->n_sockets >= SOCKETS_PER_THREAD * STATS_THREADS_MAX) {
		close(fd);
		return;
	}
	more = reallocarray(worker->sockets, worker->n_sockets + 1, sizeof(*more));
	if (!more) {
		close(fd);
		return;
	}
	worker->sockets = more;
	more[worker->n_sockets++] = (struct relay_socket){ .fd = fd,
		.protocol = message->protocol,
		.family = message->family,
		.thread = message->thread,
		.port = message->port,
		.handed = true };
}

/* A found relay hands up what it counts in. */
static void on_stats_memory(struct worker *worker, const struct proto_stats_memory *message, int fd)
{
	int r = worker->run ? -EEXIST : 0;

	if (r < 0)
		close(fd);
	else
		r = meter_take(worker->meter, fd, message->bank, message->run);
	if (r < 0) {
		log_warning("the counters of the relay that was found are of no use (%s) and begin anew", strerror(-r));
		return;
	}
	worker->bank = message->bank;
	worker->run = message->run;
}

static void on_failed(struct worker *worker, const struct proto_failed *message)
{
	worker->refused = true;
	snprintf(worker->reason, sizeof(worker->reason), "%s", message->reason);
	if (worker->state == WORKER_CONFIGURING)
		worker_kill(worker, worker->reason);
}

static void on_committed(struct worker *worker, int64_t generation)
{
	worker->generation = worker->served = generation;
	if (worker->state != WORKER_CONFIGURING)
		return;
	/* A write that could not wait for it has come in between. */
	if (generation != current_revision(worker)) {
		configure(worker);
		return;
	}
	log_write_about(LOG_NOTICE, LOG_ABOUT(LOG_NUMBER("REVISION", generation)), "relay %d serves generation %lld",
	        (int)worker->pid, (long long)generation);
	if (worker->is_child) /* one that was found goes on with its flows */
		shortcut_relay_changed(worker->owner.shortcut);
	set_state(worker, WORKER_RUNNING);
	sd_event_source_set_time_relative(worker->ping_source, 0); /* what it is told with each ping */
}

static void on_overload(struct worker *worker, bool on)
{
	if (worker->overloaded == on)
		return;
	worker->overloaded = on;
	worker->owner.state_changed(worker->owner.userdata);
}

static void handle(struct worker *worker, const struct proto_message *message, int fd)
{
	worker->pings = 0;
	switch (message->type) {
	case PROTO_HELLO:
		worker_note_hello(worker, &message->hello);
		break;
	case PROTO_HANDED_OVER:
		worker->handed_over = worker->handing_over;
		break;
	case PROTO_LISTEN:
		on_listen(worker, &message->listen, fd);
		break;
	case PROTO_FLOW_KILLED:
		worker->killed_id = message->flow_killed.id;
		worker->killed_found = message->flow_killed.found;
		break;
	case PROTO_STATS_MEMORY:
		on_stats_memory(worker, &message->stats_memory, fd);
		break;
	case PROTO_HELLO_END:
		if (worker->is_child)
			introduce(worker);
		break;
	case PROTO_READY:
		worker->ready = (int64_t)message->ready.generation;
		if (worker->state == WORKER_CONFIGURING)
			on_ready_full(worker);
		break;
	case PROTO_FAILED:
		on_failed(worker, &message->failed);
		break;
	case PROTO_OVERLOAD:
		on_overload(worker, message->overload.on);
		break;
	case PROTO_ENCLOSED:
		worker->enclosed = message->enclosed;
		break;
	case PROTO_HEALTH_CHANGED:
		if (worker->owner.health_changed)
			worker->owner.health_changed(worker->owner.userdata);
		break;
	case PROTO_PROBED:
		if (worker->owner.probed)
			worker->owner.probed(worker->owner.userdata, &message->probed);
		break;
	case PROTO_COMMITTED:
		on_committed(worker, (int64_t)message->committed.generation);
		break;
	default:
		break; /* PONG: a sign of life, noted above; others do not pass the decoder in this direction */
	}
}

/* One message, if it comes in time. 1, 0 (none), or negative errno after the relay was given up. */
static int receive(struct worker *worker, int timeout_ms)
{
	struct proto_message message;
	int fd = -1, r;

	if (!worker->channel)
		return -EPIPE;
	r = msg_receive(worker->channel, &message, &fd, timeout_ms);
	if (r == -EAGAIN)
		return 0;
	if (r == -EBADMSG && worker->foreign) {
		msg_skip(worker->channel);
		return 1;
	}
	if (r < 0) {
		worker_kill(worker, r == -EPIPE ? NULL : "it sends nonsense");
		return r;
	}
	handle(worker, &message, fd);
	return 1;
}

/* All that it has said so far. */
static void hear(struct worker *worker)
{
	while (worker->channel && receive(worker, 0) > 0)
		;
}

static int on_channel(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	(void)source;
	(void)fd;
	(void)events;
	hear(userdata);
	return 0;
}

static int on_ping(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct worker *worker = userdata;
	struct proto_message message = { .type = PROTO_PING };

	(void)usec;
	hear(worker);
	if (!worker->channel)
		return 0;
	if (worker->pings++ == PINGS_MAX) {
		worker_kill(worker, "it gives no sign of life");
		return 0;
	}
	if (worker->keep_hung_up) {
		worker_kill(worker, "it keeps no flows any more");
		return 0;
	}
	message.ping.cookie = clock_us();
	message.ping.tracked = kernel_others_track();
	/* One that is not greeted yet takes nothing else; one of another version does not know the message: it has as
	 * many periods to hand over. */
	if (!worker->foreign && worker->state >= WORKER_CONFIGURING && msg_send(worker->channel, &message, -1, 0) == 0)
		(void)msg_flush(worker->channel, 0); /* no room is no sign of life either */
	sd_event_source_set_time_relative(source, PING_PERIOD_MS * UINT64_C(1000));
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static int watch_channel(struct worker *worker, int fd)
{
	int r = msg_channel_new(fd, PROTO_DOWN, &worker->channel);

	if (r < 0) {
		close(fd);
		return r;
	}
	r = sd_event_add_io(worker->event, &worker->channel_source, fd, EPOLLIN, on_channel, worker);
	if (r >= 0)
		r = sd_event_add_time_relative(worker->event, &worker->ping_source, CLOCK_MONOTONIC,
		        PING_PERIOD_MS * UINT64_C(1000), 0, on_ping, worker);
	worker->started_us = clock_us();
	worker->pings = 0;
	return r < 0 ? r : 0;
}

static int start_child(struct worker *worker)
{
	_cleanup_close_ int control = -1, theirs = -1;
	int pair[2], r;

	control = sockets_make_relay_control(worker->control_path);
	if (control < 0)
		return control;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return -errno;
	theirs = pair[1];
	r = spawn_relay(worker->options, worker->threads, spawn_max_flows(worker->options), theirs, control,
	        &worker->pid, &worker->pidfd);
	if (r < 0) {
		close(pair[0]);
		return r;
	}
	worker->is_child = true;
	set_state(worker, WORKER_STARTING);
	r = watch_process(worker);
	return r < 0 ? r : watch_channel(worker, pair[0]);
}

static int on_restart(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct worker *worker = userdata;
	int r;

	(void)source;
	(void)usec;
	worker->restart_source = sd_event_source_disable_unref(worker->restart_source);
	r = start_child(worker);
	if (r < 0) {
		log_error("the relay cannot be started: %s", strerror(-r));
		worker->started_us = clock_us();
		worker->crashed = true;
		if (worker->pidfd < 0)
			worker_restart_later(worker);
		else
			worker_kill(worker, "it cannot be watched");
	}
	return 0;
}

static uint64_t restart_delay_ms(struct worker *worker)
{
	uint64_t delay = RESTART_FIRST_MS;

	if (clock_us() - worker->started_us >
	        (worker->crashed ? RESTART_YOUNG_S : RESTART_KILLED_S) * UINT64_C(1000000)) {
		worker->young_deaths = 0;
		return 0;
	}
	if (worker->young_deaths++ == 0)
		return 0;
	for (unsigned i = 1; i < worker->young_deaths && delay < RESTART_LONGEST_MS; i++)
		delay *= 2;
	return delay < RESTART_LONGEST_MS ? delay : RESTART_LONGEST_MS;
}

static void worker_restart_later(struct worker *worker)
{
	uint64_t delay = restart_delay_ms(worker);

	if (sd_event_add_time_relative(worker->event, &worker->restart_source, CLOCK_MONOTONIC, delay * 1000, 1000,
	            on_restart, worker) < 0)
		log_error("no timer for the relay's restart");
}

int worker_new(sd_event *event, const struct options *options, const struct worker_owner *owner, struct worker **ret)
{
	struct worker *worker = calloc(1, sizeof(*worker));
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int r;

	if (!worker)
		return -ENOMEM;
	worker->event = event;
	worker->options = options;
	worker->owner = *owner;
	worker->pidfd = -1;
	worker->threads = options->threads;
	if (worker->threads == 0)
		worker->threads = cpus < 1 ? 1 : cpus > 32 ? 32 : (unsigned)cpus;
	snprintf(worker->control_path, sizeof(worker->control_path), "%s/relay.sock", options->runtime_dir);
	r = meter_new(&worker->meter);
	if (r == 0)
		r = movers_new(event, options, on_movers_ready, worker, &worker->movers);
	if (r == 0)
		r = worker_make_keeper(worker);
	if (r < 0) {
		worker_free(worker);
		return r;
	}
	*ret = worker;
	return 0;
}

void worker_free(struct worker *worker)
{
	if (!worker)
		return;
	close_channel(worker);
	/* The relay goes on without us. */
	if (worker->meter)
		forget_process(worker);
	keeper_free(worker->keeper);
	sd_event_source_disable_unref(worker->restart_source);
	for (unsigned i = 0; i < worker->n_sockets; i++)
		close(worker->sockets[i].fd);
	free(worker->sockets);
	movers_free(worker->movers);
	meter_free(worker->meter);
	free(worker);
}

/* Waits until the found relay has said who it is and has handed up its sockets. */
static int hear_introduction(struct worker *worker)
{
	uint64_t deadline = clock_us() + HELLO_MS * 1000;
	struct proto_message message;
	int fd, r;

	for (;;) {
		uint64_t now = clock_us();

		if (now >= deadline)
			return -ETIMEDOUT;
		r = msg_receive(worker->channel, &message, &fd, (int)((deadline - now) / 1000) + 1);
		if (r < 0 && r != -EAGAIN)
			return r;
		if (r < 0)
			continue;
		handle(worker, &message, fd);
		if (message.type == PROTO_HELLO_END)
			return worker->pid > 0 ? 0 : -EPROTO;
	}
}

/* -ENOENT or -ECONNREFUSED if there is no relay; other errors: there is one, but it is of no use. */
static int find_relay(struct worker *worker)
{
	int fd, r;

	fd = sockets_connect_relay_control(worker->control_path);
	if (fd < 0)
		return fd;
	worker->is_child = false;
	r = watch_channel(worker, fd);
	if (r < 0)
		return r;
	r = hear_introduction(worker);
	if (worker->pid > 0)
		worker->pidfd = pidfd_open(worker->pid, 0);
	if (r == 0 && worker->pidfd < 0)
		r = -errno;
	if (r == 0)
		r = watch_process(worker);
	if (r < 0)
		return r;
	set_state(worker, WORKER_STARTING);
	log_notice("found relay %d with %u sockets", (int)worker->pid, worker->n_sockets);
	return 0;
}

void worker_find(struct worker *worker)
{
	int r = find_relay(worker);

	if (r == 0 || r == -ENOENT || r == -ECONNREFUSED)
		return;
	log_warning("the relay that was found is of no use (%s)", strerror(-r));
	worker_kill(worker, "another one is started");
	close_channel(worker);
	forget_ended(worker);
}

/* The bits of ours that packets do not get. */
static uint32_t udp_mark(const struct worker *worker)
{
	struct sockmark mark = sockmark_of(worker->options->mark_mask & ~worker->options->mark);

	return mark.own | mark.errors;
}

int worker_make_sockets(struct worker *worker)
{
	int r;

	for (unsigned i = 0; i < worker->n_sockets; i++) {
		r = sockets_mark_relay(&worker->sockets[i], udp_mark(worker));
		if (r < 0)
			return r;
	}
	if (worker->n_sockets > 0)
		return 0;
	worker->sockets = calloc(SOCKETS_PER_THREAD * worker->threads, sizeof(*worker->sockets));
	if (!worker->sockets)
		return -ENOMEM;
	r = sockets_make_relay(worker->threads, 0, udp_mark(worker), worker->sockets);
	if (r == 0)
		worker->n_sockets = SOCKETS_PER_THREAD * worker->threads;
	return r;
}

void worker_start(struct worker *worker)
{
	movers_start(worker->movers);
	if (worker_wants_successor(worker))
		worker_succeed(worker);
	else if (worker->state == WORKER_STARTING && !worker->is_child)
		introduce(worker);
	else
		(void)on_restart(NULL, 0, worker);
}

uint16_t worker_port(const struct worker *worker)
{
	return worker->n_sockets > 0 ? worker->sockets[0].port : 0;
}

/* How long the relay may take to answer this change. */
static uint64_t answer_ms(const struct plan *plan)
{
	return WORKER_ANSWER_MS + (plan->added.n + plan->removed.n) / WORKER_ELEMENTS_PER_MS;
}

/* Handles messages until the condition holds, the relay is gone or the time is over. */
static int wait_until(
        struct worker *worker, bool (*holds)(const struct worker *, int64_t), int64_t generation, uint64_t milliseconds)
{
	uint64_t deadline = clock_us() + milliseconds * 1000;

	while (!holds(worker, generation)) {
		uint64_t now = clock_us();
		int r;

		if (now >= deadline)
			return -ETIMEDOUT;
		r = receive(worker, (int)((deadline - now) / 1000) + 1);
		if (r < 0)
			return r;
	}
	return 0;
}

static bool is_settled(const struct worker *worker, int64_t generation)
{
	(void)generation;
	return worker->state == WORKER_RUNNING || worker->state == WORKER_DOWN;
}

static bool has_answered(const struct worker *worker, int64_t generation)
{
	return worker->refused || worker->ready == generation;
}

/* A relay can still fail to take what it found well-formed: then its configuration is incomplete. */
static bool has_committed(const struct worker *worker, int64_t generation)
{
	return worker->refused || worker->served == generation;
}

int worker_prepare(struct worker *worker, const struct plan *plan, const char **ret_reason)
{
	int r;

	/* A commit that was sent must be known to have been taken before the next change can build on it. */
	if (worker->state == WORKER_CONFIGURING)
		(void)wait_until(worker, is_settled, 0, WORKER_ANSWER_MS);
	if (worker->state != WORKER_RUNNING)
		return 0;
	/* A way back, of which the relay has not gone the way: it is a new one. */
	if (worker->generation == plan->to_revision && worker->generation == current_revision(worker))
		return 0;
	/* What it does not know cannot be changed: the next one gets the whole. */
	if (worker->generation != plan->from_revision) {
		worker_kill(worker, "it is at another generation");
		return 0;
	}
	worker->refused = false;
	worker->ready = 0;
	r = relay_config_send_plan(worker->channel, plan, worker->served, worker->meter, WORKER_ANSWER_MS);
	worker->unconcerned = r == 0;
	if (r > 0)
		r = wait_until(worker, has_answered, plan->to_revision, answer_ms(plan));
	if (r == -EPIPE)
		return 0; /* it died: the next one gets the whole */
	if (r < 0) {
		worker_kill(worker, "it did not answer a change in time");
		*ret_reason = "the relay did not answer in time and is being restarted";
		return -ETIMEDOUT;
	}
	if (worker->refused) {
		*ret_reason = worker->reason;
		return -EINVAL;
	}
	return 1;
}

/* What was prepared in the relay is in force there. */
static void commit_there(struct worker *worker, const struct plan *plan)
{
	int r = send_generation(worker, PROTO_CONFIG_COMMIT, plan->to_revision);

	if (r == 0)
		r = wait_until(worker, has_committed, plan->to_revision, answer_ms(plan));
	if (r < 0)
		worker_kill(worker, "it did not commit in time");
	else if (worker->refused)
		worker_kill(worker, worker->reason);
}

void worker_commit(struct worker *worker, const struct plan *plan)
{
	if (worker->state == WORKER_RUNNING && worker->unconcerned)
		worker->generation = plan->to_revision;
	else if (worker->state == WORKER_RUNNING)
		commit_there(worker, plan);
	meter_planned(worker->meter, plan, true);
}

void worker_abort(struct worker *worker, const struct plan *plan)
{
	meter_planned(worker->meter, plan, false);
	if (worker->state == WORKER_RUNNING && !worker->unconcerned &&
	        send_generation(worker, PROTO_CONFIG_ABORT, plan->to_revision) < 0)
		worker_kill(worker, "it does not take an abort");
}

void worker_sample(struct worker *worker)
{
	struct proto_message message = { .type = PROTO_FLOW_SAMPLE };

	if (worker->state == WORKER_RUNNING && msg_send(worker->channel, &message, -1, 0) == 0)
		(void)msg_flush(worker->channel, 0); /* no room: another time */
}

static bool has_killed(const struct worker *worker, int64_t id)
{
	return worker->killed_id == (uint64_t)id;
}

int worker_kill_flow(struct worker *worker, unsigned bank, unsigned table, uint32_t row, uint64_t id)
{
	struct proto_message message = { .type = PROTO_FLOW_KILL };
	int r;

	if (worker->state != WORKER_RUNNING || !worker->run || worker->bank != bank)
		return -ENOENT;
	message.flow_kill.id = id;
	message.flow_kill.table = (uint16_t)table;
	message.flow_kill.row = row;
	worker->killed_id = 0;
	r = msg_send(worker->channel, &message, -1, WORKER_ANSWER_MS);
	if (r == 0)
		r = msg_flush(worker->channel, WORKER_ANSWER_MS);
	if (r == 0)
		r = wait_until(worker, has_killed, (int64_t)id, WORKER_ANSWER_MS);
	if (r == -EPIPE)
		return -ENOENT; /* the relay died, and the flow with it */
	return r < 0 ? r : worker->killed_found ? 0 : -ENOENT;
}

void worker_shutdown(struct worker *worker, unsigned deadline_ms)
{
	struct proto_message message = { .type = PROTO_SHUTDOWN };
	struct pollfd end = { .fd = worker->pidfd, .events = POLLIN };

	if (worker->pidfd < 0)
		return;
	message.shutdown.deadline_ms = deadline_ms;
	/* A relay that was found and not configured does not know us yet. */
	if (!worker->channel || (worker->state == WORKER_STARTING && worker_send_hello(worker, 0) < 0) ||
	        msg_send(worker->channel, &message, -1, WORKER_ANSWER_MS) < 0 ||
	        msg_flush(worker->channel, WORKER_ANSWER_MS) < 0 ||
	        poll(&end, 1, (int)deadline_ms + WORKER_ANSWER_MS) != 1)
		worker_kill(worker, "it is to end and does not");
	else
		(void)log_exit(worker);
	close_channel(worker);
	forget_ended(worker);
	worker->state = WORKER_DOWN;
}
