/*
 * The apply transaction under fire: every step is made to fail on purpose, and
 * afterwards store, model, kernel and relay must all be in the old state. The
 * kernel is kernel_fake, the relay is played here, the store is a real one.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/apply.h"
#include "gatewayd/base/log.h"
#include "rules/heal.h"
#include "tests/unit/store_fixture.h"

/* The relay's part: remembers what it was told, and fails on request. */
struct relay {
	int64_t generation, prepared;
	int prepare_result; /* what the next prepare answers */
	bool limit_files;   /* commit makes every later write of the store fail */
	unsigned aborts;
};

/* The prefilters' part: what is loaded for a change, and in force; it fails on request, having begun. */
struct shield_part {
	int loaded, in_force;
	int load_result, put_result;
	unsigned undos;
};

struct fixture {
	char directory[STORE_FIXTURE_DIRECTORY];
	struct store *store;
	struct kernel *kernel;
	struct relay relay;
	struct shield_part shield;
	struct apply *apply;
};

static int relay_prepare(void *userdata, const struct plan *plan, const char **ret_reason)
{
	struct relay *relay = userdata;

	*ret_reason = "the relay was told to refuse";
	if (relay->prepare_result <= 0)
		return relay->prepare_result;
	assert_int_equal(relay->generation, plan->from_revision);
	relay->prepared = plan->to_revision;
	return 1;
}

static void relay_commit(void *userdata, const struct plan *plan)
{
	struct relay *relay = userdata;

	assert_int_equal(relay->prepared, plan->to_revision);
	relay->generation = plan->to_revision;
	relay->prepared = 0;
	if (relay->limit_files) {
		relay->limit_files = false;
		limit_files(1);
	}
}

static void relay_abort(void *userdata, const struct plan *plan)
{
	struct relay *relay = userdata;

	assert_int_equal(relay->prepared, plan->to_revision);
	relay->prepared = 0;
	relay->aborts++;
}

static int shield_load(void *userdata, const struct snapshot *from, const struct snapshot *to, struct errs *errs)
{
	struct shield_part *shield = userdata;

	(void)from, (void)to;
	shield->loaded++;
	if (shield->load_result < 0)
		errs_add(errs, "", "kernel_refused", "the verifier was told to refuse");
	return shield->load_result;
}

static int shield_put(void *userdata, struct errs *errs)
{
	struct shield_part *shield = userdata;

	assert_int_equal(shield->loaded, 1);
	shield->in_force++;
	if (shield->put_result < 0)
		errs_add(errs, "", "apply_failed", "the interface was told to be gone");
	return shield->put_result;
}

static void shield_undo(void *userdata)
{
	struct shield_part *shield = userdata;

	shield->undos++;
	shield->in_force -= shield->in_force > 0;
	shield->loaded = 0;
}

static void shield_settle(void *userdata, int64_t revision)
{
	struct shield_part *shield = userdata;

	(void)revision;
	assert_int_equal(shield->loaded, 1);
	shield->loaded = 0;
	shield->in_force = 0;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	_cleanup_(snapshot_unref_p) struct snapshot *snapshot = NULL;
	_cleanup_free_ char *reason = NULL;
	struct apply_config config = {
		.relay = { &f->relay, relay_prepare, relay_commit, relay_abort },
		.shield = { &f->shield, shield_load, shield_put, shield_undo, shield_settle },
		.render = { .mark = 1u << 24, .mark_mask = 0xfu << 24, .port_v4 = 4000, .port_v6 = 4000 },
		.route = { .mark = 1u << 24, .mark_mask = 0xfu << 24, .table = 100, .priority = 100 },
	};

	store_fixture_make(f->directory, "apply");
	store_fixture_open(f->directory, &f->store, &snapshot);
	assert_int_equal(kernel_fake_new(&f->kernel), 0);
	config.store = f->store;
	config.kernel = f->kernel;
	assert_int_equal(apply_new(&config, &f->apply), 0);
	assert_int_equal(apply_boot(f->apply, snapshot, &reason), 0);
	f->relay.prepare_result = 1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	apply_free(f->apply);
	kernel_free(f->kernel);
	store_close(f->store);
	store_fixture_remove(f->directory);
	free(f);
	return 0;
}

