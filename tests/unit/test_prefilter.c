/*
 * The XDP program on single packets (BPF_PROG_TEST_RUN): each shape of packet
 * meets the reason it must, and is counted under that one only. Needs a kernel
 * with BPF; skipped where programs cannot be loaded.
 */
#include "rules/kernel_xdp.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "schema/prefixes.h"
#include "prefilter_fixture.h"

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
	assert_int_equal(render_xdp(prefilter, snapshot, &(struct render_xdp_relay){ 0 }, &errs, &config), -EINVAL);
	assert_string_equal(errs.items[0].code, "unknown_reference");
	assert_int_equal(snapshot_put(snapshot, &set->row), 0);
	assert_int_equal(snapshot_put(snapshot, &listener->row), 0);
	assert_int_equal(render_xdp(prefilter, snapshot, &(struct render_xdp_relay){ 0 }, &errs, &config), 0);
	assert_ptr_equal(config->deny.list, set->entries.list); /* shared, not copied */
	assert_int_equal(config->params.deny_v4, 1);
	assert_int_equal(config->params.deny_v6, 0);
	assert_int_equal(config->params.interval, UINT64_C(1000000) << PREFILTER_TIME_SHIFT);
	assert_int_equal(config->params.depth, 1000 * config->params.interval);
	assert_int_equal(config->ports[8000 >> 6], 0); /* that listener is at another interface */
	xdp_config_free(config);
	strings_clear(&listener->interfaces);
	assert_int_equal(render_xdp(prefilter, snapshot, &(struct render_xdp_relay){ 0 }, &errs, &config), 0);
	for (unsigned port = 7990; port < 8110; port++)
		assert_int_equal(config->ports[port >> 6] >> (port & 63) & 1, port >= 8000 && port <= 8100);
	xdp_config_free(config);
	errs_clear(&errs);
	snapshot_unref(snapshot);
	row_unref(&prefilter->row);
	row_unref(&set->row);
	row_unref(&listener->row);
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
		cmocka_unit_test_setup_teardown(test_shut, setup, teardown),
		cmocka_unit_test(test_render),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
