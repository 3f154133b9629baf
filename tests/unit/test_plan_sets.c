/*
 * Address sets in plans: a model with sets is the model of the same listeners
 * with the entries written out; a change of a set touches what differs and
 * nothing else; limits, unknown names, empty sets; what it costs at 100,000.
 */
#include "rules_fixture.h"

#include <errno.h>
#include <malloc.h>

#include "schema/prefixes.h"

static struct prefixes prefixes_of(const char *text)
{
	struct errs errs = { 0 };
	struct prefixes prefixes = { 0 };

	assert_int_equal(prefixes_parse(text, strlen(text), &errs, &prefixes), 0);
	return prefixes;
}

/* Puts a set in; takes over the prefixes. */
static void put_set(struct snapshot *snapshot, const char *name, struct prefixes entries)
{
	struct address_set *set = (struct address_set *)row_new(RESOURCE_ADDRESS_SET);

	assert_non_null(set);
	snprintf(set->name, sizeof(set->name), "%s", name);
	set->entries = entries;
	assert_int_equal(snapshot_put(snapshot, &set->row), 0);
	row_unref(&set->row);
}

static const struct prefixes *entries_of(const struct snapshot *snapshot, const char *name)
{
	const struct row *row = snapshot_find(snapshot, RESOURCE_ADDRESS_SET, name);

	return row ? &((const struct address_set *)row)->entries : NULL;
}

static size_t elements_now(const struct model *model)
{
	struct elements elements;

	assert_int_equal(model_elements(model, &elements), 0);
	free(elements.items);
	return elements.n;
}

/* The list with its sets written out; false if nothing is left of a list that is not "any". */
static bool write_out(struct strings *texts, const struct snapshot *snapshot)
{
	struct strings flat = { 0 };
	bool any = texts->n == 0, left;
	char text[ADDR_TEXT_MAX];

	for (size_t i = 0; i < texts->n; i++) {
		const struct prefixes *set =
		        texts->items[i][0] == '@' ? entries_of(snapshot, texts->items[i] + 1) : NULL;

		if (!set)
			assert_int_equal(strings_append(&flat, texts->items[i]), 0);
		for (size_t k = 0; set && k < set->n; k++)
			assert_int_equal(strings_append(&flat, prefix_format(prefixes_at(set, k), text)), 0);
	}
	strings_clear(texts);
	*texts = flat;
	left = flat.n > 0;
	return any || left;
}

static struct snapshot *written_out(const struct snapshot *from)
{
	struct snapshot *to = snapshot_new();

	for (size_t i = 0; i < from->rows[RESOURCE_LISTENER].n; i++) {
		struct listener *listener = (struct listener *)row_copy(from->rows[RESOURCE_LISTENER].items[i]);
		bool sources = write_out(&listener->sources, from),
		     destinations = write_out(&listener->destinations, from);

		listener->row.id = from->rows[RESOURCE_LISTENER].items[i]->id;
		listener->enabled &= sources && destinations;
		fixture_put(to, listener);
	}
	return to;
}

static void check_against_written_out(const struct model *model, const struct snapshot *snapshot)
{
	struct snapshot *flat = written_out(snapshot);
	struct model *fresh = fixture_model(flat);
	struct elements one, other;

	assert_int_equal(model_elements(model, &one), 0);
	assert_int_equal(model_elements(fresh, &other), 0);
	fixture_same_elements(&one, &other, true);
	free(one.items);
	free(other.items);
	model_free(fresh);
	snapshot_unref(flat);
}

static struct prefixes random_entries(void)
{
	static const char *const entries[] = { "10.1.0.0/16\n", "10.1.1.0/24\n", "10.1.1.1\n", "10.1.1.2/31\n",
		"10.9.0.0/16\n", "10.9.1.7\n", "0.0.0.0/0\n", "::/0\n", "fd00:1::/32\n", "fd00:9::1\n" };
	char text[256] = "";

	for (size_t i = 0; i < ARRAY_SIZE(entries); i++)
		if (fixture_random(3) == 0)
			strcat(text, entries[i]);
	return prefixes_of(fixture_random(8) ? text : "");
}

/* A random edit of a listener, some of whose addresses are sets, or of a set, or of both at once. */
static struct snapshot *random_edit(const struct snapshot *from)
{
	static const char *const lists[] = { "@a", "@b", "@a @b", "@c 10.1.1.0/24", "@a 10.1.1.1 fd00:1::/32",
		"@b @c" };
	static const char *const names[] = { "a", "b", "c" };
	struct snapshot *to = fixture_random_edit(from, 8);
	unsigned kind = fixture_random(3);

