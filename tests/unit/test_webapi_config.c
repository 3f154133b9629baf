/* The configuration as one document, transactions, history. */
#include "tests/unit/api_client.h"

#define CONFIG       "/api/v1/config"
#define TRANSACTIONS "/api/v1/transactions"

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

static void test_config_faults(void **state)
{
	_cleanup_answer_ struct api_answer answer = api_json(&api, "PUT", CONFIG, "",
	        "{\"listeners\":[{\"name\":\"a\"},{\"name\":\"a\"},{\"name\":\"b\",\"ports\":[\"x\"]},{}],"
	        "\"upstreams\":{},\"colours\":[],\"tokens\":[]}");

	(void)state;
	api_expect_problem(&answer, 422);
	api_expect_fault(&answer, "/listeners/1/name", "duplicate_name");
	api_expect_fault(&answer, "/listeners/3/name", "required");
	assert_non_null(strstr(answer.bytes, "/listeners/2/ports/0"));
	api_expect_fault(&answer, "/upstreams", "wrong_type");
	assert_non_null(strstr(answer.bytes, "colours"));
	assert_non_null(strstr(answer.bytes, "tokens"));
	api_expect(&api, "PUT", CONFIG, "", "[]", 400);
	api_expect(&api, "PUT", CONFIG, "If-Match: \"7\"\r\n", "{}", 412);
	assert_int_equal(api.core.calls, 0);
	api.core.fail = -EEXIST;
	api_expect(&api, "PUT", CONFIG, "", "{}", 409);
}

static void fill(void)
{
	api_expect(&api, "PUT", "/api/v1/upstreams/pool", "", "{\"targets\":[{\"address\":\"192.0.2.1\",\"port\":80}]}",
	        201);
	api_expect(
	        &api, "PUT", "/api/v1/listeners/web", "", "{\"upstream\":\"pool\",\"comment\":\"\xc3\xa4 \\\"\"}", 201);
	api_expect(&api, "PUT", "/api/v1/listeners/dns", "", "{\"ports\":[\"53\"]}", 201);
	api_expect(&api, "PUT", "/api/v1/settings", "", "{\"revisions_kept\":77}", 201);
	api_expect(&api, "PUT", "/api/v1/tokens/ci", "", "{\"role\":\"viewer\"}", 201);
}

/* What was got is put back, gives the same bytes again, and leaves the tokens alone. */
static void test_config_round_trip(void **state)
{
	(void)state;
	fill();
	_cleanup_answer_ struct api_answer first = api_json(&api, "GET", CONFIG, "", NULL);
	_cleanup_free_ char *hash = strdup(((const struct token *)core_find(&api.core, RESOURCE_TOKEN, "ci"))->hash);

	api_expect_status(&first, 200);
	api_expect_header(&first, "ETag", "\"5\"");
	assert_null(strstr(api_body(&first), "tokens"));
	assert_non_null(strstr(api_body(&first), "\"settings\":{"));
	api_expect(&api, "GET", CONFIG, "If-None-Match: \"5\"\r\n", NULL, 304);
	_cleanup_answer_ struct api_answer put = api_json(&api, "PUT", CONFIG, "If-Match: \"5\"\r\n", api_body(&first));
	api_expect_status(&put, 200);
	api_expect_header(&put, "Gateway-Revision", "6");
	assert_int_equal(api.core.n_changes, 5);
	_cleanup_answer_ struct api_answer second = api_json(&api, "GET", CONFIG, "", NULL);
	assert_string_equal(api_body(&first), api_body(&second));
	assert_string_equal(((const struct token *)core_find(&api.core, RESOURCE_TOKEN, "ci"))->hash, hash);
}

static void test_config_put(void **state)
{
	(void)state;
	fill();
	_cleanup_answer_ struct api_answer dry = api_json(&api, "PUT", CONFIG "?dry_run=true", "", "{}");
	_cleanup_answer_ struct api_answer put =
	        api_json(&api, "PUT", CONFIG "?confirm_within=60", "", "{\"listeners\":[{\"name\":\"only\"}]}");
	json_t *document = api_document(&put);

	api_expect_status(&dry, 200);
	assert_non_null(strstr(api_body(&dry), "\"dry_run\":true"));
	api_expect_status(&put, 200);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(document, "pending"), "revision")), 6);
	assert_true(json_is_true(json_object_get(document, "changed")));
	json_decref(document);
	assert_int_equal(core_count(&api.core, RESOURCE_LISTENER), 1);
	assert_int_equal(core_count(&api.core, RESOURCE_UPSTREAM), 0);
	assert_int_equal(core_count(&api.core, RESOURCE_TOKEN), 1);
	assert_int_equal(core_count(&api.core, RESOURCE_SETTINGS), 1); /* of which there is always one */
	assert_string_equal(api.core.summary, "PUT config");
}

