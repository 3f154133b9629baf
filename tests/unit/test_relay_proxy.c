/*
 * PROXY headers of connections: those that are refused first, then what is
 * taken from a socket and what is left in it, then what is sent through one
 * that takes it in parts.
 */
#include "gatewayd/relay/proxy.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/base/cleanup.h"

static struct peek peek;

/* One end of a flow, and whose it is. */
struct leg {
	int fd;
	struct flow_origin origin;
};

/* Its socket is one of two; the other is *ret_peer. */
static struct leg leg_make(int *ret_peer)
{
	struct leg leg = { 0 };
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	leg.fd = fds[0];
	*ret_peer = fds[1];
	assert_int_equal(addr_parse("192.0.2.1", &leg.origin.client), 0);
	assert_int_equal(addr_parse("198.51.100.2", &leg.origin.original), 0);
	leg.origin.client_port = 4711;
	leg.origin.original_port = 443;
	return leg;
}

static void said(const char *bytes, size_t length, bool final, int expected, enum stats_counter counter)
{
	enum stats_counter found = STATS_COUNTERS;
	int peer;
	struct leg leg = leg_make(&peer);
	struct addr before = leg.origin.client;

	assert_int_equal(send(peer, bytes, length, 0), length);
	assert_int_equal(proxy_take(&peek, leg.fd, final, &leg.origin, &found), expected);
	if (expected < 0)
		assert_int_equal(found, counter);
	assert_true(addr_equal(&leg.origin.client, &before));
	/* Nothing of it was taken. */
	assert_int_equal(recv(leg.fd, peek.bytes, sizeof(peek.bytes), 0), length);
	close(leg.fd);
	close(peer);
}

#define SAID(text, final, expected, counter) said(text, sizeof(text) - 1, final, expected, counter)

static void test_refused(void **state)
{
	(void)state;
	SAID("SSH-2.0-x\r\n", false, -EBADMSG, STATS_proxy_missing);
	SAID("PROXY TCP4 1.2.3.4\r\n", false, -EBADMSG, STATS_proxy_malformed);
	SAID("PROXY TCP4 0.0.0.0 1.2.3.4 1 2\r\n", false, -EBADMSG, STATS_proxy_malformed);
	SAID("PROXY TCP4 224.0.0.1 1.2.3.4 1 2\r\n", false, -EBADMSG, STATS_proxy_malformed);
	SAID("PROXY TCP6 :: ::1 1 2\r\n", false, -EBADMSG, STATS_proxy_malformed);
	SAID("PROXY TCP6 ff02::1 ::1 1 2\r\n", false, -EBADMSG, STATS_proxy_malformed);
	SAID("PROXY TCP6 ::ffff:0.0.0.0 ::1 1 2\r\n", false, -EBADMSG, STATS_proxy_malformed);
	SAID("PROXY TCP4 1.2.", false, 0, STATS_COUNTERS);
	SAID("PROXY TCP4 1.2.", true, -EBADMSG, STATS_proxy_timeout);
}

static void test_peer_is_gone(void **state)
{
	enum stats_counter counter;
	int peer;
	struct leg leg = leg_make(&peer);

	(void)state;
	assert_int_equal(proxy_take(&peek, leg.fd, false, &leg.origin, &counter), 0);
	close(peer);
	assert_int_equal(proxy_take(&peek, leg.fd, false, &leg.origin, &counter), -EBADMSG);
	assert_int_equal(counter, STATS_proxy_timeout);
	close(leg.fd);
	assert_int_equal(proxy_take(&peek, leg.fd, false, &leg.origin, &counter), -EBADF);
}

static void taken(const char *text, const char *client, uint16_t port)
{
	enum stats_counter counter;
	int peer;
	struct leg leg = leg_make(&peer);
	char found[ADDR_TEXT_MAX], rest[10] = { 0 };

	assert_int_equal(send(peer, text, strlen(text), 0), strlen(text));
	assert_int_equal(send(peer, "rest", 4, 0), 4);
	assert_int_equal(proxy_take(&peek, leg.fd, false, &leg.origin, &counter), strlen(text));
	assert_int_equal(counter, STATS_proxy_accepted);
	assert_string_equal(addr_format(&leg.origin.client, found), client);
	assert_int_equal(leg.origin.client_port, port);
	assert_int_equal(recv(leg.fd, rest, sizeof(rest), 0), 4);
	assert_string_equal(rest, "rest");
	close(leg.fd);
	close(peer);
}

static void test_taken(void **state)
{
	(void)state;
	taken("PROXY TCP4 203.0.113.9 1.2.3.4 1 2\r\n", "203.0.113.9", 1);
	taken("PROXY TCP6 2001:db8::9 ::1 65535 2\r\n", "2001:db8::9", 65535);
	taken("PROXY TCP6 ::ffff:203.0.113.9 ::1 7 2\r\n", "203.0.113.9", 7);
	taken("PROXY UNKNOWN\r\n", "192.0.2.1", 4711);
}

/* As a short write, or a full socket, leaves it: each call goes on where the last one stopped. */
static void test_sent_in_parts(void **state)
{
	static const char line[] = "PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n";
	int peer, small = 1;
	struct leg leg = leg_make(&peer);
	int fd = leg.fd;
	char found[200] = { 0 }, junk[4096] = { 0 };
	uint8_t sent = 0;

	(void)state;
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	while (send(fd, junk, sizeof(junk), MSG_DONTWAIT) > 0)
		;
	assert_int_equal(proxy_send(fd, &leg.origin, 1, &sent), 0);
	assert_int_equal(sent, 0);
	while (recv(peer, junk, sizeof(junk), 0) > 0)
		;
	sent = 20;
	assert_int_equal(proxy_send(fd, &leg.origin, 1, &sent), 1);
	assert_int_equal(sent, sizeof(line) - 1);
	assert_int_equal(recv(peer, found, sizeof(found), 0), sizeof(line) - 1 - 20);
	assert_string_equal(found, line + 20);
	sent = 0;
	assert_int_equal(proxy_send(fd, &leg.origin, 1, &sent), 1);
	assert_int_equal(recv(peer, found, sizeof(found), 0), sizeof(line) - 1);
	assert_string_equal(found, line);
	close(peer);
	sent = 0;
	assert_int_equal(proxy_send(fd, &leg.origin, 1, &sent), -EPIPE);
	close(fd);
}

static void test_written(void **state)
{
	int peer;
	struct leg leg = leg_make(&peer);
	uint8_t bytes[PROXY_HEADER_WRITE_MAX];

	(void)state;
	assert_int_equal(proxy_write(&leg.origin, 2, IPPROTO_UDP, bytes), 28);
	assert_int_equal(bytes[13], 0x12);
	assert_int_equal(proxy_write(&leg.origin, 1, IPPROTO_UDP, bytes), 0);
	/* Of two families: both in the longer form. */
	assert_int_equal(addr_parse("2001:db8::1", &leg.origin.client), 0);
	assert_int_equal(proxy_write(&leg.origin, 2, IPPROTO_TCP, bytes), 52);
	assert_int_equal(bytes[13], 0x21);
	assert_memory_equal(bytes + 32, ((uint8_t[]){ 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 2 }), 16);
	close(leg.fd);
	close(peer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_peer_is_gone),
		cmocka_unit_test(test_taken),
		cmocka_unit_test(test_sent_in_parts),
		cmocka_unit_test(test_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