	for (size_t i = 0; kind != 0 && i < to->rows[RESOURCE_LISTENER].n; i++) {
		struct row *row = to->rows[RESOURCE_LISTENER].items[i];
		struct listener *listener;

		if (row == (struct row *)snapshot_find(from, RESOURCE_LISTENER, row_name(row)))
			continue;
		listener = (struct listener *)row_copy(row);
		listener->row.id = row->id;
		if (fixture_random(2))
			strings_clear(&listener->sources), fixture_words(&listener->sources, fixture_pick(lists, 6));
		if (fixture_random(2))
			strings_clear(&listener->destinations),
			        fixture_words(&listener->destinations, fixture_pick(lists, 6));
		fixture_put(to, listener);
	}
	if (kind != 1)
		put_set(to, fixture_pick(names, 3), random_entries());
	return to;
}

static void sets_are_their_entries(void **state)
{
	struct snapshot *at = snapshot_new();
	unsigned refused = 0, aborted = 0;
	struct model *model;

	(void)state;
	plan_own_range_min(4);
	put_set(at, "a", random_entries());
	put_set(at, "b", random_entries());
	put_set(at, "c", random_entries());
	model = fixture_model(at);
	for (unsigned round = 0; round < 2000; round++) {
		struct snapshot *to = random_edit(at);
		struct elements before, after;
		struct errs errs = { 0 };
		struct plan *plan;
		int r;

		assert_int_equal(model_elements(model, &before), 0);
		r = plan_new(model, at, to, &errs, &plan);
		if (r < 0) {
			assert_int_equal(r, -EEXIST);
			refused++;
		} else if (fixture_random(4) == 0) {
			plan_abort(model, plan);
			aborted++;
		} else {
			assert_int_equal(model_elements(model, &after), 0);
			fixture_same_elements(&before, &after, true);
			free(after.items);
			after.n = before.n - plan->removed.n + plan->added.n;
			plan_commit(model, plan);
			assert_int_equal(elements_now(model), after.n);
			snapshot_unref(at);
			at = snapshot_ref(to);
		}
		free(before.items);
		errs_clear(&errs);
		snapshot_unref(to);
		check_against_written_out(model, at);
	}
	print_message("2000 edits, %u refused as ties, %u aborted, %zu elements at the end\n", refused, aborted,
	        elements_now(model));
	assert_true(refused < 1500);
	plan_own_range_min(0);
	model_free(model);
	snapshot_unref(at);
}

static void an_empty_set_matches_nothing(void **state)
{
	struct snapshot *at = snapshot_new(), *to = snapshot_edit(at, 1);
	struct model *model = fixture_model(at);

	(void)state;
	put_set(to, "empty", (struct prefixes){ 0 });
	fixture_put(to, fixture_listener("none", 1, "", "@empty", "", "80"));
	assert_int_equal(fixture_apply(model, at, to), 0);
	assert_int_equal(elements_now(model), 0);
	model_free(model);
	snapshot_unref(at);
	snapshot_unref(to);
}

static void expect_fault(
        struct model *model, struct snapshot *at, struct snapshot *to, const char *code, const char *word)
{
	struct errs errs = { 0 };
	struct plan *plan;

	assert_int_equal(plan_new(model, at, to, &errs, &plan), -EINVAL);
	assert_int_equal(errs.n, 1);
	assert_string_equal(errs.items[0].code, code);
	assert_non_null(strstr(errs.items[0].detail, word));
	errs_clear(&errs);
	snapshot_unref(to);
}

static void unknown_sets_are_refused(void **state)
{
	struct snapshot *empty = snapshot_new(), *at = snapshot_edit(empty, 1), *to = snapshot_edit(empty, 1);
	struct model *model = fixture_model(empty);

	(void)state;
	fixture_put(to, fixture_listener("web", 1, "", "", "@nowhere", "80"));
	expect_fault(model, empty, to, "unknown_reference", "\"nowhere\"");
	put_set(at, "known", prefixes_of("10.0.0.1\n"));
	fixture_put(at, fixture_listener("web", 1, "", "", "@known", "80"));
	assert_int_equal(fixture_apply(model, empty, at), 0);
	to = snapshot_edit(at, 2);
	assert_int_equal(snapshot_remove(to, RESOURCE_ADDRESS_SET, "known"), 0);
	expect_fault(model, at, to, "unknown_reference", "\"known\"");
	assert_int_equal(elements_now(model), 1);
	model_free(model);
	snapshot_unref(at);
	snapshot_unref(empty);
}

