/*
 * The real kernel in a network namespace of the test's own: what is rendered
 * is accepted and read back as it was meant, a chain of plans ends where a
 * full rendering does, routing is synced and repaired, cleanup leaves nothing.
 * Skipped without the right to make a namespace.
 */
#include "rules_fixture.h"

#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>

#include "rules/kernel.h"
#include "rules/kernel_bulk.h"
#include "schema/prefixes.h"

static struct render_params params = { 0x01000000, 0x0f000000, 41000, 41001, false, { 0 } };
static const struct route_params routes = { 0x01000000, 0x0f000000, 26487, 100 };

/* A namespace of our own with lo up; the reason if there is none to be had. */
static const char *enter_namespace(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd;

	if (unshare(CLONE_NEWNET) < 0)
		return "no right to make a network namespace";
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		return "lo cannot be brought up";
	close(fd);
	return NULL;
}

static int setup(void **state)
{
	const char *reason = enter_namespace();
	struct kernel *kernel = NULL;

	if (reason)
		print_message("SKIP: %s\n", reason);
	else
		assert_int_equal(kernel_open(&kernel), 0);
	*state = kernel;
	return 0;
}

static int teardown(void **state)
{
	kernel_free(*state);
	return 0;
}

static struct kernel *kernel_of(void **state)
{
	if (!*state)
		skip();
	return *state;
}

static void run(struct kernel *kernel, char *text)
{
	_cleanup_free_ char *error = NULL;
	int r = kernel_nft_check(kernel, text, &error);

	if (r == 0)
		r = kernel_nft_commit(kernel, text, &error);
	if (r < 0)
		print_message("%s\n%.3000s\n", error ? error : "no message", text);
	assert_int_equal(r, 0);
	assert_null(error);
	free(text);
}

static void run_full(struct kernel *kernel, const struct model *model, int64_t generation)
{
	char *text;

	assert_int_equal(render_nft_full(model, &params, generation, &text), 0);
	run(kernel, text);
}

/* The kernel holds exactly the model's elements and shapes. */
static void kernel_is(struct kernel *kernel, const struct model *model, int64_t generation)
{
	struct kernel_state found = { 0 };
	struct group *groups;
	struct elements elements;
	size_t n;

	assert_int_equal(kernel_nft_read(kernel, &found), 0);
	assert_true(found.present && found.compatible);
	assert_int_equal(found.generation, generation);
	assert_int_equal(model_elements(model, &elements), 0);
	assert_int_equal(model_groups(model, &groups, &n), 0);
	fixture_same_elements(&found.elements, &elements, false);
	assert_int_equal(found.n_groups, n);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(group_compare(&found.groups[i], &groups[i]), 0);
	free(groups);
	free(elements.items);
	kernel_state_clear(&found);
}

/* The rules as text, without what may differ between two equal tables. */
static char *rules_of(struct kernel *kernel)
{
	char *text, *chains;

	assert_int_equal(kernel_nft_list(kernel, &text), 0);
	chains = strstr(text, "\tchain ");
	assert_non_null(chains);
	memmove(text, chains, strlen(chains) + 1);
	return text;
}

static void nothing_is_there(void **state)
{
	struct kernel *kernel = kernel_of(state);
	struct kernel_state found = { 0 };
	char *text, *error = NULL;
	json_t *json;

	assert_int_equal(kernel_nft_read(kernel, &found), 0);
	assert_false(found.present);
	assert_int_equal(kernel_nft_list(kernel, &text), 0);
	assert_string_equal(text, "");
	free(text);
	assert_int_equal(kernel_nft_counters(kernel, &json), 0);
	assert_int_equal(json_object_size(json), 0);
	json_decref(json);
	assert_int_equal(kernel_nft_check(kernel, "add rule inet nowhere at all accept\n", &error), -EINVAL);
	assert_non_null(error);
	free(error);
	assert_int_equal(kernel_cleanup(kernel), 0);
}

