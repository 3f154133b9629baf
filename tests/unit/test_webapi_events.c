/* The stream of events: what a reader gets, where it goes on, what ends it; and that a server stops under readers. */
#include "tests/unit/api_client.h"

#include "webapi/events.h"

#define EVENTS "/api/v1/events"

static struct api api;
static struct events *events;

static void start_with(const struct http_limits *limits)
{
	struct http_config config = { .api_gid = -1, .limits = limits };

	events = events_new();
	config.events = events;
	api_start(&api, false, &config);
}

static int start(void **state)
{
	(void)state;
	start_with(NULL);
	return 0;
}

static int start_short(void **state)
{
	static const struct http_limits limits = API_LIMITS_SHORT;

	(void)state;
	start_with(&limits);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	api_stop(&api);
	events_free(events);
	return 0;
}

static int open_stream(const char *query, const char *header)
{
	int fd = api_connect(&api);
	char text[512];
	int n = snprintf(text, sizeof(text), "GET " EVENTS "%s HTTP/1.1\r\nHost: a\r\n%s\r\n", query, header);

	assert_int_equal(api_say(&api, fd, text, (size_t)n, 5), n);
	return fd;
}

/* Reads until the text was seen, the stream has ended or the time is over; all that came, to be freed. */
static char *hear_until(int fd, const char *text, double seconds)
{
	char *got = calloc(1, 1);
	size_t length = 0;
	double end = api_now() + seconds;

	while (api_now() < end && (!text || !strstr(got, text))) {
		char buffer[4096];
		ssize_t n;

		api_turn(&api, fd, POLLIN, 10);
		n = recv(fd, buffer, sizeof(buffer), 0);
		if (n == 0)
			break;
		if (n < 0)
			continue;
		got = realloc(got, length + (size_t)n + 1);
		memcpy(got + length, buffer, (size_t)n);
		length += (size_t)n;
		got[length] = '\0';
	}
	return got;
}

static void expect_stream(int fd, const char *text)
{
	_cleanup_free_ char *got = hear_until(fd, text, 5);

	if (!strstr(got, text))
		fail_msg("no %s in: %s", text, got);
}

static void publish(const char *type, int number)
{
	events_publish(events, type, json_pack("{s:i}", "n", number));
}

static void test_faults(void **state)
{
	static const char *const queries[] = { "?types=", "?types=A", "?types=a%20b", "?after=x", "?after=-1",
		"?after=", "?after=9999999999999999999", "?x=1" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(queries); i++) {
		char path[64];

		snprintf(path, sizeof(path), EVENTS "%s", queries[i]);
		api_expect(&api, "GET", path, "", NULL, 400);
	}
	api_expect(&api, "GET", EVENTS, "Last-Event-ID: x\r\n", NULL, 400);
	api_expect(&api, "POST", EVENTS, "", NULL, 405);
}

static void test_stream(void **state)
{
	_cleanup_close_ int fd = open_stream("", "");
	char text[128];

	(void)state;
	expect_stream(fd, ":\n\n");
	publish("revision", 1);
	snprintf(
	        text, sizeof(text), "id: %lld\nevent: revision\ndata: {\"n\":1}\n\n", (long long)events_newest(events));
	expect_stream(fd, text);
	publish("drift", 2);
	expect_stream(fd, "event: drift\ndata: {\"n\":2}\n\n");
}

static void test_types(void **state)
{
	_cleanup_close_ int fd = open_stream("?types=drift,health_change", "");
	_cleanup_free_ char *got = NULL;

	(void)state;
	expect_stream(fd, ":\n\n");
	publish("revision", 1);
	publish("drif", 2);
	publish("health", 3);
	publish("health_change", 4);
	got = hear_until(fd, "{\"n\":4}", 5);
	assert_non_null(strstr(got, "{\"n\":4}"));
	assert_null(strstr(got, "{\"n\":1}"));
	assert_null(strstr(got, "{\"n\":2}"));
	assert_null(strstr(got, "{\"n\":3}"));
}