/* A document of 10,000 rows is longer than what other writes may have. */
static void test_config_large(void **state)
{
	size_t size = 40 * 1024 * 1024;
	char *body = malloc(size + 64);

	(void)state;
	memset(body, ' ', size);
	strcpy(body + size, "{}");
	_cleanup_answer_ struct api_answer answer = api_json(&api, "PUT", CONFIG, "", body);
	api_expect_status(&answer, 200);
	api_expect(&api, "GET", "/api/v1/status", "", NULL, 200);
	free(body);
}

static void test_settings(void **state)
{
	(void)state;
	api_expect(&api, "PUT", "/api/v1/settings", "", "{\"drift\":\"alert\"}", 201);
	api_expect(&api, "PATCH", "/api/v1/settings", "", "{\"revisions_kept\":99}", 200);
	_cleanup_answer_ struct api_answer got = api_json(&api, "GET", "/api/v1/settings", "", NULL);
	assert_non_null(strstr(api_body(&got), "\"drift\":\"alert\""));
	assert_non_null(strstr(api_body(&got), "\"revisions_kept\":99"));
	api_expect(&api, "DELETE", "/api/v1/settings", "", NULL, 405);
	api_expect(&api, "POST", "/api/v1/settings", "", "{}", 405);
	api_expect(&api, "GET", "/api/v1/settings/settings", "", NULL, 404);
	api_expect(&api, "GET", "/api/v1/listeners/", "", NULL, 200);
}

static void test_transaction_faults(void **state)
{
	_cleanup_answer_ struct api_answer answer = api_json(&api, "POST", TRANSACTIONS, "",
	        "[{\"method\":\"PUT\",\"path\":\"listeners/a\",\"body\":{\"ports\":[\"x\"]}},"
	        "{\"method\":\"GET\",\"path\":\"listeners/a\"},{\"method\":\"PUT\",\"path\":\"listeners\",\"body\":{}},"
	        "{\"method\":\"PUT\",\"path\":\"colours/a\",\"body\":{}},{\"method\":\"PUT\",\"path\":\"listeners/a\"},"
	        "{\"method\":\"DELETE\",\"path\":\"listeners/none\"},5,"
	        "{\"method\":\"POST\",\"path\":\"tokens\",\"body\":{\"name\":\"t\",\"role\":\"viewer\"}},"
	        "{\"method\":\"DELETE\",\"path\":\"listeners/%zz\",\"extra\":1},"
	        "{\"method\":\"PUT\",\"path\":\"upstreams/none/targets/192.0.2.1:80\",\"body\":{}},"
	        "{\"method\":\"PATCH\",\"path\":\"upstreams/none/targets/192.0.2.1:80\",\"body\":{}}]");

	(void)state;
	api_expect_problem(&answer, 422);
	assert_non_null(strstr(answer.bytes, "\"/0/body/ports/0\""));
	api_expect_fault(&answer, "/1/method", "bad_value");
	api_expect_fault(&answer, "/2/method", "bad_value");
	api_expect_fault(&answer, "/3/path", "bad_value");
	api_expect_fault(&answer, "/4/body", "required");
	api_expect_fault(&answer, "/5/path", "not_found");
	api_expect_fault(&answer, "/6", "wrong_type");
	api_expect_fault(&answer, "/7/path", "not_in_transaction");
	api_expect_fault(&answer, "/8", "unknown_key");
	api_expect_fault(&answer, "/9/path", "not_found");
	api_expect_fault(&answer, "/10/method", "not_in_transaction");
	api_expect(&api, "POST", TRANSACTIONS, "", "{}", 400);
	api_expect(&api, "POST", TRANSACTIONS, "", "", 400);
	api_expect(&api, "POST", TRANSACTIONS, "", "[{\"method\":\"PUT\",\"method\":\"PUT\"}]", 400);
	api_expect(&api, "POST", TRANSACTIONS, "", "[{\"method\":\"DELETE\",\"path\":\"listeners/none\"}]", 404);
	api_expect(&api, "POST", TRANSACTIONS, "If-Match: \"5\"\r\n", "[]", 412);
	assert_int_equal(api.core.calls, 0);
}

