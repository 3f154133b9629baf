/*
 * Frames, and the XDP program that they are given to one by one
 * (BPF_PROG_TEST_RUN): what the tests of the prefilter share. Skips where
 * programs cannot be loaded.
 */
#ifndef GW_TEST_PREFILTER_FIXTURE_H
#define GW_TEST_PREFILTER_FIXTURE_H

#include "rules/kernel_xdp.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "schema/prefixes.h"

/* --- frames --- */

enum { TCP = 6, UDP = 17, ICMP = 1, ICMPV6 = 58, IGMP = 2, GRE = 47 };

struct frame {
	uint8_t bytes[1600];
	size_t n, ip, l4; /* where the parts begin */
};

static inline void add(struct frame *f, const void *bytes, size_t n)
{
	memcpy(f->bytes + f->n, bytes, n);
	f->n += n;
}

static inline void add16(struct frame *f, unsigned value)
{
	const uint8_t bytes[2] = { (uint8_t)(value >> 8), (uint8_t)value };

	add(f, bytes, 2);
}

static inline void ethernet(struct frame *f, unsigned tags, unsigned protocol)
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

static inline void address(struct frame *f, const char *text)
{
	struct addr addr;

	assert_int_equal(addr_parse(text, &addr), 0);
	add(f, addr.bytes, addr_bits(addr.family) / 8);
}

static inline bool is_v6(const char *text)
{
	return strchr(text, ':') != NULL;
}

static inline void transport(struct frame *f, uint8_t protocol, unsigned sport, unsigned dport)
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

static inline void set_length(struct frame *f)
{
	bool v6 = f->bytes[f->ip] >> 4 == 6;
	size_t length = f->n - f->ip - (v6 ? 40 : 0), at = f->ip + (v6 ? 4 : 2);

	f->bytes[at] = (uint8_t)(length >> 8);
	f->bytes[at + 1] = (uint8_t)length;
}

/* A whole packet. Of the ICMPs sport is the type. */
static inline struct frame *make(
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
static inline void extend(struct frame *f, uint8_t kind, const uint8_t *header, size_t n)
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

static inline void extend_plain(struct frame *f, uint8_t kind)
{
	static const uint8_t header[8] = { 0, 0, 1, 4, 0, 0, 0, 0 };

	extend(f, kind, header, sizeof(header));
}

static inline void extend_fragment(struct frame *f, unsigned offset_and_more)
{
	uint8_t header[8] = { 0, 0, (uint8_t)(offset_and_more >> 8), (uint8_t)offset_and_more, 0, 0, 0, 9 };

	extend(f, 44, header, sizeof(header));
}

/* --- programs --- */

struct fixture {
	struct kernel_xdp *xdp;
	struct xdp_config *config;
};

static inline void add_prefixes(struct prefixes *list, const char *words)
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

static inline void load(struct fixture *f)
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

static inline int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->config = calloc(1, sizeof(*f->config));
	assert_non_null(f->config);
	assert_int_equal(kernel_xdp_new(NULL, "gwnone", &f->xdp), 0);
	*state = f;
	return 0;
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;

	kernel_xdp_free(f->xdp);
	xdp_config_free(f->config);
	free(f);
	return 0;
}

/* The frame meets this reason, and counts under no other. */
static inline void expect_bytes(struct fixture *f, const void *bytes, size_t n, enum prefilter_reason reason, int line)
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

#endif
