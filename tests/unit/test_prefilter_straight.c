/*
 * The XDP program and TCP flows that the kernel translates: what is of one
 * passes though it has no socket here, whichever of the rules that look for
 * sockets is asked for. Needs a kernel with BPF, and a bpf file system of its
 * own; skipped where there are none.
 */
#include "rules/kernel_xdp.h"

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
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/base/bpf_map.h"
#include "gatewayd/base/bpf_stitch.h"
#include "rules/kernel_shortcut.h"

enum { SYN = 0x02, ACK = 0x10, FIN = 0x01 };

static const char *const clients[] = { "10.1.0.1", "fd01::1" }, *const servers[] = { "10.0.0.5", "fd00::5" };

/* --- the surroundings --- */

struct fixture {
	char directory[32]; /* a bpf file system; nothing of ours is there yet */
	struct kernel_shortcut *shortcut;
	struct kernel_xdp *xdp;
	struct xdp_config *config;
	int listeners[2];
};

/* The relay's sockets, in a network in which every request is due a cookie. The port of both. */
static uint16_t listen_apart(int ret[2])
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct ifreq up = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	socklen_t length = sizeof(v4);
	FILE *file = fopen("/proc/sys/net/ipv4/tcp_syncookies", "we");

	assert_non_null(file);
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

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->config = calloc(1, sizeof(*f->config));
	assert_non_null(f->config);
	f->listeners[0] = f->listeners[1] = -1;
	snprintf(f->directory, sizeof(f->directory), "/tmp/gwbpf-XXXXXX");
	assert_non_null(mkdtemp(f->directory));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	kernel_xdp_free(f->xdp);
	kernel_shortcut_free(f->shortcut);
	for (unsigned i = 0; i < 2; i++)
		if (f->listeners[i] >= 0)
			close(f->listeners[i]);
	(void)umount2(f->directory, MNT_DETACH);
	rmdir(f->directory);
	xdp_config_free(f->config);
	free(f);
	return 0;
}

/* A network and a bpf file system of this test's own. */
static void go_apart(struct fixture *f)
{
	if (geteuid() != 0 || unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 ||
	        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	        mount("bpf", f->directory, "bpf", 0, NULL) < 0) {
		print_message("SKIP: no network or no bpf file system of its own\n");
		skip();
	}
	assert_int_equal(kernel_xdp_new(f->directory, "gwnone", &f->xdp), 0);
}

static void open_shortcut(struct fixture *f)
{
	char why[256] = "";

	if (kernel_shortcut_open(f->directory, &f->shortcut, why, sizeof(why)) < 0) {
		print_message("SKIP: %s\n", why);
		skip();
	}
}

static void load(struct fixture *f)
{
	char why[XDP_WHY_MAX] = "";

	if (kernel_xdp_load(f->xdp, f->config, why, sizeof(why)) < 0)
		fail_msg("%s", why);
}

/* --- packets and ways --- */

struct frame {
	uint8_t bytes[14 + 40 + 20];
	size_t n;
};

static void add(struct frame *f, const void *bytes, size_t n)
{
	memcpy(f->bytes + f->n, bytes, n);
	f->n += n;
}

static void add_address(struct frame *f, const char *text)
{
	struct addr addr;

	assert_int_equal(addr_parse(text, &addr), 0);
	add(f, addr.bytes, addr_bits(addr.family) / 8);
}

/* A packet without a payload. Of UDP what stands behind the ports means nothing. */
static struct frame packet(
        const char *src, const char *dst, uint8_t protocol, uint16_t sport, uint16_t dport, int flags)
{
	bool v6 = strchr(src, ':') != NULL;
	const uint8_t ethernet[14] = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, v6 ? 0x86 : 0x08, v6 ? 0xdd : 0 };
	const uint8_t ip4[12] = { 0x45, 0, 0, 40, 0, 1, 0, 0, 64, protocol, 0, 0 };
	const uint8_t ip6[8] = { 0x60, 0, 0, 0, 0, 20, protocol, 64 };
	const uint8_t transport[20] = { (uint8_t)(sport >> 8), (uint8_t)sport, (uint8_t)(dport >> 8), (uint8_t)dport, 0,
		protocol == IPPROTO_UDP ? 20 : 0, 0, 1, 0, 0, 0, 9, 0x50, (uint8_t)flags, 1, 0, 0, 0, 0, 0 };
	struct frame f = { .n = 0 };

	add(&f, ethernet, sizeof(ethernet));
	if (v6)
		add(&f, ip6, sizeof(ip6));
	else
		add(&f, ip4, sizeof(ip4));
	add_address(&f, src);
	add_address(&f, dst);
	add(&f, transport, sizeof(transport));
	return f;
}

static struct bpf_shortcut_key key_of(const char *src, const char *dst, uint16_t sport, uint16_t dport)
{
	struct bpf_shortcut_key key = { .source_port = htons(sport), .destination_port = htons(dport) };
	struct addr addr;

	assert_int_equal(addr_parse(src, &addr), 0);
	key.family = addr_bits(addr.family) == 32 ? 4 : 6;
	memcpy(key.source, addr.bytes, addr_bits(addr.family) / 8);
	assert_int_equal(addr_parse(dst, &addr), 0);
	memcpy(key.destination, addr.bytes, addr_bits(addr.family) / 8);
	return key;
}

