/*
 * Drift and its mending; see drift.h. Events only say that something may be
 * different: they are gathered for a moment, then the state is read back and
 * compared. So a storm of foreign changes costs one look per pause, and a
 * change that was undone again is none.
 */
#include "gatewayd/drift.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "gatewayd/base/log.h"
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

struct drift_monitor {
	sd_event *event;
	struct apply *apply;
	struct route_params route;
	struct drift_owner owner;
	struct kernel_watch *watch;
	sd_event_source *io, *timer;
	struct watch_event cause; /* the first of those gathered */
	bool present;
	uint64_t healed;
	unsigned looks; /* in a row */
	uint64_t looked_ms;
	json_t *last;
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
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

static void look(struct drift_monitor *drift)
{
	bool heals = drift->owner.heals(drift->owner.userdata);
	int r = heals ? apply_heal(drift->apply) : apply_differs(drift->apply);

	/* Rules and routes have no look without a hand: here the monitor is believed. */
	if (!heals && r == 0 && (drift->cause.kind == WATCH_RULE || drift->cause.kind == WATCH_ROUTE))
		r = 1;

	drift->looked_ms = now_ms();
	drift->looks++;
	if (r < 0)
		log_error("what others did to our part of the kernel cannot be %s: %s", heals ? "put right" : "read",
		        strerror(-r));
	if (r > 0 && heals)
		drift->healed++;
	/* A difference that was reported already is not news each time somebody touches something. */
	if (r > 0 && (heals || !drift->present))
		report(drift, heals);
	drift->present = r < 0 || (r > 0 && !heals);
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

	if (drift->timer)
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
		r = sd_event_add_io(event, &drift->io, kernel_watch_fd(drift->watch), EPOLLIN, on_watch, drift);
	if (r < 0) {
		drift_free(drift);
		return r;
	}
	*ret = drift;
	return 0;
}

void drift_free(struct drift_monitor *drift)
{
	if (!drift)
		return;
	sd_event_source_disable_unref(drift->io);
	sd_event_source_disable_unref(drift->timer);
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
