/* Records of flows: the ring at its limit, the text of hostile flows, and the file that is full, renamed or a trap. */
#include "gatewayd/record_text.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/record_log.h"

/* --- the ring --- */

static struct stats_record numbered(uint64_t id)
{
	return (struct stats_record){ .at_ms = id, .kind = STATS_RECORD_END, .flow.id = id };
}

static void test_ring(void **state)
{
	_cleanup_free_ struct stats_ring *ring = aligned_alloc(64, sizeof(*ring));
	struct stats_record record;

	(void)state;
	memset(ring, 0, sizeof(*ring));
	assert_false(stats_ring_take(ring, &record));
	for (uint64_t round = 0; round < 3; round++) {
		for (uint64_t i = 1; i <= STATS_RECORDS_MAX; i++) {
			record = numbered(round * STATS_RECORDS_MAX + i);
			assert_true(stats_ring_put(ring, &record));
		}
		assert_false(stats_ring_put(ring, &record)); /* full: what is there stays */
		assert_int_equal(stats_ring_waiting(ring), STATS_RECORDS_MAX);
		for (uint64_t i = 1; i <= STATS_RECORDS_MAX; i++) {
			assert_true(stats_ring_take(ring, &record));
			assert_int_equal(record.flow.id, round * STATS_RECORDS_MAX + i);
		}
		assert_false(stats_ring_take(ring, &record));
	}
	/* A relay that has gone mad: no endless loop, and nothing out of range. */
	ring->head += UINT64_C(1) << 40;
	assert_false(stats_ring_take(ring, &record));
	assert_int_equal(stats_ring_waiting(ring), 0);
	record = numbered(7);
	record.kind = record.end = 255;
	memset(record.flow.sni, 0xff, sizeof(record.flow.sni));
	record.flow.client.family = 99;
	assert_true(stats_ring_put(ring, &record));
	assert_true(stats_ring_take(ring, &record));
	assert_true(record.kind < STATS_RECORD_KINDS && record.end < FLOW_ENDS);
	assert_string_equal(record.flow.sni, "");
	assert_int_equal(record.flow.client.family, 0);
}

/* One of so many, whatever the thread, and the same one for beginning and end. */
static void test_sample(void **state)
{
	struct stats_wanted wanted = { .every = { 0, 10 } };

	(void)state;
	for (unsigned thread = 0; thread < 4; thread++) {
		unsigned n = 0;

		for (uint64_t i = 0; i < 10000; i++) {
			uint64_t id = (UINT64_C(1700000000000000) + i) * 64 + thread;

			n += stats_record_is_wanted(&wanted, STATS_RECORD_END, id);
			assert_true(stats_record_is_sampled(id, 1));
			assert_false(stats_record_is_wanted(&wanted, STATS_RECORD_START, id));
		}
		assert_in_range(n, 900, 1100);
	}
}

/* --- the text --- */

static struct stats_record example(void)
{
	struct stats_record record = { .at_ms = 5500, .kind = STATS_RECORD_END, .end = FLOW_END_reset_by_target };
	struct stats_flow *flow = &record.flow;

	*flow = (struct stats_flow){ .id = 0xabc,
		.started_ms = 5000,
		.bytes = { 10, UINT64_MAX },
		.status = { .mover = { STATS_MOVER_COPY, STATS_MOVER_SPLICE }, .retries = 2, .connect_us = 77 },
		.client_port = 1000,
		.original_port = 443,
		.protocol = IPPROTO_TCP,
		.route = 1,
		.sni = "a\"\\\x01\x7f\xff</script>" };
	addr_parse("fd00::1", &flow->client);
	addr_parse("192.0.2.1", &flow->original);
	return record;
}

static json_t *parsed(const struct record_view *view, uint32_t fields)
{
	char line[RECORD_TEXT_MAX];
	size_t length = record_text(view, fields, line);
	json_t *document;

	assert_int_equal(length, strlen(line));
	assert_ptr_equal(strchr(line, '\n'), line + length - 1);
	document = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(document);
	return document;
}

static void expect(const json_t *document, const char *key, const char *value)
{
	_cleanup_free_ char *text = json_dumps(json_object_get(document, key), JSON_ENCODE_ANY);

	assert_non_null(text);
	assert_string_equal(text, value);
}

