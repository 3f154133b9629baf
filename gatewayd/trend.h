/*
 * The last hour, second by second: a ring in memory and the same ring in a
 * file of the state directory, so that the next daemon goes on with it. Each
 * record has a checksum: what a crash or a full disk has spoilt is left out.
 * Losing the file loses plots and nothing else, so it is never synced, and its
 * faults are told once and otherwise ignored.
 */
#ifndef GW_TREND_H
#define GW_TREND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Seconds kept; 80 bytes each in memory and on disk. */
#define TREND_SECONDS 3600
/* The longest step that points can be gathered in. */
#define TREND_STEP_MAX 60

enum trend_value {
#define TREND(member, unit, gauge, doc) TREND_##member,
#include "gatewayd/trend.def"
#undef TREND
	TREND_VALUES
};

/* One second, or several gathered in one point. */
struct trend_point {
	int64_t time;     /* the end, in seconds since 1970 */
	uint64_t span_ms; /* that the values were added in: less than the step where no daemon was there to look */
	uint64_t value[TREND_VALUES];
};

struct trend;

/* Reads the file, or begins it; path NULL: in memory only. now: seconds since 1970. -ENOMEM. */
int trend_open(const char *path, int64_t now, struct trend **ret);
void trend_close(struct trend *trend);
/* Adds to the second `point->time`. */
void trend_add(struct trend *trend, const struct trend_point *point);
/* The points of the hour before `now`, oldest first, those with time > after. Steps end at multiples of `step` (1 to
 * TREND_STEP_MAX), the last one may not be over. Returns how many, at most TREND_SECONDS. */
size_t trend_points(const struct trend *trend, int64_t now, unsigned step, int64_t after, struct trend_point *ret);

/* The name as in trend.def. */
const char *trend_name(enum trend_value value);

#endif
