/* The last hour in a ring; see trend.h. */
#include "gatewayd/trend.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/log.h"

/* First bytes of the file, and of one whose header does not say yet what is in it. */
#define MAGIC        "gwtrend3"
#define MAGIC_BEFORE "gwtrend2"
/* Bounds of what a file may have been made with: a record of 64 KiB. */
#define FORM_NAMES   32
#define FORM_BUCKETS 512

struct record {
	struct trend_point point;
	struct trend_latencies latencies;
	uint64_t check; /* of all before it */
};

/* What a record of a file is made of: time, span, the values, the latencies, and the check. */
struct form {
	uint32_t values, latencies, buckets, zero;
	char name[FORM_NAMES][32]; /* of the values, then of the latencies */
};

struct header {
	char magic[8];
	uint64_t record_size;
	struct form form;
	uint64_t check;
};
/* All that a header of before has. */
#define HEADER_BEFORE offsetof(struct header, form)

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

static const char *const latencies_names[] = {
	[TREND_CONNECT_TIME] = "connect_time", [TREND_FIRST_BYTE] = "first_byte"
};
static_assert(ARRAY_SIZE(latencies_names) == TREND_LATENCIES, "one name for each");

/* FNV-1a; never 0, so that zeros are no record. */
static uint64_t check_of(const void *data, size_t size)
{
	const uint8_t *bytes = data;
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
	return hash | 1;
}

static size_t slot_of(int64_t time)
{
	return (size_t)(time % TREND_SECONDS);
}

static off_t offset_of(size_t slot)
{
	return (off_t)(sizeof(struct header) + slot * sizeof(struct record));
}

static void give_up(struct trend *trend, const char *what, int error)
{
	log_warning("the history of figures is kept in memory only: %s: %s", what, strerror(error));
	cleanup_close(&trend->fd);
	trend->fd = -1;
}

/* --- the file --- */

static size_t size_of_counts(const struct form *form)
{
	return ((size_t)form->latencies * form->buckets * sizeof(uint32_t) + 7) / 8 * 8;
}

static size_t size_of_record(const struct form *form)
{
	return (3 + form->values) * sizeof(uint64_t) + size_of_counts(form);
}

/* Ours. */
static struct form form_now(void)
{
	struct form form = { .values = TREND_VALUES, .latencies = TREND_LATENCIES, .buckets = TREND_BUCKETS };

	static_assert(TREND_VALUES + TREND_LATENCIES <= FORM_NAMES && TREND_BUCKETS <= FORM_BUCKETS, "it has room");
	for (size_t i = 0; i < TREND_VALUES; i++)
		snprintf(form.name[i], sizeof(form.name[i]), "%s", values[i].name);
	for (size_t i = 0; i < TREND_LATENCIES; i++)
		snprintf(form.name[TREND_VALUES + i], sizeof(form.name[0]), "%s", latencies_names[i]);
	return form;
}

static const struct form form_before = { .values = 7,
	.latencies = 2,
	.buckets = 184,
	.name = { "flows_opened", "flows_reset", "refused", "connect_failed", "bytes_to_target", "bytes_to_client",
	        "flows_active", "connect_time", "first_byte" } };

static bool is_sane(const struct form *form)
{
	for (size_t i = 0; i < FORM_NAMES; i++)
		if (!memchr(form->name[i], '\0', sizeof(form->name[i])))
			return false;
	return form->values <= FORM_NAMES && form->latencies <= FORM_NAMES - form->values &&
	       form->buckets <= FORM_BUCKETS;
}

/* What is in the file, and where its records begin; 0: it is new, or nothing that can be read. */
static size_t read_header(int fd, struct form *ret)
{
	struct header header = { 0 };
	ssize_t n = pread(fd, &header, sizeof(header), 0);

	*ret = form_before;
	if (n >= (ssize_t)HEADER_BEFORE && memcmp(header.magic, MAGIC_BEFORE, sizeof(header.magic)) == 0 &&
	        header.record_size == size_of_record(ret))
		return HEADER_BEFORE;
	*ret = header.form;
	return n == sizeof(header) && memcmp(header.magic, MAGIC, sizeof(header.magic)) == 0 &&
	                       header.check == check_of(&header, offsetof(struct header, check)) && is_sane(ret) &&
	                       header.record_size == size_of_record(ret)
	               ? sizeof(header)
	               : 0;
}

