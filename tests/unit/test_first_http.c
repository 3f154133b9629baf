/* Request heads: what is refused first, then those of real clients (tests/fuzz/corpus/first_http), then the bounds. */
#include "gatewayd/base/first_http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gatewayd/base/cleanup.h"

static struct first first;
/* The last bytes that were parsed, in memory of exactly their size. */
static uint8_t *parsed;

static enum first_state parse(const void *bytes, size_t length)
{
	free(parsed);
	parsed = malloc(length ? length : 1);
	assert_non_null(parsed);
	memcpy(parsed, bytes, length);
	return first_http_parse(parsed, length, &first);
}

static enum first_state parse_text(const char *text)
{
	return parse(text, strlen(text));
}

static void assert_span(struct first_span span, const char *text)
{
	assert_int_equal(span.length, strlen(text));
	if (span.length > 0)
		assert_memory_equal(span.bytes, text, span.length);
}

static void test_other_protocols(void **state)
{
	static const char *const texts[] = { "\x16\x03\x01", "SSH-2.0-OpenSSH_9.2\r\n", "EHLO me\r\n", "PING\r\n",
		" GET / HTTP/1.1", "\r\nGET / HTTP/1.1", "get / HTTP/1.1", "GET  HTTP/1.1", "GET / FTP/1.1",
		"GET / HTTP/2.0\r\n", "GET /\r\n", "GET\t/ HTTP/1.1", "PRI * HTTP/2.0\r\n\r\nXX",
		"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		assert_int_equal(parse_text(texts[i]), FIRST_OTHER);
		assert_int_equal(first.kind, FIRST_UNKNOWN);
	}
}

static void test_malformed(void **state)
{
	static const char *const texts[] = {
		"GET / HTTP/1.1\nHost: a\n\n",
		"GET / HTTP/1.1\r\nHost: a\n\n",
		"GET / HTTP/1.1\r\nHost: a\rb",
		"GET / HTTP/1.x",
		"GET / HTTP/1.1 \r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost : a\r\n",
		"GET / HTTP/1.1\r\n Host: a\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n",
		"GET / HTTP/1.1\r\nHost\r\n",
		"GET / HTTP/1.1\r\n: a\r\n",
		"GET / HTTP/1.1\r\nX: a\x01z\r\n",
		"GET / HTTP/1.1\r\nX: y\r\n\r\n", /* no host */
		"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a:000080\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a..b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: [1.2.3.4]\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n",
		"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET *x HTTP/1.1\r\nHost: a\r\n\r\n",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		if (parse_text(texts[i]) != FIRST_MALFORMED)
			fail_msg("taken: %s", texts[i]);
		assert_int_equal(first.kind, FIRST_HTTP);
	}
}

static const struct sample {
	const char *text, *host, *method, *path;
} samples[] = {
	{ "GET /a/b?c=/d HTTP/1.1\r\nHost: WWW.Example.com:8080\r\n\r\n", "www.example.com", "GET", "/a/b" },
	{ "GET /../%41 HTTP/1.1\r\nhost:\ta_b-c.d \r\nX:\r\n\r\n", "a_b-c.d", "GET", "/../%41" },
	{ "GET / HTTP/1.0\r\n\r\n", "", "GET", "/" },
	{ "GET / HTTP/1.1\r\nHost:\r\n\r\n", "", "GET", "/" },
	{ "GET / HTTP/1.1\r\nHost: 192.0.2.1:\r\n\r\n", "192.0.2.1", "GET", "/" },
	{ "GET / HTTP/1.1\r\nHost: [2001:DB8:0::1]:81\r\n\r\n", "2001:db8::1", "GET", "/" },
	{ "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "a", "OPTIONS", "*" },
	{ "M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n", "a", "M-SEARCH", "/" },
	{ "GET HTTP://Real.example:8/x?y HTTP/1.1\r\nHost: other\r\n\r\n", "real.example", "GET", "/x" },
	{ "GET https://real.example?y HTTP/1.1\r\nHost: other\r\n\r\n", "real.example", "GET", "/" },
	{ "CONNECT a.example:443 HTTP/1.1\r\nHost: other\r\n\r\n", "a.example", "CONNECT", "" },
	{ "GET /\xc3\xbc HTTP/1.1\r\nHost: a\r\nX: \xc3\xbc\r\n\r\nbody\n", "a", "GET", "/\xc3\xbc" },
};

/* Each prefix of a good head asks for more; the head alone and with a body says the same. */
static void test_samples(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
		const struct sample *sample = &samples[i];
		size_t head = (size_t)(strstr(sample->text, "\r\n\r\n") + 4 - sample->text);

		for (size_t n = 0; n < head; n++)
			if (parse(sample->text, n) != FIRST_MORE)
				fail_msg("%zu bytes of %s", n, sample->text);
		for (size_t n = head; n <= strlen(sample->text); n++) {
			assert_int_equal(parse(sample->text, n), FIRST_COMPLETE);
			assert_int_equal(first.kind, FIRST_HTTP);
			assert_string_equal(first.host, sample->host);
			assert_span(first.method, sample->method);
			assert_span(first.path, sample->path);
		}
	}
}