static void test_text(void **state)
{
	static const char *const wanted[][2] = { { "event", "\"end\"" }, { "time", "\"1970-01-01T00:00:06.500Z\"" },
		{ "id", "\"0000000000000abc\"" }, { "started", "\"1970-01-01T00:00:06.000Z\"" },
		{ "protocol", "\"tcp\"" }, { "client", "\"fd00::1\"" }, { "client_port", "1000" },
		{ "original", "\"192.0.2.1\"" }, { "original_port", "443" }, { "target", "null" },
		{ "target_port", "null" }, { "interface", "\"lan0\"" }, { "listener", "\"web\"" },
		{ "upstream", "null" }, { "route", "0" }, { "sni", "\"a\\\"\\\\\\u0001\xc2\x7f" },
		{ "connect_us", "77" }, { "retries", "2" }, { "duration_ms", "500" }, { "bytes_to_target", "10" },
		{ "mover_to_target", "\"copy\"" }, { "mover_to_client", "\"splice\"" }, { "reason", "\"reset\"" },
		{ "closed_by", "\"target\"" } };
	struct stats_record record = example();
	struct record_view view = { &record, "web", NULL, "lan0", 1000 };
	json_t *document;

	(void)state;
	record.flow.bytes[STATS_TO_CLIENT] = 20; /* jansson holds no more than 63 bits */
	document = parsed(&view, RECORD_TEXT_ALL);
	assert_int_equal(json_object_size(document), FLOW_FIELDS);
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
		if (strcmp(wanted[i][0], "sni") != 0)
			expect(document, wanted[i][0], wanted[i][1]);
	assert_string_equal(json_string_value(json_object_get(document, "sni")), "a\"\\\x01\x7f\xc3\xbf</script>");
	json_decref(document);
	/* A beginning has no end's fields, and a choice is a choice. */
	record.kind = STATS_RECORD_START;
	document = parsed(&view, UINT32_C(1) << FLOW_FIELD_reason | UINT32_C(1) << FLOW_FIELD_client);
	assert_int_equal(json_object_size(document), 1);
	expect(document, "client", "\"fd00::1\"");
	json_decref(document);
	json_decref(parsed(&view, UINT32_C(1) << FLOW_FIELD_reason));
}

/* Everything as long as it can be, and the whole range of numbers. */
static void test_longest(void **state)
{
	struct stats_record record;
	char name[64];
	struct record_view view = { &record, name, name, "fifteen-bytes-x", INT64_C(253402300799000) };

	(void)state;
	memset(&record, 0xff, sizeof(record));
	record.kind = STATS_RECORD_END;
	record.end = FLOW_END_connect_timeout;
	record.flow.sni[sizeof(record.flow.sni) - 1] = '\0';
	record.flow.bytes[0] = record.flow.bytes[1] = INT64_MAX;
	record.flow.started_ms = record.at_ms = 0;
	record.flow.client.family = record.flow.original.family = record.flow.target.family = AF_INET6;
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	json_decref(parsed(&view, RECORD_TEXT_ALL));
	view.clock_ms = INT64_MIN;
	json_decref(parsed(&view, RECORD_TEXT_ALL));
}

/* --- the file --- */

static char directory[] = "/tmp/test_records.XXXXXX";

static int make_directory(void **state)
{
	(void)state;
	return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
	(void)state;
	(void)!system("rm -rf /tmp/test_records.??????");
	return 0;
}

static char *content(const char *name)
{
	char path[128];
	FILE *file;
	char *text = calloc(1, 1 << 20);

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "r");
	if (file) {
		(void)!fread(text, 1, (1 << 20) - 1, file);
		fclose(file);
	}
	return text;
}

static void expect_content(const char *name, const char *wanted)
{
	_cleanup_free_ char *text = content(name);

	assert_string_equal(text, wanted);
}

static void move(const char *from, const char *to)
{
	char paths[2][128];

	snprintf(paths[0], sizeof(paths[0]), "%s/%s", directory, from);
	snprintf(paths[1], sizeof(paths[1]), "%s/%s", directory, to);
	assert_int_equal(rename(paths[0], paths[1]), 0);
}