static void check_changes_nothing(void **state)
{
	struct kernel *kernel = kernel_of(state);
	struct kernel_state found = { 0 };
	struct model *model;
	char *text;

	assert_int_equal(model_new(&model), 0);
	assert_int_equal(render_nft_full(model, &params, 1, &text), 0);
	assert_int_equal(kernel_nft_check(kernel, text, NULL), 0);
	assert_int_equal(kernel_nft_read(kernel, &found), 0);
	assert_false(found.present);
	free(text);
	model_free(model);
}

/* Listeners that no random set is sure to have: every field, none at all, both ends of the ports. */
static struct snapshot *all_shapes(void)
{
	static const char *const addresses[] = { "", "10.1.0.0/16 fd00:1::/32", "10.1.1.1 fd00::1" };
	static const char *const ports[] = { "443", "8000-8100 65535 1-2", "" };
	struct snapshot *snapshot = snapshot_new();
	unsigned number = 0;

	snapshot->revision = 42;
	for (unsigned i = 0; i < 3 * 3 * 2 * 3 * 2; i++) {
		struct listener *listener;
		char name[32];

		snprintf(name, sizeof(name), "l%u", number++);
		listener = fixture_listener(name, number, i / 9 % 2 ? "eth0 a.very-long_0:@" : "", addresses[i % 3],
		        addresses[i / 3 % 3], ports[i / 18 % 3]);
		listener->protocol = i / 54 ? PROTOCOL_UDP : PROTOCOL_TCP;
		listener->action = i / 54 ? ACTION_DROP : (int64_t)(i % ACTION_WORDS);
		listener->on_worker_down = i % 2;
		fixture_put(snapshot, listener);
	}
	return snapshot;
}

static void every_shape_is_read_back(void **state)
{
	struct kernel *kernel = kernel_of(state);
	struct snapshot *snapshot = all_shapes();
	struct model *model = fixture_model(snapshot);
	json_t *counters;

	run_full(kernel, model, 42);
	kernel_is(kernel, model, 42);
	run_full(kernel, model, 0xfffffffe);
	kernel_is(kernel, model, 0xfffffffe);
	assert_int_equal(kernel_nft_counters(kernel, &counters), 0);
	assert_non_null(json_object_get(counters, "no_listener_socket"));
	json_decref(counters);
	model_free(model);
	snapshot_unref(snapshot);
}

static void the_gate_opens_and_closes(void **state)
{
	struct kernel *kernel = kernel_of(state);
	_cleanup_free_ char *closed = rules_of(kernel), *open = NULL, *again = NULL;
	char *text;

	assert_int_equal(render_nft_gate(true, &text), 0);
	run(kernel, text);
	open = rules_of(kernel);
	assert_string_not_equal(open, closed);
	assert_int_equal(render_nft_gate(false, &text), 0);
	run(kernel, text);
	again = rules_of(kernel);
	assert_string_equal(again, closed);
}

static void check_rules_are_fresh(struct kernel *kernel, const struct model *model, int64_t generation)
{
	_cleanup_free_ char *by_plans = rules_of(kernel), *fresh = NULL;

	run_full(kernel, model, generation);
	fresh = rules_of(kernel);
	assert_string_equal(by_plans, fresh);
}

static void plans_end_where_full_does(void **state)
{
	struct kernel *kernel = kernel_of(state);
	struct snapshot *at = snapshot_new();
	struct model *model = fixture_model(at);

	plan_own_range_min(2); /* small listeners, too, have sets of their ranges */
	run_full(kernel, model, 0);
	for (unsigned round = 0; round < amount(80, 200); round++) {
		struct snapshot *to = fixture_random_edit(at, 25);
		struct errs errs = { 0 };
		struct plan *plan;
		char *text;

		if (plan_new(model, at, to, &errs, &plan) == 0) {
			plan->rewrite_chains = fixture_random(10) == 0;
			if (plan->rewrite_chains)
				params.port_v4++; /* a relay started anew listens elsewhere */
			assert_int_equal(render_nft_plan(plan, &params, &text), 0);
			run(kernel, text);
			plan_commit(model, plan);
			kernel_is(kernel, model, to->revision);
			snapshot_unref(at);
			at = snapshot_ref(to);
		}
		errs_clear(&errs);
		snapshot_unref(to);
		if (round % 40 == 39)
			check_rules_are_fresh(kernel, model, at->revision);
	}
	plan_own_range_min(0);
	model_free(model);
	snapshot_unref(at);
}

