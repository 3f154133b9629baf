/*
 * The management daemon as a whole; see daemon.h. Order of the start: lock,
 * store, relay found or its sockets made (the ports are part of the ruleset),
 * kernel brought to the configuration, relay configured, API opened. An
 * orderly stop leaves ruleset and relay as they are: traffic does not depend
 * on the daemon.
 */
#include "gatewayd/daemon.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include "gatewayd/api.h"
#include "gatewayd/base/clock.h"
#include "gatewayd/base/log.h"
#include "gatewayd/base/sockmark.h"
#include "gatewayd/bans.h"
#include "gatewayd/core.h"
#include "gatewayd/drift.h"
#include "gatewayd/files.h"
#include "gatewayd/open.h"
#include "gatewayd/records.h"
#include "gatewayd/rights.h"
#include "gatewayd/saver.h"
#include "gatewayd/shield.h"
#include "gatewayd/shortcut.h"
#include "gatewayd/sockets.h"
#include "gatewayd/target_watch.h"
#include "rules/kernel_bpf.h"
#include "rules/kernel_intercept.h"
#include "rules/kernel_shortcut.h"

/* How long new connections of `direct` listeners wait for a relay to come back before they go past it. */
#define GATE_DELAY_MS 100
/* How often the configuration is saved beside the database, if it has changed. */
#define SAVE_PERIOD_MS 1000
/* How long --cleanup waits for a running daemon to stop, and gives flows to end. */
#define CLEANUP_WAIT_MS  10000
#define CLEANUP_FLOWS_MS 0
struct daemon {
	const struct options *options;
	int lock, claim; /* of the directory; of the network namespace */
	sd_event *event;
	struct store *store;
	struct kernel *kernel;
	struct worker *worker;
	struct apply *apply;
	struct bans *bans;
	struct drift_monitor *drift;
	struct shield *shield;
	struct shortcut *shortcut;
	struct intercept *intercept;
	struct ban_lengths ban_lengths; /* as of the last time that somebody was asked about */
	struct sampler *sampler;
	struct core core;
	sd_event_source *gate_timer, *save_timer;
	struct saver *saver;
	bool store_lost; /* said already */
	struct events *events;
	struct api *api;
};

static const struct snapshot *owner_snapshot(void *userdata)
{
	return apply_snapshot(((struct daemon *)userdata)->apply);
}

static const struct model *owner_model(void *userdata)
{
	return apply_model(((struct daemon *)userdata)->apply);
}

static int on_gate_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct daemon *daemon = userdata;

	(void)source;
	(void)usec;
	daemon->gate_timer = sd_event_source_disable_unref(daemon->gate_timer);
	if (worker_state(daemon->worker) == WORKER_RUNNING ||
	        (worker_found_serves(daemon->worker) && !worker_overloaded(daemon->worker)))
		return 0; /* or on_worker_state comes again */
	if (apply_has_direct(daemon->apply))
		log_warning("%s: connections of direct listeners go past it",
		        worker_overloaded(daemon->worker) ? "the relay is overloaded" : "no relay serves");
	(void)apply_set_gate(daemon->apply, true);
	return 0;
}

/* The relay has come or gone, or has become overloaded or fit again. */
static void on_worker_state(void *userdata)
{
	struct daemon *daemon = userdata;

	if (!daemon->apply)
		return;
	events_publish(daemon->events, "relay",
	        json_pack("{s:s, s:i, s:b}", "state", worker_state_name(worker_state(daemon->worker)), "pid",
	                (int)worker_pid(daemon->worker), "overloaded", (int)worker_overloaded(daemon->worker)));
	if (worker_state(daemon->worker) == WORKER_RUNNING) {
		bool overloaded = worker_overloaded(daemon->worker);

		daemon->gate_timer = sd_event_source_disable_unref(daemon->gate_timer);
		if (overloaded)
			log_warning("the relay is overloaded: new connections of direct listeners go past it");
		(void)apply_set_gate(daemon->apply, overloaded);
	} else if (!daemon->gate_timer && !apply_gate_is_wanted(daemon->apply)) {
		(void)sd_event_add_time_relative(daemon->event, &daemon->gate_timer, CLOCK_MONOTONIC,
		        GATE_DELAY_MS * UINT64_C(1000), 1000, on_gate_timer, daemon);
	}
}

static void on_health_changed(void *userdata)
{
	target_watch_soon(((struct daemon *)userdata)->core.watch);
}

static void on_probed(void *userdata, const struct proto_probed *found)
{
	return_paths_found(((struct daemon *)userdata)->core.ways, found);
}

