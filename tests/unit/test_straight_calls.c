/*
 * The programs that the relay calls to put straight flows into the maps and to
 * take them out, run in the kernel: what they do, and leave alone. All is done
 * by the relay's user behind its filter of system calls, as the relay does it.
 */
#include "rules/kernel_shortcut.h"

#include <errno.h>
#include <linux/bpf.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/base/bpf_map.h"
#include "gatewayd/base/bpf_straight.h"
#include "gatewayd/base/isolate.h"
#include "gatewayd/base/shortcut_key.h"

#define NOBODY 65534

/* In a process of its own. */
#define CHECK(condition)                                                                                               \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                                        \
			_exit(1);                                                                                      \
		}                                                                                                      \
	} while (0)

struct fds {
	int ways, stitches, begin, settle;
};

static struct addr address(const char *text)
{
	struct addr ret;

	CHECK(addr_parse(text, &ret) == 0);
	return ret;
}

/* A flow of this client's port to a destination whose target is another address. */
static struct bpf_straight_begin flow_of(uint64_t id, uint16_t port, bool v6)
{
	struct addr client = address(v6 ? "fd00::1" : "10.0.0.1"), destination = address(v6 ? "fd00::2" : "10.0.0.2"),
	            target = address(v6 ? "fd00::3" : "10.0.0.3");
	struct bpf_straight_begin begin = { .flow = id,
		.way = { { .flow = id, .owner = id + 100 }, { .flow = id, .side = 1, .owner = id + 100 } } };

	begin.stitch.state = BPF_STITCH_OPENING;
	begin.stitch.options = BPF_STITCH_STRAIGHT;
	begin.stitch.side[0].in = shortcut_key(&client, port, &destination, 80);
	begin.stitch.side[1].in = shortcut_key(&target, 8080, &client, port);
	return begin;
}

static int run(const struct fds *fds, const struct bpf_straight_begin *begin)
{
	return bpf_program_call(fds->begin, begin, sizeof(*begin));
}

static void settle(const struct fds *fds, uint64_t id, enum bpf_straight_settled what)
{
	struct bpf_straight_settle entry = { .flow = id, .what = what };

	CHECK(bpf_program_call(fds->settle, &entry, sizeof(entry)) == BPF_STRAIGHT_RESULT + 1);
}

static bool has_element(const struct fds *fds, uint64_t id)
{
	struct bpf_stitch stitch;

	return bpf_map_get(fds->stitches, &id, &stitch) == 0;
}

/* Whose the way is; 0: there is none. */
static uint64_t way_of(const struct fds *fds, const struct bpf_straight_begin *begin, unsigned side)
{
	struct bpf_stitch_way way;

	if (bpf_map_get(fds->ways, &begin->stitch.side[side].in, &way) < 0)
		return 0;
	CHECK(way.side == side && way.owner == way.flow + 100);
	return way.flow;
}

static void end(const struct fds *fds, const struct bpf_straight_begin *begin, bool closed)
{
	struct bpf_stitch stitch = begin->stitch;

	stitch.state = closed ? BPF_STITCH_CLOSED : BPF_STITCH_ACTIVE;
	stitch.closed_ns = closed ? 5 : 0;
	stitch.reset_ns = closed ? 0 : 5;
	stitch.side[0].bytes = 77;
	CHECK(bpf_map_put(fds->stitches, &begin->flow, &stitch) == 0);
}

static void begins_and_ends(const struct fds *fds, bool v6)
{
	const struct bpf_straight_begin one = flow_of(1, 4000, v6), two = flow_of(2, 4001, v6);

	CHECK(run(fds, &one) == BPF_STRAIGHT_BEGUN && run(fds, &two) == BPF_STRAIGHT_BEGUN);
	CHECK(run(fds, &one) == BPF_STRAIGHT_BEGUN); /* again, as with another target */
	for (unsigned side = 0; side < 2; side++)
		CHECK(way_of(fds, &one, side) == 1 && way_of(fds, &two, side) == 2);
	settle(fds, 1, BPF_STRAIGHT_DONE);
	CHECK(!has_element(fds, 1) && way_of(fds, &one, 0) == 0 && way_of(fds, &one, 1) == 0);
	CHECK(has_element(fds, 2) && way_of(fds, &two, 0) == 2 && way_of(fds, &two, 1) == 2);
	settle(fds, 1, BPF_STRAIGHT_DONE); /* there is nothing */
	settle(fds, 2, BPF_STRAIGHT_DONE);
	CHECK(!has_element(fds, 2));
}

