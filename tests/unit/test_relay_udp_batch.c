/*
 * Datagrams out of sockets and into them: what the kernel's control messages
 * may say and may not, and, over loopback, that what is sent together arrives
 * as the datagrams that it was, however the kernel is told.
 */
#include <errno.h>
#include <netinet/udp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/relay/udp_inbox.h"
#include "gatewayd/relay/udp_outbox.h"
#include "gatewayd/relay/udp_reply.h"
#include "gatewayd/relay/udp_socket.h"

/* --- what the kernel says --- */

struct told {
	struct msghdr header;
	struct sockaddr_storage name;
	_Alignas(struct cmsghdr) uint8_t control[UDP_CONTROL_MAX];
};

static void told_init(struct told *told, const char *source, uint16_t port)
{
	struct addr addr;

	memset(told, 0, sizeof(*told));
	assert_int_equal(addr_parse(source, &addr), 0);
	told->header.msg_name = &told->name;
	told->header.msg_namelen = addr_to_sockaddr(&addr, port, &told->name);
	told->header.msg_control = told->control;
}

static void told_add(struct told *told, int level, int type, const void *value, size_t size)
{
	struct cmsghdr *control = (struct cmsghdr *)(told->control + told->header.msg_controllen);

	*control = (struct cmsghdr){ .cmsg_len = CMSG_LEN(size), .cmsg_level = level, .cmsg_type = type };
	memcpy(CMSG_DATA(control), value, size);
	told->header.msg_controllen += CMSG_SPACE(size);
}

static void test_parse(void **state)
{
	struct udp_datagram datagram;
	struct sockaddr_storage sa;
	struct in_pktinfo v4 = { .ipi_ifindex = 7 };
	struct in6_pktinfo v6 = { .ipi6_ifindex = 8 };
	struct addr addr;
	struct told told;
	int segment = 100;

	(void)state;
	told_init(&told, "10.0.0.1", 5000);
	addr_parse("10.0.0.2", &addr);
	addr_to_sockaddr(&addr, 53, &sa);
	told_add(&told, SOL_IP, IP_PKTINFO, &v4, sizeof(v4));
	told_add(&told, SOL_IP, IP_ORIGDSTADDR, &sa, sizeof(struct sockaddr_in));
	told_add(&told, SOL_UDP, UDP_GRO, &segment, sizeof(segment));
	assert_int_equal(udp_datagram_parse(&told.header, 250, &datagram), 0);
	assert_true(udp_datagram_is_addressed(&datagram));
	assert_true(addr_equal(&datagram.original, &addr));
	assert_int_equal(datagram.original_port, 53);
	assert_int_equal(datagram.source_port, 5000);
	assert_int_equal(datagram.ifindex, 7);
	assert_int_equal(datagram.segment, 100);
	assert_int_equal(datagram.length, 250);
	/* One that is not larger than a segment is a single one. */
	assert_int_equal(udp_datagram_parse(&told.header, 100, &datagram), 0);
	assert_int_equal(datagram.segment, 0);

	told_init(&told, "fd00::1", 5000);
	addr_parse("fd00::2", &addr);
	addr_to_sockaddr(&addr, 53, &sa);
	told_add(&told, SOL_IPV6, IPV6_PKTINFO, &v6, sizeof(v6));
	told_add(&told, SOL_IPV6, IPV6_ORIGDSTADDR, &sa, sizeof(struct sockaddr_in6));
	assert_int_equal(udp_datagram_parse(&told.header, 0, &datagram), 0);
	assert_true(udp_datagram_is_addressed(&datagram));
	assert_int_equal(datagram.ifindex, 8);
	/* A destination of another family than the source's. */
	told_init(&told, "10.0.0.1", 5000);
	told_add(&told, SOL_IPV6, IPV6_ORIGDSTADDR, &sa, sizeof(struct sockaddr_in6));
	assert_int_equal(udp_datagram_parse(&told.header, 0, &datagram), 0);
	assert_false(udp_datagram_is_addressed(&datagram));
	/* None at all. */
	told.header.msg_controllen = 0;
	assert_int_equal(udp_datagram_parse(&told.header, 0, &datagram), 0);
	assert_false(udp_datagram_is_addressed(&datagram));
}

