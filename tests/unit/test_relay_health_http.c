/* Answers to HTTP health checks: what is none first, then what is wanted, in one piece and byte by byte. */
#include "gatewayd/relay/health_http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct health_http_want want(uint16_t from, uint16_t to, const char *text)
{
	struct health_http_want made = { .status_from = from, .status_to = to };

	health_http_want_text(&made, text);
	return made;
}

/* The result of an answer that comes in pieces of this size and then ends. */
static enum health_http_result judge(const struct health_http_want *wanted, const char *answer, size_t n, size_t piece)
{
	enum health_http_result result = HEALTH_HTTP_MORE;
	struct health_http http;

	health_http_begin(&http);
	for (size_t i = 0; i < n && result == HEALTH_HTTP_MORE; i += piece)
		result = health_http_feed(&http, wanted, answer + i, n - i < piece ? n - i : piece);
	return result == HEALTH_HTTP_MORE ? health_http_end(&http) : result;
}

static void expect(const struct health_http_want *wanted, const char *answer, enum health_http_result expected)
{
	size_t n = strlen(answer);

	for (size_t piece = 1; piece <= n; piece += piece < 4 ? 1 : n)
		assert_int_equal(judge(wanted, answer, n, piece), expected);
	assert_int_equal(judge(wanted, answer, n, n ? n : 1), expected);
}

static void test_no_answers(void **state)
{
	struct health_http_want any = want(100, 599, ""), text = want(200, 399, "x");
	static const char *const none[] = { "", "\r\n\r\n", "SSH-2.0-x\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 20\r\n\r\n",
		"HTTP/1.1 2000 x\r\n\r\n", "HTTP/1.1 20a x\r\n\r\n", "HTTP/1.1 099 x\r\n\r\n", "HTTP/2.0 200 x\r\n\r\n",
		"HTTP/1.x 200 x\r\n\r\n", "HTTP/1.1 200 x\r\n", "HTTP/1.1 200 x\r\nA: b\r\n",
		"HTTP/1.1 200 x\r\nContent-Length: ten\r\n\r\n", "HTTP/1.1 200 x\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 x\r\nContent-Length: 99999999999999999999\r\n\r\n", "HTTP/1.1 100 x\r\n\r\n" };

	(void)state;
	for (size_t i = 0; i < sizeof(none) / sizeof(*none); i++)
		expect(&any, none[i], HEALTH_HTTP_PROTOCOL);
	expect(&text, "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", HEALTH_HTTP_PROTOCOL);
	/* The first byte that cannot begin an answer ends the check: the line may never end. */
	assert_int_equal(judge(&any, "H", 1, 1), HEALTH_HTTP_PROTOCOL);
	assert_int_equal(judge(&any, "\x15\x03", 2, 1), HEALTH_HTTP_PROTOCOL);
}

