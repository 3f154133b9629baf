/*
 * Limits of listeners in the XDP program, on single packets
 * (BPF_PROG_TEST_RUN): which packets are counted, by whose share, and in which
 * order. Time is so slow that what is used up stays so. Skipped where programs
 * cannot be loaded.
 */
#include "rules/kernel_xdp.h"

#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "prefilter_fixture.h"
#include "rules_fixture.h"

#define MARK 0x04000000

static struct rate_limit *new_limit(int64_t id, const char *name, int64_t burst)
{
	struct rate_limit *limit = (struct rate_limit *)row_new(RESOURCE_RATE_LIMIT);

	limit->row.id = id;
	snprintf(limit->name, sizeof(limit->name), "%s", name);
	limit->metric = METRIC_PACKETS;
	limit->per = PER_MINUTE;
	limit->rate = 1;
	limit->burst = burst;
	return limit;
}

static void put_limit(struct snapshot *snapshot, struct rate_limit *limit)
{
	assert_int_equal(snapshot_put(snapshot, &limit->row), 0);
	row_unref(&limit->row);
}

static struct listener *new_listener(
        int64_t id, const char *name, const char *destinations, const char *ports, const char *limits)
{
	struct listener *listener = fixture_listener(name, id, "", "", destinations, ports);

	listener->protocol = PROTOCOL_UDP;
	fixture_words(&listener->rate_limits, limits);
	return listener;
}

/* The interface of the fixture is another one, and not there: these are judged as if they came in at lo. */
static void load_limits(struct fixture *f, const struct snapshot *snapshot)
{
	if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0 || system("ip link set lo up") != 0)
		skip();
	kernel_xdp_free(f->xdp);
	assert_int_equal(kernel_xdp_new(NULL, "lo", &f->xdp), 0);
	assert_int_equal(
	        xdp_limits_of(snapshot, "lo", MARK, &f->config->params, &f->config->relayed, &f->config->limits), 0);
	load(f);
}

/* To the hardware address of lo. */
static struct frame *to_us(struct frame *frame)
{
	memset(frame->bytes, 0, 6);
	return frame;
}

static uint64_t over(struct fixture *f, uint32_t listener, uint32_t limit)
{
	const struct prefilter_over pair = { listener, limit };

	return kernel_xdp_over(f->xdp, &pair).packets;
}

static const char *const sources[] = { "10.1.0.1", "fd01::1" }, *const neighbours[] = { "10.1.0.2", "fd01::2" },
                         *const strangers[] = { "10.2.0.1", "fd02::1" }, *const targets[] = { "10.0.0.5", "fd00::5" };

/* Each source has its burst, in each family; what is not for the listener, or cannot be told, is not counted. */
static void test_what_counts(void **state)
{
	struct fixture *f = *state;
	struct snapshot *snapshot = snapshot_new();
	uint64_t bytes;

	put_limit(snapshot, new_limit(5, "few", 3));
	fixture_put(snapshot, new_listener(7, "range", "10.0.0.5 fd00::5", "50-60", "few"));
	fixture_put(snapshot, new_listener(8, "exact", "10.0.0.5 fd00::5", "55", ""));
	load_limits(f, snapshot);
	for (unsigned i = 0; i < 2; i++) {
		const char *src = sources[i], *dst = targets[i];
		struct frame *frame;

		for (unsigned k = 0; k < 5; k++) {
			frame = make(src, dst, UDP, 7, 50 + k % 2 * 10, 0);
			expect(f, frame, passed); /* to another's hardware address */
			expect(f, to_us(make(src, dst, UDP, 7, 49, 0)), passed);
			expect(f, to_us(make(src, dst, UDP, 7, 55, 0)), passed);
			expect(f, to_us(make(src, dst, TCP, 7, 50, 0)), passed);
			expect(f, to_us(make(src, dst, UDP, 7, 50, 1)), passed);
			expect(f, to_us(make(src, strangers[i], UDP, 7, 50, 0)), passed);
			frame = to_us(make(src, dst, UDP, 7, 50, 0));
			if (i == 0)
				frame->bytes[frame->ip + 6] = 0x20; /* more fragments */
			else
				extend_fragment(frame, 1);
			expect(f, frame, passed);
		}
		for (unsigned k = 0; k < 5; k++) {
			frame = to_us(make(src, dst, UDP, 7, 50 + k % 2 * 10, 0));
			expect_bytes(f, frame->bytes, frame->n, k < 3 ? PREFILTER_passed : PREFILTER_limited, __LINE__);
		}
		expect(f, to_us(make(neighbours[i], dst, UDP, 7, 51, 0)), passed);
		expect(f, to_us(make(src, dst, UDP, 7, 55, 0)), passed);
	}
	assert_int_equal(over(f, 7, 5), 4);
	bytes = kernel_xdp_over(f->xdp, &(struct prefilter_over){ 7, 5 }).bytes;
	assert_int_equal(bytes, 2 * 36 + 2 * 56); /* without the Ethernet's */
	snapshot_unref(snapshot);
}