/* Comes back behind the second of three; the query counts more than the header. */
static void test_resume(void **state)
{
	char header[64], query[64];

	(void)state;
	for (int i = 1; i <= 3; i++)
		publish("a", i);
	snprintf(header, sizeof(header), "Last-Event-ID: %lld\r\n", (long long)events_newest(events) - 1);
	snprintf(query, sizeof(query), "?after=%lld", (long long)events_newest(events) - 2);
	_cleanup_close_ int one = open_stream("", header), two = open_stream(query, header);
	_cleanup_free_ char *first = hear_until(one, "{\"n\":3}", 5), *second = hear_until(two, "{\"n\":3}", 5);
	assert_null(strstr(first, "{\"n\":2}"));
	assert_null(strstr(first, "missed"));
	assert_non_null(strstr(second, "{\"n\":2}"));
	assert_null(strstr(second, "{\"n\":1}"));
}

static void test_missed(void **state)
{
	char query[64];

	(void)state;
	publish("a", -1);
	snprintf(query, sizeof(query), "?after=%lld", (long long)events_newest(events));
	for (int i = 0; i < EVENTS_RING + 1; i++)
		publish("a", i);
	_cleanup_close_ int fd = open_stream(query, "");
	_cleanup_free_ char *got = hear_until(fd, "{\"n\":2}", 5);
	assert_non_null(strstr(got, "event: missed\ndata: {\"after\":"));
	assert_null(strstr(got, "{\"n\":0}"));
	assert_non_null(strstr(got, "{\"n\":1}"));
}

/* One that does not read is told and dropped; one that does is not. */
static void test_slow(void **state)
{
	_cleanup_free_ char *blank = malloc(8001);
	_cleanup_close_ int slow = open_stream("", "");

	(void)state;
	memset(blank, 'x', 8000);
	blank[8000] = '\0';
	expect_stream(slow, ":\n\n");
	for (int i = 0; i < 3000; i++) {
		events_publish(events, "a", json_pack("{s:s}", "text", blank));
		api_turn(&api, -1, 0, 0);
	}
	_cleanup_free_ char *got = hear_until(slow, NULL, 5);
	assert_non_null(strstr(got, "event: dropped\n"));
	_cleanup_close_ int quick = open_stream("", "");
	publish("b", 1);
	expect_stream(quick, ":\n\n");
}

/* Reads a reader to where there is nothing more; what came, to be freed. */
static char *read_all(struct events_reader *reader)
{
	char *got = calloc(1, 4 << 20);
	ssize_t n;

	for (size_t length = 0; (n = events_read(reader, got + length, 4096)) > 0;)
		length += (size_t)n;
	return got;
}

/* Single flows come to those who name them, in the order of all events, and push nothing else out. */
static void test_flows(void **state)
{
	struct events_reader *all, *flows, *ends;

	(void)state;
	assert_int_equal(events_reader_new(events, -1, NULL, &all), 0);
	assert_int_equal(events_flow_readers(events), 0);
	assert_int_equal(events_reader_new(events, -1, "flow_start,flow_end,a", &flows), 0);
	assert_int_equal(events_reader_new(events, -1, "flow_end", &ends), 0);
	assert_int_equal(events_flow_readers(events), 2);
	publish("flow_start", 1);
	publish("a", 2);
	publish("flow_end", 3);
	publish(EVENTS_LEFT_OUT, 4);
	_cleanup_free_ char *to_all = read_all(all), *to_flows = read_all(flows), *to_ends = read_all(ends);
	assert_null(strstr(to_all, "flow_"));
	assert_non_null(strstr(to_all, "{\"n\":2}"));
	assert_true(strstr(to_flows, "{\"n\":1}") < strstr(to_flows, "{\"n\":2}"));
	assert_true(strstr(to_flows, "{\"n\":2}") < strstr(to_flows, "{\"n\":3}"));
	assert_non_null(strstr(to_flows, "event: " EVENTS_LEFT_OUT "\ndata: {\"n\":4}"));
	assert_null(strstr(to_ends, "{\"n\":1}"));
	assert_null(strstr(to_ends, "{\"n\":2}"));
	assert_non_null(strstr(to_ends, "{\"n\":4}"));

	for (int i = 0; i < EVENTS_FLOWS_RING + 10; i++)
		publish("flow_end", i);
	publish("a", 77777);
	_cleanup_free_ char *late = read_all(flows), *other = read_all(all);
	assert_non_null(strstr(late, "{\"left_out\":10,"));
	assert_null(strstr(late, "{\"n\":9}"));
	assert_non_null(strstr(late, "{\"n\":10}"));
	assert_non_null(strstr(late, "{\"n\":77777}"));
	assert_null(strstr(other, "dropped"));
	assert_non_null(strstr(other, "{\"n\":77777}"));
	events_reader_free(all);
	events_reader_free(flows);
	events_reader_free(ends);
	assert_int_equal(events_flow_readers(events), 0);
	/* One that comes back behind the first of all gets every "a", and those flows that are left. */
	assert_int_equal(
	        events_reader_new(events, events_newest(events) - EVENTS_FLOWS_RING - 14, "flow_end,a", &flows), 0);
	_cleanup_free_ char *again = read_all(flows);
	assert_null(strstr(again, "missed"));
	assert_non_null(strstr(again, "{\"n\":2}"));
	assert_non_null(strstr(again, "{\"n\":1033}"));
	events_reader_free(flows);
}

