/*
 * What comes in over a socket and is not a well-behaved request: framing
 * tricks, bodies without end, requests that never end, clients that vanish.
 * Each case is one that the HTTP library alone handles in another way.
 */
#include "tests/unit/api_client.h"

#define ROW "{\"name\":\"web\",\"ports\":[\"80\"]}"

static struct api api;
static const struct http_limits limits_short = API_LIMITS_SHORT;

static int start(void **state)
{
	(void)state;
	api_start(&api, false, NULL);
	return 0;
}

static int start_short(void **state)
{
	struct http_config config = { .api_gid = -1, .limits = &limits_short };

	(void)state;
	api_start(&api, false, &config);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	api_stop(&api);
	return 0;
}

/* Refused with this status, the connection ended, nothing after it executed. */
static void expect_refused(const char *bytes, int status)
{
	_cleanup_close_ int fd = api_connect(&api);
	_cleanup_answer_ struct api_answer answer = { 0 };

	api_say(&api, fd, bytes, strlen(bytes), 2);
	answer = api_hear(&api, fd, 0, false, 2);
	api_expect_problem(&answer, status);
	api_expect_header(&answer, "Connection", "close");
	assert_true(answer.ended);
	if (api_answers(&answer) != 1)
		fail_msg("more than one answer: %s", answer.bytes);
	assert_int_equal(api.core.calls, 0);
}

static void test_length_and_encoding(void **state)
{
	(void)state;
	expect_refused("POST /api/v1/listeners HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
	               "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
	               "0\r\n\r\nDELETE /api/v1/listeners/web HTTP/1.1\r\nHost: a\r\n\r\n",
	        400);
}

static void test_two_lengths(void **state)
{
	(void)state;
	expect_refused("POST /api/v1/listeners HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
	               "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
	        400);
	expect_refused("POST /api/v1/listeners HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
	               "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
	        400);
}