static struct snapshot *many_ranges(const struct snapshot *from, unsigned n, unsigned first)
{
	struct snapshot *to = snapshot_edit(from, from->revision + 1);

	for (unsigned i = 0; i < n; i++) {
		char name[32], ports[32];

		snprintf(name, sizeof(name), "l%05u", i);
		snprintf(ports, sizeof(ports), "%u-%u", first + 3 * i, first + 3 * i + 1);
		fixture_put(to, fixture_listener(name, i + 1, "", "", "", ports));
	}
	return to;
}

/* More removals from one interval set than are worth deleting one by one. */
static void large_changes_rebuild_maps(void **state)
{
	struct kernel *kernel = kernel_of(state);
	struct snapshot *empty = snapshot_new(), *from = many_ranges(empty, 2000, 100),
	                *to = many_ranges(from, 1900, 102);
	struct model *model = fixture_model(from);
	struct errs errs = { 0 };
	struct plan *plan;
	double begin;
	char *text;

	run_full(kernel, model, 1);
	assert_int_equal(plan_new(model, from, to, &errs, &plan), -EEXIST);
	errs_clear(&errs);
	snapshot_unref(to);
	to = many_ranges(from, 2000, 102);
	assert_int_equal(plan_new(model, from, to, &errs, &plan), 0);
	assert_int_equal(plan->n_groups_rebuilt, 2);
	assert_int_equal(render_nft_plan(plan, &params, &text), 0);
	begin = fixture_ms();
	run(kernel, text);
	print_message("2000 ranges replaced in %.0f ms\n", fixture_ms() - begin);
	plan_commit(model, plan);
	kernel_is(kernel, model, 2);
	check_rules_are_fresh(kernel, model, 2);
	model_free(model);
	snapshot_unref(empty);
	snapshot_unref(from);
	snapshot_unref(to);
}

/* Thousands of prefixes of both families, from `first` on. */
static struct prefixes thousands(uint8_t first, size_t n)
{
	struct prefixes_builder builder = { 0 };
	struct prefixes ret = { 0 };

	for (size_t i = 0; i < n; i++) {
		struct prefix v4 = { { AF_INET, { first, (uint8_t)(i >> 8), (uint8_t)i } }, 24 },
		              v6 = { { AF_INET6, { 0xfd, first, (uint8_t)(i >> 8), (uint8_t)i, 7 } }, 64 };

		assert_int_equal(prefixes_add(&builder, &v4), 0);
		assert_int_equal(prefixes_add(&builder, &v6), 0);
	}
	assert_int_equal(prefixes_finish(&builder, &ret), 0);
	return ret;
}

static void put_set(struct snapshot *snapshot, const char *name, struct prefixes entries)
{
	struct address_set *set = (struct address_set *)row_new(RESOURCE_ADDRESS_SET);

	snprintf(set->name, sizeof(set->name), "%s", name);
	set->entries = entries;
	assert_int_equal(snapshot_put(snapshot, &set->row), 0);
	row_unref(&set->row);
}

/* A set for each kind of key: with a source, an interface, one port, a range of its own, ranges, any; and a map. */
static struct snapshot *large_sets(size_t n)
{
	struct snapshot *snapshot = snapshot_new();
	struct listener *listener;

	snapshot->revision = 5;
	put_set(snapshot, "big", thousands(10, n));
	put_set(snapshot, "other", thousands(20, PLAN_OWN_RANGE_MIN / 2 - 1));
	fixture_put(snapshot, fixture_listener("exact", 1, "", "", "@big", "443"));
	fixture_put(snapshot, fixture_listener("range", 2, "", "", "@big", "8000-8100"));
	fixture_put(snapshot, fixture_listener("any", 3, "", "", "@big", ""));
	fixture_put(snapshot, fixture_listener("ranges", 4, "", "", "@other", "1-100 200-300"));
	fixture_put(snapshot, fixture_listener("source", 5, "", "@big", "192.0.2.1 fd77::1", "53"));
	fixture_put(snapshot, fixture_listener("interface", 6, "a.very-long_0:@", "", "@big", "80"));
	listener = fixture_listener("datagrams", 7, "", "", "@other", "3000-4000");
	listener->protocol = PROTOCOL_UDP;
	listener->action = ACTION_DROP;
	fixture_put(snapshot, listener);
	return snapshot;
}

