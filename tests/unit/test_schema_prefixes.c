/* Large sets of prefixes: text in bulk, sharing, set operations against a plain model, and what a million costs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <time.h>

#include "schema/prefixes_private.h"
#include "tests/unit/amount.h"
#include "tests/unit/generate.h"

static struct prefixes parse(const char *text)
{
	struct prefixes prefixes = { 0 };
	struct errs errs = { 0 };

	if (prefixes_parse(text, strlen(text), &errs, &prefixes) < 0)
		fail_msg("%s", errs.items[0].detail);
	return prefixes;
}

static void expect_text(const struct prefixes *prefixes, const char *wanted)
{
	char *text;
	size_t length;

	assert_int_equal(prefixes_format(prefixes, &text, &length), 0);
	assert_string_equal(text, wanted);
	assert_int_equal(length, strlen(wanted));
	free(text);
}

static void test_faults_with_lines(void **state)
{
	static const char text[] = "10.0.0.0/8\nnonsense\n\n# 10.0.0.1/8\n10.0.0.1/8 # why\n@set\n::ffff:1.2.3.4\n"
	                           "10.0.0.9-10.0.0.1\n";
	static const char *const words[] = { "line 2:", "line 5:", "line 6:", "line 7:", "line 8:" };
	struct prefixes prefixes = { 0 };
	struct errs errs = { 0 };
	char many[4 * 200 + 1] = "";

	(void)state;
	assert_int_equal(prefixes_parse(text, strlen(text), &errs, &prefixes), -EINVAL);
	assert_int_equal(errs.n, ARRAY_SIZE(words));
	for (size_t i = 0; i < errs.n; i++) {
		assert_string_equal(errs.items[i].code, "bad_line");
		assert_int_equal(strncmp(errs.items[i].detail, words[i], strlen(words[i])), 0);
	}
	assert_non_null(strstr(errs.items[1].detail, "10.0.0.0/8"));
	errs_clear(&errs);
	for (size_t i = 0; i < 200; i++)
		strcat(many, "bad\n");
	assert_int_equal(prefixes_parse(many, strlen(many), &errs, &prefixes), -EINVAL);
	assert_int_equal(errs.n, ERRS_MAX); /* told are only so many */
	assert_int_equal(errs_count(&errs), 200);
	errs_clear(&errs);
	assert_int_equal(prefixes_parse("10.0.0.0\0/8", 11, &errs, &prefixes), -EINVAL);
	errs_clear(&errs);
	assert_null(prefixes.list);
}

static void test_long_line(void **state)
{
	char line[PREFIXES_LINE_MAX + 20];
	struct prefixes prefixes = { 0 };
	struct errs errs = { 0 };

	(void)state;
	memset(line, '1', sizeof(line));
	assert_int_equal(prefixes_parse(line, sizeof(line), &errs, &prefixes), -EINVAL);
	errs_clear(&errs);
	memset(line, ' ', sizeof(line)); /* space and comments do not count */
	memcpy(line + 600 - 100, "::1", 3);
	assert_int_equal(prefixes_parse(line, sizeof(line), &errs, &prefixes), 0);
	assert_int_equal(prefixes.n, 1);
	prefixes_clear(&prefixes);
}

static void test_canonical(void **state)
{
	struct prefixes prefixes =
	        parse("2001:DB8::/32\r\n\t10.1.0.0/16 # inside\n10.0.0.0/8\n10.0.0.1-10.0.0.2\n10.0.0.0/8");

	(void)state;
	expect_text(&prefixes, "10.0.0.0/8\n10.0.0.1\n10.0.0.2\n10.1.0.0/16\n2001:db8::/32\n");
	assert_true(prefixes_are_canonical(&prefixes));
	prefixes_clear(&prefixes);
	prefixes = parse("# nothing\n\n");
	assert_null(prefixes.list);
	expect_text(&prefixes, "");
	prefixes_clear(&prefixes);
}

/* As if the two had come in this order from somewhere that is not to be trusted. */
static bool are_canonical(const struct prefix items[2])
{
	struct maker maker = { 0 };
	struct prefixes prefixes;
	bool canonical;

	assert_int_equal(maker_items(&maker, items, 2), 0);
	assert_int_equal(maker_finish(&maker, &prefixes), 0);
	canonical = prefixes_are_canonical(&prefixes);
	prefixes_clear(&prefixes);
	return canonical;
}

