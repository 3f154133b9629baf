/* Addresses, prefixes, ranges and ports: refusals, canonical texts, splitting. */
#include "gatewayd/base/addr.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "gatewayd/base/cleanup.h"

static void test_addr_refused(void **state)
{
	static const char *const faults[] = { "", " ", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4 ",
		" 1.2.3.4", "host", "::1%lo", "fe80::1%1", ":::", "1::2::3", "12345::", "1.2.3.4/32", "0x1.2.3.4",
		"::1\n", "1.2.3.4;drop" };
	struct addr addr = { .family = 77 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		assert_int_equal(addr_parse(faults[i], &addr), -EINVAL);
		assert_int_equal(addr.family, 77);
	}
}

static void test_addr_canonical(void **state)
{
	static const char *const pairs[][2] = { { "192.0.2.1", "192.0.2.1" }, { "2001:DB8:0:0:0:0:0:1", "2001:db8::1" },
		{ "0:0:0:0:0:0:0:0", "::" }, { "2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1" },
		{ "::ffff:1.2.3.4", "::ffff:1.2.3.4" },
		{ "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		char text[ADDR_TEXT_MAX];
		struct addr addr, again;

		assert_int_equal(addr_parse(pairs[i][0], &addr), 0);
		assert_string_equal(addr_format(&addr, text), pairs[i][1]);
		assert_int_equal(addr_parse(text, &again), 0);
		assert_true(addr_equal(&addr, &again));
	}
}

static void test_addr_with_port(void **state)
{
	static const char *const pairs[][2] = { { "192.0.2.1", "192.0.2.1:80" },
		{ "2001:db8::1", "[2001:db8::1]:80" } };
	const struct addr none = { 0 };
	char text[ADDR_END_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		struct addr addr;

		assert_int_equal(addr_parse(pairs[i][0], &addr), 0);
		assert_string_equal(addr_format_end(&addr, 80, text), pairs[i][1]);
	}
	assert_string_equal(addr_format_end(&none, 80, text), ":80");
}

static void test_prefix_refused(void **state)
{
	static const char *const faults[] = { "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/+8",
		"10.0.0.0/-1", "10.0.0.0/8 ", "10.0.0.0/8/8", "::/129", "::/99999", "::/999999", "10.0.0/8", "a/8",
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128" };
	struct prefix prefix = { .length = 99 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		assert_int_equal(prefix_parse(faults[i], &prefix), -EINVAL);
		assert_int_equal(prefix.length, 99);
	}
}

static void test_prefix_bits_behind(void **state)
{
	char text[ADDR_TEXT_MAX];
	struct prefix prefix;

	(void)state;
	assert_int_equal(prefix_parse("10.1.2.3/15", &prefix), -ENOTUNIQ);
	assert_string_equal(prefix_format(&prefix, text), "10.0.0.0/15");
	assert_int_equal(prefix_parse("2001:db8::1/64", &prefix), -ENOTUNIQ);
	assert_string_equal(prefix_format(&prefix, text), "2001:db8::/64");
	assert_int_equal(prefix_parse("1.2.3.4/0", &prefix), -ENOTUNIQ);
	assert_string_equal(prefix_format(&prefix, text), "0.0.0.0/0");
}

static void test_prefix_good(void **state)
{
	char text[ADDR_TEXT_MAX];
	struct prefix prefix;
	struct addr addr;

	(void)state;
	assert_int_equal(prefix_parse("10.0.0.0/8", &prefix), 0);
	assert_int_equal(addr_parse("10.255.0.1", &addr), 0);
	assert_true(prefix_contains(&prefix, &addr));
	assert_int_equal(addr_parse("11.0.0.0", &addr), 0);
	assert_false(prefix_contains(&prefix, &addr));
	assert_int_equal(addr_parse("::", &addr), 0);
	assert_false(prefix_contains(&prefix, &addr));
	assert_int_equal(prefix_parse("10.0.0.1/32", &prefix), 0);
	assert_string_equal(prefix_format(&prefix, text), "10.0.0.1");
	assert_int_equal(prefix_parse("::/0", &prefix), 0);
	assert_true(prefix_contains(&prefix, &addr));
}

/* The prefixes lie end to end from first to last. */
static void assert_covers(const struct prefix *prefixes, int n, const char *first, const char *last)
{
	struct addr at, end;

	assert_int_equal(addr_parse(first, &at), 0);
	assert_int_equal(addr_parse(last, &end), 0);
	for (int i = 0; i < n; i++) {
		struct addr top = prefixes[i].addr;

		assert_true(addr_equal(&prefixes[i].addr, &at));
		for (unsigned bit = prefixes[i].length; bit < addr_bits(top.family); bit++)
			top.bytes[bit / 8] |= (uint8_t)(0x80U >> (bit % 8));
		at = top;
		for (size_t b = addr_bits(top.family) / 8; b-- > 0;)
			if (++at.bytes[b] != 0)
				break;
		if (i == n - 1)
			assert_true(addr_equal(&top, &end));
	}
}

static void test_range(void **state)
{
	static const struct {
		const char *first, *last;
		int n;
	} rows[] = { { "10.0.0.0", "10.255.255.255", 1 }, { "10.0.0.1", "10.0.0.1", 1 }, { "10.0.0.1", "10.0.0.6", 4 },
		{ "0.0.0.0", "255.255.255.255", 1 }, { "0.0.0.1", "255.255.255.254", 62 },
		{ "255.255.255.255", "255.255.255.255", 1 }, { "::", "::ff", 1 },
		{ "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", PREFIX_RANGE_MAX },
		{ "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1 } };
	struct prefix prefixes[PREFIX_RANGE_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char text[2 * ADDR_TEXT_MAX];

		snprintf(text, sizeof(text), "%s-%s", rows[i].first, rows[i].last);
		assert_int_equal(prefix_range_parse(text, prefixes), rows[i].n);
		assert_covers(prefixes, rows[i].n, rows[i].first, rows[i].last);
	}
	assert_int_equal(prefix_range_parse("10.0.0.0/8", prefixes), 1);
	assert_int_equal(prefixes[0].length, 8);
	assert_int_equal(prefix_range_parse("::1", prefixes), 1);
	assert_int_equal(prefixes[0].length, 128);
}

static void test_range_refused(void **state)
{
	static const char *const faults[] = { "10.0.0.2-10.0.0.1", "10.0.0.1-::1", "10.0.0.1-", "-10.0.0.1",
		"10.0.0.1-10.0.0.2-10.0.0.3", "10.0.0.0/8-11.0.0.0", "10.0.0.1/8", "10.0.0.1 - 10.0.0.2", "" };
	struct prefix prefixes[PREFIX_RANGE_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
		assert_int_equal(prefix_range_parse(faults[i], prefixes), -EINVAL);
}

static void test_ports(void **state)
{
	static const char *const faults[] = { "", "0", "65536", "99999999999", "-", "1-", "-1", "2-1", "1-65536", "0-5",
		"01", "1-02", "+1", " 1", "1 ", "1-2-3", "1,2", "http" };
	struct port_range range = { 7, 8 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
		assert_int_equal(port_range_parse(faults[i], &range), -EINVAL);
	assert_int_equal(range.lo, 7);
	assert_int_equal(port_range_parse("443", &range), 0);
	assert_true(range.lo == 443 && range.hi == 443);
	assert_int_equal(port_range_parse("1-65535", &range), 0);
	assert_true(range.lo == 1 && range.hi == 65535);
}

static void test_sockaddr(void **state)
{
	struct sockaddr_storage sa;
	struct addr addr, again;
	uint16_t port;

	(void)state;
	assert_int_equal(addr_parse("2001:db8::7", &addr), 0);
	assert_int_equal(addr_to_sockaddr(&addr, 443, &sa), sizeof(struct sockaddr_in6));
	assert_int_equal(addr_from_sockaddr(&sa, &again, &port), 0);
	assert_true(addr_equal(&addr, &again));
	assert_int_equal(port, 443);
	assert_int_equal(addr_parse("192.0.2.7", &addr), 0);
	assert_int_equal(addr_to_sockaddr(&addr, 80, &sa), sizeof(struct sockaddr_in));
	assert_int_equal(addr_from_sockaddr(&sa, &again, &port), 0);
	assert_true(addr_equal(&addr, &again));
	sa.ss_family = AF_UNIX;
	assert_int_equal(addr_from_sockaddr(&sa, &again, &port), -EAFNOSUPPORT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addr_refused),
		cmocka_unit_test(test_addr_canonical),
		cmocka_unit_test(test_addr_with_port),
		cmocka_unit_test(test_prefix_refused),
		cmocka_unit_test(test_prefix_bits_behind),
		cmocka_unit_test(test_prefix_good),
		cmocka_unit_test(test_range),
		cmocka_unit_test(test_range_refused),
		cmocka_unit_test(test_ports),
		cmocka_unit_test(test_sockaddr),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
