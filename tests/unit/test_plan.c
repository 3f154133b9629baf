/*
 * Plans: who wins a packet, checked against a plain reference over random
 * overlapping listeners; the difference, checked against a model from nothing;
 * ties, limits, and that an aborted plan leaves no trace.
 */
#include "rules_reference.h"

#include <assert.h>
#include <errno.h>

static struct match_table *table_of(const struct model *model)
{
	struct match_table *table;
	struct elements elements;

	assert_int_equal(match_table_new(&table), 0);
	assert_int_equal(model_elements(model, &elements), 0);
	for (size_t i = 0; i < elements.n; i++) {
		assert_true(i == 0 || element_compare(&elements.items[i - 1], &elements.items[i]) < 0);
		assert_int_equal(match_table_put(table, &elements.items[i].key, elements.items[i].listener), 0);
	}
	free(elements.items);
	return table;
}

static void winners_are_the_reference(void **state)
{
	unsigned packets = 0, hits = 0;

	(void)state;
	for (unsigned round = 0; round < 400; round++) {
		struct snapshot *snapshot = snapshot_new(), *empty = snapshot_new();
		struct match_table *table;
		struct model *model;

		assert_int_equal(model_new(&model), 0);
		for (unsigned i = 0; i < 16; i++) {
			struct snapshot *to = snapshot_edit(snapshot, i + 1);

			fixture_put(to, fixture_random_listener(i));
			if (fixture_apply(model, snapshot, to) == 0) {
				struct snapshot *before = snapshot;

				snapshot = snapshot_ref(to);
				snapshot_unref(before);
			}
			snapshot_unref(to);
		}
		table = table_of(model);
		for (unsigned i = 0; i < 60; i++) {
			struct match_packet packet = reference_packet();
			uint32_t found = 0;

			(void)match_table_find(table, &packet, &found);
			assert_int_equal(found, reference_winner(snapshot, &packet));
			packets++;
			hits += found != 0;
		}
		match_table_free(table);
		model_free(model);
		snapshot_unref(snapshot);
		snapshot_unref(empty);
	}
	print_message("%u packets, %u of them won by a listener\n", packets, hits);
	assert_true(hits > packets / 4); /* else the universe is too wide to test anything */
}

/* What removed and added make of the elements before. */
static void patch(struct elements *elements, const struct plan *plan)
{
	size_t n = 0;

	for (size_t i = 0, k = 0; i < elements->n; i++) {
		if (k < plan->removed.n && fixture_same_element(&elements->items[i], &plan->removed.items[k], true))
			k++;
		else
			elements->items[n++] = elements->items[i];
	}
	assert_int_equal(elements->n - n, plan->removed.n);
	elements->items = reallocarray(elements->items, n + plan->added.n + 1, sizeof(*elements->items));
	assert_non_null(elements->items);
	for (size_t i = 0; i < plan->added.n; i++) {
		size_t at = n++;

		while (at > 0 && element_compare(&elements->items[at - 1], &plan->added.items[i]) > 0) {
			elements->items[at] = elements->items[at - 1];
			at--;
		}
		elements->items[at] = plan->added.items[i];
	}
	elements->n = n;
}

static void same_groups(const struct model *a, const struct model *b)
{
	struct group *one, *other;
	size_t n_one, n_other;

	assert_int_equal(model_groups(a, &one, &n_one), 0);
	assert_int_equal(model_groups(b, &other, &n_other), 0);
	assert_int_equal(n_one, n_other);
	for (size_t i = 0; i < n_one; i++)
		assert_int_equal(group_compare(&one[i], &other[i]), 0);
	free(one);
	free(other);
}

static void check_against_fresh(const struct model *model, const struct elements *patched, struct snapshot *snapshot)
{
	struct model *fresh = fixture_model(snapshot);
	struct elements now, anew;

	assert_int_equal(model_elements(model, &now), 0);
	assert_int_equal(model_elements(fresh, &anew), 0);
	fixture_same_elements(&now, &anew, true);
	fixture_same_elements(&now, patched, true);
	same_groups(model, fresh);
	free(now.items);
	free(anew.items);
	model_free(fresh);
}