static void test_transaction(void **state)
{
	(void)state;
	api_expect(&api, "PUT", "/api/v1/listeners/old", "", "{}", 201);
	_cleanup_answer_ struct api_answer answer = api_json(&api, "POST", TRANSACTIONS, "",
	        "[{\"method\":\"POST\",\"path\":\"/api/v1/"
	        "listeners\",\"body\":{\"name\":\"web\",\"upstream\":\"pool\"}},"
	        "{\"method\":\"PUT\",\"path\":\"upstreams/pool\",\"body\":{}},"
	        "{\"method\":\"POST\",\"path\":\"upstreams/pool/"
	        "targets\",\"body\":{\"address\":\"192.0.2.1\",\"port\":8}},"
	        "{\"method\":\"PUT\",\"path\":\"upstreams/pool/targets/192.0.2.1:8\",\"body\":{\"weight\":3}},"
	        "{\"method\":\"PATCH\",\"path\":\"/listeners/web\",\"body\":{\"priority\":5}},"
	        "{\"method\":\"PUT\",\"path\":\"listeners/brief\",\"body\":{}},"
	        "{\"method\":\"DELETE\",\"path\":\"listeners/brief\"},"
	        "{\"method\":\"DELETE\",\"path\":\"listeners/old\"}]");
	json_t *document = api_document(&answer), *results = json_object_get(document, "results");
	const struct listener *web = (const void *)core_find(&api.core, RESOURCE_LISTENER, "web");
	const struct upstream *pool = (const void *)core_find(&api.core, RESOURCE_UPSTREAM, "pool");

	api_expect_status(&answer, 200);
	assert_int_equal(json_integer_value(json_object_get(document, "revision")), 2);
	assert_int_equal(json_array_size(results), 8);
	assert_string_equal(json_string_value(json_object_get(json_array_get(results, 3), "path")),
	        "/api/v1/upstreams/pool/targets/192.0.2.1:8");
	assert_int_equal(json_integer_value(json_object_get(json_array_get(results, 0), "status")), 201);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(results, 7), "status")), 204);
	json_decref(document);
	assert_int_equal(api.core.n_changes, 3); /* what was made and deleted again is no change */
	assert_int_equal(web->priority, 5);
	assert_string_equal(web->upstream, "pool");
	assert_int_equal(((const struct target *)pool->targets.items[0])->weight, 3);
	assert_null(core_find(&api.core, RESOURCE_LISTENER, "old"));
	assert_null(core_find(&api.core, RESOURCE_LISTENER, "brief"));
}

static void test_transaction_conflicts(void **state)
{
	(void)state;
	_cleanup_answer_ struct api_answer twice = api_json(&api, "POST", TRANSACTIONS, "",
	        "[{\"method\":\"POST\",\"path\":\"listeners\",\"body\":{\"name\":\"a\"}},"
	        "{\"method\":\"POST\",\"path\":\"listeners\",\"body\":{\"name\":\"a\"}}]");
	api_expect_problem(&twice, 409);
	api_expect_fault(&twice, "/1/path", "exists");
	api.core.fail = -EEXIST;
	_cleanup_answer_ struct api_answer core = api_json(&api, "POST", TRANSACTIONS, "",
	        "[{\"method\":\"PUT\",\"path\":\"listeners/a\",\"body\":{}},"
	        "{\"method\":\"PATCH\",\"path\":\"listeners/a\",\"body\":{}}]");
	api_expect_problem(&core, 409);
	api_expect_fault(&core, "/1/body/ports/0", "overlap");
	assert_int_equal(api.core.n, 0);
}

/* As many items as are allowed, and one more. */
static void test_transaction_bound(void **state)
{
	for (int n = 10000; n <= 10001; n++) {
		size_t size = (size_t)n * 64 + 16, at = 0;
		char *body = malloc(size);

		(void)state;
		at += (size_t)snprintf(body, size, "[");
		for (int i = 0; i < n; i++)
			at += (size_t)snprintf(body + at, size - at,
			        "%s{\"method\":\"PUT\",\"path\":\"upstreams/a\",\"body\":{}}", i ? "," : "");
		snprintf(body + at, size - at, "]");
		_cleanup_answer_ struct api_answer answer = api_json(&api, "POST", TRANSACTIONS, "", body);
		free(body);
		api_expect_status(&answer, n == 10000 ? 200 : 400);
	}
	assert_int_equal(api.core.revision, 1);
}

