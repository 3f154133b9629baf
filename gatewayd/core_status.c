/* The document of GET /status: what is configured, what each plane has applied, and what stands in the way. */
#include <net/if.h>
#include <string.h>
#include <sys/utsname.h>

#include "gatewayd/base/clock.h"
#include "gatewayd/core.h"
#include "gatewayd/doctor.h"
#include "gatewayd/document.h"
#include "gatewayd/health_view.h"
#include "gatewayd/records.h"
#include "gatewayd/rights.h"

/* Entries of one kind in the status: it must stay readable with ten thousand listeners. */
#define WAITING_MAX 100

static json_t *applied(struct core *core, bool *failed)
{
	json_t *object = json_object();

	document_set(object, "nft", json_integer(apply_nft_generation(core->apply)), failed);
	document_set(object, "routing", json_integer(apply_route_generation(core->apply)), failed);
	document_set(object, "xdp", core->shield ? json_integer(shield_generation(core->shield)) : json_null(), failed);
	document_set(object, "relay", json_integer(worker_generation(core->worker)), failed);
	return object;
}

static json_t *counters(const struct stats_memory *stats, bool *failed)
{
	json_t *object = json_object();

	for (int i = 0; i < STATS_COUNTERS; i++)
		document_set(object, stats_name((enum stats_counter)i),
		        json_integer((json_int_t)stats_sum(stats, (enum stats_counter)i)), failed);
	return object;
}

/* The movers that not every kernel has, and why one is not in use. */
static json_t *movers(struct core *core, bool *failed)
{
	const struct movers *movers = worker_movers(core->worker);
	const char *why = movers_why(movers);
	json_t *object = json_pack("{s:{s:s, s:s?}}", "sockmap", "state", movers_state_name(movers_state(movers)),
	        "why", *why ? why : NULL);

	if (core->shortcut)
		document_set(object, "shortcut", shortcut_status(core->shortcut), failed);

	if (!object)
		*failed = true;
	return object;
}

/* Flows that would outlive the relay if it died now, and what became of those of its predecessors. */
static json_t *kept(struct core *core, bool *failed)
{
	json_t *object = json_object();
	struct keeper_counts counts;

	worker_kept(core->worker, &counts);
	document_set(object, "flows", json_integer((json_int_t)counts.kept), failed);
	document_set(object, "pipes", json_integer((json_int_t)counts.pipes), failed);
	document_set(object, "adopted", json_integer((json_int_t)counts.adopted), failed);
	document_set(object, "lost", json_integer((json_int_t)stats_sum(worker_stats(core->worker), STATS_flows_lost)),
	        failed);
	document_set(object, "refused", json_integer((json_int_t)counts.refused), failed);
	return object;
}

/* What the health checks do. */
static json_t *checks(const struct stats_memory *stats, bool *failed)
{
	const struct stats_health *health = &stats->health;
	json_t *object = json_object();

	document_set(
	        object, "targets", json_integer(atomic_load_explicit(&health->targets, memory_order_relaxed)), failed);
	document_set(object, "under_way", json_integer(atomic_load_explicit(&health->under_way, memory_order_relaxed)),
	        failed);
	document_set(object, "checks",
	        json_integer((json_int_t)atomic_load_explicit(&health->checks, memory_order_relaxed)), failed);
	document_set(object, "failures",
	        json_integer((json_int_t)atomic_load_explicit(&health->failures, memory_order_relaxed)), failed);
	document_set(object, "late",
	        json_integer((json_int_t)atomic_load_explicit(&health->late, memory_order_relaxed)), failed);
	return object;
}

/* What keeps the relay from files, besides its filter of system calls. */
static json_t *enclosed(struct core *core)
{
	const struct proto_enclosed *found = worker_enclosed(core->worker);

	if (found->landlock)
		return json_sprintf("landlock %u", (unsigned)found->landlock);
	return found->fault[0] ? json_sprintf("nothing: %s", found->fault) : json_null();
}