/* Whether two lists of addresses have a prefix of this family in common, an empty list being "any". */
static bool share_prefix(const struct strings *a, const struct strings *b, uint8_t family)
{
	struct prefix one[PREFIX_RANGE_MAX], other[PREFIX_RANGE_MAX];

	if (a->n == 0 || b->n == 0)
		return a->n == b->n;
	for (size_t i = 0; i < a->n; i++)
		for (size_t k = 0; k < b->n; k++) {
			int n_one = prefix_range_parse(a->items[i], one),
			    n_other = prefix_range_parse(b->items[k], other);

			for (int x = 0; x < n_one; x++)
				for (int y = 0; y < n_other; y++)
					if (one[x].addr.family == family && one[x].length == other[y].length &&
					        addr_equal(&one[x].addr, &other[y].addr))
						return true;
		}
	return false;
}

static bool share_interface(const struct strings *a, const struct strings *b)
{
	for (size_t i = 0; i < a->n; i++)
		for (size_t k = 0; k < b->n; k++)
			if (strcmp(a->items[i], b->items[k]) == 0)
				return true;
	return a->n == 0 && b->n == 0;
}

static bool share_port(const struct strings *a, const struct strings *b)
{
	struct port_range one, other;

	for (size_t i = 0; i < a->n; i++)
		for (size_t k = 0; k < b->n; k++) {
			port_range_parse(a->items[i], &one);
			port_range_parse(b->items[k], &other);
			if (one.hi - one.lo == other.hi - other.lo && one.lo <= other.hi && other.lo <= one.hi)
				return true;
		}
	return a->n == 0 && b->n == 0;
}

static bool reference_tie(const struct listener *a, const struct listener *b)
{
	bool addresses = false;

	for (unsigned i = 0; i < 2; i++) {
		uint8_t family = i ? AF_INET6 : AF_INET;

		addresses |= share_prefix(&a->destinations, &b->destinations, family) &&
		             share_prefix(&a->sources, &b->sources, family);
	}
	return addresses && a->enabled && b->enabled && a->protocol == b->protocol && a->priority == b->priority &&
	       share_interface(&a->interfaces, &b->interfaces) && share_port(&a->ports, &b->ports);
}

static bool has_reference_tie(const struct snapshot *snapshot)
{
	const struct rows *rows = &snapshot->rows[RESOURCE_LISTENER];

	for (size_t i = 0; i < rows->n; i++)
		for (size_t k = 0; k < i; k++)
			if (reference_tie((struct listener *)rows->items[i], (struct listener *)rows->items[k]))
				return true;
	return false;
}

static void differences_add_up(void **state)
{
	struct snapshot *at = snapshot_new();
	struct elements elements = { 0 };
	unsigned refused = 0, aborted = 0;
	struct model *model;

	(void)state;
	plan_own_range_min(3);
	assert_int_equal(model_new(&model), 0);
	for (unsigned round = 0; round < 1500; round++) {
		struct snapshot *to = fixture_random_edit(at, 20);
		struct errs errs = { 0 };
		struct plan *plan;
		int r = plan_new(model, at, to, &errs, &plan);

		assert_int_equal(r < 0, has_reference_tie(to));
		if (r < 0) {
			assert_int_equal(r, -EEXIST);
			assert_string_equal(errs.items[0].code, "overlap");
			refused++;
		} else if (fixture_random(4) == 0) {
			plan_abort(model, plan);
			aborted++;
		} else {
			patch(&elements, plan);
			plan_commit(model, plan);
			snapshot_unref(at);
			at = snapshot_ref(to);
		}
		errs_clear(&errs);
		snapshot_unref(to);
		check_against_fresh(model, &elements, at);
	}
	print_message("1500 edits, %u refused as ties, %u aborted\n", refused, aborted);
	plan_own_range_min(0);
	free(elements.items);
	model_free(model);
	snapshot_unref(at);
}

static int plan_of_two(struct listener *a, struct listener *b, struct errs *errs)
{
	struct snapshot *empty = snapshot_new(), *both = snapshot_edit(empty, 1);
	struct model *model;
	struct plan *plan;
	int r;

	fixture_put(both, a);
	fixture_put(both, b);
	assert_int_equal(model_new(&model), 0);
	r = plan_new(model, empty, both, errs, &plan);
	if (r == 0)
		plan_abort(model, plan);
	model_free(model);
	snapshot_unref(empty);
	snapshot_unref(both);
	return r;
}

