/*
 * The XDP program's SYN cookies on single packets: who is answered, and how,
 * and whose connection the kernel is asked about first. Each test goes into a
 * network of its own. Skipped where programs cannot be loaded.
 */
#include "rules/kernel_xdp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "prefilter_fixture.h"
#include "rules_fixture.h"

/* --- SYN cookies --- */

/* A network of this process's own, in which every request is due a cookie, and the relay's listening sockets. The port
 * of both. */
static uint16_t listen_apart(int ret[2])
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct ifreq up = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	socklen_t length = sizeof(v4);
	FILE *file;

	if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0)
		skip();
	file = fopen("/proc/sys/net/ipv4/tcp_syncookies", "we");
	if (!file)
		skip();
	fputs("2", file);
	assert_int_equal(fclose(file), 0);
	ret[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ret[1] = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(ioctl(ret[0], SIOCSIFFLAGS, &up), 0);
	assert_int_equal(bind(ret[0], (struct sockaddr *)&v4, sizeof(v4)), 0);
	assert_int_equal(getsockname(ret[0], (struct sockaddr *)&v4, &length), 0);
	v6.sin6_port = v4.sin_port;
	assert_int_equal(bind(ret[1], (struct sockaddr *)&v6, sizeof(v6)), 0);
	assert_int_equal(listen(ret[0], 8), 0);
	assert_int_equal(listen(ret[1], 8), 0);
	return ntohs(v4.sin_port);
}

static void put_listener(struct snapshot *snapshot, int64_t id, const char *name, enum action action,
        const char *destinations, const char *sources, const char *ports)
{
	struct listener *listener = fixture_listener(name, id, "", sources, destinations, ports);

	listener->action = action;
	fixture_put(snapshot, listener);
}

/* A packet's TCP header gets this option of four bytes. */
static struct frame *with_option(struct frame *f, unsigned kind_and_length, unsigned value)
{
	add16(f, kind_and_length);
	add16(f, value);
	f->bytes[f->l4 + 12] = 0x60;
	set_length(f);
	return f;
}

static uint32_t sum_words(const uint8_t *bytes, size_t n)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < n; i += 2)
		sum += (uint32_t)(bytes[i] << 8 | bytes[i + 1]);
	return sum;
}