static json_t *relay(struct core *core, bool *failed)
{
	const struct stats_memory *stats = worker_stats(core->worker);
	json_t *object = json_object();

	document_set(object, "state", json_string(worker_state_name(worker_state(core->worker))), failed);
	document_set(
	        object, "pid", worker_pid(core->worker) ? json_integer(worker_pid(core->worker)) : json_null(), failed);
	document_set(object, "uptime_s", json_integer((json_int_t)worker_uptime_s(core->worker)), failed);
	document_set(object, "restarts", json_integer((json_int_t)worker_restarts(core->worker)), failed);
	document_set(object, "handovers", json_integer((json_int_t)worker_handovers(core->worker)), failed);
	document_set(object, "threads", json_integer(worker_threads(core->worker)), failed);
	document_set(object, "mover", json_string(core->options->mover), failed);
	document_set(object, "movers", movers(core, failed), failed);
	document_set(object, "port", json_integer(worker_port(core->worker)), failed);
	document_set(object, "direct", json_boolean(apply_gate_is_wanted(core->apply)), failed);
	document_set(object, "overloaded", json_boolean(worker_overloaded(core->worker)), failed);
	document_set(object, "enclosed", enclosed(core), failed);
	document_set(object, "flows", json_integer((json_int_t)worker_flows(core->worker)), failed);
	document_set(object, "udp_flows", json_integer((json_int_t)stats_active(stats, STATS_UDP)), failed);
	document_set(object, "kept", kept(core, failed), failed);
	document_set(object, "health", checks(stats, failed), failed);
	document_set(object, "counters", counters(stats, failed), failed);
	return object;
}

/* Listeners that name an interface which is not there: they match it as soon as it comes. Told up to a bound. */
static json_t *waiting(struct core *core, bool *failed)
{
	const struct rows *rows = &apply_snapshot(core->apply)->rows[RESOURCE_LISTENER];
	json_t *array = json_array();

	if (!array)
		*failed = true;
	for (size_t i = 0; i < rows->n && json_array_size(array) < WAITING_MAX; i++) {
		const struct listener *listener = (const struct listener *)rows->items[i];

		for (size_t j = 0; listener->enabled && j < listener->interfaces.n; j++)
			if (if_nametoindex(listener->interfaces.items[j]) == 0 &&
			        json_array_append_new(array,
			                json_pack("{s:s, s:s, s:s}", "listener", listener->name, "interface",
			                        listener->interfaces.items[j], "state", "waiting for interface")) < 0)
				*failed = true;
	}
	return array;
}

static json_t *upstream_document(const struct upstream *upstream, const struct health_view_upstream *view)
{
	return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "name", upstream->name, "state",
	        health_view_upstream_name(view->state), "usable", (json_int_t)view->usable, "targets",
	        (json_int_t)view->targets, "quorum", (json_int_t)upstream->quorum, "backups_usable",
	        (json_int_t)view->backups_usable, "backups", (json_int_t)view->backups);
}

/* How many upstreams are in which state, and those that are not well, up to a bound. */
static json_t *upstreams(struct core *core, bool *failed)
{
	const struct rows *rows = &apply_snapshot(core->apply)->rows[RESOURCE_UPSTREAM];
	json_t *array = json_array(), *object = json_object();
	size_t counts[HEALTH_VIEW_STATES] = { 0 };
	uint64_t now_ms = clock_us() / 1000;

	for (size_t i = 0; i < rows->n; i++) {
		const struct upstream *upstream = (const struct upstream *)rows->items[i];
		struct health_view_upstream view;

		health_view_upstream(worker_meter(core->worker), upstream, now_ms, &view);
		counts[view.state]++;
		if (view.state != HEALTH_VIEW_UP && json_array_size(array) < WAITING_MAX &&
		        json_array_append_new(array, upstream_document(upstream, &view)) < 0)
			*failed = true;
	}
	for (int i = 0; i < HEALTH_VIEW_STATES; i++)
		document_set(object, health_view_upstream_name((enum health_view_upstream_state)i),
		        json_integer((json_int_t)counts[i]), failed);
	document_set(object, "not_up", array, failed);
	return object;
}

