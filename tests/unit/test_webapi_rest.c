/* The resources over HTTP: errors first, then lists, preconditions, writes. The core is one in memory. */
#include "tests/unit/api_client.h"

#define LISTENERS "/api/v1/listeners"
#define WEB       LISTENERS "/web"

static struct api api;

static int start(void **state)
{
	(void)state;
	api_start(&api, false, NULL);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	api_stop(&api);
	return 0;
}

static void put(const char *path, const char *headers, const char *body, int status)
{
	_cleanup_answer_ struct api_answer answer = api_json(&api, "PUT", path, headers, body);

	api_expect_status(&answer, status);
}

/* The document of an answer; the caller drops it. */
static json_t *document_of(const struct api_answer *answer)
{
	json_t *document = json_loads(api_body(answer), 0, NULL);

	if (!document)
		fail_msg("not JSON: %s", answer->bytes);
	return document;
}

static bool has_code(const json_t *document, const char *code)
{
	size_t i;
	const json_t *fault;

	json_array_foreach(json_object_get(document, "errors"), i,
	        fault) if (!strcmp(json_string_value(json_object_get(fault, "code")), code)) return true;
	return false;
}

static void test_bad_bodies(void **state)
{
	static const struct {
		const char *body;
		int status;
		const char *code; /* or NULL */
	} cases[] = {
		{ "", 400, "malformed" },
		{ "{", 400, "malformed" },
		{ "nonsense", 400, "malformed" },
		{ "[]", 400, "malformed" },
		{ "{\"name\":\"web\",\"name\":\"web\"}", 400, "duplicate_key" },
		{ "{\"name\":\"web\",\"colour\":1}", 422, NULL },
		{ "{\"name\":\"web\",\"enabled\":\"yes\"}", 422, NULL },
		{ "{\"name\":\"web\",\"priority\":65536}", 422, NULL },
		{ "{\"name\":\"web\",\"priority\":1.5}", 422, NULL },
		{ "{\"name\":\"other\"}", 422, NULL },
		{ "{\"name\":\"web\",\"ports\":[\"http\"]}", 422, NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_answer_ struct api_answer answer = api_json(&api, "PUT", WEB, "", cases[i].body);
		json_t *document;

		api_expect_problem(&answer, cases[i].status);
		document = document_of(&answer);
		if (!json_array_size(json_object_get(document, "errors")) ||
		        (cases[i].code && !has_code(document, cases[i].code)))
			fail_msg("%s: %s", cases[i].body, answer.bytes);
		json_decref(document);
	}
	assert_int_equal(api.core.calls, 0);
}

/* Every fault at once. */
static void test_all_faults(void **state)
{
	_cleanup_answer_ struct api_answer answer = api_json(
	        &api, "POST", LISTENERS, "", "{\"colour\":1,\"enabled\":3,\"priority\":-1,\"protocol\":\"sctp\"}");
	json_t *document;

	(void)state;
	api_expect_problem(&answer, 422);
	document = document_of(&answer);
	assert_true(json_array_size(json_object_get(document, "errors")) >= 5); /* and the name is missing */
	assert_string_equal(json_string_value(json_object_get(document, "instance")), LISTENERS);
	json_decref(document);
}

static void test_faults_of_the_core(void **state)
{
	static const struct {
		int error, status;
	} cases[] = {
		{ -EINVAL, 422 },
		{ -EEXIST, 409 },
		{ -EBUSY, 409 },
		{ -ENOENT, 404 },
		{ -ESTALE, 412 },
		{ -EIO, 503 },
		{ -ENOSPC, 503 },
		{ -EROFS, 503 },
		{ -EAGAIN, 503 },
		{ -ENOMEM, 503 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_answer_ struct api_answer answer = { 0 };
		json_t *document;

		api.core.fail = cases[i].error;
		answer = api_json(&api, "PUT", WEB, "", "{}");
		api_expect_problem(&answer, cases[i].status);
		document = document_of(&answer);
		assert_true(has_code(document, "overlap"));
		json_decref(document);
	}
}

static void test_create(void **state)
{
	_cleanup_answer_ struct api_answer first =
	        api_json(&api, "POST", LISTENERS, "", "{\"name\":\"web\",\"ports\":[\"80\"]}");
	_cleanup_answer_ struct api_answer again = api_json(&api, "POST", LISTENERS "/", "", "{\"name\":\"web\"}");
	json_t *document;

	(void)state;
	api_expect_status(&first, 201);
	api_expect_header(&first, "Location", WEB);
	api_expect_header(&first, "ETag", "\"1\"");
	api_expect_header(&first, "Gateway-Revision", "1");
	api_expect_header(&first, "Content-Type", "application/json");
	document = document_of(&first);
	assert_string_equal(json_string_value(json_object_get(document, "name")), "web");
	assert_string_equal(json_string_value(json_object_get(document, "protocol")), "tcp");
	json_decref(document);
	assert_int_equal(first.bytes[first.length - 1], '\n');
	api_expect_problem(&again, 409);
	assert_string_equal(api.core.actor, "uid 0");
}

static void test_create_if_match(void **state)
{
	_cleanup_answer_ struct api_answer stale =
	        api_json(&api, "POST", LISTENERS, "If-Match: \"7\"\r\n", "{\"name\":\"web\"}");
	_cleanup_answer_ struct api_answer good =
	        api_json(&api, "POST", LISTENERS, "If-Match: \"0\"\r\n", "{\"name\":\"web\"}");

	(void)state;
	api_expect_problem(&stale, 412);
	api_expect_status(&good, 201);
}

static void test_get(void **state)
{
	(void)state;
	put(WEB, "", "{}", 201);
	_cleanup_answer_ struct api_answer got = api_json(&api, "GET", WEB, "", NULL);
	_cleanup_answer_ struct api_answer same = api_json(&api, "GET", WEB, "If-None-Match: W/\"1\"\r\n", NULL);
	_cleanup_answer_ struct api_answer other = api_json(&api, "GET", WEB, "If-None-Match: \"2\", \"3\"\r\n", NULL);
	_cleanup_answer_ struct api_answer none = api_json(&api, "GET", LISTENERS "/none", "", NULL);
	_cleanup_answer_ struct api_answer bad = api_json(&api, "GET", WEB, "If-None-Match: 1\r\n", NULL);

	api_expect_status(&got, 200);
	api_expect_header(&got, "ETag", "\"1\"");
	api_expect_status(&same, 304);
	api_expect_header(&same, "ETag", "\"1\"");
	assert_string_equal(api_body(&same), "");
	api_expect_status(&other, 200);
	api_expect_problem(&none, 404);
	api_expect_problem(&bad, 400);
}

static void test_put(void **state)
{
	_cleanup_answer_ struct api_answer created =
	        api_json(&api, "PUT", WEB, "", "{\"ports\":[\"80\"],\"priority\":7}");
	_cleanup_answer_ struct api_answer replaced = api_json(&api, "PUT", WEB, "", "{\"name\":\"web\"}");
	json_t *document;

	(void)state;
	api_expect_status(&created, 201);
	api_expect_header(&created, "Location", WEB);
	api_expect_status(&replaced, 200);
	api_expect_header(&replaced, "ETag", "\"2\"");
	document = document_of(&replaced);
	assert_int_equal(json_array_size(json_object_get(document, "ports")), 0);
	assert_int_equal(json_integer_value(json_object_get(document, "priority")), 100);
	json_decref(document);
}

static void test_put_preconditions(void **state)
{
	(void)state;
	put(WEB, "If-Match: *\r\n", "{}", 412);
	put(WEB, "If-Match: \"1\"\r\n", "{}", 412);
	put(WEB, "If-None-Match: *\r\n", "{}", 201);
	put(WEB, "If-None-Match: *\r\n", "{}", 412);
	put(WEB, "If-Match: \"9\"\r\n", "{}", 412);
	put(WEB, "If-Match: W/\"1\"\r\n", "{}", 412); /* a weak tag does not promise the same bytes */
	put(WEB, "If-Match: 1\r\n", "{}", 400);
	put(WEB, "If-Match: \"1\r\n", "{}", 400);
	assert_int_equal(api.core.revision, 1);
	put(WEB, "If-Match: \"9\", \"1\"\r\n", "{}", 200);
	put(WEB, "If-Match: *\r\n", "{}", 200);
	assert_int_equal(api.core.revision, 3);
}

static void test_patch(void **state)
{
	(void)state;
	put(WEB, "", "{\"ports\":[\"80\",\"443\"],\"comment\":\"x\",\"priority\":7}", 201);
	_cleanup_answer_ struct api_answer patched =
	        api_json(&api, "PATCH", WEB, "If-Match: \"1\"\r\n", "{\"ports\":[\"8080\"],\"comment\":null}");
	_cleanup_answer_ struct api_answer stale =
	        api_json(&api, "PATCH", WEB, "If-Match: \"1\"\r\n", "{\"priority\":8}");
	_cleanup_answer_ struct api_answer bad = api_json(&api, "PATCH", WEB, "", "{\"priority\":-8}");
	_cleanup_answer_ struct api_answer rename = api_json(&api, "PATCH", WEB, "", "{\"name\":\"other\"}");
	_cleanup_answer_ struct api_answer none = api_json(&api, "PATCH", LISTENERS "/none", "", "{}");
	json_t *document;

	assert_int_equal(api.core.if_revision, 1); /* the one that was patched, though nobody asked */
	api_expect_status(&patched, 200);
	document = document_of(&patched);
	assert_int_equal(json_array_size(json_object_get(document, "ports")), 1);
	assert_string_equal(json_string_value(json_object_get(document, "comment")), "");
	assert_int_equal(json_integer_value(json_object_get(document, "priority")), 7);
	json_decref(document);
	api_expect_problem(&stale, 412);
	api_expect_problem(&bad, 422);
	api_expect_problem(&rename, 422);
	api_expect_problem(&none, 404);
	assert_int_equal(api.core.revision, 2);
}

static void test_delete(void **state)
{
	(void)state;
	put(WEB, "", "{}", 201);
	_cleanup_answer_ struct api_answer stale = api_json(&api, "DELETE", WEB, "If-Match: \"9\"\r\n", NULL);
	_cleanup_answer_ struct api_answer query = api_json(&api, "DELETE", WEB "?force=1", "", NULL);
	_cleanup_answer_ struct api_answer gone = api_json(&api, "DELETE", WEB, "If-Match: \"1\"\r\n", NULL);
	_cleanup_answer_ struct api_answer again = api_json(&api, "DELETE", WEB, "", NULL);

	api_expect_problem(&stale, 412);
	api_expect_problem(&query, 400);
	api_expect_status(&gone, 204);
	api_expect_header(&gone, "Gateway-Revision", "2");
	api_expect_problem(&again, 404);
	assert_int_equal(api.core.n, 0);
}

/* GET of a list: names of the items joined by blanks, then next and total. */
static void expect_list(const char *query, const char *names, const char *next, int total)
{
	_cleanup_free_ char *path = NULL;
	char got[8192] = "";
	size_t i;
	const json_t *item;
	json_t *document;

	assert_true(asprintf(&path, LISTENERS "%s", query) > 0);
	_cleanup_answer_ struct api_answer answer = api_json(&api, "GET", path, "", NULL);
	api_expect_status(&answer, 200);
	document = document_of(&answer);
	json_array_foreach(json_object_get(document, "items"), i, item)
	{
		strcat(got, i ? " " : "");
		strcat(got, json_string_value(json_object_get(item, "name")));
	}
	assert_string_equal(got, names);
	if (next)
		assert_string_equal(json_string_value(json_object_get(document, "next")), next);
	else
		assert_true(json_is_null(json_object_get(document, "next")));
	assert_int_equal(json_integer_value(json_object_get(document, "total")), total);
	json_decref(document);
}

static void test_list(void **state)
{
	static const char *const names[] = { "b", "a", "ab-2", "ab", "ab-1", "abc", "c" };

	(void)state;
	expect_list("", "", NULL, 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char path[64];

		snprintf(path, sizeof(path), LISTENERS "/%s", names[i]);
		put(path, "", "{}", 201);
	}
	put("/api/v1/upstreams/pool", "", "{}", 201);
	expect_list("", "a ab ab-1 ab-2 abc b c", NULL, 7);
	expect_list("?limit=3", "a ab ab-1", "ab-1", 7);
	expect_list("?limit=3&after=ab-1", "ab-2 abc b", "b", 7);
	expect_list("?limit=3&after=b", "c", NULL, 7);
	expect_list("?limit=7", "a ab ab-1 ab-2 abc b c", NULL, 7);
	expect_list("?name=ab", "ab", NULL, 1);
	expect_list("?name=none", "", NULL, 0);
	expect_list("?name=", "", NULL, 0);
	expect_list("?name=ab*", "ab ab-1 ab-2 abc", NULL, 4);
	expect_list("?name=ab-*", "ab-1 ab-2", NULL, 2);
	expect_list("?name=ab%2a&limit=2", "ab ab-1", "ab-1", 4);
	expect_list("?name=ab*&limit=2&after=ab-1", "ab-2 abc", NULL, 4);
	expect_list("?name=*&limit=1", "a", "a", 7);
}

/* More rows than one batch of the filter, and the largest page. */
static void test_list_large(void **state)
{
	(void)state;
	for (int i = 0; i < 1100; i++) {
		struct listener *listener = (void *)row_new(RESOURCE_LISTENER);

		snprintf(listener->name, sizeof(listener->name), "x-%04d", i);
		listener->row.revision = 1;
		fake_insert(&api.core, &listener->row);
	}
	_cleanup_answer_ struct api_answer answer = api_json(&api, "GET", LISTENERS "?limit=1000&name=x-*", "", NULL);
	json_t *document = document_of(&answer);

	assert_int_equal(json_array_size(json_object_get(document, "items")), 1000);
	assert_string_equal(json_string_value(json_object_get(document, "next")), "x-0999");
	assert_int_equal(json_integer_value(json_object_get(document, "total")), 1100);
	json_decref(document);
	expect_list("?after=x-1098", "x-1099", NULL, 1100);
	expect_list("?after=x-1098&name=x*", "x-1099", NULL, 1100);
}

static void test_list_faults(void **state)
{
	static const char *const queries[] = { "?limit=0", "?limit=1001", "?limit=-1", "?limit=", "?limit=1x",
		"?limit=%201", "?limit=99999999999999999999", "?limit=1&limit=2", "?page=1", "?limit=1&page=1",
		"?=", "?limit=%zz" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(queries); i++) {
		char path[64];

		snprintf(path, sizeof(path), LISTENERS "%s", queries[i]);
		_cleanup_answer_ struct api_answer answer = api_json(&api, "GET", path, "", NULL);
		api_expect_problem(&answer, 400);
	}
	_cleanup_answer_ struct api_answer answer = api_json(&api, "GET", LISTENERS "?page=1", "", NULL);
	assert_non_null(strstr(answer.bytes, "limit, after, name"));
}

static void test_list_etag(void **state)
{
	(void)state;
	put(WEB, "", "{}", 201);
	_cleanup_answer_ struct api_answer same = api_json(&api, "GET", LISTENERS, "If-None-Match: \"1\"\r\n", NULL);
	_cleanup_answer_ struct api_answer other = api_json(&api, "GET", LISTENERS, "If-None-Match: \"0\"\r\n", NULL);

	api_expect_status(&same, 304);
	api_expect_status(&other, 200);
	api_expect_header(&other, "ETag", "\"1\"");
}

static void test_upstream(void **state)
{
	(void)state;
	put("/api/v1/upstreams/pool", "", "{\"targets\":[{\"address\":\"192.0.2.1\",\"port\":80}]}", 201);
	_cleanup_answer_ struct api_answer bad = api_json(
	        &api, "PATCH", "/api/v1/upstreams/pool", "", "{\"targets\":[{\"address\":\"www.example.org\"}]}");
	_cleanup_answer_ struct api_answer got = api_json(&api, "GET", "/api/v1/upstreams/pool", "", NULL);
	json_t *document = document_of(&got);

	api_expect_problem(&bad, 422);
	assert_non_null(strstr(bad.bytes, "/targets/0/address"));
	assert_int_equal(json_array_size(json_object_get(document, "targets")), 1);
	json_decref(document);
}

static void expect_text(const char *path, int status, const char *text)
{
	_cleanup_answer_ struct api_answer answer = api_json(&api, "GET", path, "", NULL);

	api_expect_status(&answer, status);
	assert_string_equal(api_body(&answer), text);
	api_expect_header(&answer, "Content-Type", "text/plain; charset=utf-8");
}

static void test_system(void **state)
{
	(void)state;
	expect_text("/healthz", 200, "ok\n");
	expect_text("/readyz", 503, "not ready\n");
	api.core.ready = true;
	expect_text("/readyz", 200, "ready\n");
	expect_text("/api/v1/ruleset", 200, "aaaaaaaa");
	expect_text("/api/v1/ruleset?format=applied", 200, "aaaaaaaa");
	expect_text("/api/v1/ruleset?format=desired", 200, "dddddddd");
	_cleanup_answer_ struct api_answer format = api_json(&api, "GET", "/api/v1/ruleset?format=json", "", NULL);
	api_expect_problem(&format, 400);
	api.core.fail = -EIO;
	_cleanup_answer_ struct api_answer unreadable = api_json(&api, "GET", "/api/v1/ruleset", "", NULL);
	api_expect_problem(&unreadable, 503);
}

static void test_documents(void **state)
{
	static const char *const paths[] = { "/openapi.json", "/api/v1/openapi.json", "/api/v1/schema" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		_cleanup_answer_ struct api_answer answer = api_json(&api, "GET", paths[i], "", NULL);
		json_t *document = document_of(&answer);

		api_expect_status(&answer, 200);
		api_expect_header(&answer, "Content-Type", "application/json");
		json_decref(document);
	}
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH(test_bad_bodies),
		WITH(test_all_faults),
		WITH(test_faults_of_the_core),
		WITH(test_create),
		WITH(test_create_if_match),
		WITH(test_get),
		WITH(test_put),
		WITH(test_put_preconditions),
		WITH(test_patch),
		WITH(test_delete),
		WITH(test_list),
		WITH(test_list_large),
		WITH(test_list_faults),
		WITH(test_list_etag),
		WITH(test_upstream),
		WITH(test_system),
		WITH(test_documents),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
