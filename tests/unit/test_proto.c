/* The messages' codec: every way to be wrong first, then the round trip of each message. */
#include "gatewayd/base/proto.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gatewayd/base/cleanup.h"

enum { DOWN = PROTO_DOWN, UP = PROTO_UP, BOTH = PROTO_BOTH };

static const unsigned directions[PROTO_TYPES] = {
#define MSG(upper, lower, direction, descriptors, fields) [PROTO_##upper] = direction,
#include "gatewayd/base/proto.def"
#undef MSG
};

static uint64_t random_u64(void)
{
	return ((uint64_t)rand() << 42) ^ ((uint64_t)rand() << 21) ^ (uint64_t)rand();
}

static void random_string(char *text, size_t max)
{
	size_t length = (size_t)rand() % (max + 1);

	for (size_t i = 0; i < length; i++)
		text[i] = (char)('a' + rand() % 26);
	text[length] = '\0';
}

static void random_raw(uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		bytes[i] = (uint8_t)rand();
}

#define U8(member)         message->member = (uint8_t)rand();
#define U16(member)        message->member = (uint16_t)rand();
#define U32(member)        message->member = (uint32_t)random_u64();
#define U64(member)        message->member = random_u64();
#define STR(member, max)   random_string(message->member, max);
#define RAW(member, bytes) random_raw(message->member, bytes);
#define MSG(upper, lower, direction, descriptors, fields)                                                              \
	static void random_##lower(struct proto_##lower *message)                                                      \
	{                                                                                                              \
		fields                                                                                                 \
	}
#include "gatewayd/base/proto.def"
#undef MSG
#undef U8
#undef U16
#undef U32
#undef U64
#undef STR
#undef RAW

static struct proto_message random_message(enum proto_type type)
{
	struct proto_message message;

	memset(&message, 0, sizeof(message));
	message.type = type;
	switch (type) {
#define MSG(upper, lower, direction, descriptors, fields)                                                              \
	case PROTO_##upper:                                                                                            \
		random_##lower(&message.lower);                                                                        \
		break;
#include "gatewayd/base/proto.def"
#undef MSG
	case PROTO_NONE:
	case PROTO_TYPES:
		fail();
	}
	return message;
}

#define U8(member)         assert_int_equal(a->member, b->member);
#define U16(member)        assert_int_equal(a->member, b->member);
#define U32(member)        assert_int_equal(a->member, b->member);
#define U64(member)        assert_true(a->member == b->member);
#define STR(member, max)   assert_string_equal(a->member, b->member);
#define RAW(member, bytes) assert_memory_equal(a->member, b->member, bytes);
#define MSG(upper, lower, direction, descriptors, fields)                                                              \
	static void same_##lower(const struct proto_##lower *a, const struct proto_##lower *b)                         \
	{                                                                                                              \
		fields                                                                                                 \
	}
#include "gatewayd/base/proto.def"
#undef MSG
#undef U8
#undef U16
#undef U32
#undef U64
#undef STR
#undef RAW

static void assert_same(const struct proto_message *a, const struct proto_message *b)
{
	assert_int_equal(a->type, b->type);
	switch (a->type) {
#define MSG(upper, lower, direction, descriptors, fields)                                                              \
	case PROTO_##upper:                                                                                            \
		same_##lower(&a->lower, &b->lower);                                                                    \
		break;
#include "gatewayd/base/proto.def"
#undef MSG
	case PROTO_NONE:
	case PROTO_TYPES:
		fail();
	}
}

static size_t encode(uint8_t *data, const struct proto_message *message)
{
	struct wire wire;

	wire_init(&wire, data, PROTO_RECORD_MAX);
	assert_int_equal(proto_encode(&wire, message), 0);
	return wire.offset;
}

static int decode(uint8_t *data, size_t size, enum proto_direction direction, struct proto_message *ret)
{
	struct wire wire;

	wire_init(&wire, data, size);
	return proto_decode(&wire, direction, ret);
}

static void test_truncated(void **state)
{
	uint8_t data[PROTO_RECORD_MAX];

	(void)state;
	for (unsigned type = 1; type < PROTO_TYPES; type++) {
		struct proto_message message = random_message((enum proto_type)type), got;
		size_t size = encode(data, &message);

		for (size_t cut = 0; cut < size; cut++) {
			/* An exact copy on the heap, so that a read beyond it is seen. */
			uint8_t *copy = malloc(cut ? cut : 1);

			memcpy(copy, data, cut);
			assert_int_equal(decode(copy, cut, PROTO_BOTH, &got), -EBADMSG);
			if (cut >= PROTO_HEADER_SIZE) { /* the same with a length that agrees */
				copy[4] = (uint8_t)(cut - PROTO_HEADER_SIZE);
				copy[5] = (uint8_t)((cut - PROTO_HEADER_SIZE) >> 8);
				assert_int_equal(decode(copy, cut, PROTO_BOTH, &got), -EBADMSG);
			}
			free(copy);
		}
	}
}

