/*
 * ClientHellos: broken ones first, then those of real clients (captured, see
 * tests/fuzz/corpus/first_tls), then generated ones, of which the test knows
 * what they say because it has written them, cut into records at random.
 */
#include "gatewayd/base/first_tls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gatewayd/base/cleanup.h"

struct bytes {
	uint8_t at[3 * FIRST_BYTES_MAX];
	size_t n;
};

static struct first first;
static unsigned generated = 7;
static struct bytes hello, stream;

static unsigned below(unsigned end)
{
	return (unsigned)rand_r(&generated) % end;
}

static void put(struct bytes *bytes, const void *data, size_t length)
{
	assert_true(length <= sizeof(bytes->at) - bytes->n);
	if (length > 0)
		memcpy(bytes->at + bytes->n, data, length);
	bytes->n += length;
}

static void put_number(struct bytes *bytes, size_t value, size_t width)
{
	for (size_t i = width; i-- > 0;)
		put(bytes, (uint8_t[]){ (uint8_t)(value >> (8 * i)) }, 1);
}

static void put_extension(struct bytes *bytes, size_t type, const void *body, size_t length)
{
	put_number(bytes, type, 2);
	put_number(bytes, length, 2);
	put(bytes, body, length);
}

static void put_name(struct bytes *bytes, const char *name)
{
	struct bytes *body = calloc(1, sizeof(*body));

	assert_non_null(body);
	put_number(body, strlen(name) + 3, 2);
	put_number(body, 0, 1);
	put_number(body, strlen(name), 2);
	put(body, name, strlen(name));
	put_extension(bytes, 0, body->at, body->n);
	free(body);
}

/* A hello with these extensions; NULL: it ends before them, as it may before TLS 1.3. */
static void make_hello(const struct bytes *extensions)
{
	static const uint8_t random[32];

	hello.n = 0;
	put_number(&hello, 1, 1);
	put_number(&hello, 0, 3);
	put_number(&hello, 0x0303, 2);
	put(&hello, random, sizeof(random));
	put_number(&hello, 32, 1);
	put(&hello, random, 32);
	put_number(&hello, 4, 2);
	put_number(&hello, 0x8a8a1301, 4);
	put_number(&hello, 1, 1);
	put_number(&hello, 0, 1);
	if (extensions) {
		put_number(&hello, extensions->n, 2);
		put(&hello, extensions->at, extensions->n);
	}
	hello.at[1] = (uint8_t)((hello.n - 4) >> 16);
	hello.at[2] = (uint8_t)((hello.n - 4) >> 8);
	hello.at[3] = (uint8_t)(hello.n - 4);
}

/* The hello in records of at most `most` bytes. */
static void make_stream(size_t most)
{
	stream.n = 0;
	for (size_t at = 0; at < hello.n; at += most) {
		size_t n = hello.n - at < most ? hello.n - at : most;

		put_number(&stream, 22, 1);
		put_number(&stream, 0x0301, 2);
		put_number(&stream, n, 2);
		put(&stream, hello.at + at, n);
	}
}

/* In memory of exactly its size, so that the sanitizer sees a read beyond it. */
static enum first_state parse(const uint8_t *bytes, size_t length)
{
	_cleanup_free_ uint8_t *copy = malloc(length ? length : 1);

	assert_non_null(copy);
	memcpy(copy, bytes, length);
	return first_tls_parse(copy, length, &first);
}

static enum first_state parse_extensions(const struct bytes *extensions)
{
	make_hello(extensions);
	make_stream(FIRST_BYTES_MAX);
	return parse(stream.at, stream.n);
}

/* --- faults --- */