static struct row *make_listener(const char *name, const char *port)
{
	struct row *row = row_new(RESOURCE_LISTENER);
	struct listener *listener = (struct listener *)row;

	assert_non_null(row);
	snprintf(listener->name, sizeof(listener->name), "%s", name);
	assert_int_equal(strings_append(&listener->destinations, "10.0.0.0/24"), 0);
	assert_int_equal(strings_append(&listener->ports, port), 0);
	return row;
}

static int run(struct fixture *f, const struct apply_change *change, bool dry_run, struct errs *errs, char **ret_nft)
{
	const struct snapshot *now = apply_snapshot(f->apply);
	_cleanup_(snapshot_unref_p) struct snapshot *to = snapshot_edit(now, now->revision + 1);
	struct apply_request request = {
		.changes = change, .n = 1, .to = to, .actor = "test", .summary = "change", .dry_run = dry_run
	};

	if (change->new_row)
		assert_int_equal(snapshot_put(to, change->new_row), 0);
	else
		assert_int_equal(snapshot_remove(to, RESOURCE_LISTENER, row_name(change->old_row)), 0);
	return apply_run(f->apply, &request, errs, ret_nft);
}

static int put(struct fixture *f, const char *name, const char *port, struct errs *errs)
{
	_cleanup_(row_unref_p) struct row *row = make_listener(name, port);
	const struct row *old = snapshot_find(apply_snapshot(f->apply), RESOURCE_LISTENER, name);
	struct apply_change change = { .old_row = old, .new_row = row };

	row->id = old ? old->id : 0;
	return run(f, &change, false, errs, NULL);
}

static size_t count_elements(struct fixture *f)
{
	struct elements elements = { 0 };

	assert_int_equal(model_elements(apply_model(f->apply), &elements), 0);
	free(elements.items);
	return elements.n;
}

/* The stored revision and number of listeners, as a daemon that starts now would find them. */
static void assert_stored(struct fixture *f, int64_t revision, size_t listeners)
{
	_cleanup_(snapshot_unref_p) struct snapshot *snapshot = NULL;

	assert_int_equal(store_load(f->store, &snapshot), 0);
	assert_int_equal(snapshot->revision, revision);
	assert_int_equal(snapshot->rows[RESOURCE_LISTENER].n, listeners);
}

/* The generation that the last committed nft text leaves in the marker. */
static bool kernel_shows(struct fixture *f, int64_t generation)
{
	char marker[32];
	const char *text = kernel_fake_committed(f->kernel);

	snprintf(marker, sizeof(marker), "generation { 0x%llx }", (long long)generation);
	if (strstr(text, marker))
		return true;
	snprintf(marker, sizeof(marker), "{ 0x%08llx }", (long long)generation);
	if (strstr(text, marker))
		return true;
	snprintf(marker, sizeof(marker), "{ 0x%llx }", (long long)generation);
	return strstr(text, marker) != NULL;
}

static void assert_state(struct fixture *f, int64_t revision, size_t listeners)
{
	assert_int_equal(apply_snapshot(f->apply)->revision, revision);
	assert_int_equal(apply_snapshot(f->apply)->rows[RESOURCE_LISTENER].n, listeners);
	assert_int_equal(count_elements(f), listeners);
	assert_int_equal(apply_nft_generation(f->apply), revision);
	assert_true(kernel_shows(f, revision));
	assert_int_equal(f->relay.generation, revision);
	assert_int_equal(f->relay.prepared, 0);
	assert_int_equal(f->shield.loaded, 0);
	assert_int_equal(f->shield.in_force, 0);
	assert_stored(f, revision, listeners);
}

static void expect_failure(struct fixture *f, int error, const char *code)
{
	_cleanup_errs_ struct errs errs = { 0 };

	assert_int_equal(put(f, "b", "81", &errs), error);
	assert_true(errs.n >= 1);
	assert_string_equal(errs.items[0].code, code);
	assert_state(f, 1, 1);
	/* And the machine works again. */
	errs_clear(&errs);
	assert_int_equal(put(f, "b", "81", &errs), 0);
	assert_state(f, 2, 2);
}

