/*
 * The monitor on the real kernel, in a network namespace of the test's own:
 * what others do is told with their name, what we do ourselves is not.
 * Skipped without the right to make a namespace.
 */
#include "rules_fixture.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rules/kernel_watch.h"

static const struct render_params params = { 0x01000000, 0x0f000000, 41000, 41001, false, { 0 } };
static const struct route_params routes = { 0x01000000, 0x0f000000, 26487, 100 };

struct bench {
	struct kernel *kernel;
	struct kernel_watch *watch;
	struct watch_event last; /* that expect_link has found */
};

static int setup(void **state)
{
	struct bench *bench = calloc(1, sizeof(*bench));

	assert_non_null(bench);
	*state = bench;
	if (unshare(CLONE_NEWNET) < 0) {
		print_message("SKIP: no right to make a network namespace\n");
		return 0;
	}
	if (system("ip link set lo up && nft --version >/dev/null") != 0)
		return -1;
	assert_int_equal(kernel_open(&bench->kernel), 0);
	assert_int_equal(kernel_watch_open(&bench->watch), 0);
	return 0;
}

static int teardown(void **state)
{
	struct bench *bench = *state;

	kernel_watch_free(bench->watch);
	kernel_free(bench->kernel);
	free(bench);
	return 0;
}

static struct bench *bench_of(void **state)
{
	struct bench *bench = *state;

	if (!bench->watch)
		skip();
	return bench;
}

static bool readable(const struct bench *bench, int timeout)
{
	struct pollfd poll_fd = { kernel_watch_fd(bench->watch), POLLIN, 0 };

	return poll(&poll_fd, 1, timeout) == 1;
}

static bool next_event(struct bench *bench, struct watch_event *ret)
{
	int r = kernel_watch_next(bench->watch, &routes, ret);

	while (r == 0 && readable(bench, 200))
		r = kernel_watch_next(bench->watch, &routes, ret);
	assert_true(r >= 0);
	return r == 1;
}

static void expect_nothing(struct bench *bench)
{
	struct watch_event event;

	if (next_event(bench, &event))
		fail_msg("an event of kind %d: %s", event.kind, event.detail);
	assert_false(readable(bench, 0));
}

static void expect(struct bench *bench, enum watch_kind kind, const char *process, const char *detail)
{
	struct watch_event event;

	assert_true(next_event(bench, &event));
	if (event.kind != kind || strcmp(event.process, process) != 0 || !strstr(event.detail, detail))
		fail_msg("kind %d, process \"%s\", detail \"%s\"", event.kind, event.process, event.detail);
	assert_int_equal(event.pid != 0, process[0] != '\0');
}

static void load(struct bench *bench)
{
	struct snapshot *snapshot = snapshot_new();
	_cleanup_free_ char *text = NULL;
	struct model *model;

	fixture_put(snapshot, fixture_listener("web", 1, "", "", "10.0.0.1", "443"));
	model = fixture_model(snapshot);
	assert_int_equal(render_nft_full(model, &params, 1, &text), 0);
	assert_int_equal(kernel_nft_commit(bench->kernel, text, NULL), 0);
	model_free(model);
	snapshot_unref(snapshot);
}

static void our_own_is_no_event(void **state)
{
	struct bench *bench = bench_of(state);

	load(bench);
	assert_int_equal(kernel_route_sync(bench->kernel, &routes, NULL), 0);
	expect_nothing(bench);
	load(bench); /* now behind the filter */
	expect_nothing(bench);
}

static void others_tables_are_no_event(void **state)
{
	struct bench *bench = bench_of(state);

	assert_int_equal(system("nft 'add table inet other; add chain inet other pre_tcp; add table ip gatewayd;"
	                        "add chain ip gatewayd prerouting; add rule ip gatewayd prerouting accept'"),
	        0);
	expect_nothing(bench);
}