/* So many single addresses, from 10.0.0.0 on. */
static struct prefixes many(size_t n)
{
	struct prefixes_builder builder = { 0 };
	struct prefixes ret = { 0 };

	for (size_t i = 0; i < n; i++) {
		struct prefix prefix = { { AF_INET, { 10, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i } }, 32 };

		assert_int_equal(prefixes_add(&builder, &prefix), 0);
	}
	assert_int_equal(prefixes_finish(&builder, &ret), 0);
	return ret;
}

static void the_total_is_limited(void **state)
{
	struct snapshot *empty = snapshot_new(), *at = snapshot_edit(empty, 1), *to;
	struct model *model = fixture_model(empty);

	(void)state;
	put_set(at, "big", many(50));
	put_set(at, "wide", many(PLAN_TOTAL_MAX / 50));
	fixture_put(at, fixture_listener("all", 1, "", "@big", "@wide", "80"));
	to = snapshot_edit(at, 2); /* the limit itself is within, one more is not */
	fixture_put(to, fixture_listener("more", 2, "", "10.0.0.1", "10.0.0.1", "81"));
	expect_fault(model, empty, to, "too_complex", "\"more\"");
	put_set(at, "wide", many(PLAN_TOTAL_MAX / 50 + 1));
	to = snapshot_edit(at, 2);
	expect_fault(model, empty, to, "too_complex", "\"all\"");
	/* A listener gives its room back when it goes. */
	put_set(at, "wide", many(100));
	assert_int_equal(fixture_apply(model, empty, at), 0);
	to = snapshot_edit(at, 2);
	put_set(to, "wide", many(PLAN_TOTAL_MAX / 50 + 1));
	expect_fault(model, at, to, "too_complex", "\"all\"");
	assert_int_equal(elements_now(model), 5000);
	model_free(model);
	snapshot_unref(at);
	snapshot_unref(empty);
}

/* Whether a write from one to the other would be refused for the size of a set of ranges, naming this listener. */
static void expect_load(struct model *model, struct snapshot *from, struct snapshot *to, const char *refused)
{
	struct errs errs = { 0 };
	struct plan *plan;

	assert_int_equal(plan_new(model, from, to, &errs, &plan), 0);
	assert_int_equal(plan_check_load(model, plan, &errs), refused ? -EINVAL : 0);
	assert_int_equal(errs.n, refused ? 1 : 0);
	if (refused) {
		assert_string_equal(errs.items[0].code, "too_complex");
		assert_string_equal(errs.items[0].pointer, refused);
	}
	plan_abort(model, plan);
	errs_clear(&errs);
}

/* So many addresses with a range of so many blocks (2-65533: 28), which are too few for a set of its own. */
static void put_ranges(struct snapshot *snapshot, unsigned number, size_t n)
{
	char name[16], set[16], source[16];

	snprintf(name, sizeof(name), "l%u", number);
	snprintf(set, sizeof(set), "@s%u", number);
	snprintf(source, sizeof(source), "172.16.0.%u", number);
	put_set(snapshot, set + 1, many(n));
	fixture_put(snapshot, fixture_listener(name, number, "", source, set, "2-65533"));
}

/* It is their sum that counts. What is over the limit already has to start, and may become less, or stay and be written
 * otherwise. */
static void blocks_of_ranges_are_limited(void **state)
{
	enum { EACH = PLAN_OWN_RANGE_MIN - 1, FULL = PLAN_BLOCKS_MAX / 28 / EACH, REST = PLAN_BLOCKS_MAX / 28 % EACH };
	struct snapshot *empty = snapshot_new(), *at = snapshot_edit(empty, 1), *to;
	struct model *model = fixture_model(empty);

	(void)state;
	for (unsigned i = 1; i <= FULL; i++)
		put_ranges(at, i, EACH);
	put_ranges(at, FULL + 1, REST);
	((struct listener *)snapshot_find(at, RESOURCE_LISTENER, "l1"))->protocol = PROTOCOL_UDP;
	expect_load(model, empty, at, NULL);
	put_ranges(at, FULL + 1, REST + 1);
	expect_load(model, empty, at, "/listeners/l2/ports");
	assert_int_equal(fixture_apply(model, empty, at), 0);
	to = snapshot_edit(at, 2);
	put_set(to, "s1", many(EACH - 1));
	put_set(to, "s2", many(EACH - 1));
	expect_load(model, at, to, NULL);
	snapshot_unref(to);
	to = snapshot_edit(at, 2);
	fixture_put(to, fixture_listener("other", 200, "", "", "172.16.0.1", "80 82"));
	expect_load(model, at, to, NULL);
	fixture_put(to, fixture_listener("more", 201, "", "", "172.16.0.2", "80-81"));
	expect_load(model, at, to, "/listeners/more/ports");
	model_free(model);
	snapshot_unref(to);
	snapshot_unref(at);
	snapshot_unref(empty);
}

