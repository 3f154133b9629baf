/* Tokens as a resource, roles, expiry, and the sessions of the UI. */
#include "tests/unit/api_client.h"

#include "webapi/sessions.h"

#define TOKENS  "/api/v1/tokens"
#define SESSION "/api/v1/session"
#define ADMIN   "Authorization: Bearer " API_TOKEN "\r\n"

static struct api api;

static int start(void **state)
{
	(void)state;
	api_start(&api, true, NULL);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	api_stop(&api);
	return 0;
}

/* Makes a token and returns the header that uses it. */
static char *make_token(const char *name, const char *role, const char *more)
{
	_cleanup_free_ char *body = NULL;
	char *header;

	assert_true(asprintf(&body, "{\"name\":\"%s\",\"role\":\"%s\"%s}", name, role, more) > 0);
	_cleanup_answer_ struct api_answer answer = api_json(&api, "POST", TOKENS, ADMIN, body);
	json_t *document = api_document(&answer);

	api_expect_status(&answer, 201);
	assert_null(json_object_get(document, "hash"));
	assert_true(asprintf(&header, "Authorization: Bearer %s\r\n",
	                    json_string_value(json_object_get(document, "token"))) > 0);
	json_decref(document);
	return header;
}

static void test_faults(void **state)
{
	(void)state;
	api_expect(&api, "POST", TOKENS, ADMIN, "{\"name\":\"x\",\"role\":\"viewer\",\"hash\":\"aa\"}", 422);
	api_expect(&api, "POST", TOKENS, ADMIN, "{\"name\":\"x\",\"role\":\"viewer\",\"token\":\"aa\"}", 422);
	api_expect(&api, "POST", TOKENS, ADMIN, "{\"name\":\"x\",\"role\":\"root\"}", 422);
	api_expect(&api, "POST", TOKENS, ADMIN, "{\"name\":\"admin\",\"role\":\"viewer\"}", 422);
	api_expect(&api, "PUT", TOKENS "/admin", ADMIN, "{\"role\":\"viewer\"}", 422);
	api_expect(
	        &api, "POST", TOKENS, ADMIN, "{\"name\":\"x\",\"role\":\"viewer\",\"expires_at\":\"tomorrow\"}", 422);
	assert_int_equal(core_count(&api.core, RESOURCE_TOKEN), 0);
}

static void test_shown_once(void **state)
{
	_cleanup_free_ char *header = make_token("ci", "admin", "");
	_cleanup_free_ char *secret = strndup(header + strlen("Authorization: Bearer "), 68);

	(void)state;
	assert_memory_equal(secret, "gwt_", 4);
	assert_int_equal(strspn(secret + 4, "0123456789abcdef"), 64);
	_cleanup_answer_ struct api_answer got = api_json(&api, "GET", TOKENS "/ci", header, NULL);
	_cleanup_answer_ struct api_answer list = api_json(&api, "GET", TOKENS, header, NULL);
	_cleanup_answer_ struct api_answer patched =
	        api_json(&api, "PATCH", TOKENS "/ci", header, "{\"role\":\"operator\"}");
	api_expect_status(&got, 200);
	api_expect_status(&patched, 200);
	assert_null(strstr(got.bytes, "gwt_"));
	assert_null(strstr(list.bytes, "gwt_"));
	assert_null(strstr(patched.bytes, "gwt_"));
	assert_null(strstr(got.bytes, "hash"));
	assert_string_equal(api.core.actor, "token ci");
	assert_null(strstr(((const struct token *)core_find(&api.core, RESOURCE_TOKEN, "ci"))->hash, secret + 4));
	for (unsigned i = 0; i < api.core.audited; i++)
		assert_null(strstr(api.core.audit[i], "gwt_"));
	api_expect(&api, "GET", TOKENS "/ci", header, NULL, 200); /* the secret outlives a change of the row */
	api_expect(&api, "PATCH", TOKENS "/ci", header, "{}", 403);
	api_expect(&api, "DELETE", TOKENS "/ci", ADMIN, NULL, 204);
	api_expect(&api, "GET", TOKENS "/ci", header, NULL, 401);
	api_expect(&api, "GET", TOKENS "/ci", ADMIN, NULL, 404);
}

static void test_dry_run_tells_no_secret(void **state)
{
	_cleanup_answer_ struct api_answer answer =
	        api_json(&api, "PUT", TOKENS "/ci?dry_run=true", ADMIN, "{\"role\":\"viewer\"}");

	(void)state;
	api_expect_status(&answer, 200);
	assert_null(strstr(answer.bytes, "gwt_"));
}