static void changes_of_our_table_are_told(void **state)
{
	struct bench *bench = bench_of(state);

	assert_int_equal(system("nft add rule inet gatewayd pre_tcp counter accept"), 0);
	expect(bench, WATCH_NFT, "nft", "rule added to chain pre_tcp");
	assert_int_equal(system("nft flush set inet gatewayd tcp4_d32_s0_exact_relay"), 0);
	expect(bench, WATCH_NFT, "nft", "element deleted from tcp4_d32_s0_exact_relay");
	assert_int_equal(system("nft 'add set inet gatewayd x { type mark; }; add chain inet gatewayd y'"), 0);
	expect(bench, WATCH_NFT, "nft", "and 1 more");
	assert_int_equal(
	        system("d=$(mktemp -d) && cp $(command -v nft) $d/hk_stranger && $d/hk_stranger flush ruleset &&"
	               "rm -r $d"),
	        0);
	expect(bench, WATCH_NFT, "hk_stranger", " more");
	expect_nothing(bench);
	assert_int_equal(system("nft flush ruleset"), 0);
	expect_nothing(bench); /* it was gone already */
	load(bench);
	expect_nothing(bench);
}

/* Paused, it hears nothing and misses nothing: others' transactions are those that we did not count. */
static void a_pause_misses_nothing(void **state)
{
	struct bench *bench = bench_of(state);
	uint64_t before = kernel_nft_commits(bench->kernel);
	struct watch_event event = { 0 };

	assert_int_equal(kernel_watch_pause(bench->watch), 0);
	load(bench);
	assert_int_equal(kernel_nft_commits(bench->kernel) - before, 1);
	assert_int_equal(kernel_watch_resume(bench->watch, 1, &event), 0);
	expect_nothing(bench);
	assert_int_equal(kernel_watch_pause(bench->watch), 0);
	load(bench);
	assert_int_equal(system("nft add rule inet gatewayd pre_tcp counter accept"), 0);
	expect_nothing(bench);
	assert_int_equal(kernel_watch_resume(bench->watch, 1, &event), 1);
	assert_int_equal(event.kind, WATCH_OVERRUN);
	assert_int_equal(kernel_watch_pause(bench->watch), 0);
	assert_int_equal(kernel_watch_resume(bench->watch, UINT64_MAX, &event), 1);
	assert_int_equal(system("nft add rule inet gatewayd pre_tcp counter accept"), 0);
	expect(bench, WATCH_NFT, "nft", "rule added to chain pre_tcp");
	load(bench);
	expect_nothing(bench);
}

/* Elements of one set of ours, as one transaction. */
static char *many_elements(const char *verb)
{
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	assert_non_null(out);
	fprintf(out, "%s element inet gatewayd tcp4_d32_s0_exact_relay {\n", verb);
	for (unsigned i = 0; i < 4000; i++)
		fprintf(out, " 10.99.%u.%u . 80,\n", i / 250, i % 250);
	fputs("}\n", out);
	fclose(out);
	return text;
}

/* Another process: with each byte that it gets, elements come or go, and it answers. */
static void stranger_main(int from, int to)
{
	char *text[] = { many_elements("add"), many_elements("delete") }, byte;
	struct kernel *kernel;

	for (unsigned i = 0; kernel_open(&kernel) == 0 && read(from, &byte, 1) == 1; i++) {
		if (kernel_nft_commit(kernel, text[i % 2], NULL) < 0 || write(to, &byte, 1) != 1)
			_exit(1);
		kernel_free(kernel);
	}
	_exit(0);
}