static void on_relay_ended(void *userdata, unsigned bank, bool handed_over)
{
	struct daemon *daemon = userdata;

	if (daemon->core.records)
		records_relay_ended(daemon->core.records, bank, handed_over);
}

static int relay_prepare(void *userdata, const struct plan *plan, const char **ret_reason)
{
	return worker_prepare(userdata, plan, ret_reason);
}

static void relay_commit(void *userdata, const struct plan *plan)
{
	worker_commit(userdata, plan);
}

static void relay_abort(void *userdata, const struct plan *plan)
{
	worker_abort(userdata, plan);
}

static struct route_params route_params(const struct options *options)
{
	return (struct route_params){ .mark = options->mark,
		.mark_mask = options->mark_mask,
		.table = options->route_table,
		.priority = options->rule_priority };
}

static int make_apply(struct daemon *daemon)
{
	const struct options *options = daemon->options;
	uint16_t port = worker_port(daemon->worker);
	struct apply_config config = {
		.store = daemon->store,
		.kernel = daemon->kernel,
		.relay = { daemon->worker, relay_prepare, relay_commit, relay_abort },
		.render = { .mark = options->mark, .mark_mask = options->mark_mask, .port_v4 = port, .port_v6 = port },
		.route = route_params(options),
	};

	if (daemon->bans)
		bans_lengths(daemon->bans, &config.render.bans);
	/* A check makes none. */
	if (daemon->shield)
		config.shield =
		        (struct apply_shield){ daemon->shield, shield_load, shield_put, shield_undo, shield_settle };
	config.intercept = daemon->intercept;
	return apply_new(&config, &daemon->apply);
}

static int take_lock(struct daemon *daemon)
{
	int holder = 0;

	daemon->lock = files_lock(daemon->options->runtime_dir, &holder);
	if (daemon->lock == -EWOULDBLOCK)
		log_error("gatewayd runs already on %s, process %d", daemon->options->runtime_dir, holder);
	else if (daemon->lock < 0)
		log_error("%s cannot be used: %s", daemon->options->runtime_dir, strerror(-daemon->lock));
	return daemon->lock < 0 ? daemon->lock : 0;
}

/* A name that somebody without rights has taken keeps nobody from starting. */
static int claim_network(struct daemon *daemon)
{
	int64_t uid = -1;
	int holder = 0;

	daemon->claim = sockets_claim_network(&holder, &uid);
	if (daemon->claim >= 0)
		return 0;
	if (daemon->claim == -EADDRINUSE && (uid == 0 || uid == (int64_t)geteuid())) {
		log_error("gatewayd runs already in this network namespace, process %d: two would share one table",
		        holder);
		return -EADDRINUSE;
	}
	log_warning("whether another gatewayd runs in this network namespace is not known: %s",
	        daemon->claim == -EADDRINUSE ? "a process that is not root's has the name" : strerror(-daemon->claim));
	return 0;
}

static int make_directories(const struct options *options)
{
	int r = files_make_directory(options->state_dir, 0700);

	if (r < 0)
		log_error("%s cannot be made: %s", options->state_dir, strerror(-r));
	if (r == 0) {
		r = files_make_directory(options->runtime_dir, 0755);
		if (r < 0)
			log_error("%s cannot be made: %s", options->runtime_dir, strerror(-r));
	}
	return r;
}

/* Asked from outside to do what POST /relay/restart does. */
static int on_hangup(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct daemon *daemon = userdata;

	(void)source;
	(void)info;
	if (!daemon->worker || worker_hand_over(daemon->worker) < 0)
		log_warning("SIGHUP: no relay can be replaced now");
	return 0;
}

static int make_event_loop(struct daemon *daemon)
{
	sigset_t signals;
	int r;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	r = sd_event_new(&daemon->event);
	if (r >= 0)
		r = sd_event_add_signal(daemon->event, NULL, SIGTERM, NULL, NULL);
	if (r >= 0)
		r = sd_event_add_signal(daemon->event, NULL, SIGINT, NULL, NULL);
	if (r >= 0)
		r = sd_event_add_signal(daemon->event, NULL, SIGHUP, on_hangup, daemon);
	if (r >= 0)
		r = sd_event_set_watchdog(daemon->event, true);
	return r < 0 ? r : 0;
}

static int make_worker(struct daemon *daemon)
{
	struct worker_owner owner = { daemon, owner_snapshot, owner_model, on_worker_state, on_health_changed,
		daemon->shortcut, on_probed, on_relay_ended };

	return worker_new(daemon->event, daemon->options, &owner, &daemon->worker);
}

