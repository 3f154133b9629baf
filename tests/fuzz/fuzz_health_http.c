/*
 * Any bytes as the answer to an HTTP health check, the first ones saying what
 * is wanted of it: in one piece and byte by byte the result is the same, a result
 * once given stays with more bytes behind it, and no more is looked at than the
 * bounds say.
 */
#include "gatewayd/relay/health_http.h"
#include "tests/fuzz/fuzz.h"

static enum health_http_result judge(
        const struct health_http_want *want, const uint8_t *bytes, size_t n, size_t piece, size_t *ret_used)
{
	enum health_http_result result = HEALTH_HTTP_MORE;
	struct health_http http;
	size_t i = 0;

	health_http_begin(&http);
	while (i < n && result == HEALTH_HTTP_MORE) {
		size_t some = n - i < piece ? n - i : piece;

		result = health_http_feed(&http, want, (const char *)bytes + i, some);
		i += some;
	}
	*ret_used = i;
	FUZZ_EXPECT(health_http_end(&http) != HEALTH_HTTP_MORE);
	FUZZ_EXPECT(result != HEALTH_HTTP_GOOD || (http.status >= want->status_from && http.status <= want->status_to));
	FUZZ_EXPECT(result != HEALTH_HTTP_GOOD || want->n_text == 0 || http.matched == want->n_text);
	return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct health_http_want want = { .status_from = 200, .status_to = 399 };
	size_t n_text = size > 0 ? data[0] & 7 : 0, used, whole;
	char text[8] = "";
	enum health_http_result result;

	if (size < 1 + n_text)
		return 0;
	memcpy(text, data + 1, n_text);
	want.head = data[0] & 8;
	health_http_want_text(&want, text);
	data += 1 + n_text;
	size -= 1 + n_text;
	result = judge(&want, data, size, 1, &used);
	FUZZ_EXPECT(judge(&want, data, size, size + 1, &whole) == result);
	FUZZ_EXPECT(judge(&want, data, used, 7, &whole) == result);
	if (result == HEALTH_HTTP_MORE)
		FUZZ_EXPECT(used == size);
	return 0;
}