static size_t counters_in(struct kernel *kernel)
{
	_cleanup_free_ char *text = NULL;
	size_t n = 0;

	assert_int_equal(kernel_nft_list(kernel, &text), 0);
	for (const char *at = text; (at = strstr(at, "counter packets 0")); at++)
		n++;
	return n;
}

/* From one state to the other; the text must be one that goes by netlink. */
static void change_much(struct kernel *kernel, struct model *model, struct snapshot *from, struct snapshot *to)
{
	struct errs errs = { 0 };
	struct plan *plan;
	char *text;

	assert_int_equal(plan_new(model, from, to, &errs, &plan), 0);
	assert_int_equal(render_nft_plan(plan, &params, &text), 0);
	assert_true(strlen(text) > KERNEL_LARGE);
	run(kernel, text);
	plan_commit(model, plan);
	kernel_is(kernel, model, to->revision);
}

/* New sets, more and less of those that are there, and the whole from nothing: read back as they were meant. */
static void large_sets_go_by_netlink(void **state)
{
	struct kernel *kernel = kernel_of(state);
	struct snapshot *empty = snapshot_new(), *at = large_sets(1100), *more = snapshot_edit(at, 6);
	struct model *model = fixture_model(empty);
	size_t counters;

	run_full(kernel, model, 0);
	change_much(kernel, model, empty, at);
	counters = counters_in(kernel);
	check_rules_are_fresh(kernel, model, 5);
	assert_int_equal(counters_in(kernel), counters);
	put_set(more, "big", thousands(10, 3300));
	change_much(kernel, model, at, more);
	change_much(kernel, model, more, at);
	assert_int_equal(kernel_nft_commit(kernel, "delete table inet gatewayd\n", NULL), 0);
	run_full(kernel, model, 5);
	kernel_is(kernel, model, 5);
	assert_int_equal(counters_in(kernel), counters);
	model_free(model);
	snapshot_unref(more);
	snapshot_unref(at);
	snapshot_unref(empty);
}

/* What was made before the part that is refused goes again. */
static void a_refusal_leaves_no_large_sets(void **state)
{
	struct kernel *kernel = kernel_of(state);
	struct snapshot *empty = snapshot_new(), *to = large_sets(1100);
	struct model *model = fixture_model(empty);
	_cleanup_free_ char *text = NULL, *bad = NULL, *error = NULL;
	struct errs errs = { 0 };
	struct plan *plan;

	run_full(kernel, model, 0);
	assert_int_equal(plan_new(model, empty, to, &errs, &plan), 0);
	assert_int_equal(render_nft_plan(plan, &params, &text), 0);
	assert_true(asprintf(&bad, "%sadd rule inet gatewayd nowhere accept\n", text) > 0);
	assert_int_equal(kernel_nft_commit(kernel, bad, &error), -EINVAL);
	assert_non_null(error);
	kernel_is(kernel, model, 0);
	plan_abort(model, plan);
	model_free(model);
	snapshot_unref(to);
	snapshot_unref(empty);
}

/* A text for the sets of large_sets, from nothing. */
static char *text_of_large_sets(struct model *model, struct snapshot *empty, struct snapshot *to, struct plan **ret)
{
	struct errs errs = { 0 };
	char *text;

	assert_int_equal(plan_new(model, empty, to, &errs, ret), 0);
	assert_int_equal(render_nft_plan(*ret, &params, &text), 0);
	assert_true(strlen(text) > KERNEL_LARGE);
	return text;
}

/* The text with a line before the first one that has these words. */
static char *with_line(const char *text, const char *words, const char *line)
{
	const char *at = strstr(text, words);
	char *ret = NULL;

	assert_non_null(at);
	while (at[-1] != '\n')
		at--;
	assert_true(asprintf(&ret, "%.*s%s\n%s", (int)(at - text), text, line, at) > 0);
	return ret;
}

/* By netlink, where there are no words but ours: an element that is refused among thousands. The kernel's reason is
 * told, and not that its answer had no room. */
