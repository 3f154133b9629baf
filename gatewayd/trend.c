/* The last hour in a ring; see trend.h. */
#include "gatewayd/trend.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/log.h"

/* First bytes of the file; the number is that of the record's form, and a file of another form is begun anew. */
#define MAGIC "gwtrend1"

struct record {
	struct trend_point point;
	uint64_t check; /* of the point */
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

/* FNV-1a; never 0, so that zeros are no record. */
static uint64_t check_of(const struct trend_point *point)
{
	const uint8_t *bytes = (const uint8_t *)point;
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < sizeof(*point); i++)
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

		if (i >= whole || record->check != check_of(&record->point) || time <= now - TREND_SECONDS ||
		        time > now || slot_of(time) != i)
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

void trend_add(struct trend *trend, const struct trend_point *point)
{
	size_t slot = slot_of(point->time);
	struct record *record = &trend->records[slot];
	off_t offset = (off_t)(sizeof(struct header) + slot * sizeof(*record));

	if (record->point.time == point->time)
		gather(&record->point, point);
	else
		record->point = *point;
	record->check = check_of(&record->point);
	if (trend->fd >= 0 && pwrite(trend->fd, record, sizeof(*record), offset) != sizeof(*record))
		give_up(trend, "writing", errno);
}

size_t trend_points(const struct trend *trend, int64_t now, unsigned step, int64_t after, struct trend_point *ret)
{
	int64_t seconds = (int64_t)step;
	size_t n = 0;

	for (int64_t time = now - TREND_SECONDS + 1; time <= now; time++) {
		const struct trend_point *point = &trend->records[slot_of(time)].point;
		int64_t end = (time + seconds - 1) / seconds * seconds;

		if (point->time != time || end <= after)
			continue;
		if (n == 0 || ret[n - 1].time != end)
			ret[n++] = (struct trend_point){ .time = end };
		gather(&ret[n - 1], point);
	}
	return n;
}