static void test_other_protocols(void **state)
{
	static const char *const texts[] = { "GET / HTTP/1.1\r\n", "SSH-2.0-x\r\n", "\x80\x2e\x01\x03\x01",
		"\x16\x02\x01", "\x16\x03\x05", "\x15\x03\x01" };
	static const uint8_t server_hello[] = { 22, 3, 3, 0, 4, 2, 0, 0, 0 }, huge[] = { 22, 3, 1, 0x40, 1 },
	                     empty[] = { 22, 3, 1, 0, 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		assert_int_equal(parse((const uint8_t *)texts[i], strlen(texts[i])), FIRST_OTHER);
	assert_int_equal(parse(server_hello, sizeof(server_hello)), FIRST_OTHER);
	assert_int_equal(parse(huge, sizeof(huge)), FIRST_OTHER);
	assert_int_equal(parse(empty, sizeof(empty)), FIRST_OTHER);
	assert_int_equal(first.kind, FIRST_UNKNOWN);
}

static void test_broken_records(void **state)
{
	(void)state;
	make_hello(NULL);
	make_stream(20);
	stream.at[25] = 23; /* the second record is none of a handshake */
	assert_int_equal(parse(stream.at, stream.n), FIRST_MALFORMED);
	assert_int_equal(first.kind, FIRST_TLS);
	make_stream(20);
	memset(stream.at + 25 + 3, 0, 2); /* the second record is empty */
	assert_int_equal(parse(stream.at, stream.n), FIRST_MALFORMED);
}

/* Every length field of a good hello, one too large and one too small: never complete. */
static void test_broken_lengths(void **state)
{
	struct bytes *extensions = calloc(1, sizeof(*extensions));
	/* session id, ciphers (its low byte: odd), extensions, server name: extension, list and name */
	static const size_t places[] = { 38, 72, 79, 83, 85, 88 };

	(void)state;
	assert_non_null(extensions);
	put_name(extensions, "www.example.com");
	assert_int_equal(parse_extensions(extensions), FIRST_COMPLETE);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		for (int change = -1; change <= 1; change += 2) {
			make_hello(extensions);
			hello.at[places[i]] = (uint8_t)(hello.at[places[i]] + change);
			make_stream(FIRST_BYTES_MAX);
			assert_int_equal(parse(stream.at, stream.n), FIRST_MALFORMED);
		}
	free(extensions);
}

static void test_ambiguous(void **state)
{
	static const char *const names[] = { "", "a..b", ".a", "a.", "a b", "a\tb", "-a.\x80", "[::1]", "a:443" };
	struct bytes *extensions = calloc(1, sizeof(*extensions));
	char longest[FIRST_HOST_MAX + 2];

	(void)state;
	assert_non_null(extensions);
	put_name(extensions, "one.example.com");
	put_name(extensions, "two.example.com");
	assert_int_equal(parse_extensions(extensions), FIRST_MALFORMED);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		extensions->n = 0;
		put_name(extensions, names[i]);
		assert_int_equal(parse_extensions(extensions), FIRST_MALFORMED);
	}
	for (size_t length = FIRST_HOST_MAX; length <= FIRST_HOST_MAX + 1; length++) {
		for (size_t i = 0; i < length; i++)
			longest[i] = i % 50 == 49 ? '.' : 'a';
		longest[length - 1] = 'z';
		longest[length] = '\0';
		extensions->n = 0;
		put_name(extensions, longest);
		assert_int_equal(
		        parse_extensions(extensions), length == FIRST_HOST_MAX ? FIRST_COMPLETE : FIRST_MALFORMED);
	}
	free(extensions);
}

/* Faults that no other check would find: an odd list of ciphers, and bytes behind the extensions. */
static void test_broken_hello(void **state)
{
	struct bytes *extensions = calloc(1, sizeof(*extensions));

	(void)state;
	assert_non_null(extensions);
	put_name(extensions, "www.example.com");
	make_hello(extensions);
	memmove(hello.at + 76, hello.at + 77, hello.n - 77); /* the last cipher's second half */
	hello.n--;
	hello.at[3]--;
	hello.at[72] = 3;
	make_stream(FIRST_BYTES_MAX);
	assert_int_equal(parse(stream.at, stream.n), FIRST_MALFORMED);
	make_hello(extensions);
	put_number(&hello, 0, 1);
	hello.at[3]++;
	make_stream(FIRST_BYTES_MAX);
	assert_int_equal(parse(stream.at, stream.n), FIRST_MALFORMED);
	free(extensions);
}

static void test_label(void **state)
{
	static const char label[] = "a123456789b123456789c123456789d123456789e123456789f123456789123";
	char host[FIRST_HOST_MAX + 1], longer[80];

	(void)state;
	assert_true(first_host((const uint8_t *)label, 63, host));
	snprintf(longer, sizeof(longer), "%s4.example", label);
	assert_false(first_host((const uint8_t *)longer, strlen(longer), host));
	assert_string_equal(host, "");
}

/* Server name extensions that say two things, or nothing, and one with a name of a kind that nobody knows. */
static void test_name_lists(void **state)
{
	static const struct {
		const char *body;
		size_t length;
		enum first_state state;
	} lists[] = {
		{ "\0\x8\0\0\x1"
		  "a\0\0\x1"
		  "b",
		        10, FIRST_MALFORMED },
		{ "\0\x4\0\0\x1"
		  "a?",
		        7, FIRST_MALFORMED },
		{ "\0\0", 2, FIRST_MALFORMED },
		{ "", 0, FIRST_MALFORMED },
		{ "\0\x8\x7\0\x1"
		  "?\0\0\x1"
		  "b",
		        10, FIRST_COMPLETE },
	};
	struct bytes *extensions = calloc(1, sizeof(*extensions));

	(void)state;
	assert_non_null(extensions);
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		extensions->n = 0;
		put_extension(extensions, 0, lists[i].body, lists[i].length);
		assert_int_equal(parse_extensions(extensions), lists[i].state);
	}
	assert_string_equal(first.host, "b");
	free(extensions);
}