static void test_roles(void **state)
{
	static const struct {
		const char *method, *path, *body;
		int viewer, admin;
	} cases[] = {
		{ "GET", "/api/v1/listeners", NULL, 200, 200 },
		{ "GET", "/api/v1/config", NULL, 200, 200 },
		{ "GET", "/api/v1/revisions", NULL, 200, 200 },
		{ "GET", "/api/v1/audit", NULL, 403, 200 },
		{ "GET", "/api/v1/backup", NULL, 403, 200 },
		{ "PUT", "/api/v1/listeners/web", "{}", 403, 201 },
		{ "PUT", "/api/v1/config", "{}", 403, 200 },
		{ "POST", "/api/v1/transactions", "[]", 403, 200 },
		{ "POST", "/api/v1/revisions/1/rollback", NULL, 403, 200 },
		{ "POST", "/api/v1/revisions/1/confirm", NULL, 403, 404 },
		{ "PUT", "/api/v1/tls", "{}", 403, 404 },
		{ "DELETE", "/api/v1/listeners/none", NULL, 403, 404 },
	};
	_cleanup_free_ char *viewer = make_token("v", "viewer", ""), *operator= make_token("o", "operator", ""),
	                    *admin = make_token("a", "admin", "");

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		api_expect(&api, cases[i].method, cases[i].path, viewer, cases[i].body, cases[i].viewer);
		api_expect(&api, cases[i].method, cases[i].path, operator, cases[i].body, cases[i].viewer);
		api_expect(&api, cases[i].method, cases[i].path, admin, cases[i].body, cases[i].admin);
	}
	assert_non_null(strstr(api.core.audit[3], "token v|PUT|/api/v1/listeners/web|403|0|Not allowed"));
}

static void test_expiry(void **state)
{
	_cleanup_free_ char *past = make_token("p", "viewer", ",\"expires_at\":\"2020-01-01T00:00:00Z\"");
	_cleanup_free_ char *future = make_token("f", "viewer", ",\"expires_at\":\"2120-01-01T00:00:00Z\"");

	(void)state;
	api_expect(&api, "GET", TOKENS, past, NULL, 401);
	api_expect(&api, "GET", TOKENS, future, NULL, 200);
}

/* More tokens than are looked at in one go. */
static void test_many(void **state)
{
	_cleanup_free_ char *last = NULL;

	(void)state;
	for (int i = 0; i < 130; i++) {
		char name[16];

		snprintf(name, sizeof(name), "t-%03d", i);
		free(last);
		last = make_token(name, "viewer", "");
	}
	api_expect(&api, "GET", TOKENS, last, NULL, 200);
}

struct login {
	char *cookie, *csrf; /* header lines */
};

static void login_free(struct login *login)
{
	free(login->cookie);
	free(login->csrf);
}

static struct login log_in(const char *token)
{
	_cleanup_free_ char *body = NULL, *cookie = NULL;
	struct login login;
	json_t *document;

	assert_true(asprintf(&body, "{\"token\":\"%s\"}", token) > 0);
	_cleanup_answer_ struct api_answer answer = api_json(&api, "POST", SESSION, "", body);
	api_expect_status(&answer, 200);
	assert_null(strstr(api_body(&answer), token));
	cookie = api_header(&answer, "Set-Cookie");
	assert_non_null(cookie);
	assert_non_null(strstr(cookie, "; HttpOnly; SameSite=Strict"));
	assert_null(strstr(cookie, "Secure")); /* this server is not TLS */
	document = api_document(&answer);
	assert_true(asprintf(&login.cookie, "Cookie: a=b; %.*s\r\n", (int)strcspn(cookie, ";"), cookie) > 0);
	assert_true(asprintf(&login.csrf, "%sX-CSRF-Token: %s\r\n", login.cookie,
	                    json_string_value(json_object_get(document, "csrf_token"))) > 0);
	assert_string_equal(json_string_value(json_object_get(document, "role")), "admin");
	json_decref(document);
	return login;
}

static void test_login_faults(void **state)
{
	(void)state;
	api_expect(&api, "POST", SESSION, "", "{}", 422);
	api_expect(&api, "POST", SESSION, "", "{\"token\":5}", 422);
	api_expect(&api, "POST", SESSION, "", "{\"token\":\"x\",\"y\":1}", 422);
	api_expect(&api, "POST", SESSION, "", "token=x", 400);
	api_expect(&api, "POST", SESSION, "", NULL, 415);
	for (int i = 0; i < AUTH_FAILURES_MAX; i++)
		api_expect(&api, "POST", SESSION, "", "{\"token\":\"x\"}", 401);
	api_expect(&api, "POST", SESSION, "", "{\"token\":\"" API_TOKEN "\"}", 429);
}

