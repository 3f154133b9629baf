/*
 * The drift monitor over the kernel in memory: what cannot be put right at
 * once is tried again until it can, and a change of our own that could not be
 * taken back is. It listens to the real netlink, in a network namespace of
 * the test's own; skipped without the right to make one.
 */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/base/clock.h"
#include "gatewayd/base/log.h"
#include "gatewayd/core.h"
#include "gatewayd/drift.h"
#include "tests/unit/store_fixture.h"

static const struct route_params routes = { .mark = 1u << 24, .mark_mask = 0xfu << 24, .table = 100, .priority = 100 };

struct fixture {
	char directory[STORE_FIXTURE_DIRECTORY];
	struct core core;
	bool heals;
	unsigned told, told_healed;
	bool limit_files; /* the next commit of the relay makes every later write of the store fail */
};

static int relay_prepare(void *userdata, const struct plan *plan, const char **ret_reason)
{
	(void)userdata, (void)plan, (void)ret_reason;
	return 1;
}

static void relay_commit(void *userdata, const struct plan *plan)
{
	struct fixture *f = userdata;

	(void)plan;
	if (f->limit_files)
		limit_files(1);
	f->limit_files = false;
}

static void relay_abort(void *userdata, const struct plan *plan)
{
	(void)userdata, (void)plan;
}

static bool heals(void *userdata)
{
	return ((struct fixture *)userdata)->heals;
}

static void tell(void *userdata, json_t *data)
{
	struct fixture *f = userdata;

	f->told++;
	f->told_healed += json_is_true(json_object_get(data, "healed"));
	json_decref(data);
}

static void start(struct fixture *f)
{
	_cleanup_(snapshot_unref_p) struct snapshot *snapshot = NULL;
	_cleanup_free_ char *reason = NULL;
	struct drift_owner owner = { .userdata = f, .heals = heals, .tell = tell };
	struct apply_config config = {
		.kernel = f->core.kernel,
		.relay = { f, relay_prepare, relay_commit, relay_abort },
		.render = { .mark = 1u << 24, .mark_mask = 0xfu << 24, .port_v4 = 4000, .port_v6 = 4000 },
		.route = routes,
	};

	store_fixture_open(f->directory, &f->core.store, &snapshot);
	config.store = f->core.store;
	assert_int_equal(apply_new(&config, &f->core.apply), 0);
	assert_int_equal(apply_boot(f->core.apply, snapshot, &reason), 0);
	assert_int_equal(sd_event_new(&f->core.event), 0);
	assert_int_equal(drift_new(f->core.event, f->core.apply, &routes, &owner, &f->core.drift), 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	*state = f;
	if (unshare(CLONE_NEWNET) < 0) {
		print_message("SKIP: no right to make a network namespace\n");
		return 0;
	}
	f->heals = true;
	store_fixture_make(f->directory, "drift");
	assert_int_equal(kernel_fake_new(&f->core.kernel), 0);
	start(f);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->core.kernel) {
		drift_free(f->core.drift);
		sd_event_unref(f->core.event);
		apply_free(f->core.apply);
		store_close(f->core.store);
		kernel_free(f->core.kernel);
		store_fixture_remove(f->directory);
	}
	free(f);
	return 0;
}

static struct fixture *fixture_of(void **state)
{
	struct fixture *f = *state;

	if (!f->core.kernel)
		skip();
	return f;
}

static void run_for(struct fixture *f, uint64_t ms)
{
	uint64_t end = clock_us() + ms * 1000;

	while (clock_us() < end)
		assert_true(sd_event_run(f->core.event, 10000) >= 0);
}

static uint64_t healed(struct fixture *f)
{
	json_t *status = drift_status(f->core.drift);
	uint64_t n = (uint64_t)json_integer_value(json_object_get(status, "healed"));

	json_decref(status);
	return n;
}

static bool table_is_there(struct fixture *f)
{
	struct kernel_state found = { 0 };
	bool present;

	assert_int_equal(kernel_nft_read(f->core.kernel, &found), 0);
	present = found.present && found.generation == apply_snapshot(f->core.apply)->revision;
	kernel_state_clear(&found);
	return present;
}

/* Neither the difference nor the whole table is taken, for three looks; then it is, though nothing more is told. */
static void test_what_fails_is_tried_again(void **state)
{
	struct fixture *f = fixture_of(state);

	assert_int_equal(kernel_cleanup(f->core.kernel), 0);
	kernel_fake_fail_from(f->core.kernel, KERNEL_NFT_COMMIT, 1, 6, -EPERM);
	drift_look_for_ours(f->core.drift);
	run_for(f, 60);
	assert_true(drift_present(f->core.drift));
	assert_int_equal(healed(f), 0);
	run_for(f, 600);
	assert_false(drift_present(f->core.drift));
	assert_true(table_is_there(f));
	assert_int_equal(healed(f), 1);
	assert_int_equal(f->told, 1);
	assert_int_equal(f->told_healed, 1);
}

/* One that never succeeds costs a look a second, not all there is of the processor. */
static void test_what_fails_for_ever_is_tried_seldom(void **state)
{
	struct fixture *f = fixture_of(state);
	unsigned before;

	assert_int_equal(kernel_cleanup(f->core.kernel), 0);
	kernel_fake_fail_from(f->core.kernel, KERNEL_NFT_COMMIT, 1, 1000000, -EPERM);
	drift_look_for_ours(f->core.drift);
	run_for(f, 2000);
	before = kernel_fake_calls(f->core.kernel, KERNEL_NFT_READ);
	assert_true(before >= 10 && before <= 20);
	run_for(f, 2500);
	assert_in_range(kernel_fake_calls(f->core.kernel, KERNEL_NFT_READ) - before, 1, 4);
	assert_int_equal(f->told, 0);
}