static void test_parse_faults(void **state)
{
	static const struct {
		int level, type;
		size_t size;
	} kinds[] = { { SOL_IP, IP_PKTINFO, sizeof(struct in_pktinfo) },
		{ SOL_IP, IP_ORIGDSTADDR, sizeof(struct sockaddr_in) },
		{ SOL_IPV6, IPV6_PKTINFO, sizeof(struct in6_pktinfo) },
		{ SOL_IPV6, IPV6_ORIGDSTADDR, sizeof(struct sockaddr_in6) }, { SOL_UDP, UDP_GRO, sizeof(int) } };
	static const uint8_t zeros[64];
	static const int segments[] = { 0, -1, 65536, INT32_MAX };
	struct udp_datagram datagram;
	struct told told;

	(void)state;
	/* Each kind, one byte too short. */
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		told_init(&told, "10.0.0.1", 5000);
		told_add(&told, kinds[i].level, kinds[i].type, zeros, kinds[i].size - 1);
		assert_int_equal(udp_datagram_parse(&told.header, 10, &datagram), -EBADMSG);
	}
	for (size_t i = 0; i < ARRAY_SIZE(segments); i++) {
		told_init(&told, "10.0.0.1", 5000);
		told_add(&told, SOL_UDP, UDP_GRO, &segments[i], sizeof(int));
		assert_int_equal(udp_datagram_parse(&told.header, 10, &datagram), -EBADMSG);
	}
	/* One that claims to be longer than all of them. */
	told_init(&told, "10.0.0.1", 5000);
	told_add(&told, SOL_IP, IP_PKTINFO, zeros, sizeof(struct in_pktinfo));
	((struct cmsghdr *)told.control)->cmsg_len = UDP_CONTROL_MAX;
	assert_int_equal(udp_datagram_parse(&told.header, 10, &datagram), -EBADMSG);
	told_init(&told, "10.0.0.1", 0);
	assert_int_equal(udp_datagram_parse(&told.header, 10, &datagram), -EBADMSG);
	told_init(&told, "10.0.0.1", 1);
	assert_int_equal(udp_datagram_parse(&told.header, 65536, &datagram), -EBADMSG);
	told.header.msg_flags = MSG_TRUNC;
	assert_int_equal(udp_datagram_parse(&told.header, 10, &datagram), -EMSGSIZE);
	told.header.msg_flags = MSG_CTRUNC;
	assert_int_equal(udp_datagram_parse(&told.header, 10, &datagram), -EBADMSG);
	told.header.msg_flags = 0;
	told.header.msg_namelen = 8;
	assert_int_equal(udp_datagram_parse(&told.header, 10, &datagram), -EBADMSG);
	told_init(&told, "fd00::1", 1);
	told.header.msg_namelen = sizeof(struct sockaddr_in);
	assert_int_equal(udp_datagram_parse(&told.header, 10, &datagram), -EBADMSG);
	told_init(&told, "10.0.0.1", 1);
	told.name.ss_family = AF_UNIX;
	assert_int_equal(udp_datagram_parse(&told.header, 10, &datagram), -EBADMSG);
}

/* --- there and back --- */

struct pair {
	int from, to;
	struct addr addr;
	uint16_t port;
	struct udp_inbox inbox;
	struct udp_outbox outbox;
	struct udp_sent sent;
	uint16_t segment_max;
};

/* Two sockets on loopback; connected: the one that sends. */
static int pair_setup(void **state)
{
	struct pair *pair = test_calloc(1, sizeof(*pair));
	struct sockaddr_storage sa;
	socklen_t length = sizeof(sa);

	addr_parse("127.0.0.1", &pair->addr);
	length = addr_to_sockaddr(&pair->addr, 0, &sa);
	pair->from = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	pair->to = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	if (bind(pair->to, (struct sockaddr *)&sa, length) < 0 || udp_inbox_init(&pair->inbox) < 0)
		return -1;
	length = sizeof(sa);
	getsockname(pair->to, (struct sockaddr *)&sa, &length);
	addr_from_sockaddr(&sa, &pair->addr, &pair->port);
	udp_outbox_init(&pair->outbox);
	pair->segment_max = UINT16_MAX;
	*state = pair;
	return 0;
}

static int pair_teardown(void **state)
{
	struct pair *pair = *state;

	close(pair->from);
	close(pair->to);
	udp_inbox_destroy(&pair->inbox);
	test_free(pair);
	return 0;
}

static uint8_t pattern(unsigned number, size_t at)
{
	return (uint8_t)(number * 31 + at * 7 + at / 251);
}