static void ties_are_refused(void **state)
{
	struct errs errs = { 0 };

	(void)state;
	assert_int_equal(plan_of_two(fixture_listener("web", 1, "", "", "10.0.0.0/24", "443"),
	                         fixture_listener("shop", 2, "", "", "10.0.0.0/24", "80 443"), &errs),
	        -EEXIST);
	assert_int_equal(errs.n, 1);
	assert_string_equal(errs.items[0].code, "overlap");
	assert_non_null(strstr(errs.items[0].detail, "\"web\""));
	assert_non_null(strstr(errs.items[0].detail, "\"shop\""));
	assert_non_null(strstr(errs.items[0].detail, "port 443"));
	assert_string_equal(errs.items[0].pointer, "/listeners/web/ports/0");
	errs_clear(&errs);
	assert_int_equal(plan_of_two(fixture_listener("a", 1, "", "", "", "80-89"),
	                         fixture_listener("b", 2, "", "", "", "85-94"), &errs),
	        -EEXIST);
	assert_non_null(strstr(errs.items[0].detail, "ports 85-89"));
	errs_clear(&errs);
	assert_int_equal(
	        plan_of_two(fixture_listener("a", 1, "", "", "", ""), fixture_listener("b", 2, "", "", "", ""), &errs),
	        -EEXIST);
	errs_clear(&errs);
}

static void near_ties_are_not(void **state)
{
	struct listener *low = fixture_listener("low", 1, "", "", "", "80"),
	                *off = fixture_listener("off", 1, "", "", "", "80");
	struct errs errs = { 0 };

	(void)state;
	low->priority = 99;
	off->enabled = false;
	assert_int_equal(plan_of_two(low, fixture_listener("b", 2, "", "", "", "80"), &errs), 0);
	assert_int_equal(plan_of_two(off, fixture_listener("b", 2, "", "", "", "80"), &errs), 0);
	assert_int_equal(plan_of_two(fixture_listener("a", 1, "", "", "", "80-89"),
	                         fixture_listener("b", 2, "", "", "", "85-95"), &errs),
	        0);
	assert_int_equal(plan_of_two(fixture_listener("a", 1, "", "", "10.0.0.0/24", "80"),
	                         fixture_listener("b", 2, "", "", "fd00::/24", "80"), &errs),
	        0);
	/* One listener's own ports and addresses may meet as they like. */
	assert_int_equal(plan_of_two(fixture_listener("a", 1, "", "", "10.0.0.0/24 10.0.0.0/24", "80 80 80-81 79-80"),
	                         fixture_listener("b", 2, "", "", "10.0.0.0/16", "80"), &errs),
	        0);
	assert_int_equal(errs.n, 0);
}

static void too_many_cells_are_refused(void **state)
{
	struct listener *big = fixture_listener("big", 1, "", "", "", "80");
	struct errs errs = { 0 };
	char text[64];

	(void)state;
	/* 64 by 64 by four ports is the limit itself; one port more goes beyond, and so does an interface list of two.
	 */
	fixture_words(&big->ports, "82 83 100-200");
	for (unsigned i = 0; i < 64; i++) {
		snprintf(text, sizeof(text), "10.0.%u.0/24", i);
		fixture_words(&big->sources, text);
		fixture_words(&big->destinations, text);
	}
	static_assert(PLAN_LISTENER_MAX == 64 * 64 * 4, "as the lists here");
	row_ref(&big->row);
	assert_int_equal(plan_of_two(big, fixture_listener("b", 2, "", "", "", "81"), &errs), 0);
	row_ref(&big->row);
	fixture_words(&big->ports, "84");
	assert_int_equal(plan_of_two(big, fixture_listener("b", 2, "", "", "", "81"), &errs), -EINVAL);
	assert_string_equal(errs.items[0].code, "too_complex");
	assert_string_equal(errs.items[0].pointer, "/listeners/big/destinations");
	errs_clear(&errs);
	free(big->ports.items[--big->ports.n]);
	fixture_words(&big->interfaces, "a b");
	assert_int_equal(plan_of_two(big, fixture_listener("b", 2, "", "", "", "81"), &errs), -EINVAL);
	assert_string_equal(errs.items[0].code, "too_complex");
	errs_clear(&errs);
}

static void families_follow_both_lists(void **state)
{
	static const struct {
		const char *sources, *destinations;
		size_t elements;
	} cases[] = { { "", "", 2 }, { "10.0.0.0/8", "", 1 }, { "", "fd00::/8", 1 }, { "10.0.0.0/8", "fd00::/8", 0 },
		{ "10.0.0.0/8 fd00::/8", "", 2 }, { "", "10.0.0.1-10.0.0.6", 4 } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct snapshot *snapshot = snapshot_new();
		struct elements elements;
		struct model *model;

		fixture_put(snapshot, fixture_listener("a", 1, "", cases[i].sources, cases[i].destinations, "80"));
		model = fixture_model(snapshot);
		assert_int_equal(model_elements(model, &elements), 0);
		assert_int_equal(elements.n, cases[i].elements);
		free(elements.items);
		model_free(model);
		snapshot_unref(snapshot);
	}
}

