/*
 * The core's writes, history and commit-confirm over a real store and the
 * kernel in memory: references, sets of changes, whole configurations, the
 * way back to any revision, and a pending change that is kept or taken back,
 * by its timer or by the next start.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/base/log.h"
#include "gatewayd/core.h"
#include "gatewayd/store_history.h"
#include "schema/decode.h"
#include "tests/unit/store_fixture.h"

struct fixture {
	char directory[STORE_FIXTURE_DIRECTORY];
	struct kernel *kernel;
	struct core core;
};

static int no_relay(void *userdata, const struct plan *plan, const char **ret_reason)
{
	(void)userdata, (void)plan, (void)ret_reason;
	return 0;
}

static void start(struct fixture *f)
{
	_cleanup_(snapshot_unref_p) struct snapshot *snapshot = NULL;
	_cleanup_free_ char *reason = NULL;
	struct apply_config config = {
		.kernel = f->kernel,
		.relay = { NULL, no_relay, NULL, NULL },
		.render = { .mark = 1u << 24, .mark_mask = 0xfu << 24, .port_v4 = 4000, .port_v6 = 4000 },
		.route = { .mark = 1u << 24, .mark_mask = 0xfu << 24, .table = 100, .priority = 100 },
	};

	store_fixture_open(f->directory, &f->core.store, &snapshot);
	config.store = f->core.store;
	assert_int_equal(apply_new(&config, &f->core.apply), 0);
	assert_int_equal(apply_boot(f->core.apply, snapshot, &reason), 0);
	assert_int_equal(sd_event_new(&f->core.event), 0);
	assert_int_equal(core_confirm_start(&f->core), 0);
}

static void stop(struct fixture *f)
{
	core_confirm_stop(&f->core);
	sd_event_unref(f->core.event);
	apply_free(f->core.apply);
	store_close(f->core.store);
	f->core = (struct core){ .kernel = f->kernel };
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	store_fixture_make(f->directory, "core");
	assert_int_equal(kernel_fake_new(&f->kernel), 0);
	f->core.kernel = f->kernel;
	start(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	stop(f);
	kernel_free(f->kernel);
	store_fixture_remove(f->directory);
	free(f);
	return 0;
}

/* ---- writing ---- */

static struct row *make(enum resource_id resource, const char *text)
{
	_cleanup_errs_ struct errs errs = { 0 };
	struct row *row = NULL;
	json_t *json = json_loads(text, 0, NULL);

	assert_non_null(json);
	if (decode_row(resource_get(resource), json, NULL, &errs, &row) < 0)
		fail_msg("%s: %s", errs.items[0].pointer, errs.items[0].detail);
	json_decref(json);
	return row;
}

static int write_with(struct fixture *f, struct core_change *changes, size_t n, int64_t confirm, struct errs *errs)
{
	_cleanup_core_result_ struct core_result result = { 0 };
	struct core_request request = { .actor = "test", .summary = "change", .confirm_within_s = confirm };

	return core_write(&f->core, changes, n, &request, errs, &result);
}

/* Puts one row; the result of core_write and the code of the first fault. */
static int put(struct fixture *f, enum resource_id resource, const char *text, int64_t confirm, const char *code)
{
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_(row_unref_p) struct row *row = make(resource, text);
	struct core_change change = { .operation = CORE_PUT, .resource = resource, .name = row_name(row), .row = row };
	int r = write_with(f, &change, 1, confirm, &errs);

	if (r < 0)
		assert_string_equal(errs.items[0].code, code);
	else
		assert_null(code);
	return r;
}

static int del(struct fixture *f, enum resource_id resource, const char *name, const char *code)
{
	_cleanup_errs_ struct errs errs = { 0 };
	struct core_change change = { .operation = CORE_DELETE, .resource = resource, .name = name };
	int r = write_with(f, &change, 1, 0, &errs);

	if (r < 0)
		assert_string_equal(errs.items[0].code, code);
	return r;
}

#define POOL              "{\"name\": \"pool\", \"targets\": [{\"address\": \"10.0.0.1\"}]}"
#define USER              "{\"name\": \"user\", \"ports\": [\"80\"], \"upstream\": \"pool\"}"
#define PLAIN(name, port) "{\"name\": \"" name "\", \"ports\": [\"" port "\"]}"

static void test_references(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(put(f, RESOURCE_LISTENER, USER, 0, "unknown_reference"), -EINVAL);
	assert_int_equal(put(f, RESOURCE_UPSTREAM, POOL, 0, NULL), 0);
	assert_int_equal(put(f, RESOURCE_LISTENER, USER, 0, NULL), 0);
	assert_int_equal(del(f, RESOURCE_UPSTREAM, "pool", "in_use"), -EBUSY);
	assert_int_equal(del(f, RESOURCE_UPSTREAM, "none", "not_found"), -ENOENT);
	assert_int_equal(core_revision(&f->core), 2);
	assert_int_equal(del(f, RESOURCE_LISTENER, "user", NULL), 0);
	assert_int_equal(del(f, RESOURCE_UPSTREAM, "pool", NULL), 0);
	assert_int_equal(core_count(&f->core, RESOURCE_UPSTREAM), 0);
}