static void test_headers_in_doubt(void **state)
{
	(void)state;
	expect_refused("GET /healthz HTTP/1.1\r\n\r\n", 400);
	expect_refused("GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400);
	expect_refused("GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n", 400);
	expect_refused(
	        "POST /api/v1/listeners HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501);
	expect_refused("POST /api/v1/listeners HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
}

static void test_old_client(void **state)
{
	_cleanup_answer_ struct api_answer answer = api_ask(&api, "GET /healthz HTTP/1.0\r\n\r\n");

	(void)state;
	api_expect_status(&answer, 200);
}

static void test_unknown_method(void **state)
{
	static const char *const methods[] = { "FOO", "get", "TRACE", "CONNECT" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		_cleanup_answer_ struct api_answer answer =
		        api_ask(&api, "%s /healthz HTTP/1.1\r\nHost: a\r\n\r\n", methods[i]);

		api_expect_problem(&answer, 501);
		api_expect_header(&answer, "Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
	}
}

static void test_wrong_method(void **state)
{
	_cleanup_answer_ struct api_answer one = api_json(&api, "POST", "/api/v1/listeners/web", "", ROW);
	_cleanup_answer_ struct api_answer list = api_json(&api, "DELETE", "/api/v1/listeners/", "", NULL);

	(void)state;
	api_expect_problem(&one, 405);
	api_expect_header(&one, "Allow", "GET, HEAD, PUT, PATCH, DELETE, OPTIONS");
	api_expect_problem(&list, 405);
	api_expect_header(&list, "Allow", "GET, HEAD, POST, OPTIONS");
}

static void test_options(void **state)
{
	_cleanup_answer_ struct api_answer star = api_ask(&api, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
	_cleanup_answer_ struct api_answer one = api_ask(&api, "OPTIONS /api/v1/status HTTP/1.1\r\nHost: a\r\n\r\n");
	_cleanup_answer_ struct api_answer none = api_ask(&api, "OPTIONS /api/v1/none HTTP/1.1\r\nHost: a\r\n\r\n");

	(void)state;
	api_expect_status(&star, 204);
	api_expect_header(&star, "Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
	api_expect_status(&one, 204);
	api_expect_header(&one, "Allow", "GET, HEAD, OPTIONS");
	api_expect_problem(&none, 404);
}

static void test_head(void **state)
{
	_cleanup_answer_ struct api_answer get = api_ask(&api, "GET /api/v1/status HTTP/1.1\r\nHost: a\r\n\r\n");
	_cleanup_answer_ struct api_answer head = api_ask(&api, "HEAD /api/v1/status HTTP/1.1\r\nHost: a\r\n\r\n");
	_cleanup_free_ char *length = api_header(&get, "Content-Length");

	(void)state;
	api_expect_status(&head, 200);
	api_expect_header(&head, "Content-Length", length);
	assert_string_equal(api_body(&head), "");
	assert_string_equal(api_body(&get), "{\"revision\":0}\n");
}

static void test_paths(void **state)
{
	static const struct {
		const char *path;
		int status;
	} cases[] = {
		{ "/api/v1/listeners/%", 400 },
		{ "/api/v1/listeners/%4", 400 },
		{ "/api/v1/listeners/%zz", 400 },
		{ "/api/v1/listeners/%00", 400 },
		{ "/api/v1/listeners/a%2fb", 400 },
		{ "/api/v1/listeners/a%0d%0aX:%20y", 400 },
		{ "/api/v1//listeners", 400 },
		{ "/api/v1/listeners/\xc3\xa4", 400 },
		{ "http://localhost/api/v1/status", 400 },
		{ "*", 400 },
		{ "/api/v1/listeners/%77eb", 404 },
		{ "/api/v1/listeners/%c3%a4%ff", 404 },
		{ "/api/v1/targets", 404 },
		{ "/api/v2/listeners", 404 },
		{ "/api", 404 },
		{ "/a/b/c/d/e/f/g/h/i/j", 404 },
		{ "/../../etc/passwd", 404 },
		{ "/%2e%2e/%2e%2e/etc/passwd", 404 },
		{ "/api/v1/status?x=1", 400 },
		{ "/api/v1/status?%", 400 },
		{ "/api/v1/listeners/", 200 },
		{ "/api/v1/%6cisteners", 200 },
		{ "/api/v1/status/", 200 },
		{ "/", 200 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_answer_ struct api_answer answer =
		        api_ask(&api, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", cases[i].path);

		if (api_status(&answer) != cases[i].status)
			fail_msg("%s: %s", cases[i].path, answer.bytes);
		if (cases[i].status >= 400)
			api_expect_problem(&answer, cases[i].status);
	}
}

static void test_security_headers(void **state)
{
	static const char *const paths[] = { "/api/v1/status", "/api/v1/none", "/healthz", "/api/v1/openapi.json" };
	_cleanup_answer_ struct api_answer page = api_ask(&api, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		_cleanup_answer_ struct api_answer answer =
		        api_ask(&api, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", paths[i]);

		api_expect_header(&answer, "X-Content-Type-Options", "nosniff");
		api_expect_header(&answer, "Cache-Control", "no-store");
		api_expect_header(&answer, "Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");
	}
	api_expect_header(&page, "Cache-Control", "no-cache");
	api_expect_header(&page, "Content-Security-Policy",
	        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
	        "require-trusted-types-for 'script'");
}

static void test_large_header(void **state)
{
	_cleanup_free_ char *request = NULL;
	_cleanup_answer_ struct api_answer answer = { 0 };

	(void)state;
	assert_true(asprintf(&request, "GET /healthz HTTP/1.1\r\nHost: a\r\nX: %040000d\r\n\r\n", 0) > 0);
	answer = api_talk(&api, request, strlen(request));
	api_expect_status(&answer, 431);
}

/* A body of `length` bytes behind these headers, sent in full before anything is read. */
static struct api_answer send_body(const char *headers, size_t length)
{
	_cleanup_free_ char *request = malloc(strlen(headers) + length);

	strcpy(request, headers);
	memset(request + strlen(headers), 'x', length);
	return api_talk(&api, request, strlen(headers) + length);
}

static void test_large_body(void **state)
{
	_cleanup_answer_ struct api_answer answer =
	        send_body("PUT /api/v1/listeners/web HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
	                  "Content-Length: 10000000\r\n\r\n",
	                10000000);

	(void)state;
	api_expect_problem(&answer, 413);
	assert_int_equal(api.core.calls, 0);
}

/* Whoever waits for permission is refused without having sent anything; so is a body nobody would read to its end. */
static void test_large_body_early(void **state)
{
	static const char *const more[] = { "Expect: 100-continue\r\nContent-Length: 10000000",
		"Content-Length: 99999999999" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(more); i++) {
		_cleanup_answer_ struct api_answer answer = api_ask(&api,
		        "PUT /api/v1/listeners/web HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n%s\r\n\r\n",
		        more[i]);

		api_expect_problem(&answer, 413);
		api_expect_header(&answer, "Connection", "close");
		assert_null(strstr(answer.bytes, "100 Continue"));
	}
}

static void test_chunked(void **state)
{
	_cleanup_answer_ struct api_answer answer = api_ask(&api,
	        "PUT /api/v1/listeners/web HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
	        "Transfer-Encoding: chunked\r\n\r\n%zx\r\n%.9s\r\n%zx\r\n%s\r\n0\r\n\r\n",
	        (size_t)9, ROW, strlen(ROW) - 9, &ROW[9]);

	(void)state;
	api_expect_status(&answer, 201);
}

static void test_chunked_too_large(void **state)
{
	_cleanup_free_ char *request = malloc(3000000);
	_cleanup_answer_ struct api_answer answer = { 0 };
	size_t at = (size_t)sprintf(request, "PUT /api/v1/listeners/web HTTP/1.1\r\nHost: a\r\nContent-Type: "
	                                     "application/json\r\nTransfer-Encoding: chunked\r\n\r\n");

	(void)state;
	for (int i = 0; i < 2000; i++)
		at += (size_t)sprintf(request + at, "400\r\n%01024d\r\n", 0);
	at += (size_t)sprintf(request + at, "0\r\n\r\n");
	answer = api_talk(&api, request, at);
	api_expect_problem(&answer, 413);
	assert_int_equal(api.core.calls, 0);
}

/* More than is swallowed: answered on the spot, then cut. */
static void test_chunked_endless(void **state)
{
	static const char headers[] = "PUT /api/v1/listeners/web HTTP/1.1\r\nHost: a\r\nContent-Type: "
	                              "application/json\r\nTransfer-Encoding: chunked\r\n\r\n2000000\r\n";
	_cleanup_close_ int fd = api_connect(&api);
	_cleanup_free_ char *body = calloc(1, 20000000);
	_cleanup_answer_ struct api_answer answer = { 0 };

	(void)state;
	api_say(&api, fd, headers, sizeof(headers) - 1, 1);
	assert_true(api_say(&api, fd, body, 20000000, 5) < 20000000);
	answer = api_hear(&api, fd, 0, false, 2);
	api_expect_problem(&answer, 413);
	assert_true(answer.ended);
	assert_int_equal(api.core.calls, 0);
}

static void test_continue(void **state)
{
	_cleanup_close_ int fd = api_connect(&api);
	_cleanup_answer_ struct api_answer first = { 0 }, second = { 0 };
	char headers[256];

	(void)state;
	snprintf(headers, sizeof(headers),
	        "PUT /api/v1/listeners/web HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
	        "Expect: 100-continue\r\nContent-Length: %zu\r\n\r\n",
	        strlen(ROW));
	api_say(&api, fd, headers, strlen(headers), 1);
	first = api_hear(&api, fd, 0, false, 0.1);
	assert_string_equal(first.bytes, "HTTP/1.1 100 Continue\r\n\r\n");
	api_say(&api, fd, ROW, strlen(ROW), 1);
	second = api_hear(&api, fd, 1, false, 1);
	api_expect_status(&second, 201);
}

static void test_media_type(void **state)
{
	static const struct {
		const char *method, *header;
		int status;
	} cases[] = {
		{ "PUT", "", 415 },
		{ "PUT", "Content-Type: text/plain\r\n", 415 },
		{ "PUT", "Content-Type: application/jsonx\r\n", 415 },
		{ "PUT", "Content-Type: application/merge-patch+json\r\n", 415 },
		{ "PUT", "Content-Type: application/json; charset=latin1\r\n", 415 },
		{ "PUT", "Content-Type: application/json; charset=UTF-8\r\n", 201 },
		{ "PATCH", "Content-Type: text/json\r\n", 415 },
		{ "PATCH", "Content-Type: application/merge-patch+json\r\n", 200 },
		{ "PATCH", "Content-Type: APPLICATION/JSON\r\n", 200 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_answer_ struct api_answer answer = api_ask(&api,
		        "%s /api/v1/listeners/web HTTP/1.1\r\nHost: a\r\n%sContent-Length: %zu\r\n\r\n" ROW,
		        cases[i].method, cases[i].header, strlen(ROW));

		if (api_status(&answer) != cases[i].status)
			fail_msg("%s %s: %s", cases[i].method, cases[i].header, answer.bytes);
	}
}

static void test_pipelining(void **state)
{
	static const char requests[] = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
	                               "PUT /api/v1/listeners/web HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n"
	                               "Content-Length: 3\r\n\r\nabc"
	                               "GET /api/v1/none HTTP/1.1\r\nHost: a\r\n\r\n"
	                               "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
	_cleanup_close_ int fd = api_connect(&api);
	_cleanup_answer_ struct api_answer answer = { 0 };
	const char *at;

	(void)state;
	api_say(&api, fd, requests, sizeof(requests) - 1, 1);
	answer = api_hear(&api, fd, 4, false, 2);
	assert_int_equal(api_answers(&answer), 4);
	assert_false(answer.ended);
	at = strstr(answer.bytes, "HTTP/1.1 200");
	at = at ? strstr(at, "HTTP/1.1 415") : NULL;
	at = at ? strstr(at, "HTTP/1.1 404") : NULL;
	assert_non_null(at ? strstr(at, "HTTP/1.1 200") : NULL);
}

/* Says `begin`, then nothing: is told 408 within the deadline. */
static void expect_timeout(const char *begin, double least, double most)
{
	_cleanup_close_ int fd = api_connect(&api);
	_cleanup_answer_ struct api_answer answer = { 0 };

	api_say(&api, fd, begin, strlen(begin), 1);
	answer = api_hear(&api, fd, 0, false, 3);
	api_expect_problem(&answer, 408);
	assert_true(answer.ended);
	assert_true(answer.seconds >= least && answer.seconds <= most);
}

static void test_half_request(void **state)
{
	(void)state;
	expect_timeout("GET /heal", 0.05, 1);
	expect_timeout("GET /healthz HTTP/1.1\r\nHo", 0.05, 1);
	expect_timeout("PUT /api/v1/listeners/web HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
	               "Content-Length: 100\r\n\r\n{\"name\"",
	        0.05, 1);
	expect_timeout("PUT /api/v1/listeners/web HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
	               "Transfer-Encoding: chunked\r\n\r\n7\r\n{\"nam",
	        0.05, 1);
	assert_int_equal(api.core.calls, 0);
}

/* One byte each 20 ms never is silence, and still comes to its end. */
static void expect_drip_cut(const char *begin)
{
	_cleanup_close_ int fd = api_connect(&api);
	_cleanup_answer_ struct api_answer answer = { 0 };
	double start_time = api_now();

	api_say(&api, fd, begin, strlen(begin), 1);
	while (!answer.ended && api_now() - start_time < 3) {
		api_answer_free(&answer);
		api_say(&api, fd, "z", 1, 1);
		answer = api_hear(&api, fd, 0, false, 0.02);
	}
	assert_true(answer.ended);
	assert_true(api_now() - start_time < 1);
}

static void test_slow_drip(void **state)
{
	(void)state;
	expect_drip_cut("GET /healthz HTTP/1.1\r\nHo");
	expect_drip_cut("PUT /api/v1/listeners/web HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
	                "Content-Length: 1000\r\n\r\n{");
	expect_drip_cut("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /heal");
}

/* The time for the headers runs from the connection on, not from the first line. */
static void test_late_line(void **state)
{
	static const struct http_limits limits = {
		.headers = 400000, .body_idle = 1, .body = 1, .answer = 1, .idle = 1
	};
	struct http_config config = { .api_gid = -1, .limits = &limits };
	double begin;
	int fd;

	(void)state;
	api_start(&api, false, &config);
	fd = api_connect(&api);
	for (begin = api_now(); api_now() - begin < 0.3;)
		api_turn(&api, -1, 0, 10);
	api_say(&api, fd, "GET /healthz HTTP/1.1\r\n", 23, 1);
	_cleanup_answer_ struct api_answer answer = api_hear(&api, fd, 0, false, 3);
	api_expect_problem(&answer, 408);
	assert_true(api_now() - begin < 0.65);
	close(fd);
	api_stop(&api);
}

static void test_idle(void **state)
{
	_cleanup_close_ int fd = api_connect(&api);
	_cleanup_answer_ struct api_answer first = { 0 }, rest = { 0 };
	static const char request[] = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";

	(void)state;
	api_say(&api, fd, request, sizeof(request) - 1, 1);
	first = api_hear(&api, fd, 1, false, 1);
	api_expect_status(&first, 200);
	assert_false(first.ended);
	rest = api_hear(&api, fd, 0, false, 3);
	assert_true(rest.ended);
	assert_int_equal(rest.length, 0);
	assert_true(rest.seconds > 0.1 && rest.seconds < 1);
}

/* A client that does not read its answer holds it only so long. */
static void test_unread_answer(void **state)
{
	_cleanup_close_ int fd = api_connect(&api);
	_cleanup_answer_ struct api_answer answer = { 0 };
	static const char request[] = "GET /api/v1/ruleset HTTP/1.1\r\nHost: a\r\n\r\n";
	double end = api_now() + 0.6;

	(void)state;
	api.core.ruleset_bytes = 8000000;
	api_say(&api, fd, request, sizeof(request) - 1, 1);
	while (api_now() < end)
		api_turn(&api, -1, 0, 20);
	answer = api_hear(&api, fd, 0, false, 2);
	assert_true(answer.ended);
	assert_true(answer.length < api.core.ruleset_bytes);
}

static void test_early_disconnect(void **state)
{
	static const char *const begins[] = {
		"",
		"GET /hea",
		"GET /healthz HTTP/1.1\r\nHost: a\r\n",
		"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
		("PUT /api/v1/listeners/web HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
		 "Content-Length: 1000\r\n\r\n{\"name\""),
		"GET /api/v1/ruleset HTTP/1.1\r\nHost: a\r\n\r\n",
	};

	(void)state;
	api.core.ruleset_bytes = 8000000;
	for (size_t i = 0; i < ARRAY_SIZE(begins) * 20; i++) {
		const char *begin = begins[i % ARRAY_SIZE(begins)];
		int fd = api_connect(&api);

		api_say(&api, fd, begin, strlen(begin), 1);
		close(fd);
	}
	for (int i = 0; i < 10; i++)
		api_turn(&api, -1, 0, 10);
	test_head(state);
	assert_int_equal(api.core.calls, 0);
}

/* All connections taken: the next one waits, and is served as soon as one ends. */
static void test_connection_limit(void **state)
{
	int fds[HTTP_CONNECTIONS_MAX], late;
	static const char request[] = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
	_cleanup_answer_ struct api_answer waiting = { 0 }, served = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = api_connect(&api);
		api_turn(&api, -1, 0, 0);
	}
	late = api_connect(&api);
	api_say(&api, late, request, sizeof(request) - 1, 1);
	waiting = api_hear(&api, late, 1, false, 0.1);
	assert_int_equal(waiting.length, 0);
	close(fds[0]);
	served = api_hear(&api, late, 1, false, 2);
	api_expect_status(&served, 200);
	for (size_t i = 1; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	close(late);
}

/* The server goes while requests are under way: nothing leaks, nothing aborts. */
static void test_free_with_connections(void **state)
{
	static const char half[] = "PUT /api/v1/listeners/web HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
	                           "Content-Length: 1000\r\n\r\n{\"name\"";
	int fds[3];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = api_connect(&api);
		api_say(&api, fds[i], half, i * (sizeof(half) - 1) / 2, 1);
	}
	api_stop(&api);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	api_start(&api, false, NULL);
}

/* A server that has nothing to do does not ask to be called. */
static void test_quiet(void **state)
{
	(void)state;
	api_turn(&api, -1, 0, 0);
	assert_true(http_server_timeout(api.server) == UINT64_MAX);
}

#define WITH(test)  cmocka_unit_test_setup_teardown(test, start, stop)
#define SHORT(test) cmocka_unit_test_setup_teardown(test, start_short, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH(test_length_and_encoding),
		WITH(test_two_lengths),
		WITH(test_headers_in_doubt),
		WITH(test_old_client),
		WITH(test_unknown_method),
		WITH(test_wrong_method),
		WITH(test_options),
		WITH(test_head),
		WITH(test_paths),
		WITH(test_security_headers),
		WITH(test_large_header),
		WITH(test_large_body),
		WITH(test_large_body_early),
		WITH(test_chunked),
		WITH(test_chunked_too_large),
		WITH(test_chunked_endless),
		WITH(test_continue),
		WITH(test_media_type),
		WITH(test_pipelining),
		SHORT(test_half_request),
		SHORT(test_slow_drip),
		cmocka_unit_test(test_late_line),
		SHORT(test_idle),
		SHORT(test_unread_answer),
		WITH(test_early_disconnect),
		WITH(test_connection_limit),
		WITH(test_free_with_connections),
		WITH(test_quiet),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
