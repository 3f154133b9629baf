/*
 * Any bytes as the beginning of an HTTP connection: nothing outside is read,
 * what is said of a prefix stays true of more, and a head that is complete
 * says the same without what follows it.
 */
#include "gatewayd/base/first_http.h"
#include "gatewayd/base/first_route.h"
#include "tests/fuzz/fuzz_first.h"

static struct first whole, part;

static void check_prefix(const uint8_t *data, size_t size, size_t cut, enum first_state state)
{
	uint8_t *copy = fuzz_exact(data, cut);
	enum first_state early = first_http_parse(copy, cut, &part);

	FUZZ_EXPECT(early < FIRST_STATES);
	FUZZ_EXPECT(early == FIRST_MORE ? size > cut || state == FIRST_MORE : early == state);
	if (early == FIRST_COMPLETE)
		FUZZ_EXPECT(strcmp(part.host, whole.host) == 0 && part.path.length == whole.path.length);
	free(copy);
}

/* A complete head has an end, exactly one Host (or names none), and no line that begins with a blank. */
static void check_head(const uint8_t *bytes, size_t size)
{
	const uint8_t *end = memmem(bytes, size, "\r\n\r\n", 4);
	size_t length = end ? (size_t)(end - bytes) : 0;

	FUZZ_EXPECT(end && length + 4 <= FIRST_HTTP_MAX);
	FUZZ_EXPECT(!memmem(bytes, length, "\r\n ", 3) && !memmem(bytes, length, "\r\n\t", 3));
	FUZZ_EXPECT(!memchr(bytes, '\0', length));
	FUZZ_EXPECT(whole.method.length > 0 && fuzz_lies_within(whole.method, bytes, length));
	if (whole.path.length > 1)
		FUZZ_EXPECT(fuzz_lies_within(whole.path, bytes, length));
	check_prefix(bytes, size, length + 4, FIRST_COMPLETE);
	FUZZ_EXPECT(first_http_parse(bytes, length + 3, &part) == FIRST_MORE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = fuzz_exact(data, size);
	enum first_state state = first_http_parse(copy, size, &whole);

	FUZZ_EXPECT(state < FIRST_STATES);
	if (state == FIRST_OTHER)
		FUZZ_EXPECT(whole.kind == FIRST_UNKNOWN);
	if (state == FIRST_COMPLETE && whole.kind == FIRST_HTTP) {
		static char *values[] = { (char *)"*.example.com", (char *)"GET", (char *)"/api" };
		struct first_route route = { .condition = { [FIRST_HTTP_HOST] = { values, 1 },
			                             [FIRST_HTTP_METHOD] = { values + 1, 1 },
			                             [FIRST_HTTP_PATH] = { values + 2, 1 } } };

		fuzz_host_is_canonical(whole.host);
		first_route_matches(&route, &whole);
		check_head(copy, size);
	}
	if (size > 0) {
		check_prefix(copy, size, size / 2, state);
		check_prefix(copy, size, size - 1, state);
		check_prefix(copy, size, copy[size - 1] % size, state);
	}
	free(copy);
	return 0;
}
