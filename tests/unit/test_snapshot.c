/* Snapshots: order, sharing, and that an edit leaves the state it came from alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "rules/snapshot.h"

static void put(struct snapshot *snapshot, const char *name)
{
	struct upstream *upstream = (struct upstream *)row_new(RESOURCE_UPSTREAM);

	snprintf(upstream->name, sizeof(upstream->name), "%s", name);
	assert_int_equal(snapshot_put(snapshot, &upstream->row), 0);
	row_unref(&upstream->row);
}

static void expect_names(const struct snapshot *snapshot, const char *wanted)
{
	char names[256] = "";

	for (size_t i = 0; i < snapshot->rows[RESOURCE_UPSTREAM].n; i++)
		snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s ",
		        row_name(snapshot->rows[RESOURCE_UPSTREAM].items[i]));
	assert_string_equal(names, wanted);
}

static void test_missing(void **state)
{
	struct snapshot *snapshot = snapshot_new();

	(void)state;
	assert_int_equal(snapshot->revision, 0);
	assert_int_equal(snapshot_remove(snapshot, RESOURCE_UPSTREAM, "a"), -ENOENT);
	assert_null(snapshot_find(snapshot, RESOURCE_UPSTREAM, "a"));
	assert_int_equal(snapshot_after(snapshot, RESOURCE_UPSTREAM, NULL), 0);
	assert_int_equal(snapshot_after(snapshot, RESOURCE_UPSTREAM, "a"), 0);
	put(snapshot, "b");
	assert_null(snapshot_find(snapshot, RESOURCE_LISTENER, "b"));
	assert_null(snapshot_find(snapshot, RESOURCE_UPSTREAM, "a"));
	assert_null(snapshot_find(snapshot, RESOURCE_UPSTREAM, "c"));
	snapshot_unref(snapshot);
	snapshot_unref(NULL);
}

static void test_order(void **state)
{
	struct snapshot *snapshot = snapshot_new();
	struct row *first;

	(void)state;
	put(snapshot, "m");
	put(snapshot, "a-b");
	put(snapshot, "z");
	put(snapshot, "a");
	expect_names(snapshot, "a a-b m z ");
	first = snapshot_find(snapshot, RESOURCE_UPSTREAM, "m");
	put(snapshot, "m"); /* replaces */
	expect_names(snapshot, "a a-b m z ");
	assert_ptr_not_equal(snapshot_find(snapshot, RESOURCE_UPSTREAM, "m"), first);
	assert_int_equal(snapshot_after(snapshot, RESOURCE_UPSTREAM, NULL), 0);
	assert_int_equal(snapshot_after(snapshot, RESOURCE_UPSTREAM, "a"), 1);
	assert_int_equal(snapshot_after(snapshot, RESOURCE_UPSTREAM, "b"), 2);
	assert_int_equal(snapshot_after(snapshot, RESOURCE_UPSTREAM, "z"), 4);
	assert_int_equal(snapshot_remove(snapshot, RESOURCE_UPSTREAM, row_name(snapshot->rows[0].items[0])), 0);
	assert_int_equal(snapshot_remove(snapshot, RESOURCE_UPSTREAM, "z"), 0);
	expect_names(snapshot, "a-b m ");
	snapshot_unref(snapshot);
}

static void test_edit_shares(void **state)
{
	struct snapshot *old = snapshot_new(), *edited;

	(void)state;
	for (char name[] = "a"; *name <= 'e'; (*name)++)
		put(old, name);
	edited = snapshot_edit(old, 7);
	assert_int_equal(edited->revision, 7);
	put(edited, "c");
	put(edited, "f");
	assert_int_equal(snapshot_remove(edited, RESOURCE_UPSTREAM, "a"), 0);
	expect_names(old, "a b c d e ");
	expect_names(edited, "b c d e f ");
	assert_ptr_equal(snapshot_find(old, RESOURCE_UPSTREAM, "b"), snapshot_find(edited, RESOURCE_UPSTREAM, "b"));
	assert_ptr_not_equal(snapshot_find(old, RESOURCE_UPSTREAM, "c"), snapshot_find(edited, RESOURCE_UPSTREAM, "c"));
	snapshot_unref(snapshot_ref(old));
	snapshot_unref(old);
	expect_names(edited, "b c d e f "); /* rows outlive the snapshot they came from */
	snapshot_unref(edited);
}

static void test_settings(void **state)
{
	struct snapshot *snapshot = snapshot_new();
	struct settings *settings = (struct settings *)row_new(RESOURCE_SETTINGS);

	(void)state;
	assert_int_equal(snapshot_settings(snapshot)->drift, DRIFT_HEAL); /* without a row: the defaults */
	assert_int_equal(snapshot_settings(snapshot)->revisions_kept, 10000);
	settings->drift = DRIFT_ALERT;
	assert_int_equal(snapshot_put(snapshot, &settings->row), 0);
	assert_ptr_equal(snapshot_settings(snapshot), settings);
	assert_int_equal(snapshot_settings(snapshot)->drift, DRIFT_ALERT);
	row_unref(&settings->row);
	snapshot_unref(snapshot);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_missing),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_edit_shares),
		cmocka_unit_test(test_settings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
