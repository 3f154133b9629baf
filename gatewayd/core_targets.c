/*
 * Targets as they are seen, and what operators say of them: behind
 * /upstreams/{name}/targets of the API. Three things are kept apart: what is
 * configured, what an operator has said (overrides.h), and what is observed
 * (health_view.h).
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "gatewayd/base/clock.h"
#include "gatewayd/base/log.h"
#include "gatewayd/core.h"
#include "gatewayd/document.h"
#include "gatewayd/health_view.h"
#include "gatewayd/target_watch.h"
#include "schema/encode.h"
#include "schema/value.h"

static json_t *time_or_null(int64_t at)
{
	char text[32];

	return at > 0 ? json_string(value_time_format(at, text)) : json_null();
}

/* Of CLOCK_MONOTONIC; 0: never. */
static json_t *moment(uint64_t at_ms)
{
	return at_ms ? time_or_null(health_view_time(at_ms)) : json_null();
}

static const char *admin_word(int64_t admin)
{
	return field_word(resource_field(resource_get(RESOURCE_TARGET), "admin_state"), admin);
}

/* --- the document --- */

static json_t *health_document(
        const struct upstream *upstream, const struct target *target, const struct health_view *view, bool *failed)
{
	char words[HEALTH_VIEW_WORDS_MAX];
	json_t *object = json_object();

	document_set(object, "state", json_string(health_view_state_name(view->health)), failed);
	document_set(object, "since", moment(view->since_ms), failed);
	document_set(object, "cause", json_string(health_view_cause_name(view->cause)), failed);
	document_set(object, "reason", json_string(health_view_words(view, upstream, target, words)), failed);
	document_set(object, "last_check", moment(view->checked_ms), failed);
	document_set(object, "latency_us", view->latency_us ? document_number(view->latency_us) : json_null(), failed);
	document_set(object, "checks", document_number(view->checks), failed);
	document_set(object, "failures", document_number(view->failures), failed);
	return object;
}

static json_t *override_document(const struct override *override, bool *failed)
{
	json_t *object;

	if (!override)
		return json_null();
	object = json_object();
	document_set(object, "admin_state",
	        override->admin_state == OVERRIDES_NONE ? json_null() : json_string(admin_word(override->admin_state)),
	        failed);
	document_set(object, "weight",
	        override->weight == OVERRIDES_NONE ? json_null() : json_integer(override->weight), failed);
	document_set(object, "actor", json_string(override->actor), failed);
	document_set(object, "at", time_or_null(override->said_at), failed);
	return object;
}

/* How far a drain has come; null while the target is in service. */
static json_t *drain_document(
        const struct override *override, const struct health_view *view, uint64_t flows, bool *failed)
{
	bool limited = override && override->drain_deadline != OVERRIDES_NONE;
	json_t *object;

	if (view->admin == ADMIN_STATE_UP)
		return json_null();
	object = json_object();
	document_set(object, "flows_left", document_number(flows), failed);
	document_set(object, "deadline", limited ? time_or_null(override->drain_deadline) : json_null(), failed);
	document_set(object, "reset_per_s", limited ? json_integer(override->reset_per_s) : json_null(), failed);
	return object;
}

static json_t *configured_document(const struct target *target)
{
	return json_pack(
	        "{s:s, s:I}", "admin_state", admin_word(target->admin_state), "weight", (json_int_t)target->weight);
}

json_t *core_target(struct core *core, const struct upstream *upstream, const struct target *target)
{
	uint32_t id = (uint32_t)target->row.id;
	const struct override *override = overrides_find(&core->overrides, id);
	const struct meter *meter = worker_meter(core->worker);
	json_t *object = encode_row(&target->row);
	struct stats_object_sum sum;
	struct health_view view;
	bool failed = object == NULL;

	health_view_read(meter, target, clock_us() / 1000, &view);
	stats_object_read(meter_memory(meter), meter_find(meter, STATS_TARGET, id), id, &sum);
	document_set(object, "admin_state", json_string(admin_word(view.admin)), &failed);
	document_set(object, "weight", json_integer(view.weight), &failed);
	document_set(object, "configured", configured_document(target), &failed);
	document_set(object, "override", override_document(override, &failed), &failed);
	document_set(object, "usable", json_boolean(view.usable), &failed);
	document_set(object, "health", health_document(upstream, target, &view, &failed), &failed);
	document_set(object, "ejected_until", moment(view.ejected_until_ms), &failed);
	document_set(object, "flows_active", document_number(sum.active), &failed);
	document_set(object, "drain", drain_document(override, &view, sum.active, &failed), &failed);
	if (!failed)
		return object;
	json_decref(object);
	return NULL;
}

/* --- what an operator says --- */