/* Whoever is in the midst of a transaction as we stop to listen, or begin again, is heard or counted. */
static void nobody_slips_through_the_ends_of_a_pause(void **state)
{
	struct bench *bench = bench_of(state);
	int to[2], from[2], told = 0, counted = 0, rounds = (int)amount(60, 1000);
	struct watch_event event;
	pid_t child;
	char byte = 0;

	assert_int_equal(pipe(to) | pipe(from), 0);
	child = fork();
	if (child == 0) {
		close(to[1]);
		stranger_main(to[0], from[1]);
	}
	close(to[0]);
	for (int i = 0; i < rounds; i++) {
		struct pollfd answer = { from[0], POLLIN, 0 };
		bool was_counted = false, was_told = false;

		assert_int_equal(write(to[1], &byte, 1), 1);
		while (poll(&answer, 1, 0) == 0) {
			assert_int_equal(kernel_watch_pause(bench->watch), 0);
			usleep(i % 2 ? 3000 : 0);
			was_counted |= kernel_watch_resume(bench->watch, 0, &event) == 1;
		}
		assert_int_equal(read(from[0], &byte, 1), 1);
		while (kernel_watch_next(bench->watch, &routes, &event) == 1)
			was_told |= event.kind == WATCH_NFT;
		if (!was_counted && !was_told)
			fail_msg("round %d: neither counted nor told", i);
		told += was_told;
		counted += was_counted;
	}
	close(to[1]);
	assert_int_equal(waitpid(child, NULL, 0), child);
	close(from[0]);
	close(from[1]);
	print_message("%d transactions: %d told, %d counted\n", rounds, told, counted);
	assert_true(counted > 0 && told > 0);
	load(bench);
	expect_nothing(bench);
}

static void changes_of_routing_are_told(void **state)
{
	struct bench *bench = bench_of(state);

	assert_int_equal(system("ip rule add fwmark 9 lookup 9 prio 9; ip route add 192.0.2.0/24 dev lo"), 0);
	expect_nothing(bench);
	/* The process is gone before we can look for its name, unless it is a shell that stays for a while. */
	assert_int_equal(system("ip rule del prio 101"), 0);
	expect(bench, WATCH_RULE, "", "IPv4 rule with priority 101 deleted");
	assert_int_equal(system("ip -6 rule add lookup 26487 prio 7"), 0);
	expect(bench, WATCH_RULE, "", "IPv6 rule with priority 7 added");
	assert_int_equal(system("ip -6 route flush table 26487"), 0);
	expect(bench, WATCH_ROUTE, "", "IPv6 route in table 26487 deleted");
	assert_int_equal(kernel_route_sync(bench->kernel, &routes, NULL), 0);
	expect_nothing(bench);
}

/* A process that deletes a rule and lives on is named. */
static void a_living_process_is_named(void **state)
{
	struct bench *bench = bench_of(state);
	struct watch_event event;
	FILE *batch = popen("ip -batch -", "we");

	assert_non_null(batch);
	fputs("rule del prio 101\n", batch);
	fflush(batch);
	assert_true(readable(bench, 2000));
	assert_int_equal(kernel_watch_next(bench->watch, &routes, &event), 1);
	pclose(batch);
	assert_int_equal(event.kind, WATCH_RULE);
	assert_true(event.removed && event.pid > 0);
	assert_string_equal(event.process, "ip");
	assert_int_equal(kernel_route_sync(bench->kernel, &routes, NULL), 0);
	expect_nothing(bench);
}

/* Leaves the event in the bench. */
static void expect_link(struct bench *bench, const char *interface, bool up, bool removed)
{
	struct watch_event event;

	assert_true(next_event(bench, &event));
	while (event.kind != WATCH_LINK || strcmp(event.interface, "other") == 0)
		assert_true(next_event(bench, &event));
	assert_string_equal(event.interface, interface);
	assert_int_equal(event.up, up);
	assert_int_equal(event.removed, removed);
	bench->last = event;
}

/* Among the events of routes and of the interface's own IPv6 address. */
static void expect_address(struct bench *bench, bool removed)
{
	struct watch_event event;

	do
		assert_true(next_event(bench, &event));
	while (event.kind != WATCH_ADDRESS || !strstr(event.detail, "192.0.2.7/24"));
	assert_string_equal(event.interface, "hk0");
	assert_int_equal(event.removed, removed);
}