static int boot_kernel(struct daemon *daemon, struct snapshot *snapshot)
{
	const struct options *options = daemon->options;
	const struct render_xdp_relay relay = { worker_port(daemon->worker),
		sockmark_of(options->mark_mask & ~options->mark).own };
	_cleanup_free_ char *reason = NULL;
	int r;

	r = shield_new(daemon->event, options->bpf_dir, daemon->events, &relay, &daemon->shield);
	if (r == 0)
		r = intercept_new(options, worker_port(daemon->worker), &daemon->intercept);
	if (r == 0)
		r = make_apply(daemon);
	if (r == 0)
		r = apply_boot(daemon->apply, snapshot, &reason);
	if (r < 0)
		log_error("the kernel could not be configured: %s", reason ? reason : strerror(-r));
	else
		shield_boot(daemon->shield, snapshot);
	if (r == 0)
		intercept_follow(daemon->intercept, snapshot, apply_model(daemon->apply));
	return r;
}

static bool drift_heals(void *userdata)
{
	struct daemon *daemon = userdata;
	const struct row *row = core_find(&daemon->core, RESOURCE_SETTINGS, "settings");

	return !row || ((const struct settings *)row)->drift == DRIFT_HEAL;
}

static void tell_drift(void *userdata, json_t *data)
{
	events_publish(((struct daemon *)userdata)->events, "drift", data);
}

/* Without the rules of nft the engine ebpf would begin what nobody goes on with. */
static void drift_changed(void *userdata, bool present)
{
	intercept_drifted(((struct daemon *)userdata)->intercept, present);
}

static void link_changed(void *userdata, const char *interface)
{
	struct daemon *daemon = userdata;

	shield_link_changed(daemon->shield, interface);
	shortcut_link_changed(daemon->shortcut, interface);
	intercept_link_changed(daemon->intercept, interface);
}

static int watch_drift(struct daemon *daemon)
{
	struct drift_owner owner = { .userdata = daemon,
		.heals = drift_heals,
		.tell = tell_drift,
		.changed = drift_changed,
		.link_changed = link_changed };
	struct route_params route = route_params(daemon->options);
	int r = drift_new(daemon->event, daemon->apply, &route, &owner, &daemon->drift);

	if (r < 0)
		log_error("the kernel cannot be watched: %s", strerror(-r));
	daemon->core.drift = daemon->drift;
	return r;
}

static void tell_ban(void *userdata, json_t *data)
{
	struct daemon *daemon = userdata;

	/* Flows of whom it is about have to pass the rules again. */
	shortcut_flush(daemon->shortcut);
	events_publish(daemon->events, "ban", data);
}

static void banned_lengths(void *userdata)
{
	struct daemon *daemon = userdata;

	daemon->ban_lengths = (struct ban_lengths){ 0 };
	bans_lengths(daemon->bans, &daemon->ban_lengths);
}

static bool client_is_banned(void *userdata, const struct addr *client)
{
	const struct daemon *daemon = userdata;

	return bans_cover(daemon->bans, &daemon->ban_lengths, client);
}

static bool flow_is_known(void *userdata, uint64_t flow)
{
	return worker_holds(((struct daemon *)userdata)->worker, flow);
}

static int start_bans(struct daemon *daemon)
{
	struct bans_owner owner = { .apply = daemon->apply,
		.kernel = daemon->kernel,
		.shield = daemon->shield,
		.userdata = daemon,
		.tell = tell_ban };
	struct shortcut_owner asked = {
		.userdata = daemon, .begin = banned_lengths, .is_banned = client_is_banned, .is_known = flow_is_known
	};
	int r = shortcut_watch(daemon->shortcut, daemon->event, &asked);

	daemon->core.bans = daemon->bans;
	return r < 0 ? r : bans_start(daemon->bans, daemon->event, &owner);
}

/* So that a database that was deleted is not missed until the next write. Said once. */
static void guard_store(struct daemon *daemon)
{
	bool lost = store_guard(daemon->store) < 0;

	if (lost && !daemon->store_lost)
		log_error("changes cannot be stored: %s", store_error(daemon->store));
	daemon->store_lost = lost;
}