/* Both at once, the one that refers first; and both gone at once, what is referred to first. */
static void test_set_of_changes(void **state)
{
	struct fixture *f = *state;
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_(row_unref_p) struct row *user = make(RESOURCE_LISTENER, USER), *pool = make(RESOURCE_UPSTREAM, POOL);
	struct core_change puts[] = {
		{ .operation = CORE_PUT, .resource = RESOURCE_LISTENER, .name = "user", .row = user },
		{ .operation = CORE_CREATE, .resource = RESOURCE_UPSTREAM, .name = "pool", .row = pool },
	};
	struct core_change deletions[] = {
		{ .operation = CORE_DELETE, .resource = RESOURCE_UPSTREAM, .name = "pool" },
		{ .operation = CORE_DELETE, .resource = RESOURCE_LISTENER, .name = "user" },
	};
	struct core_change twice[] = { puts[0], puts[0] };

	assert_int_equal(write_with(f, puts, 2, 0, &errs), 0);
	assert_int_equal(core_revision(&f->core), 1);
	assert_int_equal(write_with(f, twice, 2, 0, &errs), -EINVAL);
	assert_string_equal(errs.items[0].code, "duplicate");
	assert_int_equal(write_with(f, puts, 2, 0, &errs), -EEXIST);
	assert_int_equal(write_with(f, deletions, 2, 0, &errs), 0);
	assert_int_equal(core_count(&f->core, RESOURCE_LISTENER), 0);
	/* One faulty change, and none is made. */
	deletions[0].name = "none";
	assert_int_equal(write_with(f, (struct core_change[]){ puts[1], deletions[0] }, 2, 0, &errs), -ENOENT);
	assert_int_equal(core_count(&f->core, RESOURCE_UPSTREAM), 0);
	assert_int_equal(core_revision(&f->core), 2);
}

static void test_replace(void **state)
{
	struct fixture *f = *state;
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_core_result_ struct core_result result = { 0 };
	_cleanup_(row_unref_p) struct row *b = make(RESOURCE_LISTENER, PLAIN("b", "81"));
	_cleanup_(row_unref_p) struct row *c = make(RESOURCE_LISTENER, PLAIN("c", "82"));
	const struct row *rows[] = { c, b };
	struct core_request request = { .actor = "test", .summary = "replace" };

	assert_int_equal(put(f, RESOURCE_UPSTREAM, POOL, 0, NULL), 0);
	assert_int_equal(put(f, RESOURCE_LISTENER, USER, 0, NULL), 0);
	assert_int_equal(put(f, RESOURCE_LISTENER, PLAIN("b", "81"), 0, NULL), 0);
	assert_int_equal(core_replace(&f->core, rows, 2, &request, &errs, &result), 0);
	assert_int_equal(result.revision, 4);
	assert_int_equal(core_count(&f->core, RESOURCE_UPSTREAM), 0);
	assert_int_equal(core_count(&f->core, RESOURCE_LISTENER), 2);
	assert_int_equal(core_find(&f->core, RESOURCE_LISTENER, "b")->revision, 3);
	/* Again: nothing to do, no revision. */
	assert_int_equal(core_replace(&f->core, rows, 2, &request, &errs, &result), 0);
	assert_false(result.changed);
	assert_int_equal(core_revision(&f->core), 4);
}

/* ---- history ---- */

static size_t diff_size(struct fixture *f, int64_t from, int64_t to)
{
	json_t *diff = NULL;
	size_t size;

	assert_int_equal(core_revision_diff(&f->core, from, to, &diff), 0);
	size = json_array_size(diff);
	json_decref(diff);
	return size;
}