static void test_what_is_not_canonical(void **state)
{
	struct prefix items[2] = { { { AF_INET, { 10 } }, 8 }, { { AF_INET, { 11 } }, 8 } };

	(void)state;
	assert_true(are_canonical(items));
	items[1].addr.bytes[0] = 10;
	assert_false(are_canonical(items)); /* twice */
	items[1].addr.bytes[0] = 9;
	assert_false(are_canonical(items)); /* not in order */
	items[1] = (struct prefix){ { AF_INET, { 11, 1 } }, 8 };
	assert_false(are_canonical(items)); /* bits behind the length */
	items[1] = (struct prefix){ { AF_INET, { 11 } }, 33 };
	assert_false(are_canonical(items));
}

static void test_sharing(void **state)
{
	struct address_set *set = (struct address_set *)row_new(RESOURCE_ADDRESS_SET), *copy;
	const struct prefixes_list *list;

	(void)state;
	set->entries = parse("10.0.0.0/8\n11.0.0.0/8\n");
	list = set->entries.list;
	copy = (struct address_set *)row_copy(&set->row);
	assert_ptr_equal(copy->entries.list, list); /* no copy */
	row_unref(&set->row);
	assert_int_equal(prefixes_at(&copy->entries, 1)->addr.bytes[0], 11);
	assert_null(prefixes_at(&copy->entries, 2));
	row_unref(&copy->row);
}

/* Random sets out of 64 prefixes as bits of a number: the plain model. */
static struct prefixes of_bits(uint64_t bits)
{
	struct prefixes_builder builder = { 0 };
	struct prefixes prefixes = { 0 };

	for (unsigned i = 0; i < 64; i++) {
		struct prefix prefix = { { i % 2 ? AF_INET6 : AF_INET, { (uint8_t)(i & ~3u) } }, (uint8_t)(8 + i % 4) };

		if (bits >> i & 1)
			assert_int_equal(prefixes_add(&builder, &prefix), 0);
	}
	assert_int_equal(prefixes_finish(&builder, &prefixes), 0);
	return prefixes;
}

static uint64_t random_bits(void)
{
	uint64_t bits = 0;

	for (int i = 0; i < 64; i++)
		bits = bits << 1 | generate_number(2);
	return generate_number(8) ? bits : 0;
}

/* What was added and removed. */
struct tally {
	struct prefixes_builder added, removed;
};

static int count(void *userdata, const struct prefix *prefix, bool added)
{
	struct tally *tally = userdata;

	return prefixes_add(added ? &tally->added : &tally->removed, prefix);
}

static void expect_set(struct prefixes_builder *builder, uint64_t bits)
{
	struct prefixes found = { 0 }, wanted = of_bits(bits);

	assert_int_equal(prefixes_finish(builder, &found), 0);
	assert_true(prefixes_equal(&found, &wanted));
	prefixes_clear(&found);
	prefixes_clear(&wanted);
}

static void test_set_operations(void **state)
{
	(void)state;
	for (int i = 0; i < 2000; i++) {
		uint64_t a_bits = random_bits(), b_bits = random_bits();
		struct prefixes a = of_bits(a_bits), b = of_bits(b_bits), both = { 0 }, less = { 0 };
		struct prefixes wanted_both = of_bits(a_bits | b_bits), wanted_less = of_bits(a_bits & ~b_bits);
		struct tally tally = { 0 };

		assert_int_equal(prefixes_unite(&a, &b, &both), 0);
		assert_int_equal(prefixes_subtract(&a, &b, &less), 0);
		assert_true(prefixes_equal(&both, &wanted_both));
		assert_true(prefixes_equal(&less, &wanted_less));
		assert_int_equal(prefixes_equal(&a, &b), a_bits == b_bits);
		assert_int_equal(prefixes_differences(&a, &b, count, &tally), 0);
		expect_set(&tally.added, b_bits & ~a_bits);
		expect_set(&tally.removed, a_bits & ~b_bits);
		for (size_t j = 0; j < b.n; j++)
			assert_int_equal(prefixes_contain(&less, prefixes_at(&b, j)), 0);
		prefixes_clear(&a);
		prefixes_clear(&b);
		prefixes_clear(&both);
		prefixes_clear(&less);
		prefixes_clear(&wanted_both);
		prefixes_clear(&wanted_less);
	}
}

/* A prefix that a number below 2^24 means: every fourth is of IPv6. */
static struct prefix numbered(unsigned number)
{
	uint8_t high = (uint8_t)(number >> 16), middle = (uint8_t)(number >> 8), low = (uint8_t)number;

