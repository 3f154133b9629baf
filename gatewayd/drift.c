/*
 * Drift and its mending; see drift.h. Events only say that something may be
 * different: they are gathered for a moment, then the state is read back and
 * compared; a big table in a child process, meanwhile the loop goes on. So a
 * storm of foreign changes costs one look per pause, and a change that was
 * undone again is none.
 */
#include "gatewayd/drift.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "gatewayd/base/clock.h"
#include "gatewayd/base/log.h"
#include "gatewayd/examine.h"
#include "rules/kernel_watch.h"
#include "schema/value.h"

/* Pause between the first event and the look, so that one transaction of somebody is looked at once. */
#define GATHER_MS 20
/* Shortest pause between two looks; and between two when somebody keeps undoing ours, more than BUSY_LOOKS in a row. */
#define PAUSE_MS      100
#define PAUSE_BUSY_MS 1000
#define BUSY_LOOKS    10
/* A quiet time after which the count of looks in a row starts anew. */
#define QUIET_MS 10000
/* So many looks of a child in a row may be overtaken by transactions of ours; the next one is not left to a child. */
#define OVERTAKEN_MAX 3
/* So many looks in a row may be interrupted by others' transactions before that is told, and our state is no longer
 * taken for what it was. It is looked at on and on, at last once a second, and nothing is replaced meanwhile. */
#define INTERRUPTED_MAX 10

struct drift_monitor {
	sd_event *event;
	struct apply *apply;
	struct route_params route;
	struct drift_owner owner;
	struct kernel_watch *watch;
	sd_event_source *io, *timer;
	struct watch_event cause, next; /* the first of those gathered: for this look, and while a child is looking */
	struct examine *examine;
	bool again; /* something came while a child was looking, or this look was mending */
	bool mending;
	bool failed;                     /* the last look, or the mending of what it found */
	uint64_t serial;                 /* of our transactions when the child began */
	unsigned overtaken, interrupted; /* looks in a row */
	int routing; /* of this look: 1 there was something wrong with rules or routes, 0, or negative errno */
	bool heals;  /* in this look */
	struct route_look routes; /* the last one */
	bool present;
	uint64_t healed;
	unsigned looks; /* in a row */
	uint64_t looked_ms;
	json_t *last;
};

static uint64_t now_ms(void)
{
	return clock_us() / 1000;
}

static const char *kind_name(enum watch_kind kind)
{
	static const char *const names[] = { "nft", "rule", "route", "link", "address", "unknown" };

	return names[kind];
}

static json_t *describe(const struct drift_monitor *drift, bool healed)
{
	char at[32];

	return json_pack("{s:s, s:s, s:s, s:o, s:s, s:b}", "at", value_time_format(time(NULL), at), "what",
	        kind_name(drift->cause.kind), "process", drift->cause.process, "pid",
	        drift->cause.pid > 0 ? json_integer(drift->cause.pid) : json_null(), "detail", drift->cause.detail,
	        "healed", healed);
}

static void report(struct drift_monitor *drift, bool healed)
{
	log_warning("drift in %s by %s (process %d): %s; %s", kind_name(drift->cause.kind),
	        drift->cause.process[0] ? drift->cause.process : "an unknown program", (int)drift->cause.pid,
	        drift->cause.detail, healed ? "put right" : "left as it is");
	json_decref(drift->last);
	drift->last = describe(drift, healed);
	if (drift->owner.tell && drift->last)
		drift->owner.tell(drift->owner.userdata, json_incref(drift->last));
}

static void look_soon(struct drift_monitor *drift);

/* Others' routes in our table are not ours to remove; what is new about them is told once. */
static bool has_new_foreign(const struct route_look *before, const struct route_look *now)
{
	return now->foreign > before->foreign || (now->foreign > 0 && strcmp(now->first, before->first) != 0);
}

static int look_at_routing(struct drift_monitor *drift)
{
	struct route_look look = { 0 };
	int r = drift->heals ? apply_mend_routing(drift->apply, &look) : apply_look_at_routing(drift->apply, &look);

	if (r < 0)
		return r;
	if (look.wrong == 0 && has_new_foreign(&drift->routes, &look))
		report(drift, false);
	drift->routes = look;
	return look.wrong > 0;
}