static void test_rollback(void **state)
{
	struct fixture *f = *state;
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_core_result_ struct core_result result = { 0 };
	struct core_request request = { .actor = "test", .summary = "rollback" };
	json_t *before, *after, *list = NULL;

	assert_int_equal(put(f, RESOURCE_LISTENER, PLAIN("a", "80"), 0, NULL), 0);
	assert_int_equal(put(f, RESOURCE_UPSTREAM, POOL, 0, NULL), 0);
	assert_int_equal(put(f, RESOURCE_LISTENER, USER "", 0, "overlap"), -EEXIST);
	before = core_config(&f->core);
	assert_int_equal(put(f, RESOURCE_LISTENER, PLAIN("a", "90"), 0, NULL), 0);
	assert_int_equal(put(f, RESOURCE_LISTENER, USER, 0, NULL), 0);
	assert_int_equal(del(f, RESOURCE_LISTENER, "a", NULL), 0);
	assert_int_equal(diff_size(f, 2, 5), 2);
	assert_int_equal(diff_size(f, 5, 2), 2);
	assert_int_equal(diff_size(f, 3, 3), 0);
	assert_int_equal(core_rollback(&f->core, 2, &request, &errs, &result), 0);
	assert_int_equal(result.revision, 6);
	after = core_config(&f->core);
	assert_true(json_equal(before, after));
	assert_int_equal(diff_size(f, 2, 6), 0);
	json_decref(before);
	json_decref(after);
	assert_int_equal(core_revisions(&f->core, 0, 100, &list), 0);
	assert_int_equal(json_array_size(list), 6);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 0), "revision")), 6);
	json_decref(list);
	assert_int_equal(core_rollback(&f->core, 99, &request, &errs, &result), -ENOENT);
	/* To the very beginning, and the history survives a restart. */
	assert_int_equal(core_rollback(&f->core, 0, &request, &errs, &result), 0);
	assert_int_equal(core_count(&f->core, RESOURCE_LISTENER), 0);
	stop(f);
	start(f);
	assert_int_equal(core_rollback(&f->core, 5, &request, &errs, &result), 0);
	assert_non_null(core_find(&f->core, RESOURCE_LISTENER, "user"));
}

/* ---- commit-confirm ---- */

static void test_confirm(void **state)
{
	struct fixture *f = *state;
	_cleanup_errs_ struct errs errs = { 0 };
	struct core_request request = { .actor = "test" };

	assert_int_equal(put(f, RESOURCE_LISTENER, PLAIN("a", "80"), 600, NULL), 0);
	assert_int_equal(f->core.pending.revision, 1);
	assert_int_equal(put(f, RESOURCE_LISTENER, PLAIN("b", "81"), 0, "pending"), -EBUSY);
	assert_int_equal(core_confirm(&f->core, 2, &request, &errs), -ENOENT);
	stop(f);
	start(f);
	assert_int_equal(f->core.pending.revision, 1);
	assert_int_equal(core_confirm(&f->core, 1, &request, &errs), 0);
	assert_int_equal(put(f, RESOURCE_LISTENER, PLAIN("b", "81"), 0, NULL), 0);
	stop(f);
	start(f);
	assert_int_equal(f->core.pending.revision, 0);
	assert_int_equal(core_count(&f->core, RESOURCE_LISTENER), 2);
}

static void test_deadline_by_timer(void **state)
{
	struct fixture *f = *state;
	time_t end = time(NULL) + 10;

	assert_int_equal(put(f, RESOURCE_LISTENER, PLAIN("a", "80"), 0, NULL), 0);
	assert_int_equal(put(f, RESOURCE_LISTENER, PLAIN("a", "90"), 1, NULL), 0);
	while (f->core.pending.revision != 0 && time(NULL) < end)
		assert_true(sd_event_run(f->core.event, 100000) >= 0);
	assert_int_equal(core_revision(&f->core), 3);
	assert_string_equal(
	        ((const struct listener *)core_find(&f->core, RESOURCE_LISTENER, "a"))->ports.items[0], "80");
	assert_true(core_find(&f->core, RESOURCE_LISTENER, "a")->id > 0);
}

/* The kernel refuses the way back at first. */
static void test_deadline_is_tried_again(void **state)
{
	struct fixture *f = *state;
	time_t end = time(NULL) + 15;

	assert_int_equal(put(f, RESOURCE_LISTENER, PLAIN("a", "80"), 1, NULL), 0);
	kernel_fake_fail_at(f->kernel, KERNEL_NFT_COMMIT, 1, -EIO);
	while (f->core.pending.revision != 0 && time(NULL) < end)
		assert_true(sd_event_run(f->core.event, 100000) >= 0);
	assert_int_equal(core_count(&f->core, RESOURCE_LISTENER), 0);
}

/* The daemon was dead, or the machine off, when the time ran out. */
static void test_deadline_past_at_start(void **state)
{
	struct fixture *f = *state;
	char mark[64];

	assert_int_equal(put(f, RESOURCE_LISTENER, PLAIN("a", "80"), 600, NULL), 0);
	snprintf(mark, sizeof(mark), "1 0 %lld", (long long)time(NULL) - 5);
	assert_int_equal(store_meta_set(f->core.store, APPLY_PENDING_KEY, mark), 0);
	stop(f);
	start(f);
	assert_int_equal(f->core.pending.revision, 0);
	assert_int_equal(core_count(&f->core, RESOURCE_LISTENER), 0);
	assert_int_equal(core_revision(&f->core), 2);
}