	if (number % 4 == 0)
		return (struct prefix){ .addr = { AF_INET6, { 0x20, 1, high, middle, low } }, .length = 64 };
	return (struct prefix){ .addr = { AF_INET, { 10, high, middle, low } }, .length = 32 };
}

static struct prefixes of_numbers(const uint8_t *has, unsigned n)
{
	struct prefixes_builder builder = { 0 };
	struct prefixes prefixes = { 0 };

	for (unsigned i = 0; i < n; i++)
		if (has[i]) {
			struct prefix prefix = numbered(i);

			assert_int_equal(prefixes_add(&builder, &prefix), 0);
		}
	assert_int_equal(prefixes_finish(&builder, &prefixes), 0);
	return prefixes;
}

/* Neighbours have more than one run's worth together, indices are right, no run is empty. */
static void expect_sound(const struct prefixes *set)
{
	size_t n = 0;

	for (size_t i = 0; set->list && i < set->list->n; i++) {
		const struct run *run = set->list->runs[i].run;

		assert_int_equal(set->list->runs[i].start, n);
		assert_in_range(run->n, 1, RUN_MAX);
		if (i > 0)
			assert_true(set->list->runs[i - 1].run->n + run->n > RUN_MAX);
		n += run->n;
	}
	assert_int_equal(set->n, n);
	assert_int_equal(set->list == NULL, n == 0);
}

static size_t runs_shared(const struct prefixes *a, const struct prefixes *b)
{
	size_t shared = 0;

	for (size_t i = 0; i < a->list->n; i++)
		for (size_t j = 0; j < b->list->n; j++)
			shared += a->list->runs[i].run == b->list->runs[j].run;
	return shared;
}

#define NUMBERS 20000U

/* Adds or removes numbers in a row, as an edit by the API does, and looks at all that can be asked of the result. */
static void edit(struct prefixes *set, uint8_t *has, unsigned first, unsigned n, bool add)
{
	_cleanup_free_ uint8_t *given = calloc(NUMBERS, 1);
	struct prefixes change, edited, wanted;
	struct tally tally = { 0 };
	size_t expected = 0, runs = set->list ? set->list->n : 0;

	for (unsigned i = first; i < first + n && i < NUMBERS; i++) {
		given[i] = 1;
		expected += has[i] != add;
		has[i] = add;
	}
	change = of_numbers(given, NUMBERS);
	wanted = of_numbers(has, NUMBERS);
	assert_int_equal((add ? prefixes_unite : prefixes_subtract)(set, &change, &edited), 0);
	expect_sound(&edited);
	assert_true(prefixes_equal(&edited, &wanted));
	assert_true(prefixes_are_canonical(&edited));
	assert_int_equal(prefixes_differences(set, &edited, count, &tally), 0);
	assert_int_equal(tally.added.n, add ? expected : 0);
	assert_int_equal(tally.removed.n, add ? 0 : expected);
	/* What is not near the change is shared. Of IPv4 and of IPv6 there is one place each, with what it is merged
	 * with. */
	if (n == 1 && runs > 0 && edited.list)
		assert_true(runs_shared(set, &edited) + 4 >= runs);
	prefixes_builder_clear(&tally.added);
	prefixes_builder_clear(&tally.removed);
	prefixes_clear(&change);
	prefixes_clear(&wanted);
	prefixes_clear(set);
	*set = edited;
}

static void test_many_runs(void **state)
{
	_cleanup_free_ uint8_t *has = calloc(NUMBERS, 1);
	struct prefixes set;

	(void)state;
	for (unsigned i = 0; i < NUMBERS; i++)
		has[i] = generate_number(8) > 0;
	set = of_numbers(has, NUMBERS);
	expect_sound(&set);
	assert_true(set.list->n > 12);
	for (unsigned i = 0; i < amount(150, 2000); i++) {
		unsigned first = generate_number(NUMBERS);
		bool many = generate_number(4) == 0;

		edit(&set, has, first, many ? generate_number(6000) : 1, generate_number(2) == 0);
	}
	edit(&set, has, 0, NUMBERS, false);
	assert_null(set.list);
	edit(&set, has, 5, 1, true);
	prefixes_clear(&set);
}