static int begin_file(int fd, const struct form *form)
{
	struct header header = { .record_size = sizeof(struct record), .form = *form };

	memcpy(header.magic, MAGIC, sizeof(header.magic));
	header.check = check_of(&header, offsetof(struct header, check));
	if (ftruncate(fd, 0) < 0)
		return -errno;
	return pwrite(fd, &header, sizeof(header), 0) == sizeof(header) ? 0 : -ENOSPC;
}

static void take_value(const char *name, uint64_t value, struct record *ret)
{
	for (size_t i = 0; i < TREND_VALUES; i++)
		if (strcmp(name, values[i].name) == 0)
			ret->point.value[i] = value;
}

static void take_counts(const char *name, const uint8_t *counts, struct record *ret)
{
	for (size_t i = 0; i < TREND_LATENCIES; i++)
		if (strcmp(name, latencies_names[i]) == 0)
			memcpy(ret->latencies.count[i], counts, sizeof(ret->latencies.count[i]));
}

/* Ours from one of the form: what has the same name. Counts in other buckets are not taken. */
static void take_record(const struct form *form, const uint8_t *bytes, struct record *ret)
{
	const uint8_t *at = bytes + 2 * sizeof(uint64_t);

	memcpy(&ret->point.time, bytes, sizeof(ret->point.time));
	memcpy(&ret->point.span_ms, bytes + sizeof(uint64_t), sizeof(ret->point.span_ms));
	for (size_t i = 0; i < form->values; i++, at += sizeof(uint64_t)) {
		uint64_t value;

		memcpy(&value, at, sizeof(value));
		take_value(form->name[i], value, ret);
	}
	for (size_t i = 0; i < form->latencies && form->buckets == TREND_BUCKETS; i++)
		take_counts(form->name[form->values + i], at + i * TREND_BUCKETS * sizeof(uint32_t), ret);
	ret->check = check_of(ret, offsetof(struct record, check));
}

/* Keeps the records that are whole, in their place, and neither old nor of the future. -ENOMEM. */
static int read_records(struct trend *trend, const struct form *form, size_t from, int64_t now)
{
	size_t size = size_of_record(form), before = size - sizeof(uint64_t);
	_cleanup_free_ uint8_t *bytes = malloc(TREND_SECONDS * size);
	ssize_t n = bytes ? pread(trend->fd, bytes, TREND_SECONDS * size, (off_t)from) : -1;

	for (size_t i = 0; n > 0 && i < (size_t)n / size; i++) {
		const uint8_t *record = bytes + i * size;
		uint64_t check;
		int64_t time;

		memcpy(&time, record, sizeof(time));
		memcpy(&check, record + before, sizeof(check));
		if (check != 0 && time > now - TREND_SECONDS && time <= now && slot_of(time) == i &&
		        check == check_of(record, before))
			take_record(form, record, &trend->records[i]);
	}
	return bytes ? 0 : -ENOMEM;
}

/* A new file with what is known already. */
static int write_anew(struct trend *trend, const struct form *form)
{
	int r = begin_file(trend->fd, form);

	for (size_t i = 0; i < TREND_SECONDS && r == 0; i++) {
		const struct record *record = &trend->records[i];

		if (record->check && pwrite(trend->fd, record, sizeof(*record), offset_of(i)) != sizeof(*record))
			r = -ENOSPC;
	}
	return r;
}

/* What another version has written is carried over, as far as it has the same names. */
static void open_file(struct trend *trend, const char *path, int64_t now)
{
	struct form own = form_now(), form;
	size_t from;
	int r = 0;

	static_assert(
	        sizeof(struct record) == (3 + TREND_VALUES) * 8 + (TREND_LATENCIES * TREND_BUCKETS * 4 + 7) / 8 * 8,
	        "a record is what its form says");
	trend->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (trend->fd < 0) {
		give_up(trend, path, errno);
		return;
	}
	from = read_header(trend->fd, &form);
	if (from > 0)
		r = read_records(trend, &form, from, now);
	if (r == 0 && (from != sizeof(struct header) || memcmp(&form, &own, sizeof(form)) != 0))
		r = write_anew(trend, &own);
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

	if (record->point.time != point->time)
		*record = (struct record){ .point.time = point->time };
	gather(&record->point, point);
	if (latencies)
		latencies_add(&record->latencies, latencies);
	record->check = check_of(record, offsetof(struct record, check));
	if (trend->fd >= 0 && pwrite(trend->fd, record, sizeof(*record), offset_of(slot)) != sizeof(*record))
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
