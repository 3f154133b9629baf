/* What all writes have in common: dry runs, confirmation, warnings, the audit log; and targets as sub-resources. */
#include "tests/unit/api_client.h"

#define WEB     "/api/v1/listeners/web"
#define POOL    "/api/v1/upstreams/pool"
#define TARGETS POOL "/targets"

static struct api api;

static int start(void **state)
{
	(void)state;
	api_start(&api, false, NULL);
	return 0;
}

static int start_tcp(void **state)
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

static void test_bad_parameters(void **state)
{
	static const char *const queries[] = { "?dry_run=1", "?dry_run=", "?dry_run=TRUE", "?confirm_within=4",
		"?confirm_within=86401", "?confirm_within=", "?confirm_within=-5", "?confirm_within=5s",
		"?confirm_within=%2b5", "?confirm_within=99999999999999999999", "?dry_run=true&dry_run=true",
		"?force=true" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(queries); i++) {
		char path[96];

		snprintf(path, sizeof(path), WEB "%s", queries[i]);
		_cleanup_answer_ struct api_answer answer = api_json(&api, "PUT", path, "", "{}");
		api_expect_problem(&answer, 400);
	}
	assert_int_equal(api.core.calls, 0);
}

static void test_dry_run(void **state)
{
	_cleanup_answer_ struct api_answer answer = api_json(&api, "PUT", WEB "?dry_run=true", "", "{}");
	json_t *document = api_document(&answer);

	(void)state;
	api_expect_status(&answer, 200);
	assert_true(json_is_true(json_object_get(document, "dry_run")));
	assert_int_equal(json_integer_value(json_object_get(document, "revision")), 0);
	assert_int_equal(json_array_size(json_object_get(document, "diff")), 1);
	assert_string_equal(json_string_value(json_object_get(document, "nft")), "add rule\n");
	assert_int_equal(json_array_size(json_object_get(document, "warnings")), 0);
	json_decref(document);
	assert_int_equal(api.core.n, 0);
	assert_int_equal(api.core.audited, 0);
	api_expect(&api, "PUT", WEB "?dry_run=false", "", "{}", 201);
	assert_int_equal(api.core.n, 1);
	api_expect(&api, "DELETE", WEB "?dry_run=true", "", NULL, 200);
	assert_int_equal(api.core.n, 1);
	api_expect(&api, "PATCH", WEB "?dry_run=true", "", "{\"priority\":-1}", 422);
}

static void test_confirm_within(void **state)
{
	_cleanup_answer_ struct api_answer answer = api_json(&api, "PUT", WEB "?confirm_within=5", "", "{}");
	_cleanup_answer_ struct api_answer again = api_json(&api, "PUT", WEB, "", "{}");
	_cleanup_free_ char *absent = api_header(&again, "Gateway-Confirm-Deadline");

	(void)state;
	api_expect_status(&answer, 201);
	api_expect_header(&answer, "Gateway-Confirm-Deadline", "2030-01-01T00:00:00Z");
	assert_int_equal(api.core.pending, 1);
	assert_null(absent);
	assert_string_equal(api.core.summary, "PUT listeners/web");
}

static void test_warnings(void **state)
{
	(void)state;
	api.core.warn = true;
	_cleanup_answer_ struct api_answer answer = api_json(&api, "PUT", WEB, "", "{}");

	api_expect_header(&answer, "Gateway-Warning", "first; no limits??X: y");
	assert_non_null(strstr(answer.bytes, "\r\nGateway-Warning: second; d\r\n"));
	assert_null(strstr(answer.bytes, "\nX: y"));
}

static void expect_audit(unsigned number, const char *text)
{
	if (strcmp(api.core.audit[number], text) != 0)
		fail_msg("entry %u is %s, not %s", number, api.core.audit[number], text);
}

static void test_audit(void **state)
{
	(void)state;
	api_expect(&api, "PUT", WEB, "", "{}", 201);
	api_expect(&api, "PUT", WEB "?dry_run=true", "", "{}", 200);
	api_expect(&api, "PUT", WEB, "", "{\"comment\":1}", 422);
	api_expect(&api, "DELETE", "/api/v1/listeners/none?x=secret", "", NULL, 400);
	api_expect(&api, "GET", WEB, "", NULL, 200);
	api_expect(&api, "OPTIONS", WEB, "", NULL, 204);
	/* A question is no change, whoever asks. */
	api_expect(&api, "POST", "/api/v1/explain", "", "{\"protocol\": \"tcp\"}", 422);
	assert_int_equal(api.core.audited, 3);
	expect_audit(0, "uid 0|PUT|/api/v1/listeners/web|201|1|");
	expect_audit(1, "uid 0|PUT|/api/v1/listeners/web|422|0|The content is not valid: /comment: a string is wanted "
	                "here, not an integer");
	expect_audit(2, "uid 0|DELETE|/api/v1/listeners/none|400|0|The request is malformed: The query of the address "
	                "is not understood.");
}

