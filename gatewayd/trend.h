/*
 * The last hour, second by second: a ring in memory and the same ring in a
 * file of the state directory, so that the next daemon goes on with it. Each
 * record has a checksum: what a crash or a full disk has spoilt is left out.
 * The file says by name what is in it, so that one of another version is
 * carried over, as far as the names (and of latencies the buckets) are ours.
 * Losing the file loses plots and nothing else, so it is never synced, and its
 * faults are told once and otherwise ignored.
 */
#ifndef GW_TREND_H
#define GW_TREND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gatewayd/base/histogram.h"

/* Seconds kept; 1.6 kB each in memory and on disk, most of it for latencies. */
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

/* What is told of how long things took, as quantiles of those that were measured in the step. */
enum trend_latency { TREND_CONNECT_TIME, TREND_FIRST_BYTE, TREND_LATENCIES };
enum trend_quantile { TREND_P50, TREND_P95, TREND_P99, TREND_QUANTILES };

/* Buckets of a second's latencies: each is two of a histogram's (base/histogram.h), so that a quantile is at most an
 * eighth above the true one. The last one has all from a minute on. */
#define TREND_BUCKETS 184
struct trend_latencies {
	uint32_t count[TREND_LATENCIES][TREND_BUCKETS];
};

/* In microseconds. */
struct trend_quantiles {
	uint64_t us[TREND_LATENCIES][TREND_QUANTILES]; /* TREND_NONE: nothing was measured */
};
#define TREND_NONE UINT64_MAX

struct trend;

/* Reads the file, or begins it; path NULL: in memory only. now: seconds since 1970. -ENOMEM. */
int trend_open(const char *path, int64_t now, struct trend **ret);
void trend_close(struct trend *trend);
/* Adds to the second `point->time`; latencies NULL: none. */
void trend_add(struct trend *trend, const struct trend_point *point, const struct trend_latencies *latencies);
/* What a histogram has recorded since it was like `before` (beginning anew if it has less), as buckets of a second. */
void trend_fold(const struct histogram_sum *before, const struct histogram_sum *now, uint32_t ret[TREND_BUCKETS]);
/* The points of the hour before `now`, oldest first, those with time > after. Steps end at multiples of `step` (1 to
 * TREND_STEP_MAX), the last one may not be over. Returns how many, at most TREND_SECONDS. ret_quantiles: of the same
 * points, may be NULL. */
size_t trend_points(const struct trend *trend, int64_t now, unsigned step, int64_t after, struct trend_point *ret,
        struct trend_quantiles *ret_quantiles);

/* The name as in trend.def; and that of a quantile, "connect_time_p50". */
const char *trend_name(enum trend_value value);
const char *trend_quantile_name(enum trend_latency latency, enum trend_quantile quantile);

#endif
