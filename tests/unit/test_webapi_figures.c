/* What the handlers of /stats, /metrics and /flows make of addresses, before the core is asked. */
#include "tests/unit/api_client.h"

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

/* The answer to a GET must be this document. */
static void expect_document(const char *path, const char *document)
{
	_cleanup_answer_ struct api_answer answer = api_json(&api, "GET", path, "", NULL);
	json_t *got, *wanted = json_loads(document, 0, NULL);

	api_expect_status(&answer, 200);
	got = json_loads(api_body(&answer), 0, NULL);
	assert_non_null(got);
	assert_non_null(wanted);
	if (!json_equal(got, wanted))
		print_error("%s: %s\n", path, api_body(&answer));
	assert_true(json_equal(got, wanted));
	json_decref(got);
	json_decref(wanted);
}

static void test_figures(void **state)
{
	(void)state;
	expect_document("/api/v1/stats", "{\"max\":20}");
	expect_document("/api/v1/stats?limit=1000", "{\"max\":1000}");
	expect_document("/api/v1/stats/listeners", "{\"kind\":0,\"after\":0,\"max\":100}");
	expect_document("/api/v1/stats/upstreams/?limit=5", "{\"kind\":1,\"after\":0,\"max\":5}");
	expect_document("/api/v1/stats/targets?after=4294967295", "{\"kind\":2,\"after\":4294967295,\"max\":100}");
	expect_document("/api/v1/stats/history", "{\"step\":10,\"after\":0}");
	expect_document("/api/v1/stats/history?step=60&after=17", "{\"step\":60,\"after\":17}");
	api_expect(&api, "GET", "/api/v1/stats/targets?after=4294967296", "", NULL, 400);
	api_expect(&api, "GET", "/api/v1/stats/history?after=9223372036854775808", "", NULL, 400);
	api_expect(&api, "GET", "/api/v1/stats/history?after=99999999999999999999", "", NULL, 400);
	api_expect(&api, "GET", "/api/v1/stats?limit=%2020", "", NULL, 400);
	api_expect(&api, "GET", "/api/v1/stats/colours", "", NULL, 404);
	api_expect(&api, "GET", "/metrics?x=1", "", NULL, 400);
	_cleanup_answer_ struct api_answer metrics = api_json(&api, "GET", "/metrics", "", NULL);
	api_expect_header(&metrics, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
	assert_string_equal(api_body(&metrics), "gateway_up 1\n");
}

#define ANY "\"limit\":100,\"sort\":0,\"group\":0,\"protocol\":0"
#define REST(client, target, port)                                                                                     \
	"\"client\":\"" client "\",\"target\":\"" target "\",\"port\":" port                                           \
	",\"listener\":\"\",\"upstream\":\"\",\"after\":\"\",\"sni\":\"\"}"

static void test_flows(void **state)
{
	(void)state;
	expect_document("/api/v1/flows", "{" ANY "," REST("", "", "0"));
	expect_document("/api/v1/flows?client=10.1.2.3", "{" ANY "," REST("10.1.2.3", "", "0"));
	expect_document("/api/v1/flows?client=fd00%3A%3A/16", "{" ANY "," REST("fd00::/16", "", "0"));
	expect_document("/api/v1/flows?target=10.1.2.3", "{" ANY "," REST("", "10.1.2.3", "0"));
	expect_document("/api/v1/flows?target=10.1.2.3:65535", "{" ANY "," REST("", "10.1.2.3", "65535"));
	expect_document("/api/v1/flows?target=fd00::1", "{" ANY "," REST("", "fd00::1", "0"));
	expect_document("/api/v1/flows?target=%5Bfd00::1%5D:80", "{" ANY "," REST("", "fd00::1", "80"));
	expect_document("/api/v1/flows?sort=rtt&protocol=udp&limit=7",
	        "{\"limit\":7,\"sort\":3,\"group\":0,\"protocol\":17," REST("", "", "0"));
	expect_document("/api/v1/flows?sort=bytes&protocol=tcp",
	        "{\"limit\":100,\"sort\":1,\"group\":0,\"protocol\":6," REST("", "", "0"));
	expect_document("/api/v1/flows?group=client",
	        "{\"limit\":100,\"sort\":0,\"group\":1,\"protocol\":0," REST("", "", "0"));
	expect_document(
	        "/api/v1/flows?group=sni", "{\"limit\":100,\"sort\":0,\"group\":16,\"protocol\":0," REST("", "", "0"));
	expect_document("/api/v1/flows?group=sni,client",
	        "{\"limit\":100,\"sort\":0,\"group\":17,\"protocol\":0," REST("", "", "0"));
	expect_document("/api/v1/flows?listener=web&upstream=pool&after=p1",
	        "{" ANY
	        ",\"client\":\"\",\"target\":\"\",\"port\":0,\"listener\":\"web\",\"upstream\":\"pool\",\"after\":"
	        "\"p1\",\"sni\":\"\"}");
	expect_document("/api/v1/flows?sni=*.Example.com",
	        "{" ANY
	        ",\"client\":\"\",\"target\":\"\",\"port\":0,\"listener\":\"\",\"upstream\":\"\",\"after\":\"\","
	        "\"sni\":\"*.example.com\"}");
}

static void test_flows_refused(void **state)
{
	static const char *const queries[] = { "sort=", "sort=BYTES", "group=targets", "group=", "group=client,",
		"group=sni,client,sni", "sni=", "sni=*", "sni=a.*.b", "protocol=6", "client=", "client=x",
		"client=10.0.0.0/33", "client=1.2.3.4,5.6.7.8", "target=x", "target=:80", "target=10.0.0.1:0",
		"target=10.0.0.1:65536", "target=10.0.0.1:123456", "target=10.0.0.1:8x", "target=10.0.0.0/8",
		"target=%5Bfd00::1%5D", "target=%5Bfd00::1%5D80", "target=fd00::1%5D:80", "target=%5Bfd00::1:80",
		"target=%5B%5D:1", "target=%5D:1", "after=!", "group=sni&sort=age", "group=sni&after=p1", "colour=1" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(queries); i++) {
		char path[128];

		snprintf(path, sizeof(path), "/api/v1/flows?%s", queries[i]);
		api_expect(&api, "GET", path, "", NULL, 400);
	}
}

static void test_one_flow(void **state)
{
	(void)state;
	expect_document("/api/v1/flows/00000000000012ab", "{\"id\":4779}");
	api_expect(&api, "GET", "/api/v1/flows/00000000000012aB", "", NULL, 404);
	api_expect(&api, "GET", "/api/v1/flows/12ab", "", NULL, 404);
	api_expect(&api, "GET", "/api/v1/flows/00000000000012ab?x=1", "", NULL, 400);
	api_expect(&api, "DELETE", "/api/v1/flows/00000000000012ab", "", NULL, 204);
	api_expect(&api, "DELETE", "/api/v1/flows/00000000000012ac", "", NULL, 404);
	api.core.fail = -ETIMEDOUT;
	api_expect(&api, "DELETE", "/api/v1/flows/00000000000012ab", "", NULL, 503);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_figures, start, stop),
		cmocka_unit_test_setup_teardown(test_flows, start, stop),
		cmocka_unit_test_setup_teardown(test_flows_refused, start, stop),
		cmocka_unit_test_setup_teardown(test_one_flow, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
