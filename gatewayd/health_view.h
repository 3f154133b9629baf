/*
 * What is observed of targets and upstreams, in words and sums: from the
 * targets' states in shared memory (base/target_state.h) and the configuration.
 * Used by what tells of it: core_targets.c, core_status.c, core_metrics.c and
 * target_watch.c. Changes nothing.
 */
#ifndef GW_HEALTH_VIEW_H
#define GW_HEALTH_VIEW_H

#include "gatewayd/meter.h"

/* "up", "down", "unknown". */
const char *health_view_state_name(enum target_health health);
/* "timeout" and the like. */
const char *health_view_cause_name(enum target_cause cause);

/* A copy of a target's state in which nothing moves. All zero for a target without a place. */
struct health_view {
	enum target_health health;
	enum target_cause cause;
	uint32_t detail, latency_us, streak;
	uint64_t since_ms, checked_ms, checks, failures;
	uint64_t ejected_until_ms; /* 0: it is not ejected now */
	uint32_t ejections;
	uint32_t admin, weight; /* in force: enum admin_state */
	bool usable;            /* it gets new flows, as far as its own state goes */
};

/* The target as it is at now_ms (CLOCK_MONOTONIC). */
void health_view_read(const struct meter *meter, const struct target *target, uint64_t now_ms, struct health_view *ret);
/* Why the health is what it is, as a sentence without its full stop. */
#define HEALTH_VIEW_WORDS_MAX 160
const char *health_view_words(const struct health_view *view, const struct upstream *upstream,
        const struct target *target, char words[HEALTH_VIEW_WORDS_MAX]);

enum health_view_upstream_state {
	HEALTH_VIEW_UP,
	HEALTH_VIEW_DEGRADED, /* fewer usable targets than the quorum, backups aside */
	HEALTH_VIEW_DOWN,     /* no usable target at all */
	HEALTH_VIEW_STATES
};

struct health_view_upstream {
	enum health_view_upstream_state state;
	size_t targets, usable; /* backups aside */
	size_t backups, backups_usable;
};

/* "degraded" and the like. */
const char *health_view_upstream_name(enum health_view_upstream_state state);
/* The upstream as its targets are at now_ms. */
void health_view_upstream(
        const struct meter *meter, const struct upstream *upstream, uint64_t now_ms, struct health_view_upstream *ret);

/* Seconds since 1970 of a time of CLOCK_MONOTONIC, by both clocks as they are now. */
int64_t health_view_time(uint64_t at_ms);
/* The same, by what both clocks said at one moment, in microseconds: the answer does not depend on which moment. */
int64_t health_view_time_by(uint64_t at_ms, uint64_t day_us, uint64_t monotonic_us);

#endif