static void a_refused_element_leaves_no_large_sets(void **state)
{
	struct kernel *kernel = kernel_of(state);
	struct snapshot *empty = snapshot_new(), *to = large_sets(1100);
	struct model *model = fixture_model(empty);
	_cleanup_free_ char *text = NULL, *bad = NULL, *error = NULL;
	struct plan *plan;
	uint64_t commits;

	run_full(kernel, model, 0);
	text = text_of_large_sets(model, empty, to, &plan);
	/* A range that overlaps with another one in part. */
	bad = with_line(text, " 20.0.7.0 . 1-100", " 20.0.7.0 . 50-150,");
	commits = kernel_nft_commits(kernel);
	alarm(60);
	assert_int_equal(kernel_nft_commit(kernel, bad, &error), -EINVAL);
	alarm(0);
	assert_non_null(error);
	assert_string_equal(error, "the elements of a set: File exists");
	assert_true(kernel_nft_commits(kernel) > commits);
	kernel_is(kernel, model, 0);
	/* Nothing is in the way of what is right. */
	run(kernel, TAKE_PTR(text));
	plan_commit(model, plan);
	kernel_is(kernel, model, to->revision);
	model_free(model);
	snapshot_unref(to);
	snapshot_unref(empty);
}

/* The same where sets only get other elements, which is one transaction: somebody has taken one away before us. */
static void a_refused_change_of_many_elements_changes_nothing(void **state)
{
	struct kernel *kernel = kernel_of(state);
	struct snapshot *at = large_sets(4400), *to = snapshot_edit(at, 6);
	struct model *model = fixture_model(at);
	_cleanup_free_ char *text = NULL, *error = NULL, *one = NULL;
	struct plan *plan;
	uint64_t commits;

	run_full(kernel, model, 5);
	put_set(to, "big", thousands(10, 2200));
	text = text_of_large_sets(model, at, to, &plan);
	one = strdup("delete element inet gatewayd tcp4_d24_s0_exact_relay { 10.16.200.0 . 443 }\n");
	assert_int_equal(kernel_nft_commit(kernel, one, NULL), 0);
	commits = kernel_nft_commits(kernel);
	alarm(60);
	assert_int_equal(kernel_nft_commit(kernel, text, &error), -EINVAL);
	alarm(0);
	assert_string_equal(error, "the elements of a set: No such file or directory");
	assert_int_equal(kernel_nft_commits(kernel), commits);
	memcpy(one, "add   ", 6);
	assert_int_equal(kernel_nft_commit(kernel, one, NULL), 0);
	kernel_is(kernel, model, 5);
	run(kernel, TAKE_PTR(text));
	plan_commit(model, plan);
	kernel_is(kernel, model, 6);
	model_free(model);
	snapshot_unref(to);
	snapshot_unref(at);
}

/* Where there was no table, none is left. */
static void a_refused_table_is_not_there(void **state)
{
	struct kernel *kernel = kernel_of(state);
	struct snapshot *at = large_sets(1100);
	struct model *model = fixture_model(at);
	_cleanup_free_ char *text = NULL, *bad = NULL, *error = NULL;
	struct kernel_state found = { 0 };

	assert_int_equal(kernel_nft_commit(kernel, "delete table inet gatewayd\n", NULL), 0);
	assert_int_equal(render_nft_full(model, &params, 5, &text), 0);
	for (int i = 0; i < 2; i++) {
		free(bad);
		bad = i == 0 ? with_line(text, " 20.0.7.0 . 1-100", " 20.0.7.0 . 50-150,") : NULL;
		if (i == 1)
			assert_true(asprintf(&bad, "%sadd rule inet gatewayd nowhere accept\n", text) > 0);
		assert_int_equal(kernel_nft_commit(kernel, bad, &error), -EINVAL);
		assert_non_null(error);
		free(TAKE_PTR(error));
		assert_int_equal(kernel_nft_read(kernel, &found), 0);
		assert_false(found.present);
	}
	run(kernel, TAKE_PTR(text));
	kernel_is(kernel, model, 5);
	model_free(model);
	snapshot_unref(at);
}