/* Another flow has one of the two keys. */
static void is_in_use(const struct fds *fds, bool v6, unsigned side)
{
	const struct bpf_straight_begin old = flow_of(1, 4000, v6);
	struct bpf_straight_begin new = flow_of(2, 4001, v6);

	new.stitch.side[side].in = old.stitch.side[side].in;
	CHECK(run(fds, &old) == BPF_STRAIGHT_BEGUN && run(fds, &new) == BPF_STRAIGHT_IN_USE);
	CHECK(!has_element(fds, 2) && way_of(fds, &new, side) == 1 && way_of(fds, &new, !side) == 0);
	CHECK(has_element(fds, 1) && way_of(fds, &old, !side) == 1);
	for (unsigned closed = 0; closed < 2; closed++) {
		end(fds, &old, closed);
		CHECK(run(fds, &new) == BPF_STRAIGHT_BEGUN);
		CHECK(!has_element(fds, 1) && way_of(fds, &old, !side) == 0);
		CHECK(has_element(fds, 2) && way_of(fds, &new, side) == 2 && way_of(fds, &new, !side) == 2);
		settle(fds, 2, BPF_STRAIGHT_DONE);
		CHECK(closed || run(fds, &old) == BPF_STRAIGHT_BEGUN);
	}
}

/* A way whose flow nobody knows is in nobody's way. */
static void is_nobodys(const struct fds *fds, bool v6)
{
	const struct bpf_straight_begin old = flow_of(1, 4000, v6);
	struct bpf_straight_begin new = flow_of(2, 4000, v6);

	CHECK(run(fds, &old) == BPF_STRAIGHT_BEGUN && bpf_map_delete(fds->stitches, &old.flow) == 0);
	CHECK(run(fds, &new) == BPF_STRAIGHT_BEGUN && way_of(fds, &new, 0) == 2 && way_of(fds, &new, 1) == 2);
	settle(fds, 2, BPF_STRAIGHT_DONE);
}

/* What has taken the place of a flow's way stays. */
static void others_stay(const struct fds *fds, bool v6)
{
	const struct bpf_straight_begin one = flow_of(1, 4000, v6);
	const struct bpf_stitch_way other = { .flow = 9, .owner = 109 };
	struct bpf_stitch_way way;

	CHECK(run(fds, &one) == BPF_STRAIGHT_BEGUN);
	CHECK(bpf_map_put(fds->ways, &one.stitch.side[0].in, &other) == 0);
	settle(fds, 1, BPF_STRAIGHT_COUNTED);
	CHECK(bpf_map_get(fds->ways, &one.stitch.side[0].in, &way) == 0 && way.ring == 0 && way.counted == 0);
	settle(fds, 1, BPF_STRAIGHT_DONE);
	CHECK(way_of(fds, &one, 0) == 9 && way_of(fds, &one, 1) == 0);
	CHECK(bpf_map_delete(fds->ways, &one.stitch.side[0].in) == 0);
}

static void is_counted(const struct fds *fds, bool v6)
{
	const struct bpf_straight_begin one = flow_of(1, 4000, v6);
	struct bpf_stitch_way way;

	CHECK(run(fds, &one) == BPF_STRAIGHT_BEGUN);
	end(fds, &one, true);
	settle(fds, 1, BPF_STRAIGHT_COUNTED);
	CHECK(bpf_map_get(fds->ways, &one.stitch.side[0].in, &way) == 0);
	CHECK(way.ring == BPF_STITCH_COUNTED && way.flow == 1 && way.owner == 101);
	settle(fds, 1, BPF_STRAIGHT_DONE);
}

