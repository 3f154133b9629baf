/* Routes: values that are refused, then random routes and connections against a reference that does it label by label.
 */
#include "gatewayd/base/first_route.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gatewayd/base/cleanup.h"

static unsigned generated = 11;

static unsigned below(unsigned end)
{
	return (unsigned)rand_r(&generated) % end;
}

static void test_refused(void **state)
{
	static const struct {
		enum first_condition condition;
		const char *value;
	} bad[] = { { FIRST_SNI, "" }, { FIRST_SNI, "*" }, { FIRST_SNI, "*." }, { FIRST_SNI, "*a.b" },
		{ FIRST_SNI, "a.*.b" }, { FIRST_SNI, "A.b" }, { FIRST_HTTP_HOST, "a:80" }, { FIRST_HTTP_HOST, "a." },
		{ FIRST_ALPN, "" }, { FIRST_HTTP_METHOD, "" }, { FIRST_HTTP_PATH, "a" }, { FIRST_HTTP_PATH, "" },
		{ FIRST_CONDITIONS, "a" } };
	struct first_route route = { 0 };
	char longest[FIRST_ROUTE_VALUE_MAX + 2], text[16];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(first_route_add(&route, bad[i].condition, bad[i].value), -EINVAL);
	memset(longest, '/', sizeof(longest));
	longest[FIRST_ROUTE_VALUE_MAX + 1] = '\0';
	assert_int_equal(first_route_add(&route, FIRST_HTTP_PATH, longest), -EINVAL);
	longest[FIRST_ROUTE_VALUE_MAX] = '\0';
	assert_int_equal(first_route_add(&route, FIRST_HTTP_PATH, longest), 0);
	for (int i = 0; i < FIRST_ROUTE_VALUES_MAX; i++) {
		snprintf(text, sizeof(text), "h%d", i);
		assert_int_equal(first_route_add(&route, FIRST_SNI, text), 0);
	}
	assert_int_equal(first_route_add(&route, FIRST_SNI, "more"), -E2BIG);
	first_route_clear(&route);
	assert_true(first_route_matches(&route, NULL));
}

/* Nothing that was not understood matches a condition. */
static void test_unknown(void **state)
{
	struct first_route route = { 0 };

	(void)state;
	assert_true(first_route_matches(&route, NULL));
	assert_int_equal(first_route_add(&route, FIRST_SNI, "a"), 0);
	assert_false(first_route_matches(&route, NULL));
	first_route_clear(&route);
}

/* --- reference --- */

static const char *const hosts[] = { "example.com", "a.example.com", "b.a.example.com", "xexample.com", "com", "",
	"other.org" };
static const char *const patterns[] = { "example.com", "*.example.com", "*.com", "a.example.com", "*.a.example.com",
	"other.org" };
static const char *const protocols[] = { "h2", "http/1.1", "h2c", "h" };
static const char *const methods[] = { "GET", "POST", "GETX" };
static const char *const paths[] = { "/", "/a", "/a/b", "/ab", "/A", "" };

/* Takes labels from the right as long as they are equal. */
static bool reference_host(const char *host, const char *pattern)
{
	char h[64], p[64], *h_label[8], *p_label[8];
	int hn = 0, pn = 0;

	snprintf(h, sizeof(h), "%s", host);
	snprintf(p, sizeof(p), "%s", pattern);
	for (char *save, *label = strtok_r(h, ".", &save); label; label = strtok_r(NULL, ".", &save))
		h_label[hn++] = label;
	for (char *save, *label = strtok_r(p, ".", &save); label; label = strtok_r(NULL, ".", &save))
		p_label[pn++] = label;
	while (hn > 0 && pn > 0 && strcmp(h_label[hn - 1], p_label[pn - 1]) == 0) {
		hn--;
		pn--;
	}
	return (hn == 0 && pn == 0) || (hn > 0 && pn == 1 && strcmp(p_label[0], "*") == 0);
}

struct said {
	enum first_kind kind;
	const char *host, *method, *path;
	unsigned offers; /* bit per protocol */
};

static bool reference_value(const struct said *said, enum first_condition condition, unsigned value)
{
	bool tls = said->kind == FIRST_TLS, http = said->kind == FIRST_HTTP;

	switch (condition) {
	case FIRST_SNI:
		return tls && reference_host(said->host, patterns[value]);
	case FIRST_ALPN:
		return (tls && said->offers & 1U << value) || (said->kind == FIRST_HTTP2 && value == 2);
	case FIRST_HTTP_HOST:
		return http && reference_host(said->host, patterns[value]);
	case FIRST_HTTP_METHOD:
		return http && strcmp(said->method, methods[value]) == 0;
	case FIRST_HTTP_PATH:
		return http && strstr(said->path, paths[value]) == said->path;
	case FIRST_CONDITIONS:
		break;
	}
	return false;
}

static void say(const struct said *said, struct first *ret, uint8_t alpn[64])
{
	size_t n = 0;

	ret->kind = said->kind;
	snprintf(ret->host, sizeof(ret->host), "%s", said->host);
	for (unsigned i = 0; i < ARRAY_SIZE(protocols); i++) {
		if (!(said->offers & 1U << i))
			continue;
		alpn[n++] = (uint8_t)strlen(protocols[i]);
		memcpy(alpn + n, protocols[i], strlen(protocols[i]));
		n += strlen(protocols[i]);
	}
	ret->alpn = (struct first_span){ alpn, n };
	ret->method = (struct first_span){ (const uint8_t *)said->method, strlen(said->method) };
	ret->path = (struct first_span){ (const uint8_t *)said->path, strlen(said->path) };
}

static const char *const *const values[] = { patterns, protocols, patterns, methods, paths };
static const unsigned n_values[] = { ARRAY_SIZE(patterns), ARRAY_SIZE(protocols), ARRAY_SIZE(patterns),
	ARRAY_SIZE(methods), ARRAY_SIZE(paths) - 1 };

static void test_reference(void **state)
{
	static struct first first;
	unsigned matched = 0;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		struct said said = { (enum first_kind)(1 + below(3)), hosts[below(ARRAY_SIZE(hosts))],
			methods[below(ARRAY_SIZE(methods))], paths[below(ARRAY_SIZE(paths))], below(16) };
		struct first_route route = { 0 };
		uint8_t alpn[64];
		bool wanted = true;

		for (unsigned c = 0; c < FIRST_CONDITIONS; c++) {
			unsigned n = below(3) ? 0 : 1 + below(3);
			bool any = n == 0;

			for (unsigned i = 0; i < n; i++) {
				unsigned value = below(n_values[c]);

				assert_int_equal(first_route_add(&route, (enum first_condition)c, values[c][value]), 0);
				any |= reference_value(&said, (enum first_condition)c, value);
			}
			wanted &= any;
		}
		say(&said, &first, alpn);
		assert_int_equal(first_route_matches(&route, &first), wanted);
		matched += wanted;
		first_route_clear(&route);
	}
	assert_in_range(matched, 2000, 18000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_reference),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