static json_t *kernel_document(bool *failed)
{
	json_t *object = json_object();
	struct utsname name = { 0 };

	uname(&name);
	document_set(object, "release", json_string(name.release), failed);
	document_set(object, "machine", json_string(name.machine), failed);
	return object;
}

static uint64_t uptime_s(const struct core *core)
{
	return (clock_us() - core->started_us) / 1000000;
}

static json_t *fix_document(const struct doctor_check *check)
{
	return check->ok ? json_null() : json_string(check->fix);
}

json_t *core_doctor(struct core *core)
{
	const struct doctor_memory *found = doctor_run(core);
	const struct doctor_check *checks = found->checks;
	json_t *array = json_array();
	bool failed = array == NULL, ok = true;

	for (size_t i = 0; i < found->n; i++) {
		ok &= checks[i].ok;
		failed |= json_array_append_new(
		                  array, json_pack("{s:s, s:b, s:s, s:o}", "name", checks[i].name, "ok", checks[i].ok,
		                                 "detail", checks[i].detail, "fix", fix_document(&checks[i]))) < 0;
	}
	if (failed) {
		json_decref(array);
		return NULL;
	}
	return json_pack("{s:b, s:o}", "ok", ok, "checks", array);
}

size_t core_doctor_probe(struct core *core)
{
	return return_paths_ask(core->ways);
}

/* The doctor's checks that found something, as of a moment ago. */
static json_t *warnings(struct core *core, bool *failed)
{
	const struct doctor_memory *found = doctor_recent(core);
	const struct doctor_check *checks = found->checks;
	json_t *array = json_array();

	if (!array)
		*failed = true;
	for (size_t i = 0; i < found->n; i++)
		if (!checks[i].ok &&
		        json_array_append_new(array, json_pack("{s:s, s:s, s:s}", "code", checks[i].name, "detail",
		                                             checks[i].detail, "fix", checks[i].fix)) < 0)
			*failed = true;
	if (array)
		*failed |= core_limits_warn(core, array) < 0;
	return array;
}

json_t *core_status(struct core *core)
{
	json_t *object = json_object();
	bool failed = object == NULL;

	document_set(object, "version", json_string(GW_VERSION), &failed);
	document_set(object, "revision", json_integer(core_revision(core)), &failed);
	document_set(object, "ready", json_boolean(core_ready(core)), &failed);
	document_set(object, "uptime_s", json_integer((json_int_t)uptime_s(core)), &failed);
	document_set(object, "applied", applied(core, &failed), &failed);
	document_set(object, "pending", core_pending(core), &failed);
	document_set(object, "drift", core->drift ? drift_status(core->drift) : json_null(), &failed);
	document_set(object, "relay", relay(core, &failed), &failed);
	document_set(object, "upstreams", upstreams(core, &failed), &failed);
	document_set(object, "flow_log", core->records ? records_status(core->records) : json_null(), &failed);
	document_set(object, "bans", json_integer(core->bans ? (json_int_t)bans_count(core->bans) : 0), &failed);
	document_set(
	        object, "interception", core->intercept ? intercept_status(core->intercept) : json_null(), &failed);
	document_set(object, "prefilters", core->shield ? shield_status(core->shield) : json_array(), &failed);
	document_set(object, "waiting", waiting(core, &failed), &failed);
	document_set(object, "kernel", kernel_document(&failed), &failed);
	document_set(object, "rights", rights_status(), &failed);
	document_set(object, "warnings", warnings(core, &failed), &failed);
	if (failed) {
		json_decref(object);
		return NULL;
	}
	return object;
}

int core_relay_restart(struct core *core)
{
	return worker_hand_over(core->worker);
}