/* The packet is counted under this reason. */
static void expect_frame(struct fixture *f, const struct frame *frame, enum prefilter_reason reason, int line)
{
	struct prefilter_count before[PREFILTER_REASONS], after[PREFILTER_REASONS];

	kernel_xdp_counts(f->xdp, before);
	(void)kernel_xdp_try(f->xdp, frame->bytes, frame->n, 1, NULL, NULL, NULL);
	kernel_xdp_counts(f->xdp, after);
	for (unsigned i = 0; i < PREFILTER_REASONS; i++)
		if (after[i].packets - before[i].packets != (i == reason))
			fail_msg("line %d: wanted reason %u, counted %u: %u", line, reason, i,
			        (unsigned)(after[i].packets - before[i].packets));
}
#define expect(f, what, reason)                                                                                        \
	do {                                                                                                           \
		struct frame frame_ = (what);                                                                          \
		expect_frame(f, &frame_, PREFILTER_##reason, __LINE__);                                                \
	} while (0)

/* --- tests --- */

static void test_ports(void **state)
{
	struct fixture *f = *state;
	const struct bpf_stitch_way way = { .flow = 7 };

	go_apart(f);
	f->config->params.ports = 1;
	load(f); /* without a short cut */
	expect(f, packet(servers[0], clients[0], IPPROTO_TCP, 80, 40000, ACK), port);
	open_shortcut(f);
	load(f);
	for (unsigned i = 0; i < 2; i++) {
		const char *src = servers[i], *dst = clients[i];
		struct bpf_shortcut_key key = key_of(src, dst, 80, 40000);

		expect(f, packet(src, dst, IPPROTO_TCP, 80, 40000, ACK), port);
		assert_int_equal(bpf_map_put(kernel_shortcut_fd(f->shortcut, PROTO_SHORTCUT_WAYS), &key, &way), 0);
		expect(f, packet(src, dst, IPPROTO_TCP, 80, 40000, ACK), passed);
		expect(f, packet(src, dst, IPPROTO_TCP, 80, 40000, SYN | ACK), passed);
		/* Another port, the other way, another protocol. */
		expect(f, packet(src, dst, IPPROTO_TCP, 81, 40000, ACK), port);
		expect(f, packet(src, dst, IPPROTO_TCP, 80, 40001, ACK), port);
		expect(f, packet(dst, src, IPPROTO_TCP, 40000, 80, ACK), port);
		expect(f, packet(src, dst, IPPROTO_UDP, 80, 40000, 0), port);
		assert_int_equal(bpf_map_delete(kernel_shortcut_fd(f->shortcut, PROTO_SHORTCUT_WAYS), &key), 0);
		expect(f, packet(src, dst, IPPROTO_TCP, 80, 40000, ACK), port);
	}
}

static void test_cookies(void **state)
{
	struct fixture *f = *state;
	const struct bpf_stitch_way way = { .flow = 7 };
	struct listener *listener = (struct listener *)row_new(RESOURCE_LISTENER);
	struct snapshot *snapshot = snapshot_new();

	go_apart(f);
	open_shortcut(f);
	listener->row.id = 1;
	snprintf(listener->name, sizeof(listener->name), "one");
	for (unsigned i = 0; i < 2; i++)
		strings_append(&listener->destinations, servers[i]);
	assert_int_equal(snapshot_put(snapshot, &listener->row), 0);
	f->config->params.listener_port = listen_apart(f->listeners);
	assert_int_equal(relayed_of(snapshot, "in0", &f->config->params, &f->config->relayed), 0);
	load(f);
	for (unsigned i = 0; i < 2; i++) {
		const char *src = clients[i], *dst = servers[i];
		struct bpf_shortcut_key key = key_of(src, dst, 40000, 80);

		expect(f, packet(src, dst, IPPROTO_TCP, 40000, 80, SYN), syn_cookie_sent);
		expect(f, packet(src, dst, IPPROTO_TCP, 40000, 80, ACK), syn_cookie_bad);
		assert_int_equal(bpf_map_put(kernel_shortcut_fd(f->shortcut, PROTO_SHORTCUT_WAYS), &key, &way), 0);
		expect(f, packet(src, dst, IPPROTO_TCP, 40000, 80, SYN), passed);
		expect(f, packet(src, dst, IPPROTO_TCP, 40000, 80, ACK), passed);
		expect(f, packet(src, dst, IPPROTO_TCP, 40000, 80, ACK | FIN), passed);
		/* Others get theirs all the same. */
		expect(f, packet(src, dst, IPPROTO_TCP, 40001, 80, SYN), syn_cookie_sent);
		expect(f, packet(src, dst, IPPROTO_TCP, 40001, 80, ACK), syn_cookie_bad);
		assert_int_equal(bpf_map_delete(kernel_shortcut_fd(f->shortcut, PROTO_SHORTCUT_WAYS), &key), 0);
		expect(f, packet(src, dst, IPPROTO_TCP, 40000, 80, SYN), syn_cookie_sent);
	}
	row_unref(&listener->row);
	snapshot_unref(snapshot);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ports, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cookies, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