static void first(struct fixture *f)
{
	_cleanup_errs_ struct errs errs = { 0 };

	assert_int_equal(put(f, "a", "80", &errs), 0);
	assert_state(f, 1, 1);
}

static void test_success(void **state)
{
	struct fixture *f = *state;
	_cleanup_errs_ struct errs errs = { 0 };

	first(f);
	assert_int_equal(put(f, "b", "81", &errs), 0);
	assert_int_equal(put(f, "a", "90", &errs), 0);
	assert_state(f, 3, 2);
}

static void test_delete(void **state)
{
	struct fixture *f = *state;
	_cleanup_errs_ struct errs errs = { 0 };
	struct apply_change change = { 0 };

	first(f);
	change.old_row = snapshot_find(apply_snapshot(f->apply), RESOURCE_LISTENER, "a");
	kernel_fake_fail_at(f->kernel, KERNEL_NFT_COMMIT, 1, -EIO);
	assert_int_equal(run(f, &change, false, &errs, NULL), -EIO);
	assert_state(f, 1, 1);
	assert_int_equal(run(f, &change, false, &errs, NULL), 0);
	assert_state(f, 2, 0);
}

/* Everything is checked, the text is told, and nothing is changed. */
static void test_dry_run(void **state)
{
	struct fixture *f = *state;
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_(row_unref_p) struct row *row = make_listener("b", "81");
	struct apply_change change = { .new_row = row };
	_cleanup_free_ char *text = NULL;

	first(f);
	kernel_fake_fail_at(f->kernel, KERNEL_NFT_COMMIT, 1, -EIO); /* would fail if it were called */
	assert_int_equal(run(f, &change, true, &errs, &text), 0);
	assert_non_null(strstr(text, " 81\n"));
	assert_state(f, 1, 1);
	kernel_fake_fail_at(f->kernel, KERNEL_NFT_CHECK, 1, -EINVAL);
	assert_int_equal(run(f, &change, true, &errs, NULL), -EINVAL);
	assert_state(f, 1, 1);
}

static void test_store_fails(void **state)
{
	struct fixture *f = *state;
	_cleanup_errs_ struct errs errs = { 0 };
	int r;

	first(f);
	limit_files(1);
	r = put(f, "b", "81", &errs);
	limit_files(RLIM_INFINITY);
	assert_true(r == -EIO || r == -ENOSPC);
	assert_state(f, 1, 1);
	errs_clear(&errs);
	assert_int_equal(put(f, "b", "81", &errs), 0);
	assert_state(f, 2, 2);
}

static void test_plan_fails(void **state)
{
	struct fixture *f = *state;
	_cleanup_errs_ struct errs errs = { 0 };

	first(f);
	assert_int_equal(put(f, "b", "80", &errs), -EEXIST);
	assert_string_equal(errs.items[0].code, "overlap");
	assert_non_null(strstr(errs.items[0].detail, "\"a\""));
	assert_state(f, 1, 1);
}

/* A change of the chains is tried dry first ... */
static void test_check_fails(void **state)
{
	struct fixture *f = *state;
	_cleanup_errs_ struct errs errs = { 0 };

	first(f);
	kernel_fake_fail_at(f->kernel, KERNEL_NFT_CHECK, 1, -EINVAL);
	assert_int_equal(put(f, "b", "8000-8100", &errs), -EINVAL);
	assert_string_equal(errs.items[0].code, "kernel_refused");
	assert_state(f, 1, 1);
	assert_int_equal(f->relay.aborts, 0);
}

/* ... and one of elements only is refused by the transaction itself. */
static void test_elements_refused(void **state)
{
	struct fixture *f = *state;
	unsigned checks;

	first(f);
	checks = kernel_fake_calls(f->kernel, KERNEL_NFT_CHECK);
	kernel_fake_fail_at(f->kernel, KERNEL_NFT_COMMIT, 1, -EINVAL);
	expect_failure(f, -EINVAL, "kernel_refused");
	assert_int_equal(kernel_fake_calls(f->kernel, KERNEL_NFT_CHECK), checks);
	assert_int_equal(f->relay.aborts, 1);
}

