/* The record channel: dead and mad peers first, then messages, batches and descriptors. */
#include "gatewayd/base/msg.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/base/cleanup.h"

struct pair {
	struct msg_channel *daemon, *relay;
};

static int setup(void **state)
{
	static struct pair pair;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(msg_channel_new(fds[0], PROTO_DOWN, &pair.daemon), 0);
	assert_int_equal(msg_channel_new(fds[1], PROTO_UP, &pair.relay), 0);
	*state = &pair;
	return 0;
}

static int teardown(void **state)
{
	struct pair *pair = *state;

	msg_channel_free(pair->daemon);
	msg_channel_free(pair->relay);
	return 0;
}

static void send_raw(const struct pair *pair, const void *data, size_t size, const int *fds, size_t n_fds)
{
	union {
		struct cmsghdr header;
		uint8_t space[CMSG_SPACE(8 * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)(uintptr_t)data, size };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds > 0) {
		struct cmsghdr *cmsg;

		header.msg_control = &control;
		header.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&header);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
	}
	assert_int_equal(sendmsg(msg_channel_fd(pair->daemon), &header, 0), size);
}

static size_t record(uint8_t *data, enum proto_type type, int copies)
{
	struct proto_message message = { .type = type };
	struct wire wire;

	wire_init(&wire, data, PROTO_RECORD_MAX);
	for (int i = 0; i < copies; i++)
		assert_int_equal(proto_encode(&wire, &message), 0);
	return wire.offset;
}

static int count_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void assert_refused(const struct pair *pair, const void *data, size_t size, const int *fds, size_t n_fds)
{
	struct proto_message got;
	int fd = -1, before = count_fds(), r;

	send_raw(pair, data, size, fds, n_fds);
	do
		r = msg_receive(pair->relay, &got, &fd, 0);
	while (r == 0);
	assert_int_equal(r, -EBADMSG);
	assert_int_equal(fd, -1);
	assert_true(count_fds() <= before + 1); /* at most the one that the channel will close itself */
}

static void test_garbage(void **state)
{
	assert_refused(*state, "garbage", 7, NULL, 0);
}

static void test_wrong_direction(void **state)
{
	uint8_t data[PROTO_RECORD_MAX];

	assert_refused(*state, data, record(data, PROTO_PONG, 1), NULL, 0);
}

static void test_descriptor_missing(void **state)
{
	uint8_t data[PROTO_RECORD_MAX];

	assert_refused(*state, data, record(data, PROTO_LISTEN, 1), NULL, 0);
}

static void test_descriptor_unwanted(void **state)
{
	uint8_t data[PROTO_RECORD_MAX];
	int fd = STDERR_FILENO;

	assert_refused(*state, data, record(data, PROTO_PING, 1), &fd, 1);
}

static void test_descriptors_too_many(void **state)
{
	uint8_t data[PROTO_RECORD_MAX];
	int two[2] = { STDERR_FILENO, STDERR_FILENO };

	assert_refused(*state, data, record(data, PROTO_LISTEN, 1), two, 2);
}

static void test_descriptors_beyond_the_buffer(void **state)
{
	uint8_t data[PROTO_RECORD_MAX];
	int eight[8] = { 2, 2, 2, 2, 2, 2, 2, 2 };

	assert_refused(*state, data, record(data, PROTO_LISTEN, 1), eight, 8);
}

static void test_descriptor_in_a_batch(void **state)
{
	uint8_t data[PROTO_RECORD_MAX];
	int fd = STDERR_FILENO;

	assert_refused(*state, data, record(data, PROTO_LISTEN, 2), &fd, 1);
}

static void test_record_too_long(void **state)
{
	static uint8_t data[PROTO_RECORD_MAX + 1];

	/* Every byte that fits into a record is good. */
	assert_int_equal(record(data, PROTO_CONFIG_COMMIT, PROTO_RECORD_MAX / 16), PROTO_RECORD_MAX);
	assert_refused(*state, data, sizeof(data), NULL, 0);
}

static void test_peer_gone(void **state)
{
	struct pair *pair = *state;
	struct proto_message ping = { .type = PROTO_PING }, got;
	int fd;

	shutdown(msg_channel_fd(pair->relay), SHUT_RDWR);
	assert_int_equal(msg_receive(pair->daemon, &got, &fd, -1), -EPIPE);
	assert_int_equal(msg_send(pair->daemon, &ping, -1, 0), 0); /* only collected */
	assert_int_equal(msg_flush(pair->daemon, 0), -EPIPE);
}

static void test_no_room_in_time(void **state)
{
	struct pair *pair = *state;
	struct proto_message got, ping = { .type = PROTO_PING };
	uint64_t sent = 0, seen = 0;
	int fd, r;

	while ((r = msg_send(pair->daemon, &ping, -1, 10)) == 0)
		ping.ping.cookie = ++sent;
	assert_int_equal(r, -EAGAIN);
	while (msg_receive(pair->relay, &got, &fd, 0) == 0)
		assert_true(got.ping.cookie == seen++);
	assert_int_equal(msg_flush(pair->daemon, 0), 0); /* what stayed in the open record is not lost */
	while (msg_receive(pair->relay, &got, &fd, 0) == 0)
		assert_true(got.ping.cookie == seen++);
	assert_true(seen == sent);
}

static void test_timeouts(void **state)
{
	struct pair *pair = *state;
	struct proto_message got;
	int fd;

	assert_int_equal(msg_receive(pair->daemon, &got, &fd, 0), -EAGAIN);
	assert_int_equal(msg_receive(pair->daemon, &got, &fd, 20), -EAGAIN);
}

static void test_descriptor_arguments(void **state)
{
	struct pair *pair = *state;
	struct proto_message listen = { .type = PROTO_LISTEN }, ping = { .type = PROTO_PING };

	assert_int_equal(msg_send(pair->daemon, &listen, -1, 0), -EINVAL);
	assert_int_equal(msg_send(pair->daemon, &ping, STDERR_FILENO, 0), -EINVAL);
}

static void test_order_with_descriptors(void **state)
{
	struct pair *pair = *state;
	struct proto_message got, message = { .type = PROTO_PING };
	int fd;

	for (uint64_t i = 0; i < 2000; i++) {
		message = (struct proto_message){ .type = PROTO_PING, .ping.cookie = i };
		assert_int_equal(msg_send(pair->daemon, &message, -1, 100), 0);
	}
	message = (struct proto_message){ .type = PROTO_LISTEN, .listen.port = 4711 };
	assert_int_equal(msg_send(pair->daemon, &message, STDERR_FILENO, 100), 0);
	for (uint64_t i = 0; i < 2000; i++) {
		assert_int_equal(msg_receive(pair->relay, &got, &fd, 100), 0);
		assert_int_equal(got.type, PROTO_PING);
		assert_true(got.ping.cookie == i);
		assert_int_equal(fd, -1);
	}
	assert_false(msg_pending(pair->relay));
	assert_int_equal(msg_receive(pair->relay, &got, &fd, 100), 0);
	assert_int_equal(got.listen.port, 4711);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	close(fd);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_garbage),
		CASE(test_wrong_direction),
		CASE(test_descriptor_missing),
		CASE(test_descriptor_unwanted),
		CASE(test_descriptors_too_many),
		CASE(test_descriptors_beyond_the_buffer),
		CASE(test_descriptor_in_a_batch),
		CASE(test_record_too_long),
		CASE(test_peer_gone),
		CASE(test_no_room_in_time),
		CASE(test_timeouts),
		CASE(test_descriptor_arguments),
		CASE(test_order_with_descriptors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
