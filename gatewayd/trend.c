/* The last hour in a ring; see trend.h. */
#include "gatewayd/trend.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/log.h"

/* First bytes of the file; the number is that of the record's form, and a file of another form is begun anew. */
#define MAGIC "gwtrend2"

struct record {
	struct trend_point point;
	struct trend_latencies latencies;
	uint64_t check; /* of all before it */
};

struct header {
	char magic[8];
	uint64_t record_size;
};

struct trend {
	int fd; /* -1: none, or given up */
	struct record records[TREND_SECONDS];
};

static const struct {
	const char *name;
	bool gauge;
} values[] = {
#define TREND(member, unit, gauge, doc) { #member, gauge },
#include "gatewayd/trend.def"
#undef TREND
};
static_assert(ARRAY_SIZE(values) == TREND_VALUES, "one row per value");

const char *trend_name(enum trend_value value)
{
	return values[value].name;
}

const char *trend_quantile_name(enum trend_latency latency, enum trend_quantile quantile)
{
	static const char *const names[TREND_LATENCIES][TREND_QUANTILES] = {
		[TREND_CONNECT_TIME] = { "connect_time_p50", "connect_time_p95", "connect_time_p99" },
		[TREND_FIRST_BYTE] = { "first_byte_p50", "first_byte_p95", "first_byte_p99" },
	};

	return names[latency][quantile];
}

/* FNV-1a; never 0, so that zeros are no record. */
static uint64_t check_of(const struct record *record)
{
	const uint8_t *bytes = (const uint8_t *)record;
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < offsetof(struct record, check); i++)
		hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
	return hash | 1;
}

static size_t slot_of(int64_t time)
{
	return (size_t)(time % TREND_SECONDS);
}

static void give_up(struct trend *trend, const char *what, int error)
{
	log_warning("the history of figures is kept in memory only: %s: %s", what, strerror(error));
	cleanup_close(&trend->fd);
	trend->fd = -1;
}

/* --- the file --- */

static bool has_header(int fd)
{
	struct header header;

	return pread(fd, &header, sizeof(header), 0) == sizeof(header) &&
	       memcmp(header.magic, MAGIC, sizeof(header.magic)) == 0 && header.record_size == sizeof(struct record);
}

static int begin_file(int fd)
{
	struct header header = { .record_size = sizeof(struct record) };

	memcpy(header.magic, MAGIC, sizeof(header.magic));
	if (ftruncate(fd, 0) < 0)
		return -errno;
	return pwrite(fd, &header, sizeof(header), 0) == sizeof(header) ? 0 : -ENOSPC;
}

/* Keeps the records that are whole, in their place, and neither old nor of the future. */
static void read_records(struct trend *trend, int64_t now)
{
	ssize_t n = pread(trend->fd, trend->records, sizeof(trend->records), sizeof(struct header));
	size_t whole = n > 0 ? (size_t)n / sizeof(struct record) : 0;

	for (size_t i = 0; i < TREND_SECONDS; i++) {
		struct record *record = &trend->records[i];
		int64_t time = record->point.time;

		if (record->check == 0 && record->point.time == 0)
			continue;
		if (i >= whole || record->check != check_of(record) || time <= now - TREND_SECONDS || time > now ||
		        slot_of(time) != i)
			*record = (struct record){ 0 };
	}
}

static void open_file(struct trend *trend, const char *path, int64_t now)
{
	int r;

	trend->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (trend->fd < 0) {
		give_up(trend, path, errno);
		return;
	}
	if (has_header(trend->fd)) {
		read_records(trend, now);
		return;
	}
	r = begin_file(trend->fd);
	if (r < 0)
		give_up(trend, path, -r);
}

int trend_open(const char *path, int64_t now, struct trend **ret)
{
	struct trend *trend = calloc(1, sizeof(*trend));

	if (!trend)
		return -ENOMEM;
	trend->fd = -1;
	if (path)
		open_file(trend, path, now);
	*ret = trend;
	return 0;
}