/* What was loaded before the one that is refused goes, and nothing else was begun. */
static void test_load_fails(void **state)
{
	struct fixture *f = *state;
	_cleanup_errs_ struct errs errs = { 0 };
	unsigned commits;

	first(f);
	commits = kernel_fake_calls(f->kernel, KERNEL_NFT_COMMIT);
	f->shield.load_result = -EINVAL;
	assert_int_equal(put(f, "b", "81", &errs), -EINVAL);
	assert_string_equal(errs.items[0].code, "kernel_refused");
	assert_int_equal(kernel_fake_calls(f->kernel, KERNEL_NFT_COMMIT), commits);
	assert_int_equal(f->relay.aborts, 0);
	assert_int_equal(f->shield.undos, 1);
	assert_state(f, 1, 1);
	f->shield.load_result = 0;
	errs_clear(&errs);
	assert_int_equal(put(f, "b", "81", &errs), 0);
	assert_state(f, 2, 2);
}

/* nft is in the new state by then, and goes back. */
static void test_xdp_fails(void **state)
{
	struct fixture *f = *state;
	_cleanup_errs_ struct errs errs = { 0 };

	first(f);
	f->shield.put_result = -ENODEV;
	assert_int_equal(put(f, "b", "81", &errs), -ENODEV);
	assert_int_equal(f->relay.aborts, 1);
	assert_state(f, 1, 1);
	f->shield.put_result = 0;
	errs_clear(&errs);
	assert_int_equal(put(f, "b", "81", &errs), 0);
	assert_state(f, 2, 2);
}

static void test_prepare_fails(void **state)
{
	struct fixture *f = *state;
	_cleanup_errs_ struct errs errs = { 0 };

	first(f);
	f->relay.prepare_result = -EINVAL;
	assert_int_equal(put(f, "b", "81", &errs), -EIO);
	assert_state(f, 1, 1);
	f->relay.prepare_result = 1;
	errs_clear(&errs);
	assert_int_equal(put(f, "b", "81", &errs), 0);
	assert_state(f, 2, 2);
}

/* No relay at all is no reason to refuse a change: the next one gets the whole configuration. */
static void test_relay_absent(void **state)
{
	struct fixture *f = *state;
	_cleanup_errs_ struct errs errs = { 0 };

	first(f);
	f->relay.prepare_result = 0;
	assert_int_equal(put(f, "b", "81", &errs), 0);
	assert_int_equal(f->relay.generation, 1);
	assert_int_equal(apply_nft_generation(f->apply), 2);
	assert_stored(f, 2, 2);
}

static void test_route_fails(void **state)
{
	struct fixture *f = *state;

	first(f);
	kernel_fake_fail_at(f->kernel, KERNEL_ROUTE_SYNC, 1, -EIO);
	expect_failure(f, -EIO, "apply_failed");
	assert_int_equal(f->relay.aborts, 1);
}

static void test_nft_fails(void **state)
{
	struct fixture *f = *state;

	first(f);
	kernel_fake_fail_at(f->kernel, KERNEL_NFT_COMMIT, 1, -EIO);
	expect_failure(f, -EIO, "apply_failed");
	assert_int_equal(f->relay.aborts, 1);
}

static void commit_fails(struct fixture *f)
{
	_cleanup_errs_ struct errs errs = { 0 };
	int r;

	first(f);
	f->relay.limit_files = true;
	r = put(f, "b", "81", &errs);
	limit_files(RLIM_INFINITY);
	assert_true(r == -EIO || r == -ENOSPC);
	assert_string_equal(errs.items[0].code, "store_failed");
	assert_state(f, 1, 1);
	errs_clear(&errs);
	assert_int_equal(put(f, "b", "81", &errs), 0);
	assert_state(f, 2, 2);
}

static void test_commit_fails(void **state)
{
	commit_fails(*state);
}

/* The way back in nft fails as well: the whole table is put in place. */
static void test_commit_and_way_back_fail(void **state)
{
	struct fixture *f = *state;

	/* Commits after this: the first change, the second change, and then the way back, which fails. */
	kernel_fake_fail_at(f->kernel, KERNEL_NFT_COMMIT, 3, -EIO);
	commit_fails(f);
}