/* Why it was refused is cut on a whole character, and nothing of a body that cannot be read is kept. */
static void test_audit_detail(void **state)
{
	char body[1024] = "{\"";
	const char *kept;

	(void)state;
	api_expect(&api, "PUT", WEB, "", "{\"comment\": secret}", 400);
	kept = api.core.audit[0];
	assert_non_null(strstr(kept, "|400|0|The request is malformed: line 1, column "));
	assert_null(strstr(kept, "secret"));
	for (int i = 0; i < 300; i++)
		strcat(body, "\xc3\xa4");
	strcat(body, "\": 1}");
	api_expect(&api, "PUT", WEB, "", body, 422);
	kept = strstr(api.core.audit[1], "The content");
	assert_non_null(kept);
	assert_true(strlen(kept) < AUDIT_DETAIL_BYTES && strlen(kept) > AUDIT_DETAIL_BYTES - 8);
	assert_string_equal(kept + strlen(kept) - strlen("ä…"), "ä…");
}

/* Those who have no business here are noted, but cannot fill the log. */
static void test_audit_strangers(void **state)
{
	(void)state;
	for (int i = 0; i < AUDIT_STRANGERS_PER_MINUTE + 5; i++)
		api_expect(&api, "DELETE", WEB, "", NULL, 401);
	assert_int_equal(api.core.audited, AUDIT_STRANGERS_PER_MINUTE);
	expect_audit(0,
	        "-|DELETE|/api/v1/listeners/web|401|0|A valid token is needed: Send \"Authorization: Bearer TOKEN\".");
	api_expect(&api, "DELETE", WEB, "Authorization: Bearer " API_TOKEN "\r\n", NULL, 404);
	assert_int_equal(api.core.audited, AUDIT_STRANGERS_PER_MINUTE + 1);
}

static void make_pool(void)
{
	api_expect(&api, "PUT", POOL, "",
	        "{\"targets\":[{\"address\":\"192.0.2.1\",\"port\":80},{\"address\":\"2001:db8::1\",\"port\":0}]}",
	        201);
}

static void test_target_faults(void **state)
{
	(void)state;
	make_pool();
	api_expect(&api, "GET", "/api/v1/upstreams/none/targets", "", NULL, 404);
	api_expect(&api, "GET", "/api/v1/upstreams/none/targets/192.0.2.1:80", "", NULL, 404);
	api_expect(&api, "GET", "/api/v1/listeners/pool/targets", "", NULL, 404);
	api_expect(&api, "GET", TARGETS "/192.0.2.1:81", "", NULL, 404);
	api_expect(&api, "GET", TARGETS "/192.0.2.1", "", NULL, 404);
	api_expect(&api, "GET", TARGETS "/192.0.2.1:080", "", NULL, 404);
	api_expect(&api, "PATCH", TARGETS "/192.0.2.9:80", "", "{}", 404);
	api_expect(&api, "DELETE", TARGETS "/192.0.2.9:80", "", NULL, 404);
	api_expect(&api, "PUT", TARGETS "/192.0.2.9:65536", "", "{}", 422);
	api_expect(&api, "PUT", TARGETS "/www.example.org:80", "", "{}", 422);
	api_expect(&api, "PUT", "/api/v1/upstreams/none/targets/192.0.2.9:80", "", "{}", 404);
	api_expect(&api, "POST", TARGETS, "", "{\"address\":\"192.0.2.1\",\"port\":80}", 409);
	api_expect(&api, "PATCH", TARGETS "/192.0.2.1:80", "If-Match: \"9\"\r\n", "{}", 412);
	_cleanup_answer_ struct api_answer wrong = api_json(&api, "PATCH", TARGETS "/192.0.2.1:80", "",
	        "{\"port\":81,\"weight\":-1,\"admin_state\":\"off\",\"drain_deadline_s\":\"1\",\"drain_reset_per_s\":"
	        "0}");
	api_expect_problem(&wrong, 422);
	api_expect_fault(&wrong, "/port", "unknown_key");
	api_expect_fault(&wrong, "/weight", "out_of_range");
	api_expect_fault(&wrong, "/admin_state", "bad_value");
	api_expect_fault(&wrong, "/drain_deadline_s", "wrong_type");
	api_expect_fault(&wrong, "/drain_reset_per_s", "out_of_range");
	api_expect(&api, "PATCH", TARGETS "/192.0.2.1:80", "", "[]", 400);
	api_expect(&api, "PATCH", TARGETS "/192.0.2.1:80?dry_run=true", "", "{}", 400);
	api.core.fail = -EROFS;
	api_expect(&api, "PATCH", TARGETS "/192.0.2.1:80", "", "{}", 503);
	api.core.fail = 0;
	assert_int_equal(api.core.ordered, 0);
	assert_int_equal(api.core.revision, 1);
}