static uint32_t folded(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static uint32_t get32(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* The SYN is answered, and rightly: whose addresses and ports, sums, flags, the option of four bytes or none. The
 * sequence number. */
static uint32_t expect_answer(struct fixture *f, const struct frame *syn, bool option)
{
	uint8_t out[1600];
	bool v6 = syn->bytes[syn->ip] >> 4 == 6;
	size_t n = sizeof(out), tcp = syn->ip + (v6 ? 40 : 20), length = option ? 24 : 20;
	const uint8_t *ip = out + syn->ip, *was = syn->bytes + syn->ip;
	size_t address = v6 ? 16 : 4, source = v6 ? 8 : 12;

	assert_int_equal(kernel_xdp_try(f->xdp, syn->bytes, syn->n, 1, NULL, out, &n), 2);
	assert_true(n >= tcp + length && n <= syn->n);
	assert_memory_equal(out, syn->bytes + 6, 6);
	assert_memory_equal(out + 6, syn->bytes, 6);
	assert_memory_equal(out + 12, syn->bytes + 12, syn->ip - 12);
	assert_memory_equal(ip + source, was + source + address, address);
	assert_memory_equal(ip + source + address, was + source, address);
	assert_int_equal(v6 ? ip[4] << 8 | ip[5] : (ip[2] << 8 | ip[3]) - 20, length);
	if (!v6)
		assert_int_equal(folded(sum_words(ip, 20)), 0xffff);
	assert_int_equal(
	        folded(sum_words(ip + source, 2 * address) + (uint32_t)length + TCP + sum_words(out + tcp, length)),
	        0xffff);
	assert_memory_equal(out + tcp, syn->bytes + syn->l4 + 2, 2);
	assert_memory_equal(out + tcp + 2, syn->bytes + syn->l4, 2);
	assert_int_equal(get32(out + tcp + 8), get32(syn->bytes + syn->l4 + 4) + 1);
	assert_int_equal(out[tcp + 13], 0x12);
	if (option)
		assert_int_equal(out[tcp + 20] << 8 | out[tcp + 21], 0x0204);
	return get32(out + tcp + 4);
}

static void set_ack(struct frame *f, uint32_t ack)
{
	for (unsigned i = 0; i < 4; i++)
		f->bytes[f->l4 + 8 + i] = (uint8_t)(ack >> (24 - 8 * i));
	f->bytes[f->l4 + 7]++; /* one behind the SYN */
	f->bytes[f->l4 + 13] = 0x10;
}

static void test_cookies(void **state)
{
	struct fixture *f = *state;
	struct snapshot *snapshot = snapshot_new();
	int listeners[2];

	f->config->params.listener_port = listen_apart(listeners);
	put_listener(snapshot, 1, "one", ACTION_RELAY, "10.0.0.5 fd00::5", "", "80-8100");
	put_listener(snapshot, 2, "exact", ACTION_REJECT, "10.0.0.5 fd00::5", "", "1024");
	put_listener(snapshot, 5, "edge", ACTION_REJECT, "10.0.0.5 fd00::5", "", "8100");
	put_listener(snapshot, 3, "some", ACTION_DROP, "10.0.0.5", "10.2.0.0/16", "");
	put_listener(snapshot, 4, "wide", ACTION_RELAY, "10.0.0.0/24", "", "");
	assert_int_equal(relayed_of(snapshot, "in0", &f->config->params, &f->config->relayed), 0);
	assert_int_equal(f->config->relayed.listeners, 2);
	load(f);
	for (unsigned v6 = 0; v6 < 2; v6++)
		for (unsigned tags = 0; tags < 3; tags++) {
			const char *src = v6 ? "fd01::1" : "10.1.0.1", *dst = v6 ? "fd00::5" : "10.0.0.5";
			uint32_t cookie;

			for (unsigned port = 79; port < 8102; port += port == 81 ? 8018 : 1)
				if (port == 79 || port >= 8100)
					expect(f, make(src, dst, TCP, 7, port, tags), passed);
				else
					expect(f, make(src, dst, TCP, 7, port, tags), syn_cookie_sent);
			expect(f, make(src, dst, TCP, 7, 1024, tags), passed);
			expect(f, make(src, dst, UDP, 7, 80, tags), passed);
			(void)expect_answer(f, make(src, dst, TCP, 7, 80, tags), false);
			cookie = expect_answer(f, with_option(make(src, dst, TCP, 7, 80, tags), 0x0204, 1400), true);
			struct frame *ack = make(src, dst, TCP, 7, 80, tags);

			set_ack(ack, cookie + 1);
			expect(f, ack, syn_cookie_ok);
			set_ack(ack, cookie + 77);
			expect(f, ack, syn_cookie_bad);
		}
	/* A source that another listener takes; a destination for which the kernel has no way; one that nobody takes.
	 */
	expect(f, make("10.2.0.1", "10.0.0.5", TCP, 7, 80, 0), passed);
	expect(f, make("10.1.0.1", "10.0.0.6", TCP, 7, 80, 0), passed);
	expect(f, make("10.1.0.1", "10.0.1.5", TCP, 7, 80, 0), passed);
	/* Nobody to answer to. */
	expect(f, make("224.0.0.1", "10.0.0.5", TCP, 7, 80, 0), passed);
	/* Frames of a VLAN, while a listener looks at an interface. */
	f->config->params.untagged_only = 1;
	load(f);
	expect(f, make("10.1.0.1", "10.0.0.5", TCP, 7, 80, 0), syn_cookie_sent);
	expect(f, make("10.1.0.1", "10.0.0.5", TCP, 7, 80, 1), passed);
	close(listeners[0]);
	close(listeners[1]);
	/* What they have said holds for a tick. */
	usleep(20000);
	expect(f, make("10.1.0.1", "10.0.0.5", TCP, 7, 80, 0), passed);
	snapshot_unref(snapshot);
}

/* --- which flows have been heard of --- */

static void sockaddr_of(const char *text, uint16_t port, struct sockaddr_storage *ret)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;

	memset(ret, 0, sizeof(*ret));
	ret->ss_family = is_v6(text) ? AF_INET6 : AF_INET;
	if (is_v6(text)) {
		v6->sin6_port = htons(port);
		assert_int_equal(inet_pton(AF_INET6, text, &v6->sin6_addr), 1);
	} else {
		v4->sin_port = htons(port);
		assert_int_equal(inet_pton(AF_INET, text, &v4->sin_addr), 1);
	}
}

static int bound(const char *address, uint16_t port)
{
	struct sockaddr_storage at;
	int fd, one = 1;

	sockaddr_of(address, port, &at);
	fd = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	return fd;
}

/* A connection that the server's side has ended first: its socket is in TIME_WAIT. */
static void leave_waiting(const char *client, uint16_t client_port, const char *server, uint16_t port)
{
	int listening = bound(server, port), asking = bound(client, client_port), accepted;
	struct sockaddr_storage to;
	char byte;

	sockaddr_of(server, port, &to);
	assert_int_equal(listen(listening, 1), 0);
	assert_int_equal(connect(asking, (struct sockaddr *)&to, sizeof(to)), 0);
	accepted = accept(listening, NULL, NULL);
	assert_true(accepted >= 0);
	close(listening);
	close(accepted);
	assert_int_equal(read(asking, &byte, 1), 0);
	close(asking);
}

static const char *const seen_src[] = { "10.1.0.1", "fd01::1" }, *const seen_dst[] = { "10.0.0.5", "fd00::5" };

static struct frame *make_ack(const char *src, const char *dst, unsigned sport, unsigned dport)
{
	struct frame *ack = make(src, dst, TCP, sport, dport, 0);

	set_ack(ack, 1);
	return ack;
}

/* Until it can be used: the kernel adds the route to an address of IPv6 later, from a worker of its own. */
static void add_address(const char *address)
{
	char command[256];

	snprintf(command, sizeof(command),
	        "ip addr add %s dev lo%s && for i in $(seq 500); do "
	        "ip %s route show table local | grep -q %s && exit 0; sleep 0.01; done; exit 1",
	        address, is_v6(address) ? " nodad" : "", is_v6(address) ? "-6" : "-4", address);
	assert_int_equal(system(command), 0);
}

/* A network of its own with the addresses, whose connections at port 80 are the relay's; of the sources' ports 5000 and
 * 5001 the server's sockets are in TIME_WAIT. */
static void prepare_seen(struct fixture *f, struct snapshot *snapshot, int listeners[2])
{
	f->config->params.listener_port = listen_apart(listeners);
	for (unsigned i = 0; i < 2; i++) {
		add_address(seen_src[i]);
		add_address(seen_dst[i]);
		leave_waiting(seen_src[i], 5000, seen_dst[i], 80);
		leave_waiting(seen_src[i], 5001, seen_dst[i], 80);
	}
	put_listener(snapshot, 1, "one", ACTION_RELAY, "10.0.0.5 fd00::5", "", "80");
	assert_int_equal(relayed_of(snapshot, "gwnone", &f->config->params, &f->config->relayed), 0);
}

static void expect_requests(struct fixture *f, enum prefilter_reason heard_of, enum prefilter_reason not, int line)
{
	for (unsigned i = 0; i < 2; i++) {
		const struct frame *syn = make(seen_src[i], seen_dst[i], TCP, 5000, 80, 0);

		expect_bytes(f, syn->bytes, syn->n, heard_of, line);
		syn = make(seen_src[i], seen_dst[i], TCP, 5001, 80, 0);
		expect_bytes(f, syn->bytes, syn->n, not, line);
		expect(f, make(seen_src[i], seen_dst[i], TCP, 5002, 80, 0), syn_cookie_sent);
	}
}
#define expect_requests(f, heard_of, not ) expect_requests(f, PREFILTER_##heard_of, PREFILTER_##not, __LINE__)

/* A request whose ports have a socket still goes to the stack: always while the program is new, later if the peer has
 * been heard of lately. */
static void test_seen(void **state)
{
	struct fixture *f = *state;
	struct snapshot *snapshot = snapshot_new();
	int listeners[2], own;

	prepare_seen(f, snapshot, listeners);
	add_prefixes(&f->config->allow, "10.1.0.9");
	load(f);
	expect_requests(f, passed, passed);
	/* A socket that listens at the same port is none of the flow. */
	own = bound("10.0.0.5", 80);
	assert_int_equal(listen(own, 1), 0);
	expect_requests(f, passed, passed);
	close(own);
	assert_int_equal(kernel_xdp_age(f->xdp, 1), 0); /* requests are not remembered */
	expect_requests(f, passed, passed);
	assert_int_equal(kernel_xdp_age(f->xdp, PREFILTER_SEEN_PERIODS), 0);
	/* What being wrong looks like. */
	expect_requests(f, syn_cookie_sent, syn_cookie_sent);
	for (unsigned i = 0; i < 2; i++)
		expect(f, make_ack(seen_src[i], seen_dst[i], 5000, 80), passed);
	expect_requests(f, passed, syn_cookie_sent);
	assert_int_equal(kernel_xdp_age(f->xdp, PREFILTER_SEEN_PERIODS - 1), 2);
	expect_requests(f, passed, syn_cookie_sent);
	assert_int_equal(kernel_xdp_age(f->xdp, 2), 2);
	expect_requests(f, syn_cookie_sent, syn_cookie_sent);
	/* Who is in "allow" now need not be later. */
	expect(f, make_ack("10.1.0.9", "10.0.0.5", 5000, 80), allowed);
	assert_int_equal(kernel_xdp_age(f->xdp, 0), 3);
	/* A program that has not been on the interface has heard nothing. */
	load(f);
	assert_int_equal(kernel_xdp_age(f->xdp, 0), 0);
	expect_requests(f, passed, passed);
	close(listeners[0]);
	close(listeners[1]);
	snapshot_unref(snapshot);
}

/* What a request that goes to the stack's queue has begun goes on there. Others leave nothing behind. */
static void test_seen_half_open(void **state)
{
	struct fixture *f = *state;
	struct snapshot *snapshot = snapshot_new();
	int listeners[2];

	prepare_seen(f, snapshot, listeners);
	assert_int_equal(system("echo 1 > /proc/sys/net/ipv4/tcp_syncookies"), 0);
	load(f);
	for (unsigned i = 0; i < 2; i++) {
		expect(f, make(seen_src[i], seen_dst[i], TCP, 5002, 80, 0), passed);
		expect(f, make(seen_src[i], seen_dst[i], TCP, 5002, 81, 0), passed);
		expect(f, make(seen_src[i], seen_dst[i], UDP, 5002, 80, 0), passed);
	}
	/* It has been there for long although there never was a flood. */
	assert_int_equal(kernel_xdp_age(f->xdp, 1 + PREFILTER_SEEN_PERIODS), 2);
	assert_int_equal(system("echo 2 > /proc/sys/net/ipv4/tcp_syncookies"), 0);
	expect_requests(f, syn_cookie_sent, syn_cookie_sent);
	/* Nor does one for which nobody listens. */
	close(listeners[0]);
	close(listeners[1]);
	usleep(20000);
	for (unsigned i = 0; i < 2; i++)
		expect(f, make(seen_src[i], seen_dst[i], TCP, 5003, 80, 0), passed);
	assert_int_equal(kernel_xdp_age(f->xdp, 0), 2);
	snapshot_unref(snapshot);
}

/* Any two flows have slots of their own, but for chance. */
static void test_seen_slots(void **state)
{
	struct fixture *f = *state;
	enum { FLOWS = 2000 };

	f->config->params.listener_port = 1;
	load(f);
	for (unsigned again = 0; again < 2; again++) {
		int n;

		for (unsigned i = 0; i < FLOWS; i++) {
			/* Four parts of both addresses, and both ports: each is another one in its turn. */
			unsigned part[10] = { 0 };
			char source[48], destination[48];

			part[i % 10] = 1 + i / 20;
			if (i / 10 % 2) {
				snprintf(source, sizeof(source), "fd01:%x:0:%x:0:%x:0:%x", part[0], part[1], part[2],
				        part[3]);
				snprintf(destination, sizeof(destination), "fd02:%x:0:%x:0:%x:0:%x", part[4], part[5],
				        part[6], part[7]);
			} else {
				snprintf(source, sizeof(source), "%u.%u.%u.%u", 1 + part[0], part[1], part[2], part[3]);
				snprintf(destination, sizeof(destination), "%u.%u.%u.%u", 110 - part[4], part[5],
				        part[6], part[7]);
			}
			expect(f, make_ack(source, destination, 1000 + part[8], 2000 + part[9]), passed);
		}
		n = kernel_xdp_age(f->xdp, 0);
		assert_in_range(n, FLOWS - 20, FLOWS);
	}
}

/* A program that takes another one's place on the interface has heard what that one has. */
static void test_seen_is_handed_on(void **state)
{
	struct fixture *f = *state;
	struct snapshot *snapshot = snapshot_new();
	char why[XDP_WHY_MAX] = "";
	int listeners[2];

	prepare_seen(f, snapshot, listeners);
	kernel_xdp_free(f->xdp);
	assert_int_equal(kernel_xdp_new(NULL, "lo", &f->xdp), 0);
	load(f);
	assert_int_equal(kernel_xdp_switch(f->xdp, PREFILTER_MODE_GENERIC, why, sizeof(why)), 0);
	kernel_xdp_settle(f->xdp);
	expect_requests(f, passed, passed);
	assert_true(kernel_xdp_age(f->xdp, 1 + PREFILTER_SEEN_PERIODS) >= 0);
	for (unsigned i = 0; i < 2; i++)
		expect(f, make_ack(seen_src[i], seen_dst[i], 5000, 80), passed);
	expect_requests(f, passed, syn_cookie_sent);
	load(f);
	assert_int_equal(kernel_xdp_switch(f->xdp, PREFILTER_MODE_GENERIC, why, sizeof(why)), 0);
	kernel_xdp_settle(f->xdp);
	expect_requests(f, passed, syn_cookie_sent);
	/* Meanwhile it was off. */
	kernel_xdp_detach(f->xdp);
	load(f);
	assert_int_equal(kernel_xdp_switch(f->xdp, PREFILTER_MODE_GENERIC, why, sizeof(why)), 0);
	kernel_xdp_settle(f->xdp);
	expect_requests(f, passed, passed);
	kernel_xdp_detach(f->xdp);
	close(listeners[0]);
	close(listeners[1]);
	snapshot_unref(snapshot);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_cookies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_seen, setup, teardown),
		cmocka_unit_test_setup_teardown(test_seen_half_open, setup, teardown),
		cmocka_unit_test_setup_teardown(test_seen_slots, setup, teardown),
		cmocka_unit_test_setup_teardown(test_seen_is_handed_on, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