/* With `alert` it is told once, and left alone. */
static void test_alert(void **state)
{
	struct fixture *f = fixture_of(state);
	unsigned commits = kernel_fake_calls(f->core.kernel, KERNEL_NFT_COMMIT);

	f->heals = false;
	assert_int_equal(kernel_cleanup(f->core.kernel), 0);
	for (int i = 0; i < 3; i++) {
		drift_look_for_ours(f->core.drift);
		run_for(f, 200);
	}
	assert_true(drift_present(f->core.drift));
	assert_int_equal(kernel_fake_calls(f->core.kernel, KERNEL_NFT_COMMIT), commits);
	assert_int_equal(f->told, 1);
	assert_int_equal(f->told_healed, 0);
}

/* The database refuses the commit, nft the way back and the old table: the change is refused, and soon nothing of it
 * is there, without anybody's help. */
static void test_a_change_that_cannot_be_taken_back(void **state)
{
	struct fixture *f = fixture_of(state);
	_cleanup_core_result_ struct core_result result = { 0 };
	_cleanup_errs_ struct errs errs = { 0 };
	struct row *row = row_new(RESOURCE_LISTENER);
	struct core_change change = { .operation = CORE_PUT, .resource = RESOURCE_LISTENER, .name = "web", .row = row };
	struct core_request request = { .actor = "test", .summary = "change" };
	int r;

	snprintf(((struct listener *)row)->name, sizeof(((struct listener *)row)->name), "web");
	assert_int_equal(strings_append(&((struct listener *)row)->ports, "80"), 0);
	f->limit_files = true;
	kernel_fake_fail_from(f->core.kernel, KERNEL_NFT_COMMIT, 2, 2, -EIO);
	r = core_write(&f->core, &change, 1, &request, &errs, &result);
	limit_files(RLIM_INFINITY);
	assert_true(r == -EIO || r == -ENOSPC);
	assert_int_equal(core_revision(&f->core), 0);
	assert_false(table_is_there(f));
	run_for(f, 300);
	assert_true(table_is_there(f));
	assert_int_equal(apply_nft_generation(f->core.apply), 0);
	assert_int_equal(healed(f), 1);
	row_unref(row);
}

/* Reads that others' transactions interrupt say nothing against our table: it is looked at again, with pauses, neither
 * replaced nor told to be in disorder, and what is really wrong is found in the end. */
static void test_interrupted_reads(void **state)
{
	struct fixture *f = fixture_of(state);
	unsigned commits = kernel_fake_calls(f->core.kernel, KERNEL_NFT_COMMIT), reads;

	reads = kernel_fake_calls(f->core.kernel, KERNEL_NFT_READ);
	kernel_fake_fail_from(f->core.kernel, KERNEL_NFT_READ, 1, 4, -EINTR);
	drift_look_for_ours(f->core.drift);
	run_for(f, 200);
	assert_false(drift_present(f->core.drift));
	run_for(f, 600);
	assert_int_equal(kernel_fake_calls(f->core.kernel, KERNEL_NFT_READ) - reads, 5);
	assert_int_equal(kernel_fake_calls(f->core.kernel, KERNEL_NFT_COMMIT), commits);
	assert_false(drift_present(f->core.drift));
	assert_int_equal(f->told, 0);
	assert_int_equal(kernel_cleanup(f->core.kernel), 0);
	kernel_fake_fail_from(f->core.kernel, KERNEL_NFT_READ, 1, 2, -EINTR);
	drift_look_for_ours(f->core.drift);
	run_for(f, 500);
	assert_true(table_is_there(f));
	assert_int_equal(f->told_healed, 1);
}

/* One that never ends is told after a second, costs a look a second from then on, and still no table. */
static void test_interrupted_for_ever(void **state)
{
	struct fixture *f = fixture_of(state);
	unsigned commits = kernel_fake_calls(f->core.kernel, KERNEL_NFT_COMMIT), reads;

	kernel_fake_fail_from(f->core.kernel, KERNEL_NFT_READ, 1, 1000000, -EINTR);
	drift_look_for_ours(f->core.drift);
	run_for(f, 3000);
	assert_true(drift_present(f->core.drift));
	reads = kernel_fake_calls(f->core.kernel, KERNEL_NFT_READ);
	run_for(f, 2500);
	assert_in_range(kernel_fake_calls(f->core.kernel, KERNEL_NFT_READ) - reads, 1, 4);
	assert_int_equal(kernel_fake_calls(f->core.kernel, KERNEL_NFT_COMMIT), commits);
	kernel_fake_fail_from(f->core.kernel, KERNEL_NFT_READ, 0, 0, 0);
	run_for(f, 1500);
	assert_false(drift_present(f->core.drift));
	assert_int_equal(f->told, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_what_fails_is_tried_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_fails_for_ever_is_tried_seldom, setup, teardown),
		cmocka_unit_test_setup_teardown(test_alert, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_change_that_cannot_be_taken_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_interrupted_reads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_interrupted_for_ever, setup, teardown),
	};

	log_setup("test_drift", LOG_CRIT);
	signal(SIGXFSZ, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