static void changes_name_the_rows(void **state)
{
	struct snapshot *from = snapshot_new(), *to;
	struct upstream *upstream = (struct upstream *)row_new(RESOURCE_UPSTREAM);
	struct errs errs = { 0 };
	struct model *model;
	struct plan *plan;

	(void)state;
	fixture_put(from, fixture_listener("gone", 1, "", "", "", "80"));
	fixture_put(from, fixture_listener("kept", 2, "", "", "", "81"));
	model = fixture_model(from);
	to = snapshot_edit(from, 7);
	snprintf(upstream->name, sizeof(upstream->name), "pool");
	assert_int_equal(snapshot_put(to, &upstream->row), 0);
	row_unref(&upstream->row);
	assert_int_equal(snapshot_remove(to, RESOURCE_LISTENER, "gone"), 0);
	assert_int_equal(plan_new(model, from, to, &errs, &plan), 0);
	assert_int_equal(plan->n_changes, 2);
	assert_null(plan->changes[0].old_row);
	assert_string_equal(row_name(plan->changes[0].new_row), "pool");
	assert_null(plan->changes[1].new_row);
	assert_string_equal(row_name(plan->changes[1].old_row), "gone");
	assert_int_equal(plan->removed.n, 2);
	assert_int_equal(plan->added.n, 0);
	assert_int_equal(plan->to_revision, 7);
	/* Only one plan at a time, and only from where the model is. */
	assert_int_equal(plan_new(model, from, to, &errs, &plan), -EINVAL);
	plan_abort(model, plan);
	assert_int_equal(plan_new(model, to, from, &errs, &plan), -EINVAL);
	model_free(model);
	snapshot_unref(from);
	snapshot_unref(to);
}

static struct listener *numbered(unsigned i)
{
	char name[32], address[32];

	snprintf(name, sizeof(name), "l%05u", i);
	snprintf(address, sizeof(address), "10.%u.%u.0/24", i / 250 % 250, i % 250);
	return fixture_listener(name, i + 1, "", "", i % 2 ? address : "",
	        i % 2 ? "443" : (snprintf(address, sizeof(address), "%u-%u", i + 1, i + 2), address));
}

static void one_among_ten_thousand(void **state)
{
	struct snapshot *empty = snapshot_new(), *from = snapshot_edit(empty, 1), *to;
	struct errs errs = { 0 };
	struct model *model;
	struct plan *plan;
	double begin, loaded;

	(void)state;
	for (unsigned i = 0; i < 10000; i++) {
		struct listener *listener = numbered(i);

		listener->priority = i;
		fixture_put(from, listener);
	}
	assert_int_equal(model_new(&model), 0);
	begin = fixture_ms();
	assert_int_equal(fixture_apply(model, empty, from), 0);
	loaded = fixture_ms() - begin;
	to = snapshot_edit(from, 2);
	fixture_put(to, fixture_listener("one-more", 20000, "", "", "192.0.2.0/24", "443"));
	begin = fixture_ms();
	assert_int_equal(plan_new(model, from, to, &errs, &plan), 0);
	print_message("10000 listeners planned in %.1f ms, one more in %.3f ms\n", loaded, fixture_ms() - begin);
	assert_int_equal(plan->added.n, 1);
	assert_int_equal(plan->removed.n, 0);
	plan_abort(model, plan);
	snapshot_unref(to);
	to = snapshot_edit(from, 2);
	fixture_put(to, fixture_listener("one-more", 20000, "", "", "", "7777"));
	begin = fixture_ms();
	assert_int_equal(plan_new(model, from, to, &errs, &plan), 0);
	print_message("one more in a cell of 5000 in %.3f ms\n", fixture_ms() - begin);
	assert_int_equal(plan->added.n, 2);
	plan_abort(model, plan);
	model_free(model);
	snapshot_unref(empty);
	snapshot_unref(from);
	snapshot_unref(to);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ties_are_refused),
		cmocka_unit_test(near_ties_are_not),
		cmocka_unit_test(too_many_cells_are_refused),
		cmocka_unit_test(families_follow_both_lists),
		cmocka_unit_test(changes_name_the_rows),
		cmocka_unit_test(winners_are_the_reference),
		cmocka_unit_test(differences_add_up),
		cmocka_unit_test(one_among_ten_thousand),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
