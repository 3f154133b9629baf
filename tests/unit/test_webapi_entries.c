/* The entries of an address set in bulk: refusals first, then the three writes, both forms, and the bounds. */
#include "schema/prefixes.h"
#include "tests/unit/api_client.h"

#define SET     "/api/v1/address-sets/blocked"
#define ENTRIES SET "/entries"

static struct api api;

static int start(void **state)
{
	(void)state;
	api_start(&api, false, NULL);
	api_expect(&api, "PUT", SET, "", "{\"comment\":\"kept\",\"entries\":[\"10.0.0.0/8\",\"192.0.2.7\"]}", 201);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	api_stop(&api);
	return 0;
}

/* A request with a body of some media type (NULL: none is named). */
static struct api_answer send_to(
        const char *method, const char *path, const char *headers, const char *type, const char *body, size_t length)
{
	_cleanup_free_ char *text = NULL;
	int head = asprintf(&text, "%s %s HTTP/1.1\r\nHost: localhost\r\n%s%s%s%sContent-Length: %zu\r\n\r\n", method,
	        path, headers, type ? "Content-Type: " : "", type ? type : "", type ? "\r\n" : "", length);
	char *grown;

	assert_true(head > 0);
	grown = realloc(text, (size_t)head + length + 1);
	assert_non_null(grown);
	text = grown;
	memcpy(text + head, body, length);
	text[(size_t)head + length] = '\0';
	return api_talk(&api, text, (size_t)head + length);
}

static struct api_answer say(const char *method, const char *body)
{
	return send_to(method, ENTRIES, "", "text/plain", body, strlen(body));
}

static struct api_answer get(const char *headers)
{
	return api_json(&api, "GET", ENTRIES, headers, NULL);
}

static void expect_entries(const char *text)
{
	_cleanup_answer_ struct api_answer answer = get("");

	api_expect_status(&answer, 200);
	api_expect_header(&answer, "Content-Type", "text/plain; charset=utf-8");
	assert_string_equal(api_body(&answer), text);
}

static void expect_counts(const struct api_answer *answer, int entries, int added, int removed)
{
	json_t *document, *wanted;

	api_expect_status(answer, 200);
	document = api_document(answer);
	wanted = json_pack("{s:I, s:b, s:i, s:i, s:i, s:[], s:n}", "revision", (json_int_t)api.core.revision, "changed",
	        1, "entries", entries, "added", added, "removed", removed, "warnings", "pending");
	if (!json_equal(document, wanted))
		fail_msg("%d, %d, %d wanted: %s", entries, added, removed, api_body(answer));
	json_decref(document);
	json_decref(wanted);
}

#define BEFORE "10.0.0.0/8\n192.0.2.7\n"

