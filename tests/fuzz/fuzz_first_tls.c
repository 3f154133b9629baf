/*
 * Any bytes as the beginning of a TLS connection: nothing outside is read,
 * what is said of a prefix stays true of more, and re-cutting the handshake
 * into records of one byte changes nothing.
 */
#include "gatewayd/base/first_route.h"
#include "gatewayd/base/first_tls.h"
#include "tests/fuzz/fuzz_first.h"

static struct first whole, part;

static void check_prefix(const uint8_t *data, size_t size, size_t cut, enum first_state state)
{
	uint8_t *copy = fuzz_exact(data, cut);
	enum first_state early = first_tls_parse(copy, cut, &part);

	FUZZ_EXPECT(early < FIRST_STATES);
	FUZZ_EXPECT(early == FIRST_MORE ? size > cut || state == FIRST_MORE : early == state);
	if (early == FIRST_COMPLETE)
		FUZZ_EXPECT(strcmp(part.host, whole.host) == 0 && part.alpn.length == whole.alpn.length);
	free(copy);
}

/* The same handshake in records of a few bytes each. */
static void check_recut(size_t step)
{
	static uint8_t cut[FIRST_BYTES_MAX];
	size_t size = 4 + ((size_t)whole.hello[1] << 16 | (size_t)whole.hello[2] << 8 | whole.hello[3]), at = 0;
	enum first_state state;

	for (size_t i = 0; i < size; i += step) {
		size_t n = size - i < step ? size - i : step;

		if (sizeof(cut) - at < n + 5)
			return;
		memcpy(cut + at, (uint8_t[]){ 22, 3, 1, (uint8_t)(n >> 8), (uint8_t)n }, 5);
		memcpy(cut + at + 5, whole.hello + i, n);
		at += n + 5;
	}
	state = first_tls_parse(cut, at, &part);
	FUZZ_EXPECT(state == FIRST_COMPLETE);
	FUZZ_EXPECT(strcmp(part.host, whole.host) == 0 && part.version == whole.version);
	FUZZ_EXPECT(part.alpn.length == whole.alpn.length && part.encrypted_hello == whole.encrypted_hello);
	FUZZ_EXPECT(part.alpn.length == 0 || memcmp(part.alpn.bytes, whole.alpn.bytes, part.alpn.length) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = fuzz_exact(data, size);
	enum first_state state = first_tls_parse(copy, size, &whole);

	FUZZ_EXPECT(state < FIRST_STATES && (state == FIRST_OTHER) == (whole.kind == FIRST_UNKNOWN));
	if (state == FIRST_COMPLETE) {
		static char *values[] = { (char *)"*.example.com", (char *)"h2" };
		struct first_route route = { .condition = {
			                             [FIRST_SNI] = { values, 1 }, [FIRST_ALPN] = { values + 1, 1 } } };

		fuzz_host_is_canonical(whole.host);
		FUZZ_EXPECT(fuzz_lies_within(whole.alpn, whole.hello, sizeof(whole.hello)));
		first_route_matches(&route, &whole);
		check_recut(1 + size % 97);
	}
	if (size > 0) {
		check_prefix(copy, size, size / 2, state);
		check_prefix(copy, size, size - 1, state);
		check_prefix(copy, size, copy[size - 1] % size, state);
	}
	free(copy);
	return 0;
}
