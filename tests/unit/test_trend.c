/* The last hour on disk and in memory: gaps, steps, restarts, spoilt files. */
#include "gatewayd/trend.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define NOW INT64_C(1800000007)

static char directory[64], path[96];
static struct trend_point points[TREND_SECONDS];

static int setup(void **state)
{
	(void)state;
	snprintf(directory, sizeof(directory), "/tmp/gw-trend-XXXXXX");
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/history", directory);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	rmdir(directory);
	return 0;
}

static struct trend *opened(const char *where, int64_t now)
{
	struct trend *trend;

	assert_int_equal(trend_open(where, now, &trend), 0);
	return trend;
}

static void add(struct trend *trend, int64_t time, uint64_t flows, uint64_t active)
{
	struct trend_point point = { .time = time, .span_ms = 1000 };

	point.value[TREND_flows_opened] = flows;
	point.value[TREND_flows_active] = active;
	trend_add(trend, &point, NULL);
}

static void test_steps(void **state)
{
	struct trend *trend = opened(NULL, NOW);

	(void)state;
	for (int64_t time = NOW - 24; time <= NOW; time++)
		if (time != NOW - 3)
			add(trend, time, 2, (uint64_t)(time % 100));
	assert_int_equal(trend_points(trend, NOW, 1, 0, points, NULL), 24);
	assert_true(points[0].time == NOW - 24 && points[23].time == NOW);
	/* Steps end at multiples of ten: ...90, ...00 and the one that is not over. */
	assert_int_equal(trend_points(trend, NOW, 10, 0, points, NULL), 3);
	assert_true(points[0].time == NOW - 17 && points[1].time == NOW - 7 && points[2].time == NOW + 3);
	assert_true(points[0].value[TREND_flows_opened] == 16 && points[0].span_ms == 8000);
	assert_true(points[1].value[TREND_flows_opened] == 20);
	assert_true(points[1].value[TREND_flows_active] == 0); /* the last value of the step */
	assert_true(points[2].value[TREND_flows_opened] == 12 && points[2].span_ms == 6000);
	assert_int_equal(trend_points(trend, NOW, 10, NOW - 7, points, NULL), 1);
	assert_int_equal(trend_points(trend, NOW, 10, NOW + 3, points, NULL), 0);
	trend_close(trend);
}

static void test_an_hour_and_no_more(void **state)
{
	struct trend *trend = opened(path, NOW);
	struct stat stat_buf;

	(void)state;
	for (int64_t time = NOW - 2 * TREND_SECONDS; time <= NOW; time++)
		add(trend, time, 1, 1);
	assert_int_equal(trend_points(trend, NOW, 1, 0, points, NULL), TREND_SECONDS);
	assert_true(points[0].time == NOW - TREND_SECONDS + 1);
	assert_int_equal(stat(path, &stat_buf), 0);
	assert_true(stat_buf.st_size < 6 << 20);
	/* Later, without a second in between: the old ones are not taken for new ones. */
	assert_int_equal(trend_points(trend, NOW + 10, 1, 0, points, NULL), TREND_SECONDS - 10);
	trend_close(trend);
}

static void test_twice_in_a_second(void **state)
{
	struct trend *trend = opened(NULL, NOW);

	(void)state;
	add(trend, NOW, 1, 5);
	add(trend, NOW, 2, 6);
	assert_int_equal(trend_points(trend, NOW, 1, 0, points, NULL), 1);
	assert_true(points[0].value[TREND_flows_opened] == 3 && points[0].value[TREND_flows_active] == 6);
	assert_true(points[0].span_ms == 2000);
	trend_close(trend);
}

static void test_restart(void **state)
{
	struct trend *trend = opened(path, NOW - 100);

	(void)state;
	for (int64_t time = NOW - 99; time < NOW - 50; time++)
		add(trend, time, 3, 1);
	trend_close(trend);
	trend = opened(path, NOW);
	add(trend, NOW, 4, 1);
	assert_int_equal(trend_points(trend, NOW, 1, 0, points, NULL), 50);
	assert_true(points[0].time == NOW - 99 && points[0].value[TREND_flows_opened] == 3);
	trend_close(trend);
	/* After more than an hour nothing of it is left; nor if the clock has gone back. */
	trend = opened(path, NOW + TREND_SECONDS + 1);
	assert_int_equal(trend_points(trend, NOW + TREND_SECONDS + 1, 1, 0, points, NULL), 0);
	trend_close(trend);
	trend = opened(path, NOW - 60);
	assert_int_equal(trend_points(trend, NOW - 60, 1, 0, points, NULL), 40);
	add(trend, NOW - 55, 9, 1); /* lived through a second time */
	assert_int_equal(trend_points(trend, NOW - 55, 1, NOW - 56, points, NULL), 1);
	assert_true(points[0].value[TREND_flows_opened] == 9);
	trend_close(trend);
}

