/* Who gets in: tokens, the bound on attempts, Host on TCP, peers of the unix socket; and the files of the UI. */
#include "tests/unit/api_client.h"

#include <grp.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "webapi/assets.h"
#include "webapi/auth.h"

#define RIGHT "Authorization: Bearer " API_TOKEN "\r\n"

static struct api api;

static int start_tcp(void **state)
{
	struct http_config config = { .api_gid = -1, .token = API_TOKEN, .host_name = "gw.example" };

	(void)state;
	api_start(&api, true, &config);
	return 0;
}

static int start_without_token(void **state)
{
	struct http_config config = { .api_gid = -1 };

	(void)state;
	api_start(&api, true, &config);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	api_stop(&api);
	return 0;
}

static void expect(const char *method, const char *path, const char *headers, int status)
{
	_cleanup_answer_ struct api_answer answer = api_json(&api, method, path, headers, NULL);

	if (api_status(&answer) != status)
		fail_msg("%s %s %s: %s", method, path, headers, answer.bytes);
}

static void test_no_token(void **state)
{
	_cleanup_answer_ struct api_answer answer = api_json(&api, "GET", "/api/v1/status", "", NULL);

	(void)state;
	api_expect_problem(&answer, 401);
	api_expect_header(&answer, "WWW-Authenticate", "Bearer realm=\"gatewayd\"");
	expect("GET", "/api/v1/none", "", 401); /* what exists is nobody's business */
	expect("FOO", "/api/v1/none", "", 501);
	expect("POST", "/api/v1/status", "", 401);
	expect("OPTIONS", "/api/v1/status", "", 401);
	expect("GET", "/openapi.json", "", 401);
	expect("PUT", "/api/v1/listeners/web", "Content-Type: application/json\r\n", 401);
	expect("GET", "/healthz", "", 200);
	expect("GET", "/readyz", "", 503);
	expect("GET", "/", "", 200);
	expect("GET", "/none", "", 404);
	assert_int_equal(api.core.calls, 0);
}

static void test_token(void **state)
{
	_cleanup_answer_ struct api_answer answer = api_json(&api, "PUT", "/api/v1/listeners/web", RIGHT, "{}");

	(void)state;
	api_expect_status(&answer, 201);
	assert_string_equal(api.core.actor, "token admin");
	expect("GET", "/api/v1/status", "authorization: bearer   " API_TOKEN "\r\n", 200);
	expect("GET", "/api/v1/status", RIGHT RIGHT, 400);
}

static void test_wrong_token(void **state)
{
	static const char *const headers[] = {
		"Authorization: Bearer " API_TOKEN "x\r\n",
		"Authorization: Bearer 0123456789abcdef0123456789abcde\r\n",
		"Authorization: Bearer " API_TOKEN ", Bearer x\r\n",
		"Authorization: Bearer\r\n",
		"Authorization: Basic " API_TOKEN "\r\n",
		"Authorization: " API_TOKEN "\r\n",
		"Authorization: \r\n",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(headers); i++)
		expect("GET", "/api/v1/status", headers[i], 401);
}

static void test_nobody(void **state)
{
	(void)state;
	expect("GET", "/api/v1/status", "Authorization: Bearer \r\n", 401);
	expect("GET", "/api/v1/status", RIGHT, 401);
}

static void test_attempts(void **state)
{
	_cleanup_answer_ struct api_answer answer = { 0 };
	_cleanup_free_ char *wait = NULL;

	(void)state;
	for (int i = 0; i < 50; i++)
		expect("GET", "/api/v1/status", "", 401); /* no credentials: nothing was tried */
	for (int i = 0; i < AUTH_FAILURES_MAX; i++)
		expect("GET", "/api/v1/status", "Authorization: Bearer x\r\n", 401);
	answer = api_json(&api, "GET", "/api/v1/status", RIGHT, NULL);
	api_expect_problem(&answer, 429);
	wait = api_header(&answer, "Retry-After");
	assert_true(wait && atoi(wait) > 0 && atoi(wait) <= AUTH_WINDOW_S);
	expect("GET", "/healthz", "", 200);
}

static enum auth_verdict try(struct auth *auth, unsigned address, const char *token, uint64_t now)
{
	struct auth_peer peer = { .address = { 1, (uint8_t)(address >> 8), (uint8_t)address } };
	struct request request = { .method = METHOD_GET };
	unsigned wait;

	return auth_check(auth, &peer, token, now, &request, &wait);
}

/* The window ends; addresses are counted apart; a table that is full forgets the oldest, not the newest. */
static void test_attempts_window(void **state)
{
	struct auth *auth;

	(void)state;
	assert_int_equal(auth_new(false, -1, API_TOKEN, &auth), 0);
	for (int i = 0; i < AUTH_FAILURES_MAX; i++)
		assert_int_equal(try(auth, 1, "Bearer x", 100), AUTH_WRONG);
	assert_int_equal(try(auth, 1, "Bearer " API_TOKEN, 100), AUTH_LIMITED);
	assert_int_equal(try(auth, 2, "Bearer " API_TOKEN, 100), AUTH_ALLOWED);
	assert_int_equal(try(auth, 1, "Bearer " API_TOKEN, 100 + AUTH_WINDOW_S - 1), AUTH_LIMITED);
	assert_int_equal(try(auth, 1, "Bearer " API_TOKEN, 100 + AUTH_WINDOW_S), AUTH_ALLOWED);
	for (int i = 0; i < AUTH_FAILURES_MAX; i++)
		assert_int_equal(try(auth, 9, "Bearer x", 301), AUTH_WRONG);
	for (unsigned i = 0; i < AUTH_ADDRESSES_MAX - 1; i++)
		assert_int_equal(try(auth, 1000 + i, "Bearer x", 300), AUTH_WRONG);
	assert_int_equal(try(auth, 2000, "Bearer x", 302), AUTH_WRONG);
	assert_int_equal(try(auth, 9, "Bearer " API_TOKEN, 302), AUTH_LIMITED);
	auth_free(auth);
}

