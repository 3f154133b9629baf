/* Cursors: what is refused first, then the round trip. */
#include "gatewayd/base/wire.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void test_writer_full(void **state)
{
	uint8_t data[3];
	struct wire wire;

	(void)state;
	wire_init(&wire, data, sizeof(data));
	wire_put_u16(&wire, 1);
	wire_put_u16(&wire, 2);
	assert_int_equal(wire.error, -ENOBUFS);
	assert_int_equal(wire.offset, 2);
	wire_put_u8(&wire, 3); /* would fit, but the first error stays */
	assert_int_equal(wire.offset, 2);
}

static void test_reader_ran_out(void **state)
{
	uint8_t data[7] = { 1, 2, 3, 4, 5, 6, 7 };
	struct wire wire;

	(void)state;
	wire_init(&wire, data, sizeof(data));
	assert_int_equal(wire_get_u64(&wire), 0);
	assert_int_equal(wire.error, -EBADMSG);
	assert_int_equal(wire_get_u8(&wire), 0);
}

static void test_string_faults(void **state)
{
	uint8_t long_one[] = { 4, 0, 'a', 'b', 'c', 'd' }, with_nul[] = { 2, 0, 'a', 0 }, cut[] = { 3, 0, 'a' };
	char text[4];
	struct wire wire;

	(void)state;
	wire_init(&wire, long_one, sizeof(long_one));
	wire_get_string(&wire, text, 3);
	assert_int_equal(wire.error, -EBADMSG);
	wire_init(&wire, with_nul, sizeof(with_nul));
	wire_get_string(&wire, text, 3);
	assert_int_equal(wire.error, -EBADMSG);
	wire_init(&wire, cut, sizeof(cut));
	wire_get_string(&wire, text, 3);
	assert_int_equal(wire.error, -EBADMSG);
	wire_init(&wire, long_one, sizeof(long_one));
	wire_put_string(&wire, "four", 3);
	assert_int_equal(wire.error, -ENOBUFS);
}

static void test_round_trip(void **state)
{
	uint8_t data[64], raw[3] = { 9, 8, 7 }, got_raw[3];
	char text[6];
	struct wire wire;

	(void)state;
	wire_init(&wire, data, sizeof(data));
	wire_put_u8(&wire, 0xab);
	wire_put_u16(&wire, 0x1234);
	wire_put_u32(&wire, 0xdeadbeef);
	wire_put_u64(&wire, 0x0123456789abcdef);
	wire_put_string(&wire, "hello", 5);
	wire_put_string(&wire, "", 5);
	wire_put_raw(&wire, raw, sizeof(raw));
	assert_int_equal(wire.error, 0);
	assert_int_equal(data[1], 0x34); /* little endian */
	wire_init(&wire, data, wire.offset);
	assert_int_equal(wire_get_u8(&wire), 0xab);
	assert_int_equal(wire_get_u16(&wire), 0x1234);
	assert_int_equal(wire_get_u32(&wire), 0xdeadbeef);
	assert_true(wire_get_u64(&wire) == 0x0123456789abcdef);
	wire_get_string(&wire, text, 5);
	assert_string_equal(text, "hello");
	wire_get_string(&wire, text, 5);
	assert_string_equal(text, "");
	wire_get_raw(&wire, got_raw, sizeof(got_raw));
	assert_memory_equal(raw, got_raw, sizeof(raw));
	assert_int_equal(wire.error, 0);
	assert_int_equal(wire.offset, wire.size);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_writer_full),
		cmocka_unit_test(test_reader_ran_out),
		cmocka_unit_test(test_string_faults),
		cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
