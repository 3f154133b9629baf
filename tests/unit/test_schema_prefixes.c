/* Large sets of prefixes: text in bulk, sharing, set operations against a plain model, and what a million costs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <time.h>

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
	assert_null(prefixes.items);
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
	assert_null(prefixes.items);
	expect_text(&prefixes, "");
	prefixes_clear(&prefixes);
}

static void test_what_is_not_canonical(void **state)
{
	struct prefix items[2] = { { { AF_INET, { 10 } }, 8 }, { { AF_INET, { 11 } }, 8 } };
	struct prefixes prefixes = { items, 2 };

	(void)state;
	assert_true(prefixes_are_canonical(&prefixes));
	items[1].addr.bytes[0] = 10;
	assert_false(prefixes_are_canonical(&prefixes)); /* twice */
	items[1].addr.bytes[0] = 9;
	assert_false(prefixes_are_canonical(&prefixes)); /* not in order */
	items[1] = (struct prefix){ { AF_INET, { 11, 1 } }, 8 };
	assert_false(prefixes_are_canonical(&prefixes)); /* bits behind the length */
	items[1] = (struct prefix){ { AF_INET, { 11 } }, 33 };
	assert_false(prefixes_are_canonical(&prefixes));
}

static void test_sharing(void **state)
{
	struct address_set *set = (struct address_set *)row_new(RESOURCE_ADDRESS_SET), *copy;
	const struct prefix *items;

	(void)state;
	set->entries = parse("10.0.0.0/8\n11.0.0.0/8\n");
	items = set->entries.items;
	copy = (struct address_set *)row_copy(&set->row);
	assert_ptr_equal(copy->entries.items, items); /* no copy of the array */
	row_unref(&set->row);
	assert_int_equal(copy->entries.items[1].addr.bytes[0], 11);
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
			assert_int_equal(prefixes_contain(&less, &b.items[j]), 0);
		prefixes_clear(&a);
		prefixes_clear(&b);
		prefixes_clear(&both);
		prefixes_clear(&less);
		prefixes_clear(&wanted_both);
		prefixes_clear(&wanted_less);
	}
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
		cmocka_unit_test(test_a_visitor_ends_the_walk),
		cmocka_unit_test(test_a_million_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