/* The end of a look; `differs`: 1, 0 or negative errno, of the table. */
static void conclude(struct drift_monitor *drift, int differs)
{
	int r = differs < 0 || drift->routing < 0 ? (drift->routing < 0 ? drift->routing : differs)
	                                          : differs > 0 || drift->routing > 0;
	bool before = drift->present;

	if (r < 0)
		log_error("what others did to our part of the kernel cannot be %s: %s",
		        drift->heals ? "put right" : "read", strerror(-r));
	if (r > 0 && drift->heals)
		drift->healed++;
	/* A difference that was reported already is not news each time somebody touches something. */
	if (r > 0 && (drift->heals || !drift->present))
		report(drift, drift->heals);
	drift->present = r < 0 || (r > 0 && !drift->heals);
	drift->failed = r < 0;
	if (drift->present != before && drift->owner.changed)
		drift->owner.changed(drift->owner.userdata, drift->present);
}

static int mend(struct drift_monitor *drift, const struct heal *heal)
{
	int r;

	drift->mending = true;
	r = drift->heals ? apply_mend(drift->apply, heal) : heal->needed;
	drift->mending = false;
	return r;
}

/* The next look, if something came during this one, or it failed: what kept us from it may go without a word, like a
 * table that the kernel takes away with its owner. */
static void look_again(struct drift_monitor *drift)
{
	if (drift->again)
		drift->cause = drift->next;
	if (drift->again || drift->failed)
		look_soon(drift);
	drift->again = false;
}

/* Whether the look was interrupted, and there is to be another one, for the same cause. */
static bool is_interrupted(struct drift_monitor *drift, int error)
{
	if (error != -EINTR) {
		drift->interrupted = 0;
		return false;
	}
	if (drift->interrupted >= INTERRUPTED_MAX)
		return false;
	drift->interrupted++;
	drift->again = false;
	look_soon(drift);
	return true;
}

static void look_here(struct drift_monitor *drift)
{
	_cleanup_(heal_clear) struct heal heal = { 0 };
	int r = apply_examine(drift->apply, &heal);

	drift->overtaken = 0;
	if (is_interrupted(drift, r))
		return;
	conclude(drift, r < 0 ? r : mend(drift, &heal));
	look_again(drift);
}

static void on_examined(void *userdata, int error, struct heal *heal)
{
	struct drift_monitor *drift = userdata;

	drift->examine = NULL;
	if (error == 0 && drift->serial != apply_serial(drift->apply)) {
		/* What it found may be our own change: once more, for the same cause. */
		drift->overtaken++;
		drift->again = false;
		look_soon(drift);
		return;
	}
	drift->overtaken = 0;
	if (is_interrupted(drift, error))
		return;
	/* A child that was killed has seen nothing: that is a failure, too. */
	conclude(drift, error < 0 ? error : mend(drift, heal));
	look_again(drift);
}

static void look(struct drift_monitor *drift)
{
	int routing;

	drift->heals = drift->owner.heals(drift->owner.userdata);
	drift->looked_ms = now_ms();
	drift->looks++;
	/* Routing first: a mark without a route would lose packets, a route without a mark does nothing. */
	routing = look_at_routing(drift);
	/* Of a look that was overtaken or interrupted the mending of rules and routes is not told yet. */
	if (routing != 0 || (drift->overtaken == 0 && drift->interrupted == 0))
		drift->routing = routing;
	drift->serial = apply_serial(drift->apply);
	if (!apply_is_large(drift->apply) || drift->overtaken > OVERTAKEN_MAX ||
	        examine_start(drift->event, drift->apply, on_examined, drift, &drift->examine) < 0)
		look_here(drift);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct drift_monitor *drift = userdata;

	(void)source;
	(void)usec;
	drift->timer = sd_event_source_disable_unref(drift->timer);
	look(drift);
	return 0;
}