static void test_rotation(void **state)
{
	struct record_log *log;
	int fd;

	(void)state;
	assert_int_equal(record_log_new(directory, &log), 0);
	assert_false(record_log_put(log, "closed\n", 7));
	record_log_open(log, "a");
	assert_true(record_log_put(log, "one\n", 4));
	assert_int_equal(record_log_flush(log), 1);
	move("a", "a.1");
	assert_true(record_log_put(log, "two\n", 4));
	assert_int_equal(record_log_flush(log), 1);
	expect_content("a.1", "one\n");
	expect_content("a", "two\n");
	record_log_open(log, "b"); /* another name in the settings */
	assert_true(record_log_put(log, "three\n", 6));
	record_log_close(log); /* nothing that was taken is lost */
	expect_content("b", "three\n");
	/* The number of the descriptor is somebody else's now, and the file is still the one that it was. */
	fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
	record_log_open(log, "b");
	assert_true(record_log_put(log, "four\n", 5));
	assert_int_equal(record_log_flush(log), 1);
	expect_content("b", "three\nfour\n");
	close(fd);
	record_log_free(log);
}

/* Neither a link nor a pipe is written to, and as soon as it is gone all is well. */
static void test_traps(void **state)
{
	char path[128], goal[128];
	struct record_log *log;

	(void)state;
	snprintf(path, sizeof(path), "%s/trap", directory);
	snprintf(goal, sizeof(goal), "%s/goal", directory);
	assert_int_equal(record_log_new(directory, &log), 0);
	assert_int_equal(symlink(goal, path), 0);
	record_log_open(log, "trap");
	assert_non_null(record_log_fault(log));
	assert_true(record_log_put(log, "x\n", 2));
	assert_int_equal(record_log_flush(log), 0);
	assert_int_not_equal(access(goal, F_OK), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(record_log_flush(log), 0); /* and it does not wait for a reader */
	assert_int_equal(unlink(path), 0);
	assert_int_equal(record_log_flush(log), 1);
	assert_null(record_log_fault(log));
	expect_content("trap", "x\n");
	record_log_free(log);
}

/* The disk takes a part of a line: the rest follows as soon as there is room, so that every line is whole. */
static void test_full(void **state)
{
	struct rlimit before, small = { 10, RLIM_INFINITY };
	struct record_log *log;
	char line[1000];
	size_t n = 0;

	(void)state;
	memset(line, 'x', sizeof(line));
	line[sizeof(line) - 1] = '\n';
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	small.rlim_max = before.rlim_max;
	assert_int_equal(record_log_new(directory, &log), 0);
	record_log_open(log, "full");
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_true(record_log_put(log, "first\n", 6));
	assert_true(record_log_put(log, "second\n", 7));
	assert_int_equal(record_log_flush(log), 1);
	assert_non_null(record_log_fault(log));
	expect_content("full", "first\nseco");
	while (record_log_put(log, line, sizeof(line)))
		n++;
	assert_in_range(n, RECORD_LOG_BUFFER / sizeof(line) - 1, RECORD_LOG_BUFFER / sizeof(line));
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(record_log_flush(log), n + 1);
	assert_null(record_log_fault(log));
	record_log_free(log);
	_cleanup_free_ char *text = content("full");
	assert_int_equal(strlen(text), 13 + n * sizeof(line));
	assert_memory_equal(text, "first\nsecond\nxxx", 16);
}

/* Standard error: a pipe that nobody reads does not hold us up, and gets whole lines. */
static void test_pipe(void **state)
{
	int pipes[2], kept = dup(STDERR_FILENO);
	struct record_log *log;
	char line[1000], got[RECORD_LOG_BUFFER];
	size_t written = 0, put = 0;
	ssize_t length;

	(void)state;
	memset(line, 'x', sizeof(line));
	line[sizeof(line) - 1] = '\n';
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(record_log_new(directory, &log), 0);
	assert_int_equal(dup2(pipes[1], STDERR_FILENO), STDERR_FILENO);
	record_log_open(log, NULL);
	while (record_log_put(log, line, sizeof(line))) {
		put++;
		written += record_log_flush(log);
	}
	assert_int_equal(dup2(kept, STDERR_FILENO), STDERR_FILENO);
	length = read(pipes[0], got, sizeof(got));
	assert_true(written > 0 && put > written);
	assert_int_equal(length, written * sizeof(line));
	assert_non_null(record_log_fault(log));
	record_log_free(log);
	close(pipes[0]);
	close(pipes[1]);
	close(kept);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_ring), cmocka_unit_test(test_sample),
		cmocka_unit_test(test_text), cmocka_unit_test(test_longest), cmocka_unit_test(test_rotation),
		cmocka_unit_test(test_traps), cmocka_unit_test(test_full), cmocka_unit_test(test_pipe) };

	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