static void test_statuses(void **state)
{
	struct health_http_want ok = want(200, 399, ""), one = want(204, 204, "");

	(void)state;
	expect(&ok, "HTTP/1.1 200 OK\r\n\r\n", HEALTH_HTTP_GOOD);
	expect(&ok, "HTTP/1.0 399\r\n\r\n", HEALTH_HTTP_GOOD);
	expect(&ok, "HTTP/1.1 200 OK\nServer: x\n\n", HEALTH_HTTP_GOOD);
	expect(&ok, "HTTP/1.1 100 Continue\r\nA: b\r\n\r\nHTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
	        HEALTH_HTTP_GOOD);
	expect(&ok, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 x\r\n\r\n", HEALTH_HTTP_STATUS);
	expect(&ok, "HTTP/1.1 101 Switching\r\n\r\n", HEALTH_HTTP_STATUS);
	expect(&ok, "HTTP/1.1 199 x\r\n\r\nHTTP/1.1 400 x\r\n\r\n", HEALTH_HTTP_STATUS);
	expect(&ok, "HTTP/1.1 503 x\r\nContent-Length: 5\r\n\r\nhello", HEALTH_HTTP_STATUS);
	expect(&one, "HTTP/1.1 204 x\r\n\r\n", HEALTH_HTTP_GOOD);
	expect(&one, "HTTP/1.1 200 x\r\n\r\n", HEALTH_HTTP_STATUS);
}

static void test_text(void **state)
{
	struct health_http_want text = want(200, 399, "abab"), head = want(200, 399, "x");

	(void)state;
	head.head = true;
	expect(&head, "HTTP/1.1 200 x\r\nContent-Length: 5\r\n\r\n", HEALTH_HTTP_BODY);
	expect(&text, "HTTP/1.1 500 x\r\n\r\nabab", HEALTH_HTTP_STATUS);
	expect(&text, "HTTP/1.1 200 x\r\nX: abab\r\n\r\n", HEALTH_HTTP_BODY);
	expect(&text, "HTTP/1.1 204 x\r\n\r\nabab", HEALTH_HTTP_BODY);
	expect(&text, "HTTP/1.1 200 x\r\n\r\nxxaababxx",
	        HEALTH_HTTP_GOOD); /* the text begins within its own beginning */
	expect(&text, "HTTP/1.1 200 x\r\n\r\nabaab", HEALTH_HTTP_BODY);
	expect(&text, "HTTP/1.1 200 x\r\ncontent-length: 4\r\n\r\nabab", HEALTH_HTTP_GOOD);
	expect(&text, "HTTP/1.1 200 x\r\nContent-Length:3\r\n\r\nabab", HEALTH_HTTP_BODY); /* beyond the body */
	expect(&text, "HTTP/1.1 200 x\r\nContent-Length: 0\r\n\r\n", HEALTH_HTTP_BODY);
	expect(&text, "HTTP/1.1 200 x\r\nContent-Length: 9\r\n\r\nab", HEALTH_HTTP_BODY);
}

static void test_chunks(void **state)
{
	static const char head[] = "HTTP/1.1 200 x\r\nTransfer-Encoding: Chunked\r\n\r\n";
	struct health_http_want text = want(200, 399, "hello");
	char answer[256];

	(void)state;
	snprintf(answer, sizeof(answer), "%s3;a=b\r\nxhe\r\n00003\r\nllo\r\n0\r\n\r\n", head);
	expect(&text, answer, HEALTH_HTTP_GOOD);
	snprintf(answer, sizeof(answer), "%sA\r\nxxxxxxxxxx\r\n0\r\n\r\nhello", head);
	expect(&text, answer, HEALTH_HTTP_BODY);
	snprintf(answer, sizeof(answer), "%s5\r\nhell", head);
	expect(&text, answer, HEALTH_HTTP_BODY);
}

/* An answer with a header of `head` bytes in all and a body of `body`, the text at its very end. */
static enum health_http_result at_limit(size_t head, size_t body)
{
	static const char line[] = "HTTP/1.1 200 x\r\n";
	struct health_http_want text = want(200, 399, "END");
	char *answer = malloc(head + body);
	enum health_http_result result;

	memset(answer, 'x', head + body);
	memcpy(answer, line, sizeof(line) - 1);
	memcpy(answer + head - 4, "\r\n\r\n", 4);
	memcpy(answer + head + body - 3, "END", 3);
	result = judge(&text, answer, head + body, 1000);
	free(answer);
	return result;
}

static void test_limits(void **state)
{
	(void)state;
	assert_int_equal(at_limit(HEALTH_HTTP_HEAD_MAX, 3), HEALTH_HTTP_GOOD);
	assert_int_equal(at_limit(HEALTH_HTTP_HEAD_MAX + 1, 3), HEALTH_HTTP_PROTOCOL);
	assert_int_equal(at_limit(100, HEALTH_HTTP_BODY_MAX), HEALTH_HTTP_GOOD);
	assert_int_equal(at_limit(100, HEALTH_HTTP_BODY_MAX + 1), HEALTH_HTTP_BODY);
}

/* The search against the plain one of the C library. */
static void test_search(void **state)
{
	char text[8], body[40], answer[80];

	(void)state;
	srandom(7);
	for (unsigned i = 0; i < 20000; i++) {
		size_t n = (size_t)(random() % 6) + 1, m = (size_t)(random() % 30);
		struct health_http_want wanted;

		for (size_t j = 0; j < n; j++)
			text[j] = (char)('a' + random() % 2);
		for (size_t j = 0; j < m; j++)
			body[j] = (char)('a' + random() % 2);
		text[n] = body[m] = '\0';
		wanted = want(200, 200, text);
		snprintf(answer, sizeof(answer), "HTTP/1.1 200 x\r\n\r\n%s", body);
		assert_int_equal(judge(&wanted, answer, strlen(answer), 7),
		        strstr(body, text) ? HEALTH_HTTP_GOOD : HEALTH_HTTP_BODY);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_answers),
		cmocka_unit_test(test_statuses),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_chunks),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_search),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