static int on_save_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct daemon *daemon = userdata;

	(void)usec;
	saver_look(daemon->saver, apply_snapshot(daemon->apply));
	guard_store(daemon);
	intercept_look(daemon->intercept);
	(void)sd_event_source_set_time_relative(source, SAVE_PERIOD_MS * UINT64_C(1000));
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static int start(struct daemon *daemon)
{
	_cleanup_(snapshot_unref_p) struct snapshot *snapshot = NULL;
	int r;

	r = make_directories(daemon->options);
	if (r == 0)
		r = take_lock(daemon);
	if (r == 0)
		r = claim_network(daemon);
	daemon->events = r == 0 ? events_new() : NULL;
	if (r == 0 && !daemon->events)
		r = -ENOMEM;
	if (r == 0)
		r = make_event_loop(daemon);
	if (r == 0)
		r = open_store(daemon->options, &daemon->store, &snapshot);
	if (r == 0)
		r = bans_new(daemon->store, &daemon->bans);
	if (r == 0)
		r = kernel_open(&daemon->kernel);
	if (r == 0)
		r = shortcut_new(daemon->options, &daemon->shortcut);
	if (r == 0)
		r = make_worker(daemon);
	if (r < 0)
		return r;
	worker_find(daemon->worker);
	r = worker_make_sockets(daemon->worker);
	if (r < 0) {
		log_error("the relay's sockets cannot be made: %s", strerror(-r));
		return r;
	}
	r = boot_kernel(daemon, snapshot);
	if (r < 0)
		return r;
	shortcut_follow(daemon->shortcut, snapshot);
	daemon->core = (struct core){ .event = daemon->event,
		.store = daemon->store,
		.events = daemon->events,
		.apply = daemon->apply,
		.shield = daemon->shield,
		.shortcut = daemon->shortcut,
		.intercept = daemon->intercept,
		.worker = daemon->worker,
		.kernel = daemon->kernel,
		.options = daemon->options,
		.started_us = clock_us() };
	r = watch_drift(daemon);
	if (r == 0)
		r = start_bans(daemon);
	if (r == 0)
		r = sampler_new(daemon->event, daemon->worker, daemon->options->state_dir, &daemon->sampler);
	if (r < 0)
		return r;
	daemon->core.sampler = daemon->sampler;
	r = ledger_new(daemon->event, daemon->kernel, daemon->shield, daemon->shortcut, &daemon->core.ledger);
	if (r == 0)
		r = tracer_new(&daemon->core, &daemon->core.tracer);
	if (r == 0) {
		shield_watch(daemon->shield, tracer_dropped, daemon->core.tracer);
		r = core_targets_start(&daemon->core);
	}
	if (r == 0)
		r = target_watch_new(&daemon->core, &daemon->core.watch);
	if (r == 0)
		r = return_paths_new(&daemon->core, &daemon->core.ways);
	if (r == 0)
		r = records_new(&daemon->core, &daemon->core.records);
	if (r < 0)
		return r;
	r = saver_new(daemon->event, daemon->options, &daemon->saver);
	if (r == 0)
		r = sd_event_add_time_relative(daemon->event, &daemon->save_timer, CLOCK_MONOTONIC,
		        SAVE_PERIOD_MS * UINT64_C(1000), 0, on_save_timer, daemon);
	if (r < 0)
		return r;
	on_worker_state(daemon);
	worker_start(daemon->worker);
	r = core_confirm_start(&daemon->core);
	if (r >= 0)
		r = api_new(daemon->event, daemon->options, &daemon->core, daemon->events, &daemon->api);
	if (r >= 0) {
		r = rights_reduce();
		if (r < 0)
			log_error("rights that are not needed cannot be given up: %s", strerror(-r));
	}
	return r;
}

static void stop(struct daemon *daemon)
{
	api_free(daemon->api);
	core_confirm_stop(&daemon->core);
	drift_free(daemon->drift);
	bans_free(daemon->bans);
	sampler_free(daemon->sampler);
	ledger_free(daemon->core.ledger);
	records_free(daemon->core.records);
	target_watch_free(daemon->core.watch);
	return_paths_free(daemon->core.ways);
	if (daemon->shield)
		shield_watch(daemon->shield, NULL, NULL);
	tracer_free(daemon->core.tracer);
	overrides_clear(&daemon->core.overrides);
	names_clear(&daemon->core.names);
	rule_index_clear(&daemon->core.rules);
	sd_event_source_disable_unref(daemon->gate_timer);
	sd_event_source_disable_unref(daemon->save_timer);
	saver_free(daemon->saver);
	worker_free(daemon->worker);
	shortcut_free(daemon->shortcut);
	intercept_free(daemon->intercept);
	apply_free(daemon->apply);
	shield_free(daemon->shield);
	kernel_free(daemon->kernel);
	store_close(daemon->store);
	if (daemon->events)
		events_free(daemon->events);
	sd_event_unref(daemon->event);
	if (daemon->claim >= 0)
		close(daemon->claim);
	if (daemon->lock >= 0)
		close(daemon->lock);
}