static void time_plan(
        struct kernel *kernel, struct model *model, struct snapshot *from, struct snapshot *to, const char *what)
{
	struct errs errs = { 0 };
	double begin = fixture_ms(), planned, rendered, checked;
	struct plan *plan;
	char *text;

	assert_int_equal(plan_new(model, from, to, &errs, &plan), 0);
	planned = fixture_ms();
	assert_int_equal(render_nft_plan(plan, &params, &text), 0);
	rendered = fixture_ms();
	assert_int_equal(kernel_nft_check(kernel, text, NULL), 0);
	checked = fixture_ms();
	assert_int_equal(kernel_nft_commit(kernel, text, NULL), 0);
	print_message("%s: plan %.2f, render %.2f, check %.2f, commit %.2f ms\n", what, planned - begin,
	        rendered - planned, checked - rendered, fixture_ms() - checked);
	free(text);
	plan_commit(model, plan);
}

static void ten_thousand_listeners(void **state)
{
	struct kernel *kernel = kernel_of(state);
	struct snapshot *empty = snapshot_new(), *from = snapshot_edit(empty, 1), *to;
	struct model *model = fixture_model(empty);
	struct kernel_state found = { 0 };
	double begin;

	for (unsigned i = 0; i < 10000; i++) {
		char name[32], address[32];

		snprintf(name, sizeof(name), "l%05u", i);
		snprintf(address, sizeof(address), "10.%u.%u.1", i / 250, i % 250);
		fixture_put(from, fixture_listener(name, i + 1, "", "", address, i % 2 ? "443" : "8000-8010"));
	}
	run_full(kernel, model, 0);
	time_plan(kernel, model, empty, from, "10000 listeners");
	to = snapshot_edit(from, 2);
	fixture_put(to, fixture_listener("one-exact", 20000, "", "", "192.0.2.1", "443"));
	time_plan(kernel, model, from, to, "one more, exact port");
	snapshot_unref(from);
	from = to;
	to = snapshot_edit(from, 3);
	fixture_put(to, fixture_listener("one-range", 20001, "", "", "192.0.2.1", "8000-8010"));
	time_plan(kernel, model, from, to, "one more, port range");
	begin = fixture_ms();
	assert_int_equal(kernel_nft_read(kernel, &found), 0);
	print_message("read-back of %zu elements: %.0f ms\n", found.elements.n, fixture_ms() - begin);
	kernel_state_clear(&found);
	kernel_is(kernel, model, 3);
	model_free(model);
	snapshot_unref(empty);
	snapshot_unref(from);
	snapshot_unref(to);
}

static void another_version_is_not_compatible(void **state)
{
	struct kernel *kernel = kernel_of(state);
	struct kernel_state found = { 0 };

	assert_int_equal(
	        kernel_nft_commit(kernel,
	                "flush set inet gatewayd skeleton\nadd element inet gatewayd skeleton { 9999 }\n", NULL),
	        0);
	assert_int_equal(kernel_nft_read(kernel, &found), 0);
	assert_true(found.present);
	assert_false(found.compatible);
	kernel_state_clear(&found);
}

static void foreign_chains_are_told(void **state)
{
	struct kernel *kernel = kernel_of(state);
	json_t *findings;

	assert_int_equal(kernel_nft_foreign(kernel, &findings), 0);
	assert_int_equal(json_array_size(findings), 0);
	json_decref(findings);
	assert_int_equal(
	        kernel_nft_commit(kernel,
	                "table inet filter {\n chain input {\n type filter hook input priority 0; policy drop;\n }\n}\n"
	                "table ip nat {\n chain post {\n type nat hook postrouting priority 100; policy accept;\n"
	                " oifname \"eth9\" masquerade\n }\n}\n",
	                NULL),
	        0);
	assert_int_equal(kernel_nft_foreign(kernel, &findings), 0);
	assert_int_equal(json_array_size(findings), 2);
	assert_string_equal(json_string_value(json_object_get(json_array_get(findings, 0), "code")), "input_drop");
	assert_string_equal(json_string_value(json_object_get(json_array_get(findings, 1), "code")), "source_nat");
	assert_non_null(
	        strstr(json_string_value(json_object_get(json_array_get(findings, 1), "detail")), "ip nat post"));
	json_decref(findings);
}