void trend_close(struct trend *trend)
{
	if (!trend)
		return;
	cleanup_close(&trend->fd);
	free(trend);
}

/* --- points --- */

static void gather(struct trend_point *into, const struct trend_point *point)
{
	into->span_ms += point->span_ms;
	for (int i = 0; i < TREND_VALUES; i++)
		into->value[i] = values[i].gauge ? point->value[i] : into->value[i] + point->value[i];
}

/* --- latencies --- */

void trend_fold(const struct histogram_sum *before, const struct histogram_sum *now, uint32_t ret[TREND_BUCKETS])
{
	bool anew = now->count < before->count;

	memset(ret, 0, TREND_BUCKETS * sizeof(ret[0]));
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		size_t into = i / 2 < TREND_BUCKETS ? i / 2 : TREND_BUCKETS - 1;
		uint64_t more = now->bucket[i] - (anew ? 0 : before->bucket[i]);

		ret[into] = more < UINT32_MAX - ret[into] ? ret[into] + (uint32_t)more : UINT32_MAX;
	}
}

static void latencies_add(struct trend_latencies *into, const struct trend_latencies *more)
{
	for (size_t i = 0; i < TREND_LATENCIES; i++)
		for (size_t j = 0; j < TREND_BUCKETS; j++)
			into->count[i][j] += more->count[i][j];
}

static void quantiles_of(const struct trend_latencies *latencies, struct trend_quantiles *ret)
{
	static const double shares[] = { [TREND_P50] = 0.5, [TREND_P95] = 0.95, [TREND_P99] = 0.99 };

	static_assert(ARRAY_SIZE(shares) == TREND_QUANTILES, "one share for each");
	static_assert(2 * TREND_BUCKETS <= HISTOGRAM_BUCKETS, "each has its two");
	for (size_t i = 0; i < TREND_LATENCIES; i++) {
		struct histogram_sum sum = { 0 };

		for (size_t j = 0; j < TREND_BUCKETS; j++) {
			sum.bucket[2 * j + 1] = latencies->count[i][j];
			sum.count += latencies->count[i][j];
		}
		for (size_t j = 0; j < TREND_QUANTILES; j++)
			ret->us[i][j] = sum.count ? histogram_quantile(&sum, shares[j]) : TREND_NONE;
	}
}

/* --- adding and telling --- */

void trend_add(struct trend *trend, const struct trend_point *point, const struct trend_latencies *latencies)
{
	size_t slot = slot_of(point->time);
	struct record *record = &trend->records[slot];
	off_t offset = (off_t)(sizeof(struct header) + slot * sizeof(*record));

	if (record->point.time != point->time)
		*record = (struct record){ .point.time = point->time };
	gather(&record->point, point);
	if (latencies)
		latencies_add(&record->latencies, latencies);
	record->check = check_of(record);
	if (trend->fd >= 0 && pwrite(trend->fd, record, sizeof(*record), offset) != sizeof(*record))
		give_up(trend, "writing", errno);
}

size_t trend_points(const struct trend *trend, int64_t now, unsigned step, int64_t after, struct trend_point *ret,
        struct trend_quantiles *ret_quantiles)
{
	struct trend_latencies latencies = { 0 }; /* of the step so far */
	int64_t seconds = (int64_t)step;
	size_t n = 0;

	for (int64_t time = now - TREND_SECONDS + 1; time <= now; time++) {
		const struct record *record = &trend->records[slot_of(time)];
		int64_t end = (time + seconds - 1) / seconds * seconds;

		if (record->point.time != time || end <= after)
			continue;
		if (n == 0 || ret[n - 1].time != end) {
			if (n > 0 && ret_quantiles)
				quantiles_of(&latencies, &ret_quantiles[n - 1]);
			latencies = (struct trend_latencies){ 0 };
			ret[n++] = (struct trend_point){ .time = end };
		}
		gather(&ret[n - 1], &record->point);
		latencies_add(&latencies, &record->latencies);
	}
	if (n > 0 && ret_quantiles)
		quantiles_of(&latencies, &ret_quantiles[n - 1]);
	return n;
}