static void expect_groups(const struct model *model, size_t n, size_t n_intervals)
{
	size_t n_groups, intervals = 0;
	struct group *groups;

	assert_int_equal(model_groups(model, &groups, &n_groups), 0);
	for (size_t i = 0; i < n_groups; i++)
		intervals += group_is_interval(&groups[i]);
	assert_int_equal(n_groups, n);
	assert_int_equal(intervals, n_intervals);
	free(groups);
}

/* Sets are for each shape: combinations that are spread over many of them have no sets of their own. */
static void ranges_of_many_shapes_have_none(void **state)
{
	struct snapshot *empty = snapshot_new(), *at = snapshot_edit(empty, 1);
	struct model *model = fixture_model(empty);
	struct prefixes_builder builder = { 0 };
	struct prefixes entries;

	(void)state;
	for (uint32_t i = 0; i < PLAN_OWN_RANGE_MIN; i++) {
		struct prefix prefix = { .addr = { AF_INET, { 10, (uint8_t)(i >> 8), (uint8_t)i } }, .length = 24 };

		assert_int_equal(prefixes_add(&builder, &prefix), 0);
	}
	assert_int_equal(prefixes_add(&builder, &(struct prefix){ .addr = { AF_INET, { 11 } }, .length = 8 }), 0);
	assert_int_equal(prefixes_finish(&builder, &entries), 0);
	put_set(at, "mixed", entries);
	fixture_put(at, fixture_listener("all", 1, "", "", "@mixed", "8000-8100"));
	assert_int_equal(fixture_apply(model, empty, at), 0);
	expect_groups(model, 2, 2);
	model_free(model);
	snapshot_unref(at);
	snapshot_unref(empty);
}

/* At the limit a range moves to a set of its own, below it back. What others cut out of it does not make it sets. */
static void ranges_of_many_have_sets_of_their_own(void **state)
{
	struct snapshot *empty = snapshot_new(), *at = snapshot_edit(empty, 1), *to = snapshot_edit(empty, 1), *cut;
	struct model *model = fixture_model(empty);
	struct match_packet packet = { .protocol = IPPROTO_TCP, .dst_port = 8050 };
	struct element found;
	struct group *groups;
	size_t n;

	(void)state;
	put_set(at, "big", many(PLAN_OWN_RANGE_MIN - 1));
	fixture_put(at, fixture_listener("all", 1, "", "", "@big", "8000-8100 9000-9001 443"));
	assert_int_equal(fixture_apply(model, empty, at), 0);
	expect_groups(model, 2, 1);
	snapshot_unref(to);
	to = snapshot_edit(at, 2);
	put_set(to, "big", many(PLAN_OWN_RANGE_MIN));
	assert_int_equal(fixture_apply(model, at, to), 0);
	expect_groups(model, 3, 0);
	cut = snapshot_edit(to, 3);
	for (unsigned i = 0; i < 20; i++) {
		char name[16], address[16], ports[16];

		snprintf(name, sizeof(name), "cut%u", i);
		snprintf(address, sizeof(address), "10.0.0.%u", i);
		snprintf(ports, sizeof(ports), "%u-%u", 8010 + i, 8011 + i);
		fixture_put(cut, fixture_listener(name, 10 + i, "", "", address, ports));
	}
	assert_int_equal(fixture_apply(model, to, cut), 0);
	expect_groups(model, 4, 1);
	packet.dst = packet.src = (struct addr){ AF_INET, { 10, 0, 0, 5 } };
	assert_int_equal(model_decide(model, &packet, false, &found), 1);
	assert_int_equal(found.listener, 1);
	assert_false(found.own_range);
	packet.dst.bytes[3] = 100;
	assert_int_equal(model_groups(model, &groups, &n), 0);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(model_find(model, &groups[i], &packet, &found), groups[i].port_lo == 8000);
	free(groups);
	assert_int_equal(model_decide(model, &packet, false, &found), 1);
	assert_true(found.own_range);
	assert_int_equal(fixture_apply(model, cut, at), 0);
	expect_groups(model, 2, 1);
	model_free(model);
	snapshot_unref(cut);
	snapshot_unref(to);
	snapshot_unref(at);
	snapshot_unref(empty);
}