/* Padding up to the bound is read; one byte more is not waited for. */
static void test_bound(void **state)
{
	static const uint8_t zero[FIRST_BYTES_MAX];
	struct bytes *extensions = calloc(1, sizeof(*extensions));
	size_t rest;

	(void)state;
	assert_non_null(extensions);
	put_name(extensions, "padded.example.com");
	make_hello(extensions);
	rest = FIRST_BYTES_MAX - 5 - hello.n - 4;
	put_extension(extensions, 21, zero, rest);
	assert_int_equal(parse_extensions(extensions), FIRST_COMPLETE);
	assert_int_equal(stream.n, FIRST_BYTES_MAX);
	assert_string_equal(first.host, "padded.example.com");
	make_stream(8000); /* the same hello, but its records do not fit */
	assert_int_equal(parse(stream.at, FIRST_BYTES_MAX - 1), FIRST_MORE);
	assert_int_equal(parse(stream.at, stream.n), FIRST_TOO_LONG);
	extensions->n = 0;
	put_name(extensions, "padded.example.com");
	put_extension(extensions, 21, zero, rest + 1);
	make_hello(extensions);
	make_stream(FIRST_BYTES_MAX);
	assert_int_equal(parse(stream.at, 9), FIRST_TOO_LONG); /* said as soon as the length is known */
	free(extensions);
}

/* --- real clients --- */

static void load(const char *name)
{
	char path[512];
	FILE *file;

	snprintf(path, sizeof(path), "%s/tests/fuzz/corpus/first_tls/%s", GW_SOURCE_DIR, name);
	file = fopen(path, "re");
	assert_non_null(file);
	stream.n = fread(stream.at, 1, sizeof(stream.at), file);
	fclose(file);
}

static void test_real_clients(void **state)
{
	static const struct {
		const char *file, *host, *alpn;
		uint16_t version;
	} clients[] = {
		{ "openssl_tls13", "api.example.com", "\x02h2\x08http/1.1", 0x0304 },
		{ "openssl_tls12", "www.example.org", "", 0x0303 },
		{ "openssl_no_name", "", "", 0x0304 },
		{ "curl", "api.example.com", "\x02h2\x08http/1.1", 0x0304 },
		{ "gnutls", "gnutls.example.net", "\x02h2", 0x0304 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
		load(clients[i].file);
		for (size_t n = 0; n < stream.n; n++)
			assert_int_equal(parse(stream.at, n), FIRST_MORE);
		assert_int_equal(parse(stream.at, stream.n), FIRST_COMPLETE);
		assert_string_equal(first.host, clients[i].host);
		assert_int_equal(first.version, clients[i].version);
		assert_int_equal(first.alpn.length, strlen(clients[i].alpn));
		if (first.alpn.length > 0)
			assert_memory_equal(first.alpn.bytes, clients[i].alpn, first.alpn.length);
		assert_false(first.encrypted_hello);
	}
}

/* --- generated --- */

/* What browsers send: GREASE, an encrypted hello, a post-quantum key share, a ticket, in any order. */
static void put_like_browser(struct bytes *extensions, const char *name)
{
	static const uint8_t filler[1300] = { 1 };
	static const uint8_t alpn[] = { 0, 12, 2, 'h', '2', 8, 'h', 't', 't', 'p', '/', '1', '.', '1' };
	static const uint8_t versions[] = { 6, 0x6a, 0x6a, 3, 4, 3, 3 };
	unsigned turn = below(7);

	for (unsigned i = 0; i < 7; i++)
		switch ((turn + i) % 7) {
		case 0:
			put_extension(extensions, 0x3a3a, filler, 0);
			break;
		case 1:
			put_name(extensions, name);
			break;
		case 2:
			put_extension(extensions, 16, alpn, sizeof(alpn));
			break;
		case 3:
			put_extension(extensions, 43, versions, sizeof(versions));
			break;
		case 4:
			put_extension(extensions, 0xfe0d, filler, 1 + below(400));
			break;
		case 5:
			put_extension(extensions, 51, filler, 1200 + below(100));
			break;
		default:
			put_extension(extensions, 35, filler, below(300));
		}
}

static void test_generated(void **state)
{
	struct bytes *extensions = calloc(1, sizeof(*extensions));

	(void)state;
	assert_non_null(extensions);
	for (int round = 0; round < 300; round++) {
		char name[40], lower[40];
		unsigned number = below(100000);
		size_t step = 1 + below(1800);

		snprintf(name, sizeof(name), "Host-%u.Example.COM", number);
		snprintf(lower, sizeof(lower), "host-%u.example.com", number);
		extensions->n = 0;
		put_like_browser(extensions, name);
		make_hello(extensions);
		make_stream(step);
		if (stream.n > FIRST_BYTES_MAX)
			continue;
		put(&stream, "more", 4); /* what follows does not matter */
		for (size_t n = 0; n < stream.n - 4; n += 1 + below(50))
			assert_int_equal(parse(stream.at, n), FIRST_MORE);
		assert_int_equal(parse(stream.at, stream.n), FIRST_COMPLETE);
		assert_string_equal(first.host, lower);
		assert_int_equal(first.version, 0x0304);
		assert_true(first.encrypted_hello);
		assert_int_equal(first.alpn.length, 12);
	}
	free(extensions);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_other_protocols),
		cmocka_unit_test(test_broken_records),
		cmocka_unit_test(test_broken_lengths),
		cmocka_unit_test(test_ambiguous),
		cmocka_unit_test(test_broken_hello),
		cmocka_unit_test(test_label),
		cmocka_unit_test(test_name_lists),
		cmocka_unit_test(test_bound),
		cmocka_unit_test(test_real_clients),
		cmocka_unit_test(test_generated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
