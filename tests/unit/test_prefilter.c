/*
 * The XDP program on single packets (BPF_PROG_TEST_RUN): each shape of packet
 * meets the reason it must, and is counted under that one only. Needs a kernel
 * with BPF; skipped where programs cannot be loaded.
 */
#include "rules/kernel_xdp.h"

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

#include "schema/prefixes.h"

/* --- frames --- */

enum { TCP = 6, UDP = 17, ICMP = 1, ICMPV6 = 58, IGMP = 2, GRE = 47 };

struct frame {
	uint8_t bytes[1600];
	size_t n, ip, l4; /* where the parts begin */
};

static void add(struct frame *f, const void *bytes, size_t n)
{
	memcpy(f->bytes + f->n, bytes, n);
	f->n += n;
}

static void add16(struct frame *f, unsigned value)
{
	const uint8_t bytes[2] = { (uint8_t)(value >> 8), (uint8_t)value };

	add(f, bytes, 2);
}

static void ethernet(struct frame *f, unsigned tags, unsigned protocol)
{
	static const uint8_t addresses[12] = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2 };

	f->n = 0;
	add(f, addresses, sizeof(addresses));
	if (tags > 1) {
		add16(f, 0x88a8);
		add16(f, 7);
	}
	if (tags > 0) {
		add16(f, 0x8100);
		add16(f, 42);
	}
	add16(f, protocol);
	f->ip = f->n;
}

static void address(struct frame *f, const char *text)
{
	struct addr addr;

	assert_int_equal(addr_parse(text, &addr), 0);
	add(f, addr.bytes, addr_bits(addr.family) / 8);
}

static bool is_v6(const char *text)
{
	return strchr(text, ':') != NULL;
}

static void transport(struct frame *f, uint8_t protocol, unsigned sport, unsigned dport)
{
	static const uint8_t zeros[32];

	f->l4 = f->n;
	if (protocol == TCP) {
		static const uint8_t rest[16] = { 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 1, 0, 0, 0, 0, 0 }; /* a SYN */

		add16(f, sport);
		add16(f, dport);
		add(f, rest, sizeof(rest));
	} else if (protocol == UDP) {
		add16(f, sport);
		add16(f, dport);
		add16(f, 16);
		add16(f, 0);
		add(f, zeros, 8);
	} else {
		uint8_t type = (uint8_t)sport;

		add(f, &type, 1);
		add(f, zeros, 15);
	}
}

static void set_length(struct frame *f)
{
	bool v6 = f->bytes[f->ip] >> 4 == 6;
	size_t length = f->n - f->ip - (v6 ? 40 : 0), at = f->ip + (v6 ? 4 : 2);

	f->bytes[at] = (uint8_t)(length >> 8);
	f->bytes[at + 1] = (uint8_t)length;
}

/* A whole packet. Of the ICMPs sport is the type. */
static struct frame *make(
        const char *src, const char *dst, uint8_t protocol, unsigned sport, unsigned dport, unsigned tags)
{
	static struct frame f;
	uint8_t v4[12] = { 0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0 };
	uint8_t v6[8] = { 0x60, 0, 0, 0, 0, 0, protocol, 64 };

	memset(&f, 0, sizeof(f));
	v6[6] = protocol;
	ethernet(&f, tags, is_v6(src) ? 0x86dd : 0x0800);
	if (is_v6(src))
		add(&f, v6, sizeof(v6));
	else
		add(&f, v4, sizeof(v4));
	address(&f, src);
	address(&f, dst);
	transport(&f, protocol, sport, dport);
	set_length(&f);
	return &f;
}

/* Puts an extension header of so many bytes before the transport header. */
static void extend(struct frame *f, uint8_t kind, const uint8_t *header, size_t n)
{
	uint8_t *next = &f->bytes[f->ip + 6];

	memmove(f->bytes + f->ip + 40 + n, f->bytes + f->ip + 40, f->n - f->ip - 40);
	memcpy(f->bytes + f->ip + 40, header, n);
	f->bytes[f->ip + 40] = *next;
	*next = kind;
	f->n += n;
	f->l4 += n;
	set_length(f);
}

