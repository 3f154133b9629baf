/* News of targets and upstreams; see target_watch.h. */
#include "gatewayd/target_watch.h"

#include <errno.h>
#include <stdlib.h>

#include "gatewayd/base/clock.h"
#include "gatewayd/base/log.h"
#include "gatewayd/health_view.h"
#include "schema/value.h"

#define PERIOD_US UINT64_C(1000000)

/* What was last seen of the object that has this slot. */
struct seen_target {
	uint32_t id, ejections;
	uint8_t health;
	bool ejected;
};

struct seen_upstream {
	uint32_t id;
	uint8_t state;
};

struct target_watch {
	struct core *core;
	sd_event_source *timer;
	struct seen_target *targets;     /* by number of the slot; pages that no target needs are never touched */
	struct seen_upstream *upstreams; /* the same */
	bool begun;                      /* what differs is news */
};

/* --- targets --- */

static json_t *event_of(const struct name *name, const char *key, const char *word)
{
	char target[NAMES_TARGET_MAX];

	return json_pack("{s:s, s:s, s:s}", "upstream", name->upstream->name, "target",
	        names_target((const struct target *)name->row, target), key, word);
}

static void tell_health(
        struct target_watch *watch, const struct name *name, uint8_t before, const struct health_view *view)
{
	char words[HEALTH_VIEW_WORDS_MAX], target[NAMES_TARGET_MAX], since[32];
	json_t *event = event_of(name, "state", health_view_state_name(view->health));

	health_view_words(view, name->upstream, (const struct target *)name->row, words);
	names_target((const struct target *)name->row, target);
	log_write_about(LOG_NOTICE, LOG_ABOUT(LOG_TEXT("UPSTREAM", name->upstream->name), LOG_TEXT("TARGET", target)),
	        "upstream %s: target %s is %s: %s", name->upstream->name, target, health_view_state_name(view->health),
	        words);
	if (event)
		json_object_update_new(
		        event, json_pack("{s:s, s:s, s:i, s:s, s:s}", "before",
		                       health_view_state_name((enum target_health)before), "cause",
		                       health_view_cause_name(view->cause), "detail", (int)view->detail, "reason",
		                       words, "since", value_time_format(health_view_time(view->since_ms), since)));
	core_tell(watch->core, "health", event);
}

static void tell_ejected(struct target_watch *watch, const struct name *name, const struct health_view *view)
{
	bool ejected = view->ejected_until_ms != 0;
	json_t *event = event_of(name, "change", ejected ? "ejected" : "readmitted");
	char until[32], target[NAMES_TARGET_MAX];

	names_target((const struct target *)name->row, target);
	log_write_about(LOG_NOTICE, LOG_ABOUT(LOG_TEXT("UPSTREAM", name->upstream->name), LOG_TEXT("TARGET", target)),
	        "upstream %s: target %s is %s", name->upstream->name, target,
	        ejected ? "left out for a while, for too many connections failed" : "tried again");
	if (event && ejected)
		json_object_set_new(event, "until",
		        json_string(value_time_format(health_view_time(view->ejected_until_ms), until)));
	core_tell(watch->core, "target", event);
}

static void look_at_target(struct target_watch *watch, const struct name *name, uint64_t now_ms)
{
	const struct meter *meter = worker_meter(watch->core->worker);
	uint32_t slot = meter_find(meter, STATS_TARGET, name->id);
	struct seen_target *seen, before;
	struct health_view view;

	if (slot == STATS_SLOT_NONE)
		return;
	seen = &watch->targets[slot - stats_slot_first(STATS_TARGET)];
	before = *seen;
	health_view_read(meter, (const struct target *)name->row, now_ms, &view);
	*seen = (struct seen_target){ .id = name->id,
		.ejections = view.ejections,
		.health = (uint8_t)view.health,
		.ejected = view.ejected_until_ms != 0 };
	if (before.id != name->id) /* a new target: that it is well, or not known, is no news */
		before = (struct seen_target){ .id = name->id, .ejections = view.ejections };
	/* What an earlier daemon has seen is no news, but what has become so since this one's start is. */
	if (!watch->begun && view.since_ms * 1000 < watch->core->started_us)
		return;
	if (before.health != seen->health)
		tell_health(watch, name, before.health, &view);
	if (before.ejected != seen->ejected || before.ejections != seen->ejections)
		tell_ejected(watch, name, &view);
}