static void test_real_clients(void **state)
{
	static const struct sample clients[] = {
		{ "curl_get", "www.example.com", "GET", "/api/v1" },
		{ "curl_post", "2001:db8::1", "POST", "/post" },
		{ "curl_http10", "old.example.com", "GET", "/" },
		{ "curl_proxy", "absolute.example.com", "GET", "/p" },
		{ "curl_connect", "tunnel.example.com", "CONNECT", "" },
		{ "curl_options", "star.example.com", "OPTIONS", "*" },
		{ "curl_h2c", "", "", "" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
		char path[512];
		uint8_t bytes[4096];
		FILE *file;
		size_t n;

		snprintf(path, sizeof(path), "%s/tests/fuzz/corpus/first_http/%s", GW_SOURCE_DIR, clients[i].text);
		file = fopen(path, "re");
		assert_non_null(file);
		n = fread(bytes, 1, sizeof(bytes), file);
		fclose(file);
		assert_int_equal(parse(bytes, n), FIRST_COMPLETE);
		assert_int_equal(first.kind, *clients[i].method ? FIRST_HTTP : FIRST_HTTP2);
		assert_string_equal(first.host, clients[i].host);
		assert_span(first.method, clients[i].method);
		assert_span(first.path, clients[i].path);
	}
}

/* A head of exactly the bound is read; one byte more is not waited for. */
static void test_bound(void **state)
{
	static const char begin[] = "GET / HTTP/1.1\r\nHost: a\r\nX: ", end[] = "\r\n\r\n";
	static char text[FIRST_HTTP_MAX + 2];

	(void)state;
	for (size_t size = FIRST_HTTP_MAX; size <= FIRST_HTTP_MAX + 1; size++) {
		memset(text, 'x', size);
		memcpy(text, begin, sizeof(begin) - 1);
		memcpy(text + size - 4, end, 4);
		assert_int_equal(parse(text, size - 2), FIRST_MORE);
		assert_int_equal(parse(text, size), size == FIRST_HTTP_MAX ? FIRST_COMPLETE : FIRST_TOO_LONG);
		assert_int_equal(first.kind, FIRST_HTTP);
	}
}

static void test_any(void **state)
{
	(void)state;
	assert_int_equal(
	        first_parse((const uint8_t *)samples[0].text, strlen(samples[0].text), &first), FIRST_COMPLETE);
	assert_int_equal(first.kind, FIRST_HTTP);
	assert_int_equal(first_parse((const uint8_t *)"\x16\x03\x01", 3, &first), FIRST_MORE);
	assert_int_equal(first_parse((const uint8_t *)"SSH-", 4, &first), FIRST_MORE);
	assert_int_equal(first_parse((const uint8_t *)"SSH-2", 5, &first), FIRST_OTHER);
	assert_int_equal(first_parse((const uint8_t *)"PRI * H", 7, &first), FIRST_MORE);
}

static int clean(void **state)
{
	(void)state;
	free(parsed);
	parsed = NULL;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_other_protocols),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_samples),
		cmocka_unit_test(test_real_clients),
		cmocka_unit_test(test_bound),
		cmocka_unit_test(test_any),
	};

	return cmocka_run_group_tests(tests, NULL, clean);
}