/* Each byte of the file may be spoilt: a record is told as it was or not at all. */
static void test_spoilt_file(void **state)
{
	struct trend *trend = opened(path, NOW);
	struct stat stat_buf;
	off_t header;
	int fd;

	(void)state;
	assert_int_equal(stat(path, &stat_buf), 0);
	header = stat_buf.st_size;
	for (int64_t time = NOW - 2; time <= NOW; time++)
		add(trend, time, 7, 7);
	trend_close(trend);
	fd = open(path, O_RDWR);
	assert_int_equal(fstat(fd, &stat_buf), 0);
	for (off_t offset = 0; offset < stat_buf.st_size; offset += offset < stat_buf.st_size - 2000 ? 997 : 37) {
		uint8_t byte, spoilt;
		size_t n;

		assert_int_equal(pread(fd, &byte, 1, offset), 1);
		spoilt = byte ^ 0x10;
		assert_int_equal(pwrite(fd, &spoilt, 1, offset), 1);
		if (offset > header) {
			trend = opened(path, NOW);
			n = trend_points(trend, NOW, 1, 0, points, NULL);
			assert_true(n == 2 || n == 3);
			for (size_t i = 0; i < n; i++)
				assert_true(points[i].value[TREND_flows_opened] == 7 && points[i].span_ms == 1000);
			trend_close(trend);
		}
		assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
	}
	assert_int_equal(ftruncate(fd, header + 100), 0);
	trend = opened(path, NOW);
	assert_int_equal(trend_points(trend, NOW, 1, 0, points, NULL), 0);
	trend_close(trend);
	for (off_t offset = 0; offset < header; offset += 37) { /* not what it was: begun anew */
		assert_int_equal(pwrite(fd, "other", 5, offset), 5);
		trend = opened(path, NOW);
		assert_int_equal(trend_points(trend, NOW, 1, 0, points, NULL), 0);
		add(trend, NOW, 1, 1);
		trend_close(trend);
		trend = opened(path, NOW);
		assert_int_equal(trend_points(trend, NOW, 1, 0, points, NULL), 1);
		trend_close(trend);
	}
	close(fd);
}

/* FNV-1a, as records and headers have it at their end. */
static void put_check(uint8_t *bytes, size_t size)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i + sizeof(hash) < size; i++)
		hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
	hash |= 1;
	memcpy(bytes + size - sizeof(hash), &hash, sizeof(hash));
}

/* A file of another version, with the second NOW: values as named, latencies with one count in bucket 3. */
static void write_foreign(const char *magic, size_t header, const char *const *names, const uint32_t counts[3])
{
	static uint8_t bytes[1 << 16];
	size_t record = (3 + counts[0]) * 8 + counts[1] * counts[2] * 4, slot = (size_t)(NOW % TREND_SECONDS);
	uint64_t value[2] = { (uint64_t)NOW, 1000 };
	uint8_t *at = bytes + header + slot * record;
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	memset(bytes, 0, sizeof(bytes));
	memcpy(bytes, magic, 8);
	memcpy(bytes + 8, &record, 8);
	for (size_t i = 0; names && i < counts[0] + counts[1]; i++)
		strcpy((char *)bytes + 32 + 32 * i, names[i]);
	if (names) {
		memcpy(bytes + 16, counts, 3 * sizeof(counts[0]));
		put_check(bytes, header);
	}
	memcpy(at, value, sizeof(value));
	for (uint64_t i = 0; i < counts[0]; i++)
		memcpy(at + 16 + 8 * i, &(uint64_t){ 100 + i }, 8);
	for (size_t i = 0; i < counts[1]; i++)
		memcpy(at + 16 + 8 * counts[0] + 4 * (i * counts[2] + 3), &(uint32_t){ 1 }, 4);
	put_check(at, record);
	assert_int_equal(write(fd, bytes, header + (slot + 1) * record), header + (slot + 1) * record);
	close(fd);
}

/* What an earlier version knew, and one that knows other things, in another order. */
static void test_another_version(void **state)
{
	static const char *const names[] = { "flows_active", "of_tomorrow", "refused", "first_byte", "second_byte" };
	static struct trend_quantiles told[TREND_SECONDS];
	struct trend *trend;

	(void)state;
	write_foreign("gwtrend2", 16, NULL, (uint32_t[]){ 7, 2, TREND_BUCKETS });
	for (int i = 0; i < 2; i++) { /* carried over, and then its own */
		trend = opened(path, NOW);
		assert_int_equal(trend_points(trend, NOW, 1, 0, points, told), 1);
		assert_true(points[0].time == NOW && points[0].span_ms == 1000);
		assert_true(points[0].value[TREND_flows_opened] == 100 && points[0].value[TREND_flows_active] == 106);
		assert_true(told[0].us[TREND_CONNECT_TIME][TREND_P50] != TREND_NONE);
		trend_close(trend);
	}
	for (uint32_t buckets = TREND_BUCKETS - 2; buckets <= TREND_BUCKETS; buckets += 2) {
		write_foreign("gwtrend3", 32 + 32 * 32 + 8, names, (uint32_t[]){ 3, 2, buckets });
		trend = opened(path, NOW);
		assert_int_equal(trend_points(trend, NOW, 1, 0, points, told), 1);
		assert_true(points[0].value[TREND_flows_active] == 100 && points[0].value[TREND_refused] == 102);
		assert_true(points[0].value[TREND_flows_opened] == 0);
		assert_true(told[0].us[TREND_CONNECT_TIME][TREND_P50] == TREND_NONE);
		assert_true((told[0].us[TREND_FIRST_BYTE][TREND_P50] == TREND_NONE) == (buckets != TREND_BUCKETS));
		trend_close(trend);
	}
}