static void test_places(void **state)
{
	_cleanup_free_ uint8_t *has = calloc(NUMBERS, 1);
	struct prefixes set, none = { 0 };
	struct prefixes_cursor cursor;
	struct prefix last = { { AF_INET6, { 0xff } }, 8 };

	(void)state;
	for (unsigned i = 0; i < NUMBERS; i += 3)
		has[i] = 1;
	set = of_numbers(has, NUMBERS);
	cursor = prefixes_from(&set, 0);
	for (size_t i = 0; i < set.n; i++) {
		const struct prefix *prefix = prefixes_next(&cursor);
		struct prefixes_cursor here = prefixes_from(&set, i);

		assert_ptr_equal(prefix, prefixes_at(&set, i));
		assert_ptr_equal(prefix, prefixes_next(&here));
		assert_int_equal(prefixes_lower_bound(&set, prefix), i);
	}
	assert_null(prefixes_next(&cursor));
	assert_int_equal(prefixes_lower_bound(&set, &last), set.n);
	for (unsigned i = 0; i < NUMBERS; i++) {
		struct prefix prefix = numbered(i);

		assert_int_equal(prefixes_contain(&set, &prefix), has[i]);
	}
	cursor = prefixes_from(&set, set.n);
	assert_null(prefixes_next(&cursor));
	cursor = prefixes_from(&none, 0);
	assert_null(prefixes_next(&cursor));
	assert_null(prefixes_at(&none, 0));
	assert_false(prefixes_contain(&none, &last));
	prefixes_clear(&set);
}

static int stop(void *userdata, const struct prefix *prefix, bool added)
{
	(void)prefix;
	(void)added;
	++*(int *)userdata;
	return -EIO;
}

static void test_a_visitor_ends_the_walk(void **state)
{
	struct prefixes a = of_bits(0xff), b = of_bits(0xff00);
	int visits = 0;

	(void)state;
	assert_int_equal(prefixes_differences(&a, &b, stop, &visits), -EIO);
	assert_int_equal(visits, 1);
	prefixes_clear(&a);
	prefixes_clear(&b);
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* n + extra lines in an order that is far from sorted. */
static char *bulk(unsigned n, size_t *ret_length)
{
	char *text = malloc((size_t)n * 20), *at = text;

	for (unsigned i = 0; i < n; i++) {
		unsigned value = i * 2654435761u;

		at += sprintf(
		        at, "%u.%u.%u.%u\n", 1 + (value >> 24) % 200, value >> 16 & 255, value >> 8 & 255, value & 255);
	}
	*ret_length = (size_t)(at - text);
	return text;
}

static void test_a_million_lines(void **state)
{
	size_t length, formatted;
	char *text = bulk(ADDRESS_SET_ENTRIES_MAX, &length), *back;
	struct prefixes prefixes = { 0 }, again = { 0 };
	struct errs errs = { 0 };
	double start = seconds(), parsed, written, reread;

	(void)state;
	assert_int_equal(prefixes_parse(text, length, &errs, &prefixes), 0);
	parsed = seconds();
	assert_true(prefixes_are_canonical(&prefixes));
	assert_true(prefixes.n > ADDRESS_SET_ENTRIES_MAX * 9 / 10);
	written = seconds();
	assert_int_equal(prefixes_format(&prefixes, &back, &formatted), 0);
	written = seconds() - written;
	reread = seconds();
	assert_int_equal(prefixes_parse(back, formatted, &errs, &again), 0);
	reread = seconds() - reread;
	assert_true(prefixes_equal(&prefixes, &again));
	print_message("1000000 lines: parsed %.0f ms, in order %.0f ms, written %.0f ms\n", (parsed - start) * 1e3,
	        reread * 1e3, written * 1e3);
	free(text);
	free(back);
	prefixes_clear(&prefixes);
	prefixes_clear(&again);
	text = bulk(ADDRESS_SET_ENTRIES_MAX + 1, &length);
	assert_int_equal(prefixes_parse(text, length, &errs, &prefixes), -EINVAL);
	assert_string_equal(errs.items[0].code, "too_many_items");
	errs_clear(&errs);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_faults_with_lines),
		cmocka_unit_test(test_long_line),
		cmocka_unit_test(test_canonical),
		cmocka_unit_test(test_what_is_not_canonical),
		cmocka_unit_test(test_sharing),
		cmocka_unit_test(test_set_operations),
		cmocka_unit_test(test_many_runs),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_a_visitor_ends_the_walk),
		cmocka_unit_test(test_a_million_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