static void many_at_once(const struct fds *fds)
{
	struct bpf_straight_settle entries[BPF_STRAIGHT_SETTLE_MAX + 2] = { 0 };

	for (uint32_t i = 0; i < BPF_STRAIGHT_SETTLE_MAX + 2; i++) {
		struct bpf_straight_begin begin = flow_of(i + 1, (uint16_t)(4000 + i), false);

		CHECK(run(fds, &begin) == BPF_STRAIGHT_BEGUN);
		entries[i] = (struct bpf_straight_settle){ .flow = i + 1, .what = BPF_STRAIGHT_DONE };
	}
	CHECK(bpf_program_call(fds->settle, entries, sizeof(entries)) == BPF_STRAIGHT_RESULT + BPF_STRAIGHT_SETTLE_MAX);
	for (uint32_t i = 0; i < BPF_STRAIGHT_SETTLE_MAX + 2; i++)
		CHECK(has_element(fds, i + 1) == (i >= BPF_STRAIGHT_SETTLE_MAX));
	/* What is not whole is not looked at. */
	CHECK(bpf_program_call(fds->settle, &entries[BPF_STRAIGHT_SETTLE_MAX], 2 * sizeof(entries[0]) - 1) ==
	        BPF_STRAIGHT_RESULT + 1);
	CHECK(!has_element(fds, BPF_STRAIGHT_SETTLE_MAX + 1) && has_element(fds, BPF_STRAIGHT_SETTLE_MAX + 2));
	settle(fds, BPF_STRAIGHT_SETTLE_MAX + 2, BPF_STRAIGHT_DONE);
}

/* Several things in one call, in their order, among what is not there and what is not known. */
static void mixed_at_once(const struct fds *fds)
{
	const struct bpf_straight_begin one = flow_of(1, 4000, false), two = flow_of(2, 4001, false);
	const struct bpf_straight_settle entries[] = { { .flow = 7, .what = BPF_STRAIGHT_DONE },
		{ .flow = 1, .what = BPF_STRAIGHT_DONE }, { .flow = 1, .what = BPF_STRAIGHT_COUNTED },
		{ .flow = 8, .what = BPF_STRAIGHT_COUNTED }, { .flow = 2, .what = BPF_STRAIGHT_DONE + 1 },
		{ .flow = 2, .what = BPF_STRAIGHT_COUNTED } };
	struct bpf_stitch_way way;

	CHECK(run(fds, &one) == BPF_STRAIGHT_BEGUN && run(fds, &two) == BPF_STRAIGHT_BEGUN);
	CHECK(bpf_program_call(fds->settle, entries, sizeof(entries)) == BPF_STRAIGHT_RESULT + 6);
	CHECK(!has_element(fds, 1) && way_of(fds, &one, 0) == 0 && has_element(fds, 2));
	CHECK(bpf_map_get(fds->ways, &two.stitch.side[0].in, &way) == 0 && way.ring == BPF_STITCH_COUNTED);
	settle(fds, 2, BPF_STRAIGHT_DONE);
}

/* Nothing of a flow for which there is no room is left, and nothing of others is touched. */
static void there_is_no_room(const struct fds *fds)
{
	const struct bpf_straight_begin one = flow_of(1, 4000, false), two = flow_of(2, 4001, false);
	const struct bpf_stitch_way other = { .flow = 9, .owner = 109 };
	struct bpf_shortcut_key key = { .family = 4 };
	uint32_t n = 0;

	CHECK(run(fds, &one) == BPF_STRAIGHT_BEGUN);
	do
		memcpy(key.source, &n, sizeof(n));
	while (++n < 3 * BPF_STITCH_MAX && bpf_map_put(fds->ways, &key, &other) == 0);
	CHECK(n == 2 * BPF_STITCH_MAX - 1);
	CHECK(run(fds, &two) == BPF_STRAIGHT_FULL && !has_element(fds, 2) && way_of(fds, &two, 1) == 0);
	key = (struct bpf_shortcut_key){ .family = 4 };
	CHECK(bpf_map_delete(fds->ways, &key) == 0); /* for one of its ways */
	CHECK(run(fds, &two) == BPF_STRAIGHT_FULL && !has_element(fds, 2) && way_of(fds, &two, 1) == 0);
	CHECK(has_element(fds, 1) && way_of(fds, &one, 0) == 1 && way_of(fds, &one, 1) == 1);
	for (uint32_t i = 1; i < n; i++) {
		memcpy(key.source, &i, sizeof(i));
		(void)bpf_map_delete(fds->ways, &key);
	}
	settle(fds, 1, BPF_STRAIGHT_DONE);
}