static struct override override_of(const struct core *core, const struct target *target)
{
	const struct override *found = overrides_find(&core->overrides, (uint32_t)target->row.id);

	if (found)
		return *found;
	return (struct override){ .target = (uint32_t)target->row.id,
		.admin_state = OVERRIDES_NONE,
		.weight = OVERRIDES_NONE,
		.over_admin = target->admin_state,
		.over_weight = target->weight,
		.drain_deadline = OVERRIDES_NONE,
		.reset_per_s = OVERRIDES_RESET_PER_S };
}

static int64_t admin_in_force(const struct override *override, const struct target *target)
{
	return override->admin_state == OVERRIDES_NONE ? target->admin_state : override->admin_state;
}

/* Adds the order to what is said so far. A drain that begins has no deadline but one that is given with it. */
static int change_override(struct override *override, const struct target *target,
        const struct core_target_order *order, struct errs *errs)
{
	int64_t before = admin_in_force(override, target);

	if (order->admin_state != CORE_TARGET_KEEP)
		override->admin_state =
		        order->admin_state == CORE_TARGET_CONFIGURED ? OVERRIDES_NONE : order->admin_state;
	if (order->weight != CORE_TARGET_KEEP)
		override->weight = order->weight == CORE_TARGET_CONFIGURED ? OVERRIDES_NONE : order->weight;
	if (admin_in_force(override, target) != before || order->drain_deadline_s == CORE_TARGET_CONFIGURED)
		override->drain_deadline = OVERRIDES_NONE;
	if (order->drain_reset_per_s != CORE_TARGET_KEEP)
		override->reset_per_s = order->drain_reset_per_s == CORE_TARGET_CONFIGURED ? OVERRIDES_RESET_PER_S
		                                                                           : order->drain_reset_per_s;
	if (order->drain_deadline_s >= 0)
		override->drain_deadline = (int64_t)time(NULL) + order->drain_deadline_s;
	if (override->drain_deadline == OVERRIDES_NONE || admin_in_force(override, target) != ADMIN_STATE_UP)
		return 0;
	errs_add(errs, "/drain_deadline_s", "not_applicable",
	        "A deadline is for a target that drains or is down, and this one is up.");
	return -EINVAL;
}

static void tell(struct core *core, const struct upstream *upstream, const struct target *target, const char *actor)
{
	char text[NAMES_TARGET_MAX];
	struct health_view view;

	names_target(target, text);
	health_view_read(worker_meter(core->worker), target, clock_us() / 1000, &view);
	log_write_about(LOG_NOTICE,
	        LOG_ABOUT(LOG_TEXT("UPSTREAM", upstream->name), LOG_TEXT("TARGET", text), LOG_TEXT("ACTOR", actor)),
	        "upstream %s: target %s is set to %s, weight %u, by %s", upstream->name, text, admin_word(view.admin),
	        (unsigned)view.weight, actor);
	core_tell(core, "target",
	        json_pack("{s:s, s:s, s:s, s:s, s:i, s:s}", "upstream", upstream->name, "target", text, "change",
	                "operator", "admin_state", admin_word(view.admin), "weight", (int)view.weight, "actor", actor));
}

int core_target_set(struct core *core, const struct upstream *upstream, const struct target *target,
        const struct core_target_order *order, const char *actor, struct errs *errs)
{
	struct override override = override_of(core, target);
	struct target_state *state = worker_target(core->worker, (uint32_t)target->row.id);
	int r = change_override(&override, target, order, errs);

	if (r < 0)
		return r;
	if (!state) {
		errs_add(errs, "", "too_many", "More than %u targets have no place for their state.",
		        (unsigned)STATS_TARGETS_MAX);
		return -ENOSPC;
	}
	override.said_at = (int64_t)time(NULL);
	snprintf(override.actor, sizeof(override.actor), "%s", actor);
	r = overrides_set(&core->overrides, core->store, &override);
	if (r < 0) {
		errs_add(errs, "", "storage", "%s", store_error(core->store));
		return r;
	}
	overrides_write(overrides_find(&core->overrides, override.target), state);
	worker_reap(core->worker);
	tell(core, upstream, target, actor);
	target_watch_soon(core->watch);
	return 0;
}

/* --- beside the configuration --- */

int core_targets_start(struct core *core)
{
	int r = overrides_load(&core->overrides, core->store, apply_snapshot(core->apply));

	if (r < 0)
		log_error("what operators have said of targets cannot be read: %s", store_error(core->store));
	overrides_write_all(&core->overrides, core->worker);
	return r == -ENOMEM ? r : 0;
}

void core_targets_follow(struct core *core)
{
	if (overrides_follow(&core->overrides, core->store, apply_snapshot(core->apply), core->worker))
		target_watch_soon(core->watch);
}