static void test_session(void **state)
{
	_cleanup_(login_free) struct login login = log_in(API_TOKEN), other = log_in(API_TOKEN);

	(void)state;
	api_expect(&api, "GET", "/api/v1/status", login.cookie, NULL, 200);
	api_expect(&api, "PUT", "/api/v1/listeners/web", login.cookie, "{}", 403);
	api_expect(&api, "DELETE", SESSION, login.cookie, NULL, 403);
	_cleanup_free_ char *mixed = NULL;
	assert_true(asprintf(&mixed, "%s%s", login.cookie, strstr(other.csrf, "X-CSRF")) > 0);
	api_expect(&api, "PUT", "/api/v1/listeners/web", mixed, "{}", 403);
	assert_int_equal(api.core.calls, 0);
	api_expect(&api, "PUT", "/api/v1/listeners/web", login.csrf, "{}", 201);
	assert_string_equal(api.core.actor, "token admin");
	_cleanup_answer_ struct api_answer got = api_json(&api, "GET", SESSION, login.cookie, NULL);
	api_expect_status(&got, 200);
	api_expect(&api, "GET", "/api/v1/status", "Cookie: gateway_session=x\r\n", NULL, 401);
	api_expect(&api, "GET", "/api/v1/status", "Cookie: gateway_session=\r\n", NULL, 401);
	_cleanup_answer_ struct api_answer out = api_json(&api, "DELETE", SESSION, login.csrf, NULL);
	api_expect_status(&out, 204);
	_cleanup_free_ char *cleared = api_header(&out, "Set-Cookie");
	assert_non_null(strstr(cleared, "Max-Age=0"));
	api_expect(&api, "GET", "/api/v1/status", login.cookie, NULL, 401);
	api_expect(&api, "GET", "/api/v1/status", other.cookie, NULL, 200);
	api_expect(&api, "DELETE", SESSION, ADMIN, NULL, 404);
}

/* A session is worth what its token is worth now. */
static void test_session_follows_its_token(void **state)
{
	_cleanup_free_ char *header = make_token("ui", "admin", "");
	_cleanup_free_ char *secret = strndup(header + strlen("Authorization: Bearer "), 68);
	_cleanup_(login_free) struct login login = log_in(secret);

	(void)state;
	api_expect(&api, "PUT", "/api/v1/listeners/web", login.csrf, "{}", 201);
	assert_string_equal(api.core.actor, "token ui");
	api_expect(&api, "PATCH", TOKENS "/ui", ADMIN, "{\"role\":\"viewer\"}", 200);
	api_expect(&api, "PUT", "/api/v1/listeners/web", login.csrf, "{}", 403);
	api_expect(&api, "GET", "/api/v1/listeners/web", login.cookie, NULL, 200);
	api_expect(&api, "DELETE", TOKENS "/ui", ADMIN, NULL, 204);
	api_expect(&api, "GET", "/api/v1/listeners/web", login.cookie, NULL, 401);
}

static struct session *find(struct sessions *sessions, const struct session *session, uint64_t now)
{
	char cookie[128];

	snprintf(cookie, sizeof(cookie), "gateway_session=%s", session->id);
	return sessions_find(sessions, cookie, now);
}

/* Idle and absolute expiry; a full table forgets the one that was not used for longest. */
static void test_session_bounds(void **state)
{
	struct sessions *sessions = sessions_new();
	struct identity identity = { .role = ROLE_ADMIN };
	struct session *session, copy, first, second;
	uint64_t now;

	(void)state;
	assert_int_equal(sessions_open(sessions, &identity, 1000, &session), 0);
	copy = *session;
	assert_non_null(find(sessions, &copy, 1000 + SESSION_IDLE_S - 1));
	assert_null(find(sessions, &copy, 1000 + 2 * SESSION_IDLE_S));
	assert_int_equal(sessions_open(sessions, &identity, 5000, &session), 0);
	copy = *session;
	for (now = 5000; now < 5000 + SESSION_S; now += SESSION_IDLE_S - 1)
		assert_non_null(find(sessions, &copy, now));
	assert_null(find(sessions, &copy, 5000 + SESSION_S));
	now = 100000;
	assert_int_equal(sessions_open(sessions, &identity, now, &session), 0);
	first = *session;
	assert_int_equal(sessions_open(sessions, &identity, now + 1, &session), 0);
	second = *session;
	for (int i = 2; i < SESSIONS_MAX; i++)
		assert_int_equal(sessions_open(sessions, &identity, now + 2, &session), 0);
	assert_non_null(find(sessions, &first, now + 3));
	assert_int_equal(sessions_open(sessions, &identity, now + 4, &session), 0);
	assert_non_null(find(sessions, &first, now + 5));
	assert_null(find(sessions, &second, now + 5));
	sessions_free(sessions);
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH(test_faults),
		WITH(test_shown_once),
		WITH(test_dry_run_tells_no_secret),
		WITH(test_roles),
		WITH(test_expiry),
		WITH(test_many),
		WITH(test_login_faults),
		WITH(test_session),
		WITH(test_session_follows_its_token),
		cmocka_unit_test(test_session_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