static int64_t weight_of(size_t number)
{
	const struct upstream *upstream = (const void *)core_find(&api.core, RESOURCE_UPSTREAM, "pool");

	assert_true(number < upstream->targets.n);
	return ((const struct target *)upstream->targets.items[number])->weight;
}

static void test_targets(void **state)
{
	(void)state;
	make_pool();
	_cleanup_answer_ struct api_answer list = api_json(&api, "GET", TARGETS, "", NULL);
	_cleanup_answer_ struct api_answer patched = api_json(
	        &api, "PATCH", TARGETS "/192.0.2.1:80", "If-Match: \"1\"\r\n", "{\"weight\":0,\"admin_state\":null}");
	_cleanup_answer_ struct api_answer v6 = api_json(&api, "PATCH", TARGETS "/[2001:DB8::1]:0", "",
	        "{\"admin_state\":\"down\",\"drain_deadline_s\":60,\"drain_reset_per_s\":null}");
	_cleanup_answer_ struct api_answer made =
	        api_json(&api, "POST", TARGETS, "", "{\"address\":\"2001:db8::2\",\"port\":443}");

	assert_non_null(strstr(api_body(&list), "\"total\":2"));
	api_expect_status(&patched, 200);
	api_expect_header(&patched, "ETag", "\"1\""); /* no revision is made */
	assert_non_null(strstr(api_body(&patched), "\"ordered\":[-1,0,-2,-2]"));
	api_expect_status(&v6, 200);
	assert_non_null(strstr(api_body(&v6), "\"ordered\":[2,-2,60,-1]"));
	assert_int_equal(api.core.ordered, 2);
	assert_int_equal(weight_of(0), 1);
	api_expect_status(&made, 201);
	api_expect_header(&made, "Location", TARGETS "/[2001:db8::2]:443");
	api_expect(&api, "GET", TARGETS "/2001:db8::2:443", "", NULL, 200);
	api_expect(&api, "GET", TARGETS "/%5B2001:db8::2%5D:443", "", NULL, 200);
	api_expect(&api, "PUT", TARGETS "/192.0.2.3:1", "", "{\"weight\":9}", 201);
	api_expect(&api, "PUT", TARGETS "/192.0.2.3:1", "", "{\"weight\":10}", 200);
	assert_int_equal(weight_of(3), 10);
	api_expect(&api, "DELETE", TARGETS "/192.0.2.1:80", "", NULL, 204);
	assert_int_equal(weight_of(0), 1);
	assert_string_equal(api.core.summary, "DELETE upstreams/pool/targets/192.0.2.1:80");
	api_expect(&api, "DELETE", TARGETS "/[2001:db8::1]:0", "", NULL, 204);
	api_expect(&api, "DELETE", TARGETS "/[2001:db8::2]:443", "", NULL, 204);
	api_expect(&api, "DELETE", TARGETS "/192.0.2.3:1", "", NULL, 204);
	api_expect(&api, "GET", TARGETS "/192.0.2.3:1", "", NULL, 404);
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH(test_bad_parameters),
		WITH(test_dry_run),
		WITH(test_confirm_within),
		WITH(test_warnings),
		WITH(test_audit),
		WITH(test_audit_detail),
		cmocka_unit_test_setup_teardown(test_audit_strangers, start_tcp, stop),
		WITH(test_target_faults),
		WITH(test_targets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
