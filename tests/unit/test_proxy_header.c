/*
 * PROXY headers: broken ones first, then those that real senders made
 * (tests/fuzz/corpus/proxy_header), then what we write against the bytes that
 * the specification demands, and read again.
 */
#include "gatewayd/base/proxy_header.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gatewayd/base/cleanup.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

static struct proxy_header header;
static size_t header_length;

static enum first_state parse(const void *bytes, size_t length)
{
	_cleanup_free_ uint8_t *copy = malloc(length ? length : 1);

	assert_non_null(copy);
	memcpy(copy, bytes, length);
	return proxy_header_read(copy, length, &header, &header_length);
}

static enum first_state parse_text(const char *text)
{
	return parse(text, strlen(text));
}

static void test_bad_lines(void **state)
{
	static const char *const bad[] = {
		"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
		"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 1-1 2\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n",
		"PROXY TCP4 1.2.3.4 ::1 1 2\r\n",
		"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
		"PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXY \r\n",
		"PROXY UNKNOWNX\r\n",
		"PROXY UNKNOWN\rX",
	};
	char line[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (parse_text(bad[i]) != FIRST_MALFORMED)
			fail_msg("taken: %s", bad[i]);
	assert_int_equal(parse_text("GET / HTTP/1.1\r\n"), FIRST_OTHER);
	assert_int_equal(parse_text("PROXYX"), FIRST_OTHER);
	assert_int_equal(parse("PROXY TCP4 1.2.3.4\0 5.6.7.8 1 2\r\n", 34), FIRST_MALFORMED);
	for (int length = 107; length <= 108; length++) {
		snprintf(line, sizeof(line), "PROXY UNKNOWN %*s\r\n", length - 16, "x");
		assert_int_equal(strlen(line), length);
		assert_int_equal(parse_text(line), length == 107 ? FIRST_COMPLETE : FIRST_TOO_LONG);
	}
}

/* The fixed part and an IPv4 block, then `extra` bytes. */
static size_t make_binary(uint8_t *ret, uint8_t command, uint8_t family, size_t length)
{
	memset(ret, 0, 16 + length);
	memcpy(ret, SIGNATURE, 12);
	ret[12] = command;
	ret[13] = family;
	ret[14] = (uint8_t)(length >> 8);
	ret[15] = (uint8_t)length;
	return 16 + length;
}

static void test_bad_binaries(void **state)
{
	static const struct {
		uint8_t command, family;
		uint8_t length;
	} bad[] = { { 0x11, 0x11, 12 }, { 0x22, 0x11, 12 }, { 0x31, 0x11, 12 }, { 0x21, 0x11, 11 }, { 0x21, 0x21, 35 },
		{ 0x21, 0x31, 215 }, { 0x21, 0x10, 12 }, { 0x21, 0x13, 12 }, { 0x21, 0x41, 12 }, { 0x21, 0x01, 12 },
		{ 0x21, 0x11, 13 }, { 0x21, 0x11, 14 } };
	static uint8_t bytes[PROXY_HEADER_READ_MAX + 1];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(parse(bytes, make_binary(bytes, bad[i].command, bad[i].family, bad[i].length)),
		        FIRST_MALFORMED);
	make_binary(bytes, 0x21, 0x11, 16);
	bytes[16 + 12 + 2] = 2; /* a value that is longer than the rest */
	assert_int_equal(parse(bytes, 32), FIRST_MALFORMED);
	assert_int_equal(parse(bytes, make_binary(bytes, 0x20, 0, PROXY_HEADER_READ_MAX - 16)), FIRST_COMPLETE);
	make_binary(bytes, 0x20, 0, PROXY_HEADER_READ_MAX - 15);
	assert_int_equal(parse(bytes, 16), FIRST_TOO_LONG);
}

static size_t load(const char *name, uint8_t *ret, size_t size)
{
	char path[512];
	FILE *file;
	size_t n;

	snprintf(path, sizeof(path), "%s/tests/fuzz/corpus/proxy_header/%s", GW_SOURCE_DIR, name);
	file = fopen(path, "re");
	assert_non_null(file);
	n = fread(ret, 1, size, file);
	fclose(file);
	return n;
}

static void test_real_senders(void **state)
{
	static const struct {
		const char *file;
		uint8_t version;
		bool known;
	} senders[] = { { "curl_v1", 1, true }, { "haproxy_v1", 1, true }, { "haproxy_v2", 2, true },
		{ "haproxy_v2_crc", 2, true }, { "haproxy_v2_local", 2, false } };
	static const struct addr loopback = { AF_INET, { 127, 0, 0, 1 } };
	uint8_t bytes[4096];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(senders); i++) {
		size_t n = load(senders[i].file, bytes, sizeof(bytes));

		assert_int_equal(parse(bytes, n), FIRST_COMPLETE);
		assert_int_equal(header.version, senders[i].version);
		assert_int_equal(header.known, senders[i].known);
		for (size_t cut = 0; cut < header_length; cut++)
			assert_int_equal(parse(bytes, cut), FIRST_MORE);
		if (!senders[i].known)
			continue;
		assert_true(addr_equal(&header.source, &loopback) && addr_equal(&header.destination, &loopback));
		assert_true(header.source_port > 0 && header.destination_port > 0);
		assert_int_equal(header.protocol, IPPROTO_TCP);
	}
}