static void extend_plain(struct frame *f, uint8_t kind)
{
	static const uint8_t header[8] = { 0, 0, 1, 4, 0, 0, 0, 0 };

	extend(f, kind, header, sizeof(header));
}

static void extend_fragment(struct frame *f, unsigned offset_and_more)
{
	uint8_t header[8] = { 0, 0, (uint8_t)(offset_and_more >> 8), (uint8_t)offset_and_more, 0, 0, 0, 9 };

	extend(f, 44, header, sizeof(header));
}

/* --- programs --- */

struct fixture {
	struct kernel_xdp *xdp;
	struct xdp_config *config;
};

static void add_prefixes(struct prefixes *list, const char *words)
{
	struct prefixes_builder builder = { 0 };
	struct errs errs = { 0 };
	char copy[256], *save = NULL;

	prefixes_clear(list);
	snprintf(copy, sizeof(copy), "%s", words);
	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
		assert_int_equal(prefixes_add_text(&builder, word, "", &errs), 0);
	assert_int_equal(prefixes_finish(&builder, list), 0);
}

static void load(struct fixture *f)
{
	struct prefilter_params *params = &f->config->params;
	char why[XDP_WHY_MAX] = "";
	int r;

	params->deny_v4 = params->deny_v6 = f->config->deny.n > 0;
	params->allow_v4 = params->allow_v6 = f->config->allow.n > 0;
	r = kernel_xdp_load(f->xdp, f->config, why, sizeof(why));
	if (geteuid() != 0 || r == -EPERM || r == -ENOSYS) {
		print_message("SKIP: %s\n", why);
		skip();
	}
	if (r < 0)
		fail_msg("%s", why);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->config = calloc(1, sizeof(*f->config));
	assert_non_null(f->config);
	assert_int_equal(kernel_xdp_new(NULL, "gwnone", &f->xdp), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	kernel_xdp_free(f->xdp);
	xdp_config_free(f->config);
	free(f);
	return 0;
}

/* The frame meets this reason, and counts under no other. */
static void expect_bytes(struct fixture *f, const void *bytes, size_t n, enum prefilter_reason reason, int line)
{
	struct prefilter_count before[PREFILTER_REASONS], after[PREFILTER_REASONS];
	int passes = reason == PREFILTER_syn_cookie_sent ? 2 : PREFILTER_PASSES(reason);
	int r;

	kernel_xdp_counts(f->xdp, before);
	r = kernel_xdp_try(f->xdp, bytes, n, 1, NULL, NULL, NULL);
	kernel_xdp_counts(f->xdp, after);
	for (unsigned i = 0; i < PREFILTER_REASONS; i++) {
		uint64_t packets = after[i].packets - before[i].packets, size = after[i].bytes - before[i].bytes;

		if (packets != (i == reason) || size != (i == reason ? n : 0))
			fail_msg("line %d: wanted reason %u, counted %u: %u", line, reason, i, (unsigned)packets);
	}
	if (r != passes)
		fail_msg("line %d: wanted %d, got %d", line, passes, r);
}
#define expect(f, packet, reason)                                                                                      \
	do {                                                                                                           \
		const struct frame *frame_ = (packet);                                                                 \
		expect_bytes(f, frame_->bytes, frame_->n, PREFILTER_##reason, __LINE__);                               \
	} while (0)

/* --- tests --- */

static void test_everything_off(void **state)
{
	struct fixture *f = *state;

	load(f);
	for (unsigned tags = 0; tags < 3; tags++) {
		expect(f, make("127.0.0.1", "10.0.0.1", TCP, 1, 80, tags), passed);
		expect(f, make("ff02::1", "fd00::1", UDP, 1, 80, tags), passed);
	}
	/* ARP, and something shorter than any network header. */
	struct frame *frame = make("10.0.0.1", "10.0.0.2", TCP, 1, 2, 0);

	frame->bytes[13] = 6;
	expect(f, frame, passed);
	frame->n = 15;
	expect(f, frame, passed);
}

static void test_lists(void **state)
{
	struct fixture *f = *state;

	add_prefixes(&f->config->deny, "192.0.2.0/24 198.51.100.7 2001:db8:1::/48 2001:db8:2::1");
	add_prefixes(&f->config->allow, "192.0.2.128/25 2001:db8:1:1::/64");
	load(f);
	for (unsigned tags = 0; tags < 3; tags++) {
		expect(f, make("192.0.2.1", "10.0.0.1", TCP, 1, 80, tags), denied);
		expect(f, make("192.0.2.129", "10.0.0.1", TCP, 1, 80, tags), allowed);
		expect(f, make("192.0.3.1", "10.0.0.1", UDP, 1, 80, tags), passed);
		expect(f, make("198.51.100.7", "10.0.0.1", GRE, 0, 0, tags), denied);
		expect(f, make("198.51.100.6", "10.0.0.1", ICMP, 8, 0, tags), passed);
		expect(f, make("2001:db8:1::5", "fd00::1", UDP, 1, 80, tags), denied);
		expect(f, make("2001:db8:1:1::5", "fd00::1", UDP, 1, 80, tags), allowed);
		expect(f, make("2001:db8:2::1", "fd00::1", ICMPV6, 128, 0, tags), denied);
		expect(f, make("2001:db8:2::2", "fd00::1", TCP, 1, 80, tags), passed);
	}
}

static void test_lists_are_changed_one_by_one(void **state)
{
	struct fixture *f = *state;
	struct xdp_config *to = calloc(1, sizeof(*to));

	assert_non_null(to);
	add_prefixes(&f->config->deny, "192.0.2.0/24 2001:db8:1::/48");
	load(f);
	*to = *f->config;
	to->deny = to->allow = (struct prefixes){ 0 };
	add_prefixes(&to->deny, "198.51.100.0/24 2001:db8:1::/48");
	assert_int_equal(xdp_config_differ(f->config, to), XDP_ENTRIES);
	assert_int_equal(xdp_config_differ(to, to), XDP_SAME);
	/* Nothing is in force yet. */
	assert_int_equal(kernel_xdp_adjust(f->xdp, f->config, to), -ENODEV);
	to->params.bogons = 1;
	assert_int_equal(xdp_config_differ(f->config, to), XDP_PROGRAM);
	xdp_config_free(to);
}

static void test_fragments(void **state)
{
	struct fixture *f = *state;
	static const uint8_t flags[][2] = { { 0x20, 0 }, { 0, 0x10 }, { 0x20, 0x10 } };
	struct frame *frame;

	f->config->params.fragments = 1;
	load(f);
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		frame = make("10.0.0.1", "10.0.0.2", UDP, 1, 2, (unsigned)i);
		memcpy(frame->bytes + frame->ip + 6, flags[i], 2);
		expect(f, frame, fragment);
		frame = make("fd00::1", "fd00::2", UDP, 1, 2, (unsigned)i);
		extend_fragment(frame, i == 0 ? 1 : 0x10 * 8 + (i == 2));
		extend_plain(frame, 0);
		expect(f, frame, fragment);
	}
	/* "Do not fragment" says nothing; a fragment that is all of a packet is none. */
	frame = make("10.0.0.1", "10.0.0.2", UDP, 1, 2, 0);
	frame->bytes[frame->ip + 6] = 0x40;
	expect(f, frame, passed);
	frame = make("fd00::1", "fd00::2", UDP, 1, 2, 0);
	extend_fragment(frame, 0);
	expect(f, frame, passed);
}

static void test_bogons(void **state)
{
	struct fixture *f = *state;
	static const char *const bad[] = { "127.0.0.1", "0.1.2.3", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1",
		"ff02::1", "::ffff:10.0.0.1", "0.0.0.0", "::" };
	static const char *const good[] = { "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.1.1", "223.255.255.1",
		"100.64.0.1", "fe80::1", "fd00::5", "2001:db8::1" };

	f->config->params.bogons = 1;
	load(f);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		expect(f, make(bad[i], is_v6(bad[i]) ? "fd00::1" : "10.0.0.9", UDP, 1, 80, 0), bogon);
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		expect(f, make(good[i], is_v6(good[i]) ? "fd00::1" : "10.0.0.9", UDP, 1, 80, 0), passed);
	expect(f, make("10.0.0.9", "10.0.0.9", TCP, 80, 80, 0), bogon);
	expect(f, make("fd00::1", "fd00::1", TCP, 80, 80, 0), bogon);
	/* Who has no address yet: DHCP, duplicate address detection, group membership. */
	expect(f, make("0.0.0.0", "255.255.255.255", UDP, 68, 67, 0), passed);
	expect(f, make("0.0.0.0", "224.0.0.22", IGMP, 0x22, 0, 0), passed);
	expect(f, make("::", "ff02::1:ff00:1", ICMPV6, 135, 0, 0), passed);
}

static void test_icmp_errors_pass(void **state)
{
	struct fixture *f = *state;
	static const unsigned v4[] = { 3, 11, 12 }, v6[] = { 1, 2, 3, 4 };

	f->config->params.fragments = f->config->params.bogons = f->config->params.ports = 1;
	load(f);
	for (size_t i = 0; i < ARRAY_SIZE(v4); i++)
		expect(f, make("127.0.0.1", "10.0.0.1", ICMP, v4[i], 0, 0), passed);
	for (size_t i = 0; i < ARRAY_SIZE(v6); i++)
		expect(f, make("::1", "fd00::1", ICMPV6, v6[i], 0, 0), passed);
	expect(f, make("127.0.0.1", "10.0.0.1", ICMP, 8, 0, 0), bogon);
	expect(f, make("fe80::1", "ff02::1", ICMPV6, 134, 0, 0), passed);
}

static void test_malformed(void **state)
{
	struct fixture *f = *state;
	struct frame *frame;

	load(f);
	for (unsigned v6 = 0; v6 < 2; v6++) {
		const char *src = v6 ? "fd00::1" : "10.0.0.1", *dst = v6 ? "fd00::2" : "10.0.0.2";

		frame = make(src, dst, TCP, 1, 2, 0);
		frame->bytes[frame->ip] ^= 0x10; /* version */
		expect(f, frame, malformed);
		for (size_t n = frame->ip + 1; n < frame->ip + (v6 ? 60 : 40); n += 7) {
			frame = make(src, dst, TCP, 1, 2, v6);
			frame->n = n + 4 * v6 < 16 ? 16 : n;
			expect(f, frame, malformed);
		}
		frame = make(src, dst, TCP, 1, 2, 0);
		frame->bytes[frame->l4 + 12] = 0x40; /* shorter than a header */
		expect(f, frame, malformed);
		frame->bytes[frame->l4 + 12] = 0x60; /* longer than the packet */
		expect(f, frame, malformed);
		frame = make(src, dst, TCP, 1, 2, 0);
		frame->bytes[frame->l4 + 13] = 0;
		expect(f, frame, malformed);
		frame->bytes[frame->l4 + 13] = 0x03; /* SYN, FIN */
		expect(f, frame, malformed);
		frame->bytes[frame->l4 + 13] = 0x06; /* SYN, RST */
		expect(f, frame, malformed);
		frame->bytes[frame->l4 + 13] = 0x12; /* SYN, ACK */
		expect(f, frame, passed);
		frame = make(src, dst, UDP, 1, 2, 0);
		frame->bytes[frame->l4 + 5] = 7;
		expect(f, frame, malformed);
		frame->bytes[frame->l4 + 5] = 17;
		expect(f, frame, malformed);
		/* Bytes behind the packet are padding. */
		frame = make(src, dst, UDP, 1, 2, 0);
		frame->n += 20;
		expect(f, frame, passed);
	}
	frame = make("10.0.0.1", "10.0.0.2", TCP, 1, 2, 0);
	frame->bytes[frame->ip] = 0x44;
	expect(f, frame, malformed);
	frame->bytes[frame->ip] = 0x4f; /* options beyond the end */
	expect(f, frame, malformed);
}

static void test_extension_headers(void **state)
{
	struct fixture *f = *state;
	static const uint8_t kinds[] = { 60, 43, 51, 60, 0 };
	struct frame *frame;

	f->config->params.ports = 1;
	f->config->ports[80 >> 6] = UINT64_C(1) << (80 & 63);
	load(f);
	/* As many as are read, the ports found behind them. */
	for (size_t n = 0; n <= ARRAY_SIZE(kinds); n++)
		for (unsigned port = 80; port < 82; port++) {
			frame = make("fd00::1", "fd00::2", TCP, 1, port, (unsigned)n % 3);
			for (size_t i = 0; i < n; i++)
				extend_plain(frame, kinds[i]);
			/* In an authentication header the length counts otherwise: here 8 bytes as well. */
			if (port == 80)
				expect(f, frame, passed);
			else
				expect(f, frame, port);
		}
	/* One more than is read: judged by its source only. */
	frame = make("fd00::1", "fd00::2", TCP, 1, 81, 0);
	for (unsigned i = 0; i < PREFILTER_HEADERS_MAX; i++)
		extend_plain(frame, 60);
	expect(f, frame, passed);
	/* One that ends behind the packet. */
	frame = make("fd00::1", "fd00::2", TCP, 1, 80, 0);
	extend_plain(frame, 60);
	frame->bytes[frame->ip + 41] = 200;
	expect(f, frame, malformed);
}

static void test_ports(void **state)
{
	struct fixture *f = *state;

	f->config->params.ports = 1;
	f->config->ports[443 >> 6] |= UINT64_C(1) << (443 & 63);
	f->config->ports[PREFILTER_PORT_WORDS + (53 >> 6)] |= UINT64_C(1) << (53 & 63);
	load(f);
	for (unsigned tags = 0; tags < 3; tags++) {
		expect(f, make("10.9.0.1", "10.9.0.2", TCP, 1, 443, tags), passed);
		expect(f, make("10.9.0.1", "10.9.0.2", TCP, 1, 53, tags), port);
		expect(f, make("10.9.0.1", "10.9.0.2", UDP, 1, 53, tags), passed);
		expect(f, make("10.9.0.1", "10.9.0.2", UDP, 1, 443, tags), port);
		expect(f, make("fd09::1", "fd09::2", TCP, 1, 443, tags), passed);
		expect(f, make("fd09::1", "fd09::2", TCP, 1, 444, tags), port);
	}
	/* What has no ports, or whose ports are in another packet. */
	expect(f, make("10.9.0.1", "10.9.0.2", GRE, 0, 0, 0), passed);
	expect(f, make("10.9.0.1", "10.9.0.2", ICMP, 8, 0, 0), passed);
	struct frame *frame = make("10.9.0.1", "10.9.0.2", UDP, 1, 9, 0);

	frame->bytes[frame->ip + 7] = 0x10;
	expect(f, frame, passed);
	/* To all on the link. */
	frame = make("10.9.0.1", "224.0.0.251", UDP, 5353, 5353, 0);
	expect(f, frame, port);
	frame->bytes[0] = 1;
	expect(f, frame, passed);
}

static void test_rate(void **state)
{
	struct fixture *f = *state;

	/* One in a thousand seconds, five at once: no test is so slow. */
	f->config->params.interval = UINT64_C(1000000000000) << PREFILTER_TIME_SHIFT;
	f->config->params.depth = 5 * f->config->params.interval;
	add_prefixes(&f->config->allow, "10.0.0.9");
	load(f);
	for (unsigned i = 0; i < 8; i++) {
		expect_bytes(f, make("10.0.0.1", "10.0.0.2", UDP, 1, 2, 0)->bytes, 50,
		        i < 5 ? PREFILTER_passed : PREFILTER_rate, __LINE__);
		expect_bytes(f, make("fd00::1", "fd00::2", UDP, 1, 2, 0)->bytes, 70,
		        i < 5 ? PREFILTER_passed : PREFILTER_rate, __LINE__);
		expect(f, make("10.0.0.9", "10.0.0.2", UDP, 1, 2, 0), allowed);
	}
	expect(f, make("10.0.0.3", "10.0.0.2", UDP, 1, 2, 0), passed);
}

static void test_ban(void **state)
{
	struct fixture *f = *state;

	f->config->params.interval = UINT64_C(1000000000000) << PREFILTER_TIME_SHIFT;
	f->config->params.depth = f->config->params.interval;
	f->config->params.ban_ns = UINT64_C(3600000000000);
	load(f);
	for (unsigned v6 = 0; v6 < 2; v6++) {
		const char *src = v6 ? "fd00::1" : "10.0.0.1", *dst = v6 ? "fd00::2" : "10.0.0.2";
		struct addr addr;

		assert_int_equal(addr_parse(src, &addr), 0);
		expect(f, make(src, dst, UDP, 1, 2, 0), passed);
		expect(f, make(src, dst, UDP, 1, 2, 0), rate);
		expect(f, make(src, dst, UDP, 1, 2, 0), banned);
		assert_int_equal(kernel_xdp_bans(f->xdp, NULL, NULL), 1);
		assert_int_equal(kernel_xdp_unban(f->xdp, &addr), 0);
		assert_int_equal(kernel_xdp_unban(f->xdp, &addr), -ENOENT);
		expect(f, make(src, dst, UDP, 1, 2, 0), rate);
		assert_int_equal(kernel_xdp_unban(f->xdp, &addr), 0);
	}
}

static bool is_wide(void *userdata, const struct prefix *prefix)
{
	(void)userdata;
	return prefix->length == 24 || prefix->length == 64;
}

/* What the daemon shuts out: prefixes, each with its own end; the program that is loaded next knows them too. */
static void test_shut(void **state)
{
	struct fixture *f = *state;

	load(f);
	for (unsigned v6 = 0; v6 < 2; v6++) {
		const char *src = v6 ? "fd00::1" : "10.0.0.1", *dst = v6 ? "fd01::2" : "10.9.0.2";
		struct prefix one, wide;

		assert_int_equal(prefix_parse(src, &one), 0);
		assert_int_equal(prefix_parse(v6 ? "fd00::/64" : "10.0.0.0/24", &wide), 0);
		assert_int_equal(kernel_xdp_unshut(f->xdp, &one), -ENOENT);
		assert_int_equal(kernel_xdp_shut(f->xdp, &wide, -1), 0);
		expect(f, make(src, dst, UDP, 1, 2, 0), banned);
		assert_true(kernel_xdp_is_shut(f->xdp, &wide));
		assert_false(kernel_xdp_is_shut(f->xdp, &one));
		/* One that is over hides the wider one for one packet, then it is forgotten. */
		assert_int_equal(kernel_xdp_shut(f->xdp, &one, 0), 0);
		expect(f, make(src, dst, UDP, 1, 2, 0), passed);
		expect(f, make(src, dst, UDP, 1, 2, 0), banned);
		assert_int_equal(kernel_xdp_unshut(f->xdp, &one), -ENOENT);
		assert_int_equal(kernel_xdp_shut(f->xdp, &one, 1000), 0);
		assert_true(kernel_xdp_is_shut(f->xdp, &one));
		kernel_xdp_unshut_others(f->xdp, is_wide, NULL);
		assert_false(kernel_xdp_is_shut(f->xdp, &one));
		assert_true(kernel_xdp_is_shut(f->xdp, &wide));
		load(f);
		expect(f, make(src, dst, UDP, 1, 2, 0), banned);
		assert_int_equal(kernel_xdp_unshut(f->xdp, &wide), 0);
		expect(f, make(src, dst, UDP, 1, 2, 0), passed);
	}
}

/* --- from the configuration --- */

static void test_render(void **state)
{
	struct prefilter *prefilter = (struct prefilter *)row_new(RESOURCE_PREFILTER);
	struct address_set *set = (struct address_set *)row_new(RESOURCE_ADDRESS_SET);
	struct listener *listener = (struct listener *)row_new(RESOURCE_LISTENER);
	struct snapshot *snapshot = snapshot_new();
	struct errs errs = { 0 };
	struct xdp_config *config = NULL;

	(void)state;
	snprintf(prefilter->interface, sizeof(prefilter->interface), "in0");
	snprintf(set->name, sizeof(set->name), "bad");
	snprintf(listener->name, sizeof(listener->name), "web");
	add_prefixes(&set->entries, "192.0.2.0/24 198.51.100.1");
	strings_append(&prefilter->deny, "@bad");
	strings_append(&listener->ports, "8000-8100");
	strings_append(&listener->interfaces, "in1");
	prefilter->source_pps_rate = 1000;
	prefilter->only_listener_ports = true;
	assert_int_equal(render_xdp(prefilter, snapshot, 0, &errs, &config), -EINVAL);
	assert_string_equal(errs.items[0].code, "unknown_reference");
	assert_int_equal(snapshot_put(snapshot, &set->row), 0);
	assert_int_equal(snapshot_put(snapshot, &listener->row), 0);
	assert_int_equal(render_xdp(prefilter, snapshot, 0, &errs, &config), 0);
	assert_ptr_equal(config->deny.items, set->entries.items); /* shared, not copied */
	assert_int_equal(config->params.deny_v4, 1);
	assert_int_equal(config->params.deny_v6, 0);
	assert_int_equal(config->params.interval, UINT64_C(1000000) << PREFILTER_TIME_SHIFT);
	assert_int_equal(config->params.depth, 1000 * config->params.interval);
	assert_int_equal(config->ports[8000 >> 6], 0); /* that listener is at another interface */
	xdp_config_free(config);
	strings_clear(&listener->interfaces);
	assert_int_equal(render_xdp(prefilter, snapshot, 0, &errs, &config), 0);
	for (unsigned port = 7990; port < 8110; port++)
		assert_int_equal(config->ports[port >> 6] >> (port & 63) & 1, port >= 8000 && port <= 8100);
	xdp_config_free(config);
	errs_clear(&errs);
	snapshot_unref(snapshot);
	row_unref(&prefilter->row);
	row_unref(&set->row);
	row_unref(&listener->row);
}

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
	struct listener *listener = (struct listener *)row_new(RESOURCE_LISTENER);
	char copy[256], *save = NULL;

	listener->row.id = id;
	listener->action = action;
	snprintf(listener->name, sizeof(listener->name), "%s", name);
	snprintf(copy, sizeof(copy), "%s", destinations);
	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
		strings_append(&listener->destinations, word);
	if (*sources)
		strings_append(&listener->sources, sources);
	if (*ports)
		strings_append(&listener->ports, ports);
	assert_int_equal(snapshot_put(snapshot, &listener->row), 0);
	row_unref(&listener->row);
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
	expect(f, make("10.1.0.1", "10.0.0.5", TCP, 7, 80, 0), passed);
	snapshot_unref(snapshot);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_everything_off, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lists, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lists_are_changed_one_by_one, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fragments, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bogons, setup, teardown),
		cmocka_unit_test_setup_teardown(test_icmp_errors_pass, setup, teardown),
		cmocka_unit_test_setup_teardown(test_malformed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_extension_headers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ports, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ban, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shut, setup, teardown), cmocka_unit_test(test_render),
		cmocka_unit_test_setup_teardown(test_cookies, setup, teardown), /* goes into a network of its own */
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