static void test_refusals(void **state)
{
	static const struct {
		const char *method, *path, *type, *body;
		int status;
		const char *pointer, *code; /* of a fault, or NULL */
	} cases[] = {
		{ "POST", "/api/v1/address-sets/none/entries", "text/plain", "10.1.0.1", 404, NULL, NULL },
		{ "PATCH", ENTRIES, "application/json", "[]", 405, NULL, NULL },
		{ "POST", "/api/v1/listeners/blocked/entries", "text/plain", "10.1.0.1", 404, NULL, NULL },
		{ "POST", ENTRIES, "application/x-www-form-urlencoded", "10.1.0.1", 415, NULL, NULL },
		{ "POST", ENTRIES, NULL, "10.1.0.1", 415, NULL, NULL },
		{ "POST", ENTRIES, NULL, "", 400, "", "malformed" },
		{ "PUT", ENTRIES, NULL, "", 400, "", "malformed" },
		{ "PUT", ENTRIES, "application/json", "", 400, "", "malformed" },
		{ "DELETE", ENTRIES, NULL, "", 400, "", "malformed" },
		{ "DELETE", ENTRIES, "text/plain", "", 400, "", "malformed" },
		{ "PUT", ENTRIES, "application/json", "{}", 400, "", "malformed" },
		{ "PUT", ENTRIES, "application/json", "[\"10.0.0.1\"", 400, "", "malformed" },
		{ "PUT", ENTRIES, "application/json", "[{\"a\":1,\"a\":2}]", 400, "", "duplicate_key" },
		{ "PUT", ENTRIES, "application/json", "[\"10.0.0.1\",7]", 422, "/1", "wrong_type" },
		{ "PUT", ENTRIES, "application/json", "[\"10.0.0.1\",\"x\"]", 422, "/1", NULL },
		{ "PUT", ENTRIES, "text/plain", "10.0.0.1\n\nx\n", 422, "", "bad_line" },
		{ "PUT", ENTRIES, "text/plain", "10.0.0.1/8\n", 422, "", "bad_line" },
		{ "PUT", ENTRIES, "text/plain", "@other\n", 422, "", "bad_line" },
		{ "PUT", ENTRIES "?all=1", "text/plain", "10.0.0.1\n", 400, "", "unknown_parameter" },
		{ "GET", ENTRIES "?limit=1", NULL, "", 400, "", "unknown_parameter" },
	};
	unsigned calls = api.core.calls;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_answer_ struct api_answer answer = send_to(
		        cases[i].method, cases[i].path, "", cases[i].type, cases[i].body, strlen(cases[i].body));

		api_expect_problem(&answer, cases[i].status);
		if (cases[i].code)
			api_expect_fault(&answer, cases[i].pointer, cases[i].code);
	}
	assert_int_equal(api.core.calls, calls);
	expect_entries(BEFORE);
}

/* Every bad line is counted, some are told, each with its number. */
static void test_bad_lines(void **state)
{
	_cleanup_free_ char *body = calloc(100000, 2);
	_cleanup_answer_ struct api_answer answer = { 0 };
	json_t *document;

	(void)state;
	for (size_t i = 0; i < 100000; i++)
		memcpy(body + 2 * i, "x\n", 2);
	answer = send_to("POST", ENTRIES, "", "text/plain", body, 200000);
	api_expect_problem(&answer, 422);
	document = api_document(&answer);
	assert_int_equal(json_array_size(json_object_get(document, "errors")), ERRS_MAX);
	assert_int_equal(json_integer_value(json_object_get(document, "errors_not_shown")), 100000 - ERRS_MAX);
	assert_non_null(strstr(answer.bytes, "\"line 1: "));
	assert_non_null(strstr(answer.bytes, "\"line 64: "));
	assert_true(answer.length < 100000);
	json_decref(document);
}

static void test_add_replace_remove(void **state)
{
	(void)state;
	{
		_cleanup_answer_ struct api_answer answer = say(
		        "POST", "# new ones\r\n2001:db8::/32\r\n10.0.0.0/8\n9.9.9.9 # here\n\n10.255.0.0-10.255.1.255");

		expect_counts(&answer, 5, 3, 0);
		api_expect_header(&answer, "ETag", "\"2\"");
		api_expect_header(&answer, "Gateway-Revision", "2");
		assert_string_equal(api.core.summary, "POST address-sets/blocked/entries");
		assert_int_equal(api.core.if_revision, 1);
	}
	expect_entries("9.9.9.9\n10.0.0.0/8\n10.255.0.0/23\n192.0.2.7\n2001:db8::/32\n");
	{
		/* Only what is there goes, and nothing is cut out of a wider one. */
		_cleanup_answer_ struct api_answer answer = say("DELETE", "9.9.9.9\n10.1.0.0/16\n203.0.113.1\n");

		expect_counts(&answer, 4, 0, 1);
	}
	{
		_cleanup_answer_ struct api_answer answer = send_to("PUT", ENTRIES, "", "application/json",
		        "[\"192.0.2.7\",\"203.0.113.0\\/24\",\"192.0.2.7\"]", 43);

		expect_counts(&answer, 2, 1, 3);
	}
	expect_entries("192.0.2.7\n203.0.113.0/24\n");
	{
		_cleanup_answer_ struct api_answer answer = api_json(&api, "GET", SET, "", NULL);

		assert_non_null(strstr(answer.bytes, "\"kept\""));
	}
	{
		_cleanup_answer_ struct api_answer answer = say("PUT", "");

		expect_counts(&answer, 0, 0, 2);
	}
	expect_entries("");
}