static void test_bytes_are_bounded(void **state)
{
	_cleanup_free_ char *long_text = malloc(EVENT_BYTES_MAX + 1);

	(void)state;
	memset(long_text, 'x', EVENT_BYTES_MAX);
	long_text[EVENT_BYTES_MAX] = '\0';
	events_publish(events, "a", json_pack("{s:s}", "text", long_text));
	_cleanup_close_ int fd = open_stream("?after=0", "");
	expect_stream(fd, "{\"too_large\":true}");
}

static void test_heartbeat(void **state)
{
	_cleanup_close_ int fd = open_stream("", "");
	double begin = api_now();

	(void)state;
	expect_stream(fd, ":\n\n");
	for (int i = 0; i < 8; i++)
		expect_stream(fd, ":\n\n");
	/* Longer than an answer may take: each heartbeat that is taken is progress. */
	assert_true(api_now() - begin > 0.5);
}

/* A client that went away without a word is found by the heartbeat. */
static void test_gone(void **state)
{
	struct events_reader *readers[EVENTS_READERS_MAX];
	int fd = open_stream("", "");
	double end;

	(void)state;
	expect_stream(fd, ":\n\n");
	for (int i = 0; i < EVENTS_READERS_MAX - 1; i++)
		assert_int_equal(events_reader_new(events, -1, NULL, &readers[i]), 0);
	api_expect(&api, "GET", EVENTS, "", NULL, 503);
	close(fd);
	for (end = api_now() + 1; api_now() < end;)
		api_turn(&api, -1, 0, 10);
	assert_int_equal(events_reader_new(events, -1, NULL, &readers[EVENTS_READERS_MAX - 1]), 0);
	for (int i = 0; i < EVENTS_READERS_MAX; i++)
		events_reader_free(readers[i]);
}

/* As many as there may be, waiting, when the server ends: each stream is ended in good form. */
static void test_stop_under_readers(void **state)
{
	int fds[EVENTS_READERS_MAX];

	(void)state;
	for (int i = 0; i < EVENTS_READERS_MAX; i++) {
		fds[i] = open_stream("", "");
		expect_stream(fds[i], ":\n\n");
	}
	http_server_free(api.server);
	api.server = NULL;
	for (int i = 0; i < EVENTS_READERS_MAX; i++) {
		char buffer[64] = "";
		ssize_t n = recv(fds[i], buffer, sizeof(buffer) - 1, 0);

		assert_true(n > 0);
		assert_non_null(strstr(buffer, "0\r\n\r\n"));
		close(fds[i]);
	}
	publish("a", 1); /* nobody is left to be woken */
}

/* Numbers only rise, also from one start to the next. */
static void test_numbers(void **state)
{
	int64_t before = events_newest(events), first;

	(void)state;
	assert_int_equal(before, 0);
	publish("a", 1);
	first = events_newest(events);
	publish("a", 2);
	assert_int_equal(events_newest(events), first + 1);
	assert_true(first > INT64_C(1600000000000000));
}

#define WITH(test)  cmocka_unit_test_setup_teardown(test, start, stop)
#define SHORT(test) cmocka_unit_test_setup_teardown(test, start_short, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH(test_faults),
		WITH(test_stream),
		WITH(test_types),
		WITH(test_resume),
		WITH(test_missed),
		WITH(test_slow),
		WITH(test_flows),
		WITH(test_bytes_are_bounded),
		SHORT(test_heartbeat),
		SHORT(test_gone),
		WITH(test_stop_under_readers),
		WITH(test_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