static void look_soon(struct drift_monitor *drift)
{
	uint64_t now = now_ms(), pause, due;

	if (drift->timer || drift->examine)
		return;
	if (now - drift->looked_ms > QUIET_MS)
		drift->looks = 0;
	pause = drift->looks > BUSY_LOOKS ? PAUSE_BUSY_MS : PAUSE_MS;
	due = drift->looks > 0 && drift->looked_ms + pause > now + GATHER_MS ? drift->looked_ms + pause
	                                                                     : now + GATHER_MS;
	if (sd_event_add_time(drift->event, &drift->timer, CLOCK_MONOTONIC, due * 1000, 1000, on_timer, drift) < 0)
		look(drift);
}

static void take_event(struct drift_monitor *drift, const struct watch_event *event)
{
	if (event->kind == WATCH_LINK || event->kind == WATCH_ADDRESS) {
		if (drift->owner.link_changed)
			drift->owner.link_changed(drift->owner.userdata, event->interface);
		return;
	}
	if (drift->examine || drift->mending) {
		if (!drift->again)
			drift->next = *event;
		drift->again = true;
		return;
	}
	if (!drift->timer)
		drift->cause = *event;
	look_soon(drift);
}

static int on_watch(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct drift_monitor *drift = userdata;
	struct watch_event event;
	int r;

	(void)source;
	(void)fd;
	(void)events;
	while ((r = kernel_watch_next(drift->watch, &drift->route, &event)) > 0)
		take_event(drift, &event);
	if (r < 0)
		log_error("the monitor of the kernel failed: %s", strerror(-r));
	return 0;
}

static void on_large_begin(void *userdata)
{
	struct drift_monitor *drift = userdata;
	int r = kernel_watch_pause(drift->watch);

	if (r < 0)
		log_debug("the monitor of the kernel listens to a large change of our own: %s", strerror(-r));
}

static void on_large_end(void *userdata, uint64_t commits)
{
	struct drift_monitor *drift = userdata;
	struct watch_event event;

	if (kernel_watch_resume(drift->watch, commits, &event) > 0)
		take_event(drift, &event);
}

int drift_new(sd_event *event, struct apply *apply, const struct route_params *route, const struct drift_owner *owner,
        struct drift_monitor **ret)
{
	struct drift_monitor *drift = calloc(1, sizeof(*drift));
	int r;

	if (!drift)
		return -ENOMEM;
	drift->event = event;
	drift->apply = apply;
	drift->route = *route;
	drift->owner = *owner;
	r = kernel_watch_open(&drift->watch);
	if (r == 0)
		r = apply_look_at_routing(apply, &drift->routes);
	if (r == 0)
		r = sd_event_add_io(event, &drift->io, kernel_watch_fd(drift->watch), EPOLLIN, on_watch, drift);
	if (r < 0) {
		drift_free(drift);
		return r;
	}
	apply_on_large(apply, on_large_begin, on_large_end, drift);
	*ret = drift;
	return 0;
}

void drift_free(struct drift_monitor *drift)
{
	if (!drift)
		return;
	apply_on_large(drift->apply, NULL, NULL, NULL);
	sd_event_source_disable_unref(drift->io);
	sd_event_source_disable_unref(drift->timer);
	examine_free(drift->examine);
	kernel_watch_free(drift->watch);
	json_decref(drift->last);
	free(drift);
}

json_t *drift_status(const struct drift_monitor *drift)
{
	return json_pack("{s:s, s:I, s:O?}", "state", drift->present ? "present" : "none", "healed",
	        (json_int_t)drift->healed, "last", drift->last);
}

bool drift_present(const struct drift_monitor *drift)
{
	return drift->present;
}

void drift_look_if_present(struct drift_monitor *drift)
{
	if (drift->present)
		look_soon(drift);
}

void drift_look_for_ours(struct drift_monitor *drift)
{
	static const struct watch_event event = { .kind = WATCH_OVERRUN,
		.detail = "the way back of a change of our own has failed" };

	take_event(drift, &event);
}