static void test_history(void **state)
{
	(void)state;
	for (int i = 0; i < 5; i++)
		api_expect(&api, "PUT", "/api/v1/listeners/web", "", "{}", i ? 200 : 201);
	_cleanup_answer_ struct api_answer page = api_json(&api, "GET", "/api/v1/revisions?limit=2", "", NULL);
	_cleanup_answer_ struct api_answer last = api_json(&api, "GET", "/api/v1/revisions?limit=2&before=3", "", NULL);
	_cleanup_answer_ struct api_answer diff = api_json(&api, "GET", "/api/v1/revisions/2/diff?to=4", "", NULL);
	_cleanup_answer_ struct api_answer audit = api_json(&api, "GET", "/api/v1/audit?limit=3", "", NULL);

	assert_string_equal(api_body(&page),
	        "{\"items\":[{\"revision\":5,\"actor\":\"uid 0\"},{\"revision\":4,\"actor\":"
	        "\"uid 0\"}],\"next\":4,\"pending\":null}\n");
	assert_non_null(strstr(api_body(&last), "\"next\":null"));
	assert_string_equal(api_body(&diff), "{\"from\":2,\"to\":4,\"diff\":[{\"from\":2,\"to\":4}]}\n");
	assert_non_null(strstr(api_body(&audit), "\"next\":3"));
	api_expect(&api, "GET", "/api/v1/revisions/5", "", NULL, 200);
	api_expect(&api, "GET", "/api/v1/revisions/5/diff", "", NULL, 200);
	api_expect(&api, "GET", "/api/v1/revisions/6", "", NULL, 404);
	api_expect(&api, "GET", "/api/v1/revisions/0", "", NULL, 200);
	api_expect(&api, "GET", "/api/v1/revisions/0/diff?to=0", "", NULL, 200);
	api_expect(&api, "GET", "/api/v1/revisions/-1", "", NULL, 404);
	api_expect(&api, "GET", "/api/v1/revisions/x", "", NULL, 404);
	api_expect(&api, "GET", "/api/v1/revisions/99999999999999999999", "", NULL, 404);
	api_expect(&api, "GET", "/api/v1/revisions/5/diff?to=9", "", NULL, 404);
	api_expect(&api, "GET", "/api/v1/revisions/5/diff?to=x", "", NULL, 400);
	api_expect(&api, "GET", "/api/v1/revisions?limit=0", "", NULL, 400);
	api_expect(&api, "GET", "/api/v1/revisions?limit=1001", "", NULL, 400);
	api_expect(&api, "GET", "/api/v1/revisions?before=-1", "", NULL, 400);
	api_expect(&api, "DELETE", "/api/v1/revisions/1", "", NULL, 405);
}

static void test_rollback_and_confirm(void **state)
{
	(void)state;
	api_expect(&api, "PUT", "/api/v1/listeners/web?confirm_within=60", "", "{}", 201);
	api_expect(&api, "POST", "/api/v1/revisions/2/confirm", "", NULL, 404);
	api_expect(&api, "POST", "/api/v1/revisions/1/confirm?x=1", "", NULL, 400);
	api_expect(&api, "POST", "/api/v1/revisions/1/confirm", "", NULL, 200);
	assert_int_equal(api.core.confirmed, 1);
	api_expect(&api, "POST", "/api/v1/revisions/1/confirm", "", NULL, 404);
	api_expect(&api, "POST", "/api/v1/revisions/9/rollback", "", NULL, 404);
	_cleanup_answer_ struct api_answer dry =
	        api_json(&api, "POST", "/api/v1/revisions/1/rollback?dry_run=true", "", NULL);
	assert_non_null(strstr(api_body(&dry), "\"dry_run\":true"));
	assert_int_equal(api.core.rolled_back_to, 0);
	_cleanup_answer_ struct api_answer back =
	        api_json(&api, "POST", "/api/v1/revisions/1/rollback?confirm_within=9", "", NULL);
	api_expect_status(&back, 200);
	api_expect_header(&back, "Gateway-Confirm-Deadline", "2030-01-01T00:00:00Z");
	assert_int_equal(api.core.rolled_back_to, 1);
	assert_string_equal(api.core.summary, "POST revisions/1/rollback");
}

/* 2.4 MB out of a file that is gone by then. */
static void test_backup(void **state)
{
	char directory[] = "/tmp/gw-backup-XXXXXX";
	struct http_config config = { .api_gid = -1, .temp_dir = directory };

	(void)state;
	assert_non_null(mkdtemp(directory));
	api_start(&api, false, &config);
	_cleanup_answer_ struct api_answer answer = api_json(&api, "GET", "/api/v1/backup", "", NULL);
	api_expect_status(&answer, 200);
	api_expect_header(&answer, "Content-Type", "application/vnd.sqlite3");
	api_expect_header(&answer, "Content-Disposition", "attachment; filename=\"gateway-0.db\"");
	api_expect_header(&answer, "Content-Length", "2400000");
	assert_int_equal(strlen(api_body(&answer)), 2400000);
	assert_string_equal(api_body(&answer) + 2400000 - 8, "00299999");
	api_expect(&api, "HEAD", "/api/v1/backup", "", NULL, 200);
	api.core.fail = -ENOSPC;
	api_expect(&api, "GET", "/api/v1/backup", "", NULL, 503);
	api_stop(&api);
	assert_int_equal(rmdir(directory), 0); /* nothing was left */
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH(test_config_faults),
		WITH(test_config_round_trip),
		WITH(test_config_put),
		WITH(test_config_large),
		WITH(test_settings),
		WITH(test_transaction_faults),
		WITH(test_transaction),
		WITH(test_transaction_conflicts),
		WITH(test_transaction_bound),
		WITH(test_history),
		WITH(test_rollback_and_confirm),
		cmocka_unit_test(test_backup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