/* Whatever is said, the result is no verdict about a packet. */
static void is_no_verdict(const struct fds *fds)
{
	static const uint8_t bytes[BPF_PACKET_MAX];

	for (size_t size = 14; size <= sizeof(bytes); size++) {
		CHECK(bpf_program_call(fds->begin, bytes, size) > XDP_REDIRECT);
		CHECK(bpf_program_call(fds->settle, bytes, size) > XDP_REDIRECT);
	}
	CHECK(bpf_program_call(fds->begin, bytes, sizeof(struct bpf_straight_begin) - 1) == BPF_STRAIGHT_UNREAD);
	settle(fds, 0, BPF_STRAIGHT_DONE);
}

static void is_refused(const struct fds *fds)
{
	const struct bpf_straight_begin one = flow_of(1, 4000, false);
	union bpf_attr attr = { 0 };

	CHECK(bpf_program_call(fds->ways, &one, sizeof(one)) == -EINVAL); /* no program */
	CHECK(syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr)) < 0 && errno == EPERM);
	CHECK(syscall(SYS_bpf, BPF_PROG_GET_FD_BY_ID, &attr, sizeof(attr)) < 0 && errno == EPERM);
}

static void act_as_relay(const struct fds *fds)
{
	struct isolate_params params = { NOBODY, NOBODY };

	CHECK(isolate_drop(&params) == 0 && isolate_filter_relay() == 0);
	for (unsigned v6 = 0; v6 < 2; v6++) {
		begins_and_ends(fds, v6);
		is_in_use(fds, v6, 0);
		is_in_use(fds, v6, 1);
		is_nobodys(fds, v6);
		others_stay(fds, v6);
		is_counted(fds, v6);
	}
	many_at_once(fds);
	mixed_at_once(fds);
	there_is_no_room(fds);
	is_no_verdict(fds);
	is_refused(fds);
}

static void close_apart(struct kernel_shortcut *shortcut, const char *directory)
{
	kernel_shortcut_free(shortcut);
	(void)umount2(directory, MNT_DETACH);
	rmdir(directory);
}

/* Opens them in a bpf file system of this test's own. */
static struct kernel_shortcut *open_apart(const char *directory)
{
	struct kernel_shortcut *shortcut = NULL;
	char why[256] = "no network or no bpf file system of its own";

	if (geteuid() != 0 || unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 ||
	        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("bpf", directory, "bpf", 0, NULL) < 0 ||
	        kernel_shortcut_open(directory, &shortcut, why, sizeof(why)) < 0) {
		print_message("SKIP: %s\n", why);
		close_apart(NULL, directory);
		skip();
	}
	return shortcut;
}

static void test_calls(void **state)
{
	char directory[] = "/tmp/gwbpf-XXXXXX";
	struct kernel_shortcut *shortcut;
	struct fds fds;
	int status = 0;
	pid_t pid;

	(void)state;
	assert_non_null(mkdtemp(directory));
	shortcut = open_apart(directory);
	fds = (struct fds){ kernel_shortcut_fd(shortcut, PROTO_SHORTCUT_WAYS),
		kernel_shortcut_fd(shortcut, PROTO_SHORTCUT_STITCHES),
		kernel_shortcut_fd(shortcut, PROTO_SHORTCUT_BEGIN),
		kernel_shortcut_fd(shortcut, PROTO_SHORTCUT_SETTLE) };
	pid = fork();
	if (pid == 0) {
		act_as_relay(&fds);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close_apart(shortcut, directory);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_calls) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