static void test_rollback_settles(void **state)
{
	struct fixture *f = *state;
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_core_result_ struct core_result result = { 0 };
	struct core_request request = { .actor = "test", .summary = "rollback" };

	assert_int_equal(put(f, RESOURCE_LISTENER, PLAIN("a", "80"), 600, NULL), 0);
	assert_int_equal(core_rollback(&f->core, 0, &request, &errs, &result), 0);
	assert_int_equal(f->core.pending.revision, 0);
	stop(f);
	start(f);
	assert_int_equal(f->core.pending.revision, 0);
	assert_int_equal(put(f, RESOURCE_LISTENER, PLAIN("a", "80"), 0, NULL), 0);
}

/* ---- audit and copy ---- */

static void test_audit(void **state)
{
	struct fixture *f = *state;
	struct core_audit entry = { .actor = "uid 0", .method = "PUT", .path = "/x", .status = 422, .detail = "no" };
	json_t *list = NULL;

	core_audit(&f->core, &entry);
	entry.status = 200;
	entry.revision = 1;
	core_audit(&f->core, &entry);
	assert_int_equal(core_audit_list(&f->core, 0, 10, &list), 0);
	assert_int_equal(json_array_size(list), 2);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 0), "status")), 200);
	assert_true(json_is_null(json_object_get(json_array_get(list, 1), "revision")));
	json_decref(list);
}

/* Whether anything was changed, or negative errno; the line of the request tells what it says it does. */
static int put_as(struct fixture *f, const char *name, const char *port, const struct core_request *request)
{
	_cleanup_core_result_ struct core_result result = { 0 };
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_(row_unref_p) struct row *row = row_new(RESOURCE_LISTENER);
	struct core_change change = { .operation = CORE_PUT, .resource = RESOURCE_LISTENER, .name = name, .row = row };
	int r;

	snprintf(((struct listener *)row)->name, sizeof(((struct listener *)row)->name), "%s", name);
	assert_int_equal(strings_append(&((struct listener *)row)->ports, port), 0);
	r = core_write(&f->core, &change, 1, request, &errs, &result);
	assert_int_equal(result.audited, r == 0 && !request->dry_run);
	assert_int_equal(*result.timing != '\0', r == 0 && !request->dry_run);
	return r;
}

/* The line of an accepted write is stored with it, that of a refused one or of a dry run is not. */
static void test_audit_with_a_change(void **state)
{
	struct fixture *f = *state;
	struct core_audit line = { .actor = "uid 0", .method = "PUT", .path = "/a", .status = 201, .detail = "" };
	struct core_request request = { .actor = "uid 0", .summary = "PUT a", .audit = &line };
	json_t *list = NULL;

	assert_int_equal(put_as(f, "a", "80", &request), 0);
	request.dry_run = true;
	assert_int_equal(put_as(f, "b", "81", &request), 0);
	request.dry_run = false;
	kernel_fake_fail_at(f->kernel, KERNEL_NFT_COMMIT, 1, -EIO);
	assert_true(put_as(f, "b", "81", &request) < 0);
	assert_int_equal(core_audit_list(&f->core, 0, 10, &list), 0);
	assert_int_equal(json_array_size(list), 1);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 0), "status")), 201);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 0), "revision")), 1);
	json_decref(list);
}

static void test_backup(void **state)
{
	struct fixture *f = *state;
	_cleanup_(store_close_p) struct store *copy = NULL;
	_cleanup_(snapshot_unref_p) struct snapshot *snapshot = NULL;
	_cleanup_free_ char *reason = NULL;
	char path[96];

	assert_int_equal(put(f, RESOURCE_LISTENER, PLAIN("a", "80"), 0, NULL), 0);
	snprintf(path, sizeof(path), "%s/copy.db", f->directory);
	assert_int_equal(core_backup(&f->core, path), 0);
	assert_int_equal(core_backup(&f->core, path), -EEXIST);
	assert_int_equal(store_open(path, &reason, &copy), 0);
	assert_int_equal(store_load(copy, &snapshot), 0);
	assert_int_equal(snapshot->rows[RESOURCE_LISTENER].n, 1);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_references, setup, teardown),
		cmocka_unit_test_setup_teardown(test_set_of_changes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_replace, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rollback, setup, teardown),
		cmocka_unit_test_setup_teardown(test_confirm, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deadline_by_timer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deadline_is_tried_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deadline_past_at_start, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rollback_settles, setup, teardown),
		cmocka_unit_test_setup_teardown(test_audit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_audit_with_a_change, setup, teardown),
		cmocka_unit_test_setup_teardown(test_backup, setup, teardown),
	};

	log_setup("test_core", LOG_CRIT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
