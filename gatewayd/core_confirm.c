/*
 * Commit-confirm: a change that is taken back unless somebody keeps it. The
 * mark (which revision, where to go back to, until when) is written in the
 * same transaction as the change, so it holds across a crash and a reboot;
 * the deadline is a time of day for the same reason.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "gatewayd/base/log.h"
#include "gatewayd/core.h"
#include "gatewayd/store_history.h"
#include "schema/value.h"

/* How often the event stream says what is left of the time: often enough for somebody who comes in between, and each
 * second when it becomes urgent. */
#define TICK_S        10
#define TICK_URGENT_S 1

/* A way back that the kernel or the disk refused is tried again after this pause. */
#define RETRY_S 5

int core_pending_text(const struct core_pending *pending, char **ret)
{
	return asprintf(ret, "%" PRId64 " %" PRId64 " %" PRId64, pending->revision, pending->base, pending->deadline) <
	                       0
	               ? -ENOMEM
	               : 0;
}

static int take_back(struct core *core)
{
	_cleanup_core_result_ struct core_result result = { 0 };
	_cleanup_errs_ struct errs errs = { 0 };
	char summary[96];
	struct core_request request = { .actor = "commit-confirm", .summary = summary };
	int64_t revision = core->pending.revision, base = core->pending.base;
	int r;

	snprintf(summary, sizeof(summary), "revision %" PRId64 " was not confirmed: back to %" PRId64, revision, base);
	log_warning("%s", summary);
	r = core_rollback(core, base, &request, &errs, &result);
	if (r < 0)
		log_error("the way back to revision %" PRId64 " failed (%s): %s", base, strerror(-r),
		        errs.n > 0 && errs.items[0].detail ? errs.items[0].detail : "no words");
	return r;
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata);

static int set_timer(struct core *core, uint64_t at_us)
{
	core->pending_timer = sd_event_source_disable_unref(core->pending_timer);
	return sd_event_add_time(core->event, &core->pending_timer, CLOCK_REALTIME, at_us, 10000, on_deadline, core);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct core *core = userdata;

	(void)source;
	(void)usec;
	if (core->pending.revision != 0 && take_back(core) < 0)
		return set_timer(core, (uint64_t)(time(NULL) + RETRY_S) * 1000000);
	return 0;
}

/* Not by time(), which lags behind the clock of timers by some milliseconds. */
static int64_t seconds_left(const struct core_pending *pending)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return pending->deadline - (int64_t)now.tv_sec;
}

static int on_tick(sd_event_source *source, uint64_t usec, void *userdata);

/* The next time that is to be told: when the seconds left are a multiple of the step. None when it is over. */
static void set_tick(struct core *core)
{
	int64_t left = seconds_left(&core->pending), next;

	core->pending_tick = sd_event_source_disable_unref(core->pending_tick);
	if (core->pending.revision == 0 || left <= 1)
		return;
	next = left > TICK_S ? (left - 1) / TICK_S * TICK_S : left - TICK_URGENT_S;
	if (sd_event_add_time(core->event, &core->pending_tick, CLOCK_REALTIME,
	            (uint64_t)(core->pending.deadline - next) * 1000000, 10000, on_tick, core) < 0)
		log_error("no timer for the countdown of revision %" PRId64, core->pending.revision);
}

static int on_tick(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct core *core = userdata;

	(void)source;
	(void)usec;
	core_tell(core, "pending", core_pending(core));
	set_tick(core);
	return 0;
}

/* How the change that waited has ended, by what came to be in force. */
static void tell_settled(struct core *core, const struct core_pending *was)
{
	core_tell(core, "pending",
	        json_pack("{s:i, s:s, s:I}", "revision", 0, "outcome",
	                core_revision(core) == was->revision ? "confirmed" : "reverted", "settled",
	                (json_int_t)was->revision));
}

void core_set_pending(struct core *core, const struct core_pending *pending)
{
	struct core_pending was = core->pending;

	core->pending = *pending;
	if (pending->revision != 0)
		core_tell(core, "pending", core_pending(core));
	else if (was.revision != 0)
		tell_settled(core, &was);
	set_tick(core);
	core->pending_timer = sd_event_source_disable_unref(core->pending_timer);
	if (pending->revision != 0 && set_timer(core, (uint64_t)pending->deadline * 1000000) < 0)
		log_error("no timer for the confirmation of revision %" PRId64, pending->revision);
}

int core_confirm_start(struct core *core)
{
	_cleanup_free_ char *text = NULL;
	struct core_pending pending = { 0 };
	int r = store_meta_get(core->store, APPLY_PENDING_KEY, &text);

	if (r < 0 || !text)
		return r;
	if (sscanf(text, "%" SCNd64 " %" SCNd64 " %" SCNd64, &pending.revision, &pending.base, &pending.deadline) !=
	                3 ||
	        pending.revision != core_revision(core)) {
		log_error("the mark of an unconfirmed change makes no sense and is ignored: %s", text);
		return store_meta_set(core->store, APPLY_PENDING_KEY, NULL);
	}
	core_set_pending(core, &pending);
	if (pending.deadline > (int64_t)time(NULL))
		return 0;
	/* A failure is tried again by the timer: the gateway serves what is stored meanwhile. */
	if (take_back(core) < 0)
		return set_timer(core, (uint64_t)(time(NULL) + RETRY_S) * 1000000);
	return 0;
}

void core_confirm_stop(struct core *core)
{
	core->pending_timer = sd_event_source_disable_unref(core->pending_timer);
	core->pending_tick = sd_event_source_disable_unref(core->pending_tick);
}

int core_confirm(struct core *core, int64_t revision, const struct core_request *request, struct errs *errs)
{
	static const struct core_pending none = { 0 };
	int r;

	if (core->pending.revision == 0 || core->pending.revision != revision) {
		errs_add(errs, "", "not_pending", "Revision %" PRId64 " does not wait to be confirmed.", revision);
		return -ENOENT;
	}
	r = store_meta_set(core->store, APPLY_PENDING_KEY, NULL);
	if (r < 0) {
		errs_add(errs, "", "store_failed", "The database does not take the confirmation: %s.",
		        store_error(core->store));
		return r;
	}
	core_set_pending(core, &none);
	log_write_about(LOG_NOTICE, LOG_ABOUT(LOG_NUMBER("REVISION", revision), LOG_TEXT("ACTOR", request->actor)),
	        "revision %" PRId64 " is confirmed by %s", revision, request->actor);
	return 0;
}

json_t *core_pending(struct core *core)
{
	const struct core_pending *pending = &core->pending;
	int64_t left = seconds_left(pending);
	char text[32];

	if (pending->revision == 0)
		return json_null();
	return json_pack("{s:I, s:I, s:s, s:I}", "revision", (json_int_t)pending->revision, "base",
	        (json_int_t)pending->base, "deadline", value_time_format(pending->deadline, text), "seconds_left",
	        (json_int_t)(left > 0 ? left : 0));
}