/* What a command prints; the routing tests look from outside, with ip(8). */
static char *output_of(const char *command)
{
	FILE *pipe = popen(command, "re");
	char *text = calloc(1, 8192);

	assert_non_null(pipe);
	assert_non_null(text);
	(void)!fread(text, 1, 8191, pipe);
	pclose(pipe);
	return text;
}

#define SHOW "for f in -4 -6; do ip $f rule; ip $f route show table all proto 103; done"

static void routing_is_synced(void **state)
{
	struct kernel *kernel = kernel_of(state);
	_cleanup_free_ char *before = NULL, *after = NULL, *wanted = NULL;
	unsigned changed = 99;

	if (system("ip -V >/dev/null 2>&1") != 0)
		skip();
	assert_int_equal(
	        system("ip rule add fwmark 0x5 lookup 77 prio 90; ip -6 rule add fwmark 0x5 lookup 77 prio 90; "
	               "ip route add local 192.0.2.0/24 dev lo table 26487 proto static"),
	        0);
	before = output_of(SHOW "; ip route show table 26487");
	assert_int_equal(kernel_route_sync(kernel, &routes, &changed), 0);
	assert_int_equal(changed, 8);
	assert_int_equal(kernel_route_sync(kernel, &routes, &changed), 0);
	assert_int_equal(changed, 0);
	wanted = output_of(SHOW);
	assert_non_null(strstr(wanted, "fwmark 0x1000000/0xf000000 iif lo goto 102"));
	assert_non_null(strstr(wanted, "fwmark 0x1000000/0xf000000 lookup 26487"));
	assert_non_null(strstr(wanted, "102:"));
	assert_non_null(strstr(wanted, "local default dev lo"));
	/* Missing, wrong, and superfluous ones of ours. */
	assert_int_equal(system("ip rule del prio 101; ip -6 rule del prio 100; ip -6 route del local default dev lo "
	                        "table 26487; "
	                        "ip rule add fwmark 0x1/0x1 lookup 5 prio 7 protocol 103; "
	                        "ip -6 rule add from fd00::/8 lookup 5 prio 8 protocol 103; "
	                        "ip route add local 198.51.100.0/24 dev lo table 9 proto 103"),
	        0);
	assert_int_equal(kernel_route_sync(kernel, &routes, &changed), 0);
	assert_int_equal(changed, 6);
	after = output_of(SHOW);
	assert_string_equal(after, wanted);
	assert_int_equal(kernel_cleanup(kernel), 0);
	free(after);
	after = output_of(SHOW "; ip route show table 26487");
	assert_string_equal(after, before);
}

static void cleanup_leaves_nothing(void **state)
{
	struct kernel *kernel = kernel_of(state);
	struct kernel_state found = { 0 };
	json_t *findings;

	assert_int_equal(kernel_cleanup(kernel), 0);
	assert_int_equal(kernel_cleanup(kernel), 0);
	assert_int_equal(kernel_nft_read(kernel, &found), 0);
	assert_false(found.present);
	/* The others' tables are still there. */
	assert_int_equal(kernel_nft_foreign(kernel, &findings), 0);
	assert_int_equal(json_array_size(findings), 2);
	json_decref(findings);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_there),
		cmocka_unit_test(check_changes_nothing),
		cmocka_unit_test(every_shape_is_read_back),
		cmocka_unit_test(the_gate_opens_and_closes),
		cmocka_unit_test(plans_end_where_full_does),
		cmocka_unit_test(large_changes_rebuild_maps),
		cmocka_unit_test(large_sets_go_by_netlink),
		cmocka_unit_test(a_refusal_leaves_no_large_sets),
		cmocka_unit_test(a_refused_element_leaves_no_large_sets),
		cmocka_unit_test(a_refused_change_of_many_elements_changes_nothing),
		cmocka_unit_test(a_refused_table_is_not_there),
		cmocka_unit_test(ten_thousand_listeners),
		cmocka_unit_test(another_version_is_not_compatible),
		cmocka_unit_test(foreign_chains_are_told),
		cmocka_unit_test(routing_is_synced),
		cmocka_unit_test(cleanup_leaves_nothing),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