/* The table cannot be put in place either: nobody takes it for the old state, and the next look finds the way. */
static void test_commit_and_all_ways_back_fail(void **state)
{
	struct fixture *f = *state;
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_(heal_clear) struct heal heal = { 0 };
	int r;

	first(f);
	f->relay.limit_files = true;
	kernel_fake_fail_from(f->kernel, KERNEL_NFT_COMMIT, 2, 2, -EIO);
	r = put(f, "b", "81", &errs);
	limit_files(RLIM_INFINITY);
	assert_true(r == -EIO || r == -ENOSPC);
	assert_stored(f, 1, 1);
	assert_int_equal(apply_nft_generation(f->apply), 2);
	assert_int_equal(apply_examine(f->apply, &heal), 0);
	assert_true(heal.needed);
	assert_int_equal(apply_mend(f->apply, &heal), 1);
	assert_state(f, 1, 1);
}

/* A read that is interrupted is no reason to make the table anew, neither for a look nor at the start, which waits. */
static void test_interrupted_reads(void **state)
{
	struct fixture *f = *state;
	_cleanup_(heal_clear) struct heal heal = { 0 };
	_cleanup_(snapshot_unref_p) struct snapshot *snapshot = NULL;
	_cleanup_free_ char *reason = NULL;
	unsigned reads;

	first(f);
	snapshot = snapshot_ref((struct snapshot *)(uintptr_t)apply_snapshot(f->apply));
	reads = kernel_fake_calls(f->kernel, KERNEL_NFT_READ);
	kernel_fake_fail_from(f->kernel, KERNEL_NFT_READ, 1, 3, -EINTR);
	assert_int_equal(apply_examine(f->apply, &heal), -EINTR);
	assert_null(heal.text);
	assert_int_equal(apply_boot(f->apply, snapshot, &reason), 0);
	assert_int_equal(kernel_fake_calls(f->kernel, KERNEL_NFT_READ) - reads, 4);
	assert_null(strstr(kernel_fake_committed(f->kernel), "delete table"));
	assert_state(f, 1, 1);
}

/* Nobody would go through it: the kernel is left alone until there is a listener for which it is. */
static void test_gate_is_for_direct_listeners(void **state)
{
	struct fixture *f = *state;
	_cleanup_(row_unref_p) struct row *row = make_listener("b", "81");
	struct apply_change change = { .new_row = row };
	_cleanup_errs_ struct errs errs = { 0 };
	unsigned commits;

	first(f);
	commits = kernel_fake_calls(f->kernel, KERNEL_NFT_COMMIT);
	assert_int_equal(apply_set_gate(f->apply, true), 0);
	assert_int_equal(kernel_fake_calls(f->kernel, KERNEL_NFT_COMMIT), commits);
	assert_true(apply_gate_is_wanted(f->apply));
	assert_false(apply_render_params(f->apply)->gate_open);
	((struct listener *)row)->on_worker_down = ON_WORKER_DOWN_DIRECT;
	assert_int_equal(run(f, &change, false, &errs, NULL), 0);
	assert_true(apply_render_params(f->apply)->gate_open);
	assert_non_null(strstr(kernel_fake_committed(f->kernel), "direct_gate goto"));
	assert_int_equal(apply_set_gate(f->apply, false), 0);
	assert_false(apply_render_params(f->apply)->gate_open);
	assert_null(strstr(kernel_fake_committed(f->kernel), "direct_gate goto"));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_success, setup, teardown),
		cmocka_unit_test_setup_teardown(test_delete, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dry_run, setup, teardown),
		cmocka_unit_test_setup_teardown(test_store_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_plan_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_check_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_elements_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_load_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_xdp_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_prepare_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_relay_absent, setup, teardown),
		cmocka_unit_test_setup_teardown(test_route_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nft_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_commit_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_commit_and_way_back_fail, setup, teardown),
		cmocka_unit_test_setup_teardown(test_commit_and_all_ways_back_fail, setup, teardown),
		cmocka_unit_test_setup_teardown(test_interrupted_reads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gate_is_for_direct_listeners, setup, teardown),
	};

	log_setup("test_apply", LOG_CRIT);
	signal(SIGXFSZ, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