static void test_left_over(void **state)
{
	uint8_t data[PROTO_RECORD_MAX] = { 0 };

	(void)state;
	for (unsigned type = 1; type < PROTO_TYPES; type++) {
		struct proto_message message = random_message((enum proto_type)type), got;
		size_t size = encode(data, &message);

		data[4] = (uint8_t)(size - PROTO_HEADER_SIZE + 1);
		data[5] = (uint8_t)((size - PROTO_HEADER_SIZE + 1) >> 8);
		assert_int_equal(decode(data, size + 1, PROTO_BOTH, &got), -EBADMSG);
	}
}

static void test_wrong_direction(void **state)
{
	uint8_t data[PROTO_RECORD_MAX];

	(void)state;
	for (unsigned type = 1; type < PROTO_TYPES; type++) {
		struct proto_message message = random_message((enum proto_type)type), got;
		size_t size = encode(data, &message);

		assert_int_equal(decode(data, size, PROTO_DOWN, &got), directions[type] & DOWN ? 0 : -EBADMSG);
		assert_int_equal(decode(data, size, PROTO_UP, &got), directions[type] & UP ? 0 : -EBADMSG);
	}
}

static void test_bad_header(void **state)
{
	struct proto_message message = random_message(PROTO_PING), got;
	uint8_t data[PROTO_RECORD_MAX];
	size_t size = encode(data, &message);

	(void)state;
	data[0] = PROTO_NONE;
	assert_int_equal(decode(data, size, PROTO_BOTH, &got), -EBADMSG);
	data[0] = PROTO_TYPES;
	assert_int_equal(decode(data, size, PROTO_BOTH, &got), -EBADMSG);
	data[0] = 0xff;
	data[1] = 0xff;
	assert_int_equal(decode(data, size, PROTO_BOTH, &got), -EBADMSG);
	data[0] = PROTO_PING;
	data[1] = 0;
	data[2] = 1; /* the field that must be zero */
	assert_int_equal(decode(data, size, PROTO_BOTH, &got), -EBADMSG);
	data[2] = 0;
	memset(data + 4, 0xff, 4);
	assert_int_equal(decode(data, size, PROTO_BOTH, &got), -EBADMSG);
}

static void test_no_room(void **state)
{
	struct proto_message message = random_message(PROTO_HELLO);
	uint8_t data[PROTO_RECORD_MAX];
	size_t size = encode(data, &message);

	(void)state;
	for (size_t room = 0; room < size; room++) {
		uint8_t *small = malloc(room ? room : 1);
		struct wire wire;

		wire_init(&wire, small, room);
		assert_int_equal(proto_encode(&wire, &message), -ENOBUFS);
		assert_int_equal(wire.offset, 0);
		assert_int_equal(wire.error, 0);
		free(small);
	}
}

static void test_round_trip(void **state)
{
	uint8_t data[PROTO_RECORD_MAX];

	(void)state;
	srand(7);
	for (int round = 0; round < 200; round++) {
		struct proto_message sent[PROTO_TYPES];
		struct wire wire;

		wire_init(&wire, data, sizeof(data));
		for (unsigned type = 1; type < PROTO_TYPES; type++) {
			sent[type] = random_message((enum proto_type)type);
			assert_int_equal(proto_encode(&wire, &sent[type]), 0);
		}
		wire_init(&wire, data, wire.offset);
		for (unsigned type = 1; type < PROTO_TYPES; type++) {
			struct proto_message got;

			assert_int_equal(proto_decode(&wire, PROTO_BOTH, &got), 0);
			assert_same(&got, &sent[type]);
		}
		assert_int_equal(wire.offset, wire.size);
	}
}

static void test_key(void **state)
{
	struct match_key key = { .shape = { IPPROTO_TCP, AF_INET6, 64, 0, 1, MATCH_PORT_RANGE },
		.dst = { AF_INET6, { 0x20, 1, 0xd, 0xb8 } },
		.src = { AF_INET6, { 0 } },
		.interface = "eth0",
		.port_lo = 80,
		.port_hi = 90 };
	struct proto_match_del message;
	struct match_key got;

	(void)state;
	proto_from_key(&key, &message);
	assert_int_equal(proto_to_key(&message, &got), 0);
	assert_int_equal(match_key_compare(&key, &got), 0);
	message.dst[15] = 1;
	assert_int_equal(proto_to_key(&message, &got), -EBADMSG);
}

static void test_names(void **state)
{
	(void)state;
	assert_string_equal(proto_name(PROTO_CONFIG_BEGIN), "config_begin");
	assert_string_equal(proto_name(PROTO_TYPES), "unknown");
	assert_string_equal(proto_name(70000), "unknown");
	assert_int_equal(proto_descriptors(PROTO_LISTEN), 1);
	assert_int_equal(proto_descriptors(PROTO_PING), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_left_over),
		cmocka_unit_test(test_wrong_direction),
		cmocka_unit_test(test_bad_header),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_key),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
