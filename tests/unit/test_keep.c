/* The channel of kept flows: codec, records with many descriptors, and what a broken record does. */
#include "gatewayd/base/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/relay/keep.h"

static void random_bytes(void *bytes, size_t n)
{
	uint8_t *byte = bytes;

	for (size_t i = 0; i < n; i++)
		byte[i] = (uint8_t)rand();
}

#define U8(member)         random_bytes(&message->member, sizeof(message->member));
#define U16(member)        U8(member)
#define U32(member)        U8(member)
#define U64(member)        U8(member)
#define RAW(member, bytes) U8(member)
#define MSG(upper, lower, descriptors, fields)                                                                         \
	static void random_##lower(struct keep_##lower *message)                                                       \
	{                                                                                                              \
		fields                                                                                                 \
	}
#include "gatewayd/base/keep.def"
#undef MSG
#undef U8
#undef U16
#undef U32
#undef U64
#undef RAW

static struct keep_message random_message(enum keep_type type)
{
	struct keep_message message;

	memset(&message, 0, sizeof(message));
	message.type = type;
	switch (type) {
#define MSG(upper, lower, descriptors, fields)                                                                         \
	case KEEP_##upper:                                                                                             \
		random_##lower(&message.lower);                                                                        \
		break;
#include "gatewayd/base/keep.def"
#undef MSG
	case KEEP_NONE:
	case KEEP_TYPES:
		fail();
	}
	return message;
}

#define U8(member)         assert_memory_equal(&a->member, &b->member, sizeof(a->member));
#define U16(member)        U8(member)
#define U32(member)        U8(member)
#define U64(member)        U8(member)
#define RAW(member, bytes) U8(member)
#define MSG(upper, lower, descriptors, fields)                                                                         \
	static void same_##lower(const struct keep_##lower *a, const struct keep_##lower *b)                           \
	{                                                                                                              \
		fields                                                                                                 \
	}
#include "gatewayd/base/keep.def"
#undef MSG
#undef U8
#undef U16
#undef U32
#undef U64
#undef RAW

static void assert_same(const struct keep_message *a, const struct keep_message *b)
{
	assert_int_equal(a->type, b->type);
	switch (a->type) {
#define MSG(upper, lower, descriptors, fields)                                                                         \
	case KEEP_##upper:                                                                                             \
		same_##lower(&a->lower, &b->lower);                                                                    \
		break;
#include "gatewayd/base/keep.def"
#undef MSG
	case KEEP_NONE:
	case KEEP_TYPES:
		fail();
	}
}

static void test_broken(void **state)
{
	uint8_t data[KEEP_RECORD_MAX];

	(void)state;
	for (unsigned type = 1; type < KEEP_TYPES; type++) {
		struct keep_message message = random_message((enum keep_type)type), got;
		struct wire wire;
		size_t size;

		wire_init(&wire, data, sizeof(data));
		assert_int_equal(keep_encode(&wire, &message), 0);
		size = wire.offset;
		for (size_t cut = 0; cut < size; cut++) {
			uint8_t *copy = malloc(cut ? cut : 1); /* exact, so that a read beyond it is seen */

			memcpy(copy, data, cut);
			if (cut >= 4) {
				wire_init(&wire, copy, cut);
				assert_int_equal(keep_decode(&wire, &got), -EBADMSG);
				copy[2] = (uint8_t)(cut - 4); /* a length that agrees */
			}
			wire_init(&wire, copy, cut);
			assert_int_equal(keep_decode(&wire, &got), -EBADMSG);
			wire_init(&wire, copy, cut); /* and no room to write to */
			assert_int_equal(keep_encode(&wire, &message), -ENOBUFS);
			assert_int_equal(wire.offset, 0);
			free(copy);
		}
		data[2]++; /* one byte is left over */
		wire_init(&wire, data, size + 1);
		assert_int_equal(keep_decode(&wire, &got), -EBADMSG);
		data[0] = KEEP_TYPES;
		wire_init(&wire, data, size);
		assert_int_equal(keep_decode(&wire, &got), -EBADMSG);
		data[0] = KEEP_NONE;
		wire_init(&wire, data, size);
		assert_int_equal(keep_decode(&wire, &got), -EBADMSG);
	}
}

static void test_round_trip(void **state)
{
	struct keep_record record;

	(void)state;
	srand(11);
	for (int round = 0; round < 300; round++) {
		struct keep_message sent[KEEP_TYPES], got;
		int fds[KEEP_DESCRIPTORS_EACH];

		keep_record_init(&record);
		for (unsigned type = 1; type < KEEP_TYPES; type++) {
			sent[type] = random_message((enum keep_type)type);
			assert_int_equal(
			        keep_record_put(&record, &sent[type], (int[]){ (int)type, (int)type + 100 }), 0);
		}
		record.wire.size = record.wire.offset;
		record.wire.offset = 0;
		for (unsigned type = 1; type < KEEP_TYPES; type++) {
			unsigned n = keep_descriptors((enum keep_type)type);

			assert_int_equal(keep_record_next(&record, &got, fds), 1);
			assert_same(&sent[type], &got);
			assert_int_equal(fds[0], n > 0 ? (int)type : -1);
			assert_int_equal(fds[1], n > 1 ? (int)type + 100 : -1);
		}
		assert_int_equal(keep_record_next(&record, &got, fds), 0);
	}
}

struct channel {
	int here, there;
};

static struct channel channel_new(void)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	return (struct channel){ pair[0], pair[1] };
}