/* --- upstreams --- */

static void tell_upstream(struct target_watch *watch, const struct upstream *upstream, uint8_t before,
        const struct health_view_upstream *view)
{
	const char *state = health_view_upstream_name(view->state);

	log_write_about(LOG_NOTICE, LOG_ABOUT(LOG_TEXT("UPSTREAM", upstream->name)),
	        "upstream %s is %s: %zu of %zu targets are usable, the quorum is %lld, and %zu of %zu backups",
	        upstream->name, state, view->usable, view->targets, (long long)upstream->quorum, view->backups_usable,
	        view->backups);
	core_tell(watch->core, "upstream",
	        json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "upstream", upstream->name, "state", state,
	                "before", health_view_upstream_name((enum health_view_upstream_state)before), "usable",
	                (json_int_t)view->usable, "targets", (json_int_t)view->targets, "quorum",
	                (json_int_t)upstream->quorum, "backups_usable", (json_int_t)view->backups_usable, "backups",
	                (json_int_t)view->backups));
}

static void look_at_upstream(struct target_watch *watch, const struct upstream *upstream, uint64_t now_ms)
{
	const struct meter *meter = worker_meter(watch->core->worker);
	uint32_t slot = meter_find(meter, STATS_UPSTREAM, upstream->row.id);
	struct seen_upstream *seen, before;
	struct health_view_upstream view;

	if (slot == STATS_SLOT_NONE)
		return;
	seen = &watch->upstreams[slot - stats_slot_first(STATS_UPSTREAM)];
	before = *seen;
	health_view_upstream(meter, upstream, now_ms, &view);
	*seen = (struct seen_upstream){ .id = (uint32_t)upstream->row.id, .state = (uint8_t)view.state };
	if (watch->begun && before.id == seen->id && before.state != seen->state)
		tell_upstream(watch, upstream, before.state, &view);
}

/* --- the timer --- */

static void look(struct target_watch *watch)
{
	struct names *names = &watch->core->names;
	uint64_t now_ms = clock_us() / 1000;

	if (names_follow(names, apply_snapshot(watch->core->apply)) < 0)
		return; /* another time */
	for (size_t i = 0; i < names->n[STATS_TARGET]; i++)
		look_at_target(watch, &names->items[STATS_TARGET][i], now_ms);
	for (size_t i = 0; i < names->n[STATS_UPSTREAM]; i++)
		look_at_upstream(watch, (const struct upstream *)names->items[STATS_UPSTREAM][i].row, now_ms);
	watch->begun = true;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)usec;
	look(userdata);
	(void)sd_event_source_set_time_relative(source, PERIOD_US);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

void target_watch_soon(struct target_watch *watch)
{
	if (!watch)
		return;
	(void)sd_event_source_set_time_relative(watch->timer, 0);
	(void)sd_event_source_set_enabled(watch->timer, SD_EVENT_ONESHOT);
}

int target_watch_new(struct core *core, struct target_watch **ret)
{
	struct target_watch *watch = calloc(1, sizeof(*watch));
	int r = -ENOMEM;

	if (!watch)
		return -ENOMEM;
	watch->core = core;
	watch->targets = calloc(STATS_TARGETS_MAX, sizeof(*watch->targets));
	watch->upstreams = calloc(STATS_UPSTREAMS_MAX, sizeof(*watch->upstreams));
	if (watch->targets && watch->upstreams)
		r = sd_event_add_time_relative(
		        core->event, &watch->timer, CLOCK_MONOTONIC, PERIOD_US, 1000, on_timer, watch);
	if (r < 0) {
		target_watch_free(watch);
		return r;
	}
	look(watch);
	*ret = watch;
	return 0;
}

void target_watch_free(struct target_watch *watch)
{
	if (!watch)
		return;
	sd_event_source_disable_unref(watch->timer);
	free(watch->targets);
	free(watch->upstreams);
	free(watch);
}