/* All ports that can be named are found as any port, and still win against a listener that names none. */
static void all_ports_need_no_ranges(void **state)
{
	struct snapshot *empty = snapshot_new(), *at = snapshot_edit(empty, 1);
	struct match_packet packet = { .protocol = IPPROTO_TCP, .dst_port = 443 };
	struct model *model;
	struct group *groups;
	struct element found;
	size_t n;

	(void)state;
	put_set(at, "big", many(100));
	fixture_put(at, fixture_listener("all", 1, "", "", "@big", "1-65535"));
	fixture_put(at, fixture_listener("any", 2, "", "", "@big", ""));
	((struct listener *)snapshot_find(at, RESOURCE_LISTENER, "all"))->priority = 7;
	model = fixture_model(at);
	assert_int_equal(model_count(model), 100);
	assert_int_equal(model_groups(model, &groups, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(groups[0].shape.port_kind, MATCH_PORT_ANY);
	packet.dst = packet.src = (struct addr){ AF_INET, { 10, 0, 0, 5 } };
	assert_int_equal(model_find(model, &groups[0], &packet, &found), 1);
	assert_int_equal(found.listener, 1);
	free(groups);
	model_free(model);
	snapshot_unref(at);
	snapshot_unref(empty);
}

/* Times a plan, commits it; how many elements it has. */
static size_t timed(struct model *model, struct snapshot *from, struct snapshot *to, const char *what)
{
	struct errs errs = { 0 };
	double begin = fixture_ms(), planned;
	struct plan *plan;
	size_t n;

	assert_int_equal(plan_new(model, from, to, &errs, &plan), 0);
	planned = fixture_ms();
	n = plan->added.n + plan->removed.n;
	plan_commit(model, plan);
	print_message(
	        "%s: %zu elements, plan %.2f ms, commit %.2f ms\n", what, n, planned - begin, fixture_ms() - planned);
	return n;
}

static void one_entry_among_a_hundred_thousand(void **state)
{
	struct snapshot *empty = snapshot_new(), *from = snapshot_edit(empty, 1), *to = snapshot_edit(empty, 2);
	struct model *model = fixture_model(empty);
	struct prefixes one, united;
	size_t bytes;

	(void)state;
	put_set(from, "big", many(100000));
	fixture_put(from, fixture_listener("a", 1, "", "", "@big", "443"));
	fixture_put(from, fixture_listener("b", 2, "", "", "10.0.0.0/8", "80"));
	bytes = mallinfo2().uordblks + mallinfo2().hblkhd;
	assert_int_equal(timed(model, empty, from, "100,000 entries"), 100001);
	print_message("%zu bytes per cell\n", (mallinfo2().uordblks + mallinfo2().hblkhd - bytes) / 100000);
	snapshot_unref(to);
	to = snapshot_edit(from, 2);
	one = prefixes_of("192.0.2.1\n");
	assert_int_equal(prefixes_unite(entries_of(from, "big"), &one, &united), 0);
	put_set(to, "big", united);
	assert_int_equal(timed(model, from, to, "one entry more"), 1);
	assert_int_equal(timed(model, to, from, "one entry less"), 1);
	prefixes_clear(&one);
	model_free(model);
	snapshot_unref(empty);
	snapshot_unref(from);
	snapshot_unref(to);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_set_matches_nothing),
		cmocka_unit_test(unknown_sets_are_refused),
		cmocka_unit_test(the_total_is_limited),
		cmocka_unit_test(blocks_of_ranges_are_limited),
		cmocka_unit_test(ranges_of_many_shapes_have_none),
		cmocka_unit_test(ranges_of_many_have_sets_of_their_own),
		cmocka_unit_test(all_ports_need_no_ranges),
		cmocka_unit_test(sets_are_their_entries),
		cmocka_unit_test(one_entry_among_a_hundred_thousand),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