/* HAProxy's checksum is right, and any other bit of the header makes it wrong. */
static void test_checksum(void **state)
{
	uint8_t bytes[4096];
	size_t n = load("haproxy_v2_crc", bytes, sizeof(bytes)), length;

	(void)state;
	assert_int_equal(parse(bytes, n), FIRST_COMPLETE);
	length = header_length;
	for (size_t bit = 16 * 8; bit < (16 + 12) * 8; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(parse(bytes, length), FIRST_MALFORMED);
		bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}

static struct proxy_header make(uint8_t version, uint8_t protocol, const char *source, const char *destination)
{
	struct proxy_header made = {
		.version = version, .known = true, .protocol = protocol, .source_port = 56324, .destination_port = 443
	};

	assert_int_equal(addr_parse(source, &made.source), 0);
	assert_int_equal(addr_parse(destination, &made.destination), 0);
	return made;
}

static void test_cannot_write(void **state)
{
	uint8_t bytes[PROXY_HEADER_WRITE_MAX];
	struct proxy_header udp = make(1, IPPROTO_UDP, "192.0.2.1", "192.0.2.2");
	struct proxy_header mixed = make(2, IPPROTO_TCP, "192.0.2.1", "2001:db8::1");
	struct proxy_header version = make(3, IPPROTO_TCP, "192.0.2.1", "192.0.2.2");

	(void)state;
	assert_int_equal(proxy_header_write(&udp, bytes), 0);
	assert_int_equal(proxy_header_write(&mixed, bytes), 0);
	assert_int_equal(proxy_header_write(&version, bytes), 0);
}

static void test_write(void **state)
{
	const struct {
		struct proxy_header header;
		const char *bytes;
		size_t length;
	} cases[] = {
		{ make(1, IPPROTO_TCP, "192.0.2.1", "198.51.100.2"), "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n",
		        45 },
		{ make(1, IPPROTO_TCP, "2001:db8::1", "2001:db8::2"),
		        "PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n", 46 },
		{ { .version = 1 }, "PROXY UNKNOWN\r\n", 15 },
		{ make(2, IPPROTO_TCP, "192.0.2.1", "198.51.100.2"),
		        SIGNATURE "\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb", 28 },
		{ make(2, IPPROTO_UDP, "192.0.2.1", "198.51.100.2"),
		        SIGNATURE "\x21\x12\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb", 28 },
		{ make(2, IPPROTO_TCP, "2001:db8::1", "2001:db8::2"),
		        SIGNATURE "\x21\x21\x00\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0"
		                  "\0\0\0\0\0\0\0\x02\xdc\x04\x01\xbb",
		        52 },
		{ { .version = 2 }, SIGNATURE "\x20\x00\x00\x00", 16 },
	};
	uint8_t bytes[PROXY_HEADER_WRITE_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(proxy_header_write(&cases[i].header, bytes), cases[i].length);
		assert_memory_equal(bytes, cases[i].bytes, cases[i].length);
		assert_int_equal(parse(bytes, cases[i].length), FIRST_COMPLETE);
		assert_int_equal(header_length, cases[i].length);
		assert_memory_equal(&header.source, &cases[i].header.source, sizeof(header.source));
		assert_memory_equal(&header.destination, &cases[i].header.destination, sizeof(header.destination));
		assert_int_equal(header.protocol, cases[i].header.protocol);
	}
}

/* The longest that can be written fits. */
static void test_longest(void **state)
{
	const char *address = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
	struct proxy_header longest = make(1, IPPROTO_TCP, address, address);
	uint8_t bytes[PROXY_HEADER_WRITE_MAX];

	(void)state;
	longest.source_port = longest.destination_port = UINT16_MAX;
	assert_int_equal(proxy_header_write(&longest, bytes), 104);
	assert_int_equal(parse(bytes, 104), FIRST_COMPLETE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad_lines),
		cmocka_unit_test(test_bad_binaries),
		cmocka_unit_test(test_real_senders),
		cmocka_unit_test(test_checksum),
		cmocka_unit_test(test_cannot_write),
		cmocka_unit_test(test_write),
		cmocka_unit_test(test_longest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