/* A prefix shares, several listeners share, the first limit that is over ends it, and those before it have been taken
 * from. */
static void test_shares_and_order(void **state)
{
	struct fixture *f = *state;
	struct snapshot *snapshot = snapshot_new();
	struct rate_limit *wide = new_limit(5, "wide", 4);

	wide->key = LIMIT_KEY_SOURCE_PREFIX;
	wide->prefix_v4 = 16;
	wide->prefix_v6 = 32;
	put_limit(snapshot, wide);
	put_limit(snapshot, new_limit(6, "own", 2));
	fixture_put(snapshot, new_listener(9, "one", "10.0.0.5 fd00::5", "50", "wide own"));
	fixture_put(snapshot, new_listener(3, "other", "10.0.0.5 fd00::5", "", "wide"));
	load_limits(f, snapshot);
	for (unsigned i = 0; i < 2; i++) {
		expect(f, to_us(make(sources[i], targets[i], UDP, 7, 50, 0)), passed);
		expect(f, to_us(make(sources[i], targets[i], UDP, 7, 50, 0)), passed);
		expect(f, to_us(make(sources[i], targets[i], UDP, 7, 50, 0)), limited); /* own: wide has one left */
		expect(f, to_us(make(neighbours[i], targets[i], UDP, 7, 99, 0)), passed);
		expect(f, to_us(make(neighbours[i], targets[i], UDP, 7, 50, 0)), limited);
		expect(f, to_us(make(neighbours[i], targets[i], UDP, 7, 99, 0)), limited);
		expect(f, to_us(make(strangers[i], targets[i], UDP, 7, 99, 0)), passed);
	}
	assert_int_equal(over(f, 9, 6), 2);
	assert_int_equal(over(f, 9, 5), 2);
	assert_int_equal(over(f, 3, 5), 2);
	assert_int_equal(over(f, 3, 6), 0);
	/* A program that comes after it knows what has been used, and has been counted. */
	load(f);
	for (unsigned i = 0; i < 2; i++)
		expect(f, to_us(make(neighbours[i], targets[i], UDP, 7, 99, 0)), limited);
	assert_int_equal(over(f, 3, 5), 4);
	snapshot_unref(snapshot);
}