static void add(struct pair *pair, unsigned number, uint32_t length)
{
	static uint8_t bytes[UDP_BATCH][2000];
	struct udp_receiver receiver = { .fd = pair->from,
		.addr = &pair->addr,
		.port = pair->port,
		.identity = pair,
		.segment_max = &pair->segment_max };
	struct udp_datagram datagram = { .bytes = bytes[number], .length = length };

	for (size_t i = 0; i < length; i++)
		bytes[number][i] = pattern(number, i);
	assert_true(udp_outbox_takes(&pair->outbox, &receiver));
	udp_outbox_add(&pair->outbox, &receiver, &datagram);
}

/* All that arrived, with those that the kernel has put together taken apart. */
static unsigned take(struct pair *pair, uint32_t lengths[UDP_BATCH])
{
	unsigned n = 0;

	while (udp_inbox_receive(&pair->inbox, pair->to, UDP_BATCH) > 0)
		;
	for (unsigned i = 0; i < pair->inbox.n; i++) {
		const struct udp_datagram *datagram = &pair->inbox.datagrams[i];
		uint32_t segment = datagram->segment ? datagram->segment : datagram->length, offset = 0;

		assert_int_equal(pair->inbox.faults[i], 0);
		do {
			uint32_t left = datagram->length - offset;

			assert_true(n < UDP_BATCH);
			lengths[n] = left < segment ? left : segment;
			for (size_t j = 0; j < lengths[n]; j++)
				assert_int_equal(datagram->bytes[offset + j], pattern(n, j));
			offset += lengths[n++];
		} while (offset < datagram->length);
	}
	udp_inbox_empty(&pair->inbox);
	return n;
}

/* Sizes in the order they are sent, 0-terminated only by their number. */
static const uint32_t sizes[] = { 1200, 1200, 1200, 700, 0, 0, 64, 64, 64, 65, 1, 1, 1, 1500, 1500, 2000, 0 };

static void there_and_back(struct pair *pair)
{
	uint32_t lengths[UDP_BATCH];

	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
		add(pair, i, sizes[i]);
	udp_outbox_send(&pair->outbox, &pair->sent);
	assert_int_equal(pair->sent.datagrams, ARRAY_SIZE(sizes));
	assert_int_equal(pair->sent.dropped, 0);
	assert_int_equal(take(pair, lengths), ARRAY_SIZE(sizes));
	assert_memory_equal(lengths, sizes, sizeof(sizes));
}

static void test_sizes(void **state)
{
	struct pair *pair = *state;

	there_and_back(pair);
	assert_int_equal(pair->outbox.fd, -1);
	assert_int_equal(pair->segment_max, UINT16_MAX); /* nothing went wrong */
}

/* The receiver gets them as the kernel got them. */
static void test_gathered(void **state)
{
	struct pair *pair = *state;
	uint32_t length;

	udp_socket_gather(pair->to);
	there_and_back(pair);
	for (unsigned i = 0; i < 10; i++)
		add(pair, i, 100);
	udp_outbox_send(&pair->outbox, &pair->sent);
	assert_int_equal(udp_inbox_receive(&pair->inbox, pair->to, UDP_BATCH), 1);
	length = pair->inbox.datagrams[0].length;
	assert_int_equal(length, 1000);
	assert_int_equal(pair->inbox.datagrams[0].segment, 100);
}

/* What came in as one goes out as one, and arrives as many. */
static void test_gathered_is_cut(void **state)
{
	struct pair *pair = *state;
	struct udp_receiver receiver = { .fd = pair->from,
		.addr = &pair->addr,
		.port = pair->port,
		.identity = pair,
		.segment_max = &pair->segment_max };
	uint8_t bytes[950];
	struct udp_datagram datagram = { .bytes = bytes, .length = sizeof(bytes), .segment = 100 };
	uint32_t lengths[UDP_BATCH];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = pattern((unsigned)(i / 100), i % 100);
	udp_outbox_add(&pair->outbox, &receiver, &datagram);
	assert_int_equal(pair->outbox.n, 1);
	udp_outbox_send(&pair->outbox, &pair->sent);
	assert_int_equal(take(pair, lengths), 10);
	assert_int_equal(lengths[9], 50);
	assert_int_equal(pair->sent.datagrams, 10);
	assert_int_equal(pair->sent.bytes, 950);
}