static void record(struct histogram_sum *sum, uint64_t us, unsigned times)
{
	sum->bucket[histogram_bucket(us)] += times;
	sum->count += times;
}

/* 90 of a millisecond, 8 of 20, 2 of 300, in two seconds; after that nothing, and then the counters begin anew. */
static void test_latencies(void **state)
{
	static struct trend_quantiles told[TREND_SECONDS];
	static struct histogram_sum before, now;
	static struct trend_latencies latencies;
	struct trend *trend = opened(path, NOW);
	const int64_t first = NOW - 37; /* steps of ten end at 30 and 20 before NOW - 7 */
	const uint64_t *connect;

	(void)state;
	record(&before, 5000000, 1000); /* that was before we looked */
	now = before;
	record(&now, 1000, 90);
	trend_fold(&before, &now, latencies.count[TREND_CONNECT_TIME]);
	trend_add(trend, &(struct trend_point){ .time = first + 1, .span_ms = 1000 }, &latencies);
	before = now;
	record(&now, 20000, 8);
	record(&now, 300000, 2);
	trend_fold(&before, &now, latencies.count[TREND_CONNECT_TIME]);
	trend_add(trend, &(struct trend_point){ .time = first + 2, .span_ms = 1000 }, &latencies);
	trend_add(trend, &(struct trend_point){ .time = first + 11, .span_ms = 1000 }, NULL);
	before = now;
	now = (struct histogram_sum){ 0 };
	record(&now, UINT64_MAX, 1);
	trend_fold(&before, &now, latencies.count[TREND_CONNECT_TIME]);
	trend_add(trend, &(struct trend_point){ .time = first + 21, .span_ms = 1000 }, &latencies);
	trend_close(trend);
	trend = opened(path, NOW);
	assert_int_equal(trend_points(trend, NOW, 10, 0, points, told), 3);
	connect = told[0].us[TREND_CONNECT_TIME];
	assert_true(connect[TREND_P50] >= 1000 && connect[TREND_P50] <= 1125);
	assert_true(connect[TREND_P95] >= 20000 && connect[TREND_P95] <= 22500);
	assert_true(connect[TREND_P99] >= 300000 && connect[TREND_P99] <= 337500);
	assert_true(told[0].us[TREND_FIRST_BYTE][TREND_P50] == TREND_NONE);
	assert_true(told[1].us[TREND_CONNECT_TIME][TREND_P99] == TREND_NONE);
	assert_true(told[2].us[TREND_CONNECT_TIME][TREND_P50] >= 60000000);
	/* One second alone, and both when they were gathered in one. */
	assert_int_equal(trend_points(trend, NOW, 1, first + 1, points, told), 3);
	assert_true(told[0].us[TREND_CONNECT_TIME][TREND_P50] >= 20000);
	trend_add(trend, &(struct trend_point){ .time = first + 21, .span_ms = 1000 }, &latencies);
	assert_int_equal(trend_points(trend, NOW, 1, first + 20, points, told), 1);
	assert_true(points[0].span_ms == 2000 && told[0].us[TREND_CONNECT_TIME][TREND_P50] >= 60000000);
	trend_close(trend);
}

static void test_no_file(void **state)
{
	struct trend *trend = opened("/nonexistent/history", NOW);

	(void)state;
	add(trend, NOW, 1, 1);
	assert_int_equal(trend_points(trend, NOW, 1, 0, points, NULL), 1);
	trend_close(trend);
	/* A link is not followed: the state directory is ours, but a file elsewhere is not. */
	assert_int_equal(symlink("/tmp/gw-trend-elsewhere", path), 0);
	trend = opened(path, NOW);
	add(trend, NOW, 1, 1);
	assert_int_equal(access("/tmp/gw-trend-elsewhere", F_OK), -1);
	trend_close(trend);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_steps),
		CASE(test_an_hour_and_no_more),
		CASE(test_twice_in_a_second),
		CASE(test_restart),
		CASE(test_spoilt_file),
		CASE(test_another_version),
		CASE(test_latencies),
		CASE(test_no_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