/* Whom a socket of the relay's to a target belongs to is told by its mark. */
static void test_answers(void **state)
{
	struct fixture *f = *state;
	struct snapshot *snapshot = snapshot_new();
	struct sockaddr_in own = { .sin_family = AF_INET, .sin_port = htons(50), .sin_addr.s_addr = htonl(0x7f000002) },
	                   peer = { .sin_family = AF_INET, .sin_port = htons(7), .sin_addr.s_addr = htonl(0x7f000003) };
	unsigned mark = MARK;
	int fd;

	put_limit(snapshot, new_limit(5, "few", 1));
	fixture_put(snapshot, new_listener(7, "any", "127.0.0.2", "50", "few"));
	load_limits(f, snapshot);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&own, sizeof(own)), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&peer, sizeof(peer)), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)), 0);
	for (unsigned i = 0; i < 3; i++)
		expect(f, to_us(make("127.0.0.3", "127.0.0.2", UDP, 7, 50, 0)), passed);
	mark = 0;
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)), 0);
	expect(f, to_us(make("127.0.0.3", "127.0.0.2", UDP, 7, 50, 0)), passed);
	expect(f, to_us(make("127.0.0.3", "127.0.0.2", UDP, 7, 50, 0)), limited);
	close(fd);
	snapshot_unref(snapshot);
}

/* --- without a kernel --- */

static const char *why(const struct snapshot *snapshot, const char *name)
{
	const char **all = xdp_limits_plan(snapshot), *found;

	assert_non_null(all);
	found = all[snapshot_after(snapshot, RESOURCE_RATE_LIMIT, name) - 1];
	free(all);
	return found;
}

/* One that is struck out strikes out those behind it, wherever they stand. */
static void test_plan(void **state)
{
	struct snapshot *snapshot = snapshot_new();
	struct listener *tcp = new_listener(1, "tcp", "", "80", "a");

	(void)state;
	tcp->protocol = PROTOCOL_TCP;
	for (int i = 0; i < 7; i++)
		put_limit(snapshot, new_limit(i + 1, (char[]){ (char)('a' + i), 0 }, 1));
	fixture_put(snapshot, new_listener(2, "x", "", "50", "c d"));
	fixture_put(snapshot, new_listener(3, "y", "", "51", "b c"));
	fixture_put(snapshot, new_listener(4, "z", "", "52", "a b"));
	for (const char *name = "abcd"; *name; name++)
		assert_null(why(snapshot, (char[]){ *name, 0 }));
	fixture_put(snapshot, tcp);
	for (const char *name = "abcd"; *name; name++)
		assert_non_null(why(snapshot, (char[]){ *name, 0 }));
	assert_null(why(snapshot, "e"));
	snapshot_unref(snapshot);
}

/* At the limit of one listener, and of an interface. */
static void test_most(void **state)
{
	struct snapshot *snapshot = snapshot_new();
	struct fixture *f = *state;
	struct xdp_config *config = f->config;

	for (int i = 0; i < 5; i++)
		put_limit(snapshot, new_limit(i + 1, (char[]){ (char)('a' + i), 0 }, 1));
	fixture_put(snapshot, new_listener(1, "first", "", "1", "a b c d e"));
	for (const char *name = "abcd"; *name; name++)
		assert_null(why(snapshot, (char[]){ *name, 0 }));
	assert_non_null(why(snapshot, "e"));
	for (int i = 2; i < PREFILTER_PAIRS_MAX / 4 + 5; i++) {
		char name[16], port[12];

		snprintf(name, sizeof(name), "l%05d", i);
		snprintf(port, sizeof(port), "%d", i);
		fixture_put(snapshot, new_listener(i, name, "", port, "a b c d"));
	}
	assert_int_equal(xdp_limits_of(snapshot, "in0", MARK, &config->params, &config->relayed, &config->limits), 0);
	assert_int_equal(config->limits.n, PREFILTER_PAIRS_MAX);
	assert_int_equal(config->params.limits, 1);
	xdp_limits_clear(&config->limits);
	relayed_clear(&config->relayed);
	memset(&config->params, 0, sizeof(config->params));
	/* Whose sockets are the relay's is not known. */
	assert_int_equal(xdp_limits_of(snapshot, "in0", 0, &config->params, &config->relayed, &config->limits), 0);
	assert_int_equal(config->limits.n + config->relayed.n + config->params.limits, 0);
	snapshot_unref(snapshot);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_what_counts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shares_and_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_answers, setup, teardown),
		cmocka_unit_test(test_plan),
		cmocka_unit_test_setup_teardown(test_most, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