int daemon_run(const struct options *options)
{
	struct daemon daemon = { .options = options, .lock = -1, .claim = -1 };
	int r = start(&daemon);

	if (r == 0) {
		log_write_about(LOG_NOTICE, LOG_ABOUT(LOG_NUMBER("REVISION", core_revision(&daemon.core))),
		        "gatewayd " GW_VERSION " serves revision %lld", (long long)core_revision(&daemon.core));
		(void)sd_notify(0, "READY=1");
		r = sd_event_loop(daemon.event);
		(void)sd_notify(0, "STOPPING=1");
		saver_finish(daemon.saver, apply_snapshot(daemon.apply));
		if (r < 0)
			log_error("the event loop failed: %s", strerror(-r));
	}
	stop(&daemon);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int daemon_check(const struct options *options)
{
	_cleanup_(snapshot_unref_p) struct snapshot *snapshot = NULL;
	_cleanup_free_ char *reason = NULL;
	struct daemon daemon = { .options = options, .lock = -1, .claim = -1 };
	int r;

	r = open_store(options, &daemon.store, &snapshot);
	if (r == 0)
		r = kernel_open(&daemon.kernel);
	if (r == 0)
		r = make_event_loop(&daemon);
	if (r == 0)
		r = make_worker(&daemon);
	if (r == 0)
		r = worker_make_sockets(daemon.worker);
	if (r == 0)
		r = make_apply(&daemon);
	if (r == 0)
		r = apply_dry_boot(daemon.apply, snapshot, &reason);
	if (r < 0)
		log_error("the check failed: %s", reason ? reason : strerror(-r));
	else
		log_notice("revision %lld is sound: %zu listener%s, %zu upstream%s", (long long)snapshot->revision,
		        snapshot->rows[RESOURCE_LISTENER].n, snapshot->rows[RESOURCE_LISTENER].n == 1 ? "" : "s",
		        snapshot->rows[RESOURCE_UPSTREAM].n, snapshot->rows[RESOURCE_UPSTREAM].n == 1 ? "" : "s");
	stop(&daemon);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* Asks the daemon that holds the lock to stop, and waits until it has. */
static int stop_running(struct daemon *daemon)
{
	_cleanup_close_ int pidfd = -1;
	struct pollfd end = { .events = POLLIN };
	int holder = 0;

	daemon->lock = files_lock(daemon->options->runtime_dir, &holder);
	if (daemon->lock != -EWOULDBLOCK)
		return daemon->lock == -ENOENT ? 0 : daemon->lock < 0 ? daemon->lock : 0;
	pidfd = holder > 0 ? pidfd_open(holder, 0) : -1;
	if (pidfd < 0 || pidfd_send_signal(pidfd, SIGTERM, NULL, 0) < 0)
		return -errno;
	end.fd = pidfd;
	if (poll(&end, 1, CLEANUP_WAIT_MS) != 1)
		return -ETIMEDOUT;
	daemon->lock = files_lock(daemon->options->runtime_dir, &holder);
	return daemon->lock < 0 ? daemon->lock : 0;
}

static void end_relay(struct daemon *daemon)
{
	worker_find(daemon->worker);
	if (worker_pid(daemon->worker) > 0)
		worker_shutdown(daemon->worker, CLEANUP_FLOWS_MS);
}

int daemon_cleanup(const struct options *options)
{
	static const char *const files[] = { "api.sock", "relay.sock" };
	struct daemon daemon = { .options = options, .lock = -1, .claim = -1 };
	char path[PATH_MAX];
	int r;

	r = stop_running(&daemon);
	if (r < 0)
		log_error("the running gatewayd does not stop: %s", strerror(-r));
	if (r == 0)
		r = make_event_loop(&daemon);
	if (r == 0)
		r = make_worker(&daemon);
	if (r == 0)
		r = kernel_open(&daemon.kernel);
	if (r == 0) {
		kernel_intercept_detach_all(intercept_directory(options));
		/* The ruleset first: from then on nothing new comes to the relay, and nothing is caught without it. */
		r = kernel_cleanup(daemon.kernel);
		if (r < 0)
			log_error("the kernel could not be cleaned: %s", strerror(-r));
		end_relay(&daemon);
		for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
			snprintf(path, sizeof(path), "%s/%s", options->runtime_dir, files[i]);
			(void)unlink(path);
		}
		kernel_shortcut_detach_all(options->bpf_dir);
		/* Last: what is pinned keeps the flows of a relay that did not end. */
		if (kernel_bpf_cleanup(options->bpf_dir) < 0)
			log_error("%s could not be removed", options->bpf_dir);
	}
	stop(&daemon);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