/* As many flows as one record takes travel with their descriptors, in order; then the record is full. */
static void test_full_record(void **state)
{
	struct channel channel = channel_new();
	struct keep_message message = random_message(KEEP_FLOW), got;
	struct keep_record record;
	int fds[KEEP_DESCRIPTORS_EACH], ends[2];
	unsigned n = 0;

	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	keep_record_init(&record);
	for (; keep_record_put(&record, &message, ends) == 0; n++)
		message.flow.id = n + 1;
	assert_true(n >= KEEP_BATCH_MAX);
	assert_int_equal(keep_record_send(&record, channel.here), 0);
	assert_int_equal(keep_record_receive(&record, channel.there), 0);
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(keep_record_next(&record, &got, fds), 1);
		if (i > 0)
			assert_int_equal(got.flow.id, i);
		assert_true(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
		close(fds[0]);
		close(fds[1]);
	}
	assert_int_equal(keep_record_next(&record, &got, fds), 0);
	assert_int_equal(keep_record_receive(&record, channel.there), -EAGAIN);
	close(channel.here);
	assert_int_equal(keep_record_receive(&record, channel.there), -EPIPE);
	close(channel.there);
	close(ends[0]);
	close(ends[1]);
}

/* More or fewer descriptors than the messages want. */
static void test_descriptors_do_not_fit(void **state)
{
	(void)state;
	for (int wrong = 0; wrong < 2; wrong++) {
		struct channel channel = channel_new();
		struct keep_message message = random_message(wrong ? KEEP_GONE : KEEP_FLOW), got;
		struct keep_record record;
		int fds[KEEP_DESCRIPTORS_EACH], r;

		keep_record_init(&record);
		assert_int_equal(keep_record_put(&record, &message, (int[]){ 0, 0 }), 0);
		record.n_fds = 1;
		record.fds[0] = 0;
		assert_int_equal(keep_record_send(&record, channel.here), 0);
		assert_int_equal(keep_record_receive(&record, channel.there), 0);
		do
			r = keep_record_next(&record, &got, fds);
		while (r > 0);
		assert_int_equal(r, -EBADMSG);
		keep_record_close(&record);
		close(channel.here);
		close(channel.there);
	}
}

/* The kernel could not give us the descriptors: the messages are still read. */
static void test_limit_of_descriptors(void **state)
{
	struct channel channel = channel_new();
	struct keep_message message = random_message(KEEP_FLOW), gone = random_message(KEEP_GONE), got;
	struct rlimit old, none;
	struct keep_record record;
	int fds[KEEP_DESCRIPTORS_EACH];

	(void)state;
	keep_record_init(&record);
	assert_int_equal(keep_record_put(&record, &message, (int[]){ 0, 0 }), 0);
	assert_int_equal(keep_record_put(&record, &gone, NULL), 0);
	assert_int_equal(keep_record_send(&record, channel.here), 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = old;
	none.rlim_cur = (rlim_t)channel.there + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(keep_record_receive(&record, channel.there), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(keep_record_next(&record, &got, fds), 1);
	assert_int_equal(fds[1], -1);
	if (fds[0] >= 0)
		close(fds[0]);
	assert_int_equal(keep_record_next(&record, &got, fds), 1);
	assert_same(&gone, &got);
	assert_int_equal(keep_record_next(&record, &got, fds), 0);
	close(channel.here);
	close(channel.there);
}

/* A channel whose other end does not read takes a bounded number of records, and then none, without waiting. */
static void test_full_channel(void **state)
{
	struct channel channel = channel_new();
	struct keep_message message = random_message(KEEP_GONE);
	struct keep_record record;
	unsigned n = 0;
	int r;

	(void)state;
	keep_record_init(&record);
	while (keep_record_put(&record, &message, NULL) == 0)
		;
	while ((r = keep_record_send(&record, channel.here)) == 0 && n < 10000)
		n++;
	assert_int_equal(r, -EAGAIN);
	assert_in_range(n, 1, 1000);
	close(channel.here);
	close(channel.there);
}

static void test_origin(void **state)
{
	struct flow_origin origin = { .id = 5,
		.started_ms = 6,
		.client_port = 7,
		.original_port = 8,
		.target_port = 9,
		.objects = { 10, 11, 12 } };
	struct flow_origin again;
	struct keep_flow message;

	(void)state;
	assert_int_equal(addr_parse("10.1.2.3", &origin.client), 0);
	assert_int_equal(addr_parse("10.1.2.4", &origin.original), 0);
	assert_int_equal(addr_parse("fd00::5", &origin.target), 0);
	keep_put_origin(&origin, &message);
	assert_int_equal(keep_get_origin(&message, &again), 0);
	assert_memory_equal(&again.client, &origin.client, sizeof(origin.client));
	assert_memory_equal(&again.original, &origin.original, sizeof(origin.original));
	assert_memory_equal(&again.target, &origin.target, sizeof(origin.target));
	assert_int_equal(again.id, 5);
	assert_int_equal(again.started_ms, 6);
	assert_int_equal(again.client_port, 7);
	assert_int_equal(again.original_port, 8);
	assert_int_equal(again.target_port, 9);
	assert_int_equal(again.objects.listener, 10);
	assert_int_equal(again.objects.upstream, 11);
	assert_int_equal(again.objects.target, 12);
	message.target_family = AF_UNIX;
	assert_int_equal(keep_get_origin(&message, &again), -EBADMSG);
	message.target_family = AF_INET;
	message.id = 0;
	assert_int_equal(keep_get_origin(&message, &again), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_broken),
		cmocka_unit_test(test_descriptors_do_not_fit),
		cmocka_unit_test(test_limit_of_descriptors),
		cmocka_unit_test(test_full_channel),
		cmocka_unit_test(test_full_record),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_origin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