static void test_dry_run(void **state)
{
	_cleanup_answer_ struct api_answer answer =
	        send_to("POST", ENTRIES "?dry_run=true", "", "text/plain", "10.1.0.0/16", 11);
	json_t *document;

	(void)state;
	api_expect_status(&answer, 200);
	document = api_document(&answer);
	assert_true(json_is_true(json_object_get(document, "dry_run")));
	assert_int_equal(json_array_size(json_object_get(document, "diff")), 1);
	json_decref(document);
	expect_entries(BEFORE);
}

static void test_preconditions(void **state)
{
	static const struct {
		const char *header;
		int status;
	} cases[] = {
		{ "If-Match: \"9\"\r\n", 412 },
		{ "If-None-Match: *\r\n", 412 },
		{ "If-Match: 1\r\n", 400 },
		{ "If-Match: \"1\"\r\n", 200 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_answer_ struct api_answer answer =
		        send_to("POST", ENTRIES, cases[i].header, "text/plain", "10.1.0.1", 8);

		api_expect_status(&answer, cases[i].status);
	}
	{
		_cleanup_answer_ struct api_answer answer = get("If-None-Match: \"2\"\r\n");

		api_expect_status(&answer, 304);
		api_expect_header(&answer, "ETag", "\"2\"");
	}
}

static void test_forms(void **state)
{
	static const struct {
		const char *accept;
		bool json;
	} cases[] = {
		{ "", false },
		{ "Accept: */*\r\n", false },
		{ "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n", false },
		{ "Accept: application/json\r\n", true },
		{ "Accept: Application/JSON ; q=0.5\r\n", true },
		{ "Accept: application/*\r\n", true },
		{ "Accept: application/json, text/plain\r\n", false },
		{ "Accept: application/json, */*;q=0.1\r\n", true },
		{ "Accept: application/json;q=0.1, text/*;q=0.2\r\n", false },
		{ "Accept: application/json;q=0\r\n", false },
		{ "Accept: application/jsonp\r\n", false },
		{ "Accept: application/json\r\nAccept: text/html\r\n", true },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_answer_ struct api_answer answer = get(cases[i].accept);

		api_expect_status(&answer, 200);
		api_expect_header(&answer, "Vary", "Accept");
		api_expect_header(
		        &answer, "Content-Type", cases[i].json ? "application/json" : "text/plain; charset=utf-8");
		assert_string_equal(api_body(&answer), cases[i].json ? "[\"10.0.0.0/8\",\"192.0.2.7\"]\n" : BEFORE);
	}
}

/* Addresses in order, `n` of them from the first, a line each. */
static char *many(size_t first, size_t n, size_t *ret_length)
{
	char *text = malloc(n * 16 + 1), *at = text;

	assert_non_null(text);
	for (size_t i = first; i < first + n; i++)
		at += sprintf(at, "%zu.%zu.%zu.%zu\n", 11 + (i >> 24), i >> 16 & 255, i >> 8 & 255, i & 255);
	*ret_length = (size_t)(at - text);
	return text;
}

/* A million are taken, one more is not, in whichever way it comes; what is in force stays. */
static void test_a_million(void **state)
{
	size_t length, more;
	_cleanup_free_ char *text = many(0, ADDRESS_SET_ENTRIES_MAX, &length);
	_cleanup_free_ char *too_many = many(0, ADDRESS_SET_ENTRIES_MAX + 1, &more);
	_cleanup_answer_ struct api_answer full = send_to("PUT", ENTRIES, "", "text/plain", text, length),
	                                   back = get(""), over = say("POST", "9.9.9.9"),
	                                   longer = send_to("PUT", ENTRIES, "", "text/plain", too_many, more),
	                                   less = say("DELETE", "11.0.0.0"), fits = say("POST", "9.9.9.9");

	(void)state;
	api_expect_status(&full, 200);
	assert_int_equal(strlen(api_body(&back)), length);
	assert_string_equal(api_body(&back), text);
	api_expect_problem(&over, 422);
	api_expect_fault(&over, "", "too_many_items");
	api_expect_problem(&longer, 422);
	api_expect_fault(&longer, "", "too_many_items");
	expect_counts(&fits, ADDRESS_SET_ENTRIES_MAX, 1, 0);
	api_expect_status(&less, 200);
}

/* Whether the one item of the list of sets has `key`. */
static bool list_has(const char *key)
{
	_cleanup_answer_ struct api_answer answer = api_json(&api, "GET", "/api/v1/address-sets", "", NULL);
	json_t *document = api_document(&answer);
	bool has = json_object_get(json_array_get(json_object_get(document, "items"), 0), key);

	json_decref(document);
	return has;
}

/* Lists count what is long; the object itself is whole and can be put back. */
static void test_lists(void **state)
{
	size_t length;
	_cleanup_free_ char *text = many(0, 1000, &length);
	_cleanup_answer_ struct api_answer exact = send_to("PUT", ENTRIES, "", "text/plain", text, length);

	(void)state;
	expect_counts(&exact, 1000, 1000, 2);
	assert_true(list_has("entries") && !list_has("entries_count"));
	{
		_cleanup_answer_ struct api_answer more = say("POST", "9.9.9.9"), one = { 0 }, put = { 0 },
		                                   listed = { 0 };
		json_t *document;

		expect_counts(&more, 1001, 1, 0);
		assert_true(!list_has("entries") && list_has("entries_count"));
		one = api_json(&api, "GET", SET, "", NULL);
		document = api_document(&one);
		assert_int_equal(json_array_size(json_object_get(document, "entries")), 1001);
		json_decref(document);
		put = api_json(&api, "PUT", SET, "", api_body(&one));
		api_expect_status(&put, 200);
		/* What a list says in its place is refused as an object, so that it empties nothing. */
		listed = api_json(&api, "PUT", SET, "", "{\"comment\":\"\",\"entries_count\":1001}");
		api_expect_problem(&listed, 422);
		api_expect_fault(&listed, "/entries_count", "unknown_key");
	}
}

/* The limit of the path, not that of other resources; refused before the body is sent. */
static void test_body_limit(void **state)
{
	_cleanup_answer_ struct api_answer answer = api_ask(&api,
	        "PUT " ENTRIES " HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nExpect: 100-continue\r\n"
	        "Content-Length: %zu\r\n\r\n",
	        HTTP_BODY_ENTRIES + 1);

	(void)state;
	api_expect_problem(&answer, 413);
	assert_non_null(strstr(answer.bytes, "67108864"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_refusals, start, stop),
		cmocka_unit_test_setup_teardown(test_bad_lines, start, stop),
		cmocka_unit_test_setup_teardown(test_add_replace_remove, start, stop),
		cmocka_unit_test_setup_teardown(test_dry_run, start, stop),
		cmocka_unit_test_setup_teardown(test_preconditions, start, stop),
		cmocka_unit_test_setup_teardown(test_forms, start, stop),
		cmocka_unit_test_setup_teardown(test_a_million, start, stop),
		cmocka_unit_test_setup_teardown(test_lists, start, stop),
		cmocka_unit_test_setup_teardown(test_body_limit, start, stop),
	};

	return cmocka_run_group_tests_name("webapi_entries", tests, NULL, NULL);
}