/* A kernel that will not cut: all goes one by one, now and later. */
static void test_without_cutting(void **state)
{
	struct pair *pair = *state;
	int on = 1;

	/* Sockets without checksums are what the kernel refuses it for. */
	assert_int_equal(setsockopt(pair->from, SOL_SOCKET, SO_NO_CHECK, &on, sizeof(on)), 0);
	there_and_back(pair);
	assert_true(pair->segment_max < 64);
	pair->sent = (struct udp_sent){ 0 };
	there_and_back(pair);
}

/* As many as there is room for; beyond what one message may hold they go in several. */
static void test_full(void **state)
{
	struct pair *pair = *state;
	struct udp_receiver other = { .fd = pair->to, .identity = &other, .segment_max = &pair->segment_max };
	uint32_t lengths[UDP_BATCH];

	for (unsigned i = 0; i < UDP_BATCH; i++)
		add(pair, i, 1400);
	assert_true(pair->outbox.n > 1 && pair->outbox.n < 4);
	other.fd = pair->from;
	assert_false(udp_outbox_takes(&pair->outbox, &other));
	udp_outbox_send(&pair->outbox, &pair->sent);
	assert_int_equal(take(pair, lengths), UDP_BATCH);
	assert_true(udp_outbox_takes(&pair->outbox, &other));
}

/* An error that the kernel tells late costs no datagram. */
static void test_refused(void **state)
{
	struct pair *pair = *state;
	struct sockaddr_storage sa;
	socklen_t length = addr_to_sockaddr(&pair->addr, pair->port, &sa);
	struct udp_receiver receiver = { .fd = pair->from, .identity = pair, .segment_max = &pair->segment_max };
	struct udp_datagram datagram = { .bytes = (const uint8_t *)"x", .length = 1 };
	struct pollfd told = { .fd = pair->from };

	assert_int_equal(connect(pair->from, (struct sockaddr *)&sa, length), 0);
	close(pair->to);
	assert_int_equal(send(pair->from, "x", 1, 0), 1);
	assert_int_equal(poll(&told, 1, 1000), 1); /* the ICMP error */
	pair->to = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(pair->to, (struct sockaddr *)&sa, length), 0);
	udp_outbox_add(&pair->outbox, &receiver, &datagram);
	udp_outbox_send(&pair->outbox, &pair->sent);
	assert_true(pair->sent.refused);
	assert_int_equal(pair->sent.datagrams, 1);
	assert_int_equal(udp_inbox_receive(&pair->inbox, pair->to, UDP_BATCH), 1);
}

/* --- sockets to answer from --- */

/* One for each address and port, shared, closed with the last user, and no more than there is room for. */
static void test_replies(void **state)
{
	const struct sockmark mark = { 0 };
	struct udp_replies replies;
	struct addr addr;
	uint32_t one, two, three;

	(void)state;
	addr_parse("192.0.2.1", &addr);
	assert_int_equal(udp_replies_init(&replies, 2), 0);
	if (udp_reply_use(&replies, &addr, 5353, &mark, &one) == -EPERM) {
		udp_replies_destroy(&replies);
		skip(); /* no CAP_NET_RAW here */
	}
	assert_int_equal(udp_reply_use(&replies, &addr, 5353, &mark, &two), 0);
	assert_int_equal(one, two);
	assert_int_equal(udp_reply_use(&replies, &addr, 5354, &mark, &two), 0);
	assert_int_not_equal(one, two);
	assert_int_equal(udp_reply_use(&replies, &addr, 5355, &mark, &three), -ENOSPC);
	udp_reply_leave(&replies, one);
	assert_int_equal(udp_reply_use(&replies, &addr, 5355, &mark, &three), -ENOSPC);
	udp_reply_leave(&replies, one);
	assert_int_equal(udp_reply_use(&replies, &addr, 5355, &mark, &three), 0);
	assert_int_equal(three, one);
	udp_reply_leave(&replies, two);
	udp_reply_leave(&replies, three);
	udp_replies_destroy(&replies);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_parse_faults),
		cmocka_unit_test_setup_teardown(test_sizes, pair_setup, pair_teardown),
		cmocka_unit_test_setup_teardown(test_gathered, pair_setup, pair_teardown),
		cmocka_unit_test_setup_teardown(test_gathered_is_cut, pair_setup, pair_teardown),
		cmocka_unit_test_setup_teardown(test_without_cutting, pair_setup, pair_teardown),
		cmocka_unit_test_setup_teardown(test_full, pair_setup, pair_teardown),
		cmocka_unit_test_setup_teardown(test_refused, pair_setup, pair_teardown),
		cmocka_unit_test(test_replies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