static void test_host(void **state)
{
	static const struct {
		const char *host;
		int status;
	} cases[] = {
		{ "localhost", 200 },
		{ "LOCALHOST:8443", 200 },
		{ "127.0.0.1:80", 200 },
		{ "[::1]:80", 200 },
		{ "[::1]", 200 },
		{ "gw.example", 200 },
		{ "Gw.Example:8443", 200 },
		{ "evil.example", 421 },
		{ "gw.example.evil.example", 421 },
		{ "localhost.evil.example", 421 },
		{ "localhost:80@evil.example", 421 },
		{ "127.0.0.1.evil.example", 421 },
		{ "[::1].evil.example", 421 },
		{ "[localhost]", 421 },
		{ "::1", 421 },
		{ ":80", 421 },
		{ "", 421 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_answer_ struct api_answer answer =
		        api_ask(&api, "GET /api/v1/status HTTP/1.1\r\nHost: %s\r\n" RIGHT "\r\n", cases[i].host);

		if (api_status(&answer) != cases[i].status)
			fail_msg("%s: %s", cases[i].host, answer.bytes);
	}
}

/* Connects as another user and asks; the exit status of the child is the answer's, less 200. */
static int ask_as(uid_t uid, gid_t gid)
{
	static const char request[] = "GET /api/v1/status HTTP/1.1\r\nHost: a\r\n\r\n";
	int status;
	pid_t child = fork(); /* the server stays here and is turned below */

	if (!child) {
		int fd = setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid) ? -1
		                                                                                    : api_connect(&api);
		char buffer[16] = "";

		send(fd, request, sizeof(request) - 1, 0);
		fcntl(fd, F_SETFL, 0);
		recv(fd, buffer, 12, MSG_WAITALL);
		_exit(atoi(buffer + 9) - 200);
	}
	while (!waitpid(child, &status, WNOHANG))
		api_turn(&api, -1, 0, 10);
	return WEXITSTATUS(status) + 200;
}

static void test_peers(void **state)
{
	struct http_config config = { .api_gid = 4242 };

	(void)state;
	if (geteuid() != 0)
		skip();
	api_start(&api, false, &config);
	assert_int_equal(ask_as(0, 0), 200);
	assert_int_equal(ask_as(4243, 4242), 200);
	assert_int_equal(ask_as(4243, 4243), 403);
	api_stop(&api);
}

static void write_file(const char *directory, const char *name, const char *text)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void test_assets(void **state)
{
	char directory[] = "/tmp/gw-assets-XXXXXX", path[64], command[64];
	struct http_config config = { .api_gid = -1, .ui_dir = directory };

	(void)state;
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/js", directory);
	assert_int_equal(mkdir(path, 0755), 0);
	write_file(directory, "index.html", "<p>hello");
	write_file(directory, "js/app.js", "let a = 1;");
	write_file(directory, ".secret", "x");
	api_start(&api, true, &config);
	_cleanup_answer_ struct api_answer page = api_json(&api, "GET", "/", "", NULL);
	_cleanup_answer_ struct api_answer script = api_json(&api, "GET", "/js/app.js", "", NULL);
	_cleanup_free_ char *etag = api_header(&script, "ETag"), *header = NULL;

	assert_string_equal(api_body(&page), "<p>hello");
	api_expect_header(&page, "Content-Type", "text/html; charset=utf-8");
	api_expect_header(&script, "Content-Type", "text/javascript; charset=utf-8");
	assert_string_equal(api_body(&script), "let a = 1;");
	assert_true(asprintf(&header, "If-None-Match: %s\r\n", etag) > 0);
	expect("GET", "/js/app.js", header, 304);
	expect("GET", "/", header, 200);
	expect("GET", "/.secret", "", 404);
	expect("GET", "/js/../index.html", "", 404);
	expect("GET", "/js", "", 404);
	expect("GET", "/j", "", 404);
	expect("POST", "/js/app.js", RIGHT, 401);
	api_stop(&api);
	snprintf(command, sizeof(command), "rm -r %s", directory);
	assert_int_equal(system(command), 0);
}

static void test_assets_bounds(void **state)
{
	char directory[] = "/tmp/gw-assets-XXXXXX", command[64];
	struct assets *assets = NULL;

	(void)state;
	assert_non_null(mkdtemp(directory));
	for (int i = 0; i < ASSETS_FILES_MAX; i++) {
		char name[16];

		snprintf(name, sizeof(name), "%d", i);
		write_file(directory, name, "");
	}
	assert_int_equal(assets_load(directory, &assets), 0);
	assets_free(assets);
	write_file(directory, "more", "");
	assert_int_equal(assets_load(directory, &assets), -E2BIG);
	snprintf(command, sizeof(command), "rm -r %s", directory);
	assert_int_equal(system(command), 0);
	assert_int_equal(assets_load(directory, &assets), 0); /* gone: the built-in page */
	assets_free(assets);
	assert_int_equal(assets_load("/proc/self/status", &assets), -ENOTDIR);
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, start_tcp, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH(test_no_token),
		WITH(test_token),
		WITH(test_wrong_token),
		cmocka_unit_test_setup_teardown(test_nobody, start_without_token, stop),
		WITH(test_attempts),
		cmocka_unit_test(test_attempts_window),
		WITH(test_host),
		cmocka_unit_test(test_peers),
		cmocka_unit_test(test_assets),
		cmocka_unit_test(test_assets_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