static void interfaces_come_and_go(void **state)
{
	struct bench *bench = bench_of(state);
	struct watch_event event;

	assert_int_equal(system("ip link add hk0 type veth peer name other; ip link set other up"), 0);
	expect_link(bench, "hk0", false, false);
	assert_int_equal(system("ip link set hk0 up; ip link set hk0 mtu 1400"), 0);
	expect_link(bench, "hk0", true, false);
	assert_int_equal(system("ip addr add 192.0.2.7/24 dev hk0 && ip addr del 192.0.2.7/24 dev hk0"), 0);
	expect_address(bench, false);
	expect_address(bench, true);
	assert_int_equal(system("ip link set hk0 down"), 0);
	expect_link(bench, "hk0", false, false);
	assert_int_equal(system("ip link set hk0 name hk1"), 0);
	expect_link(bench, "hk0", false, true);
	expect_link(bench, "hk1", false, false);
	assert_int_equal(system("ip link del hk1"), 0);
	expect_link(bench, "hk1", false, true);
	while (next_event(bench, &event))
		assert_true(event.kind != WATCH_LINK || strcmp(event.interface, "other") == 0);
}

static int pass_all(void)
{
	const struct bpf_insn code[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = XDP_PASS },
		{ .code = BPF_JMP | BPF_EXIT },
	};

	return bpf_prog_load(BPF_PROG_TYPE_XDP, "pass_all", "GPL", code, sizeof(code) / sizeof(*code), NULL);
}

/* Whose program is on an interface matters to ours: it is told at once, and what changes nothing of it is not. */
static void programs_come_and_go(void **state)
{
	struct bench *bench = bench_of(state);
	int first = pass_all(), second = pass_all(), index;
	struct watch_event event;

	if (first < 0 || second < 0)
		skip();
	assert_int_equal(
	        system("ip link add px0 type veth peer name other; ip link set other up; ip link set px0 up"), 0);
	while (next_event(bench, &event))
		;
	index = (int)if_nametoindex("px0");
	for (int i = 0; i < 3; i++) {
		assert_int_equal(bpf_xdp_attach(index,
		                         i == 0   ? first
		                         : i == 1 ? second
		                                  : -1,
		                         XDP_FLAGS_SKB_MODE, NULL),
		        0);
		assert_int_equal(system("ip link set px0 mtu 1400; ip link set px0 mtu 1500"), 0);
		expect_link(bench, "px0", true, false);
		assert_string_equal(bench->last.detail, i < 2 ? "got another XDP program" : "lost its XDP program");
		while (next_event(bench, &event))
			assert_int_not_equal(event.kind, WATCH_LINK);
	}
	assert_int_equal(system("ip link del px0"), 0);
	close(second);
	close(first);
}

/* More than the buffer holds: told as such, and afterwards all goes on. */
static void lost_events_are_told(void **state)
{
	struct bench *bench = bench_of(state);
	struct watch_event event;
	bool overrun = false;

	assert_int_equal(
	        system("nft 'add table inet other; add set inet other s { type mark; }'; for i in $(seq 20); do"
	               "  { echo 'add element inet other s {'; seq -s, 40000; echo '}'; } | nft -f - &&"
	               "  nft flush set inet other s || exit 1; done; exit 0"),
	        0);
	while (next_event(bench, &event))
		overrun |= event.kind == WATCH_OVERRUN;
	print_message("1,600,000 changes by others: %s\n", overrun ? "overrun" : "all read");
	assert_int_equal(system("nft add rule inet gatewayd pre_udp accept"), 0);
	expect(bench, WATCH_NFT, "nft", "rule added to chain pre_udp");
	assert_true(overrun);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(our_own_is_no_event),
		cmocka_unit_test(others_tables_are_no_event),
		cmocka_unit_test(changes_of_our_table_are_told),
		cmocka_unit_test(a_pause_misses_nothing),
		cmocka_unit_test(nobody_slips_through_the_ends_of_a_pause),
		cmocka_unit_test(changes_of_routing_are_told),
		cmocka_unit_test(a_living_process_is_named),
		cmocka_unit_test(interfaces_come_and_go),
		cmocka_unit_test(programs_come_and_go),
		cmocka_unit_test(lost_events_are_told),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
