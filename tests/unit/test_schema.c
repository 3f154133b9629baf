/* Rows, descriptor tables and the collection of faults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <ctype.h>

#include "tests/unit/generate.h"

static void test_errs_bounds(void **state)
{
	struct errs errs = { 0 };
	char *text = malloc(ERRS_TEXT_MAX + 10);

	(void)state;
	memset(text, 'x', ERRS_TEXT_MAX + 9);
	text[ERRS_TEXT_MAX + 9] = '\0';
	memcpy(text + ERRS_TEXT_MAX - 1, "\xc3\xbc", 2); /* the limit falls into a character */
	errs_add(&errs, text, "code", "%s", text);
	assert_int_equal(strlen(errs.items[0].pointer), ERRS_TEXT_MAX - 1);
	assert_int_equal(strlen(errs.items[0].detail), ERRS_TEXT_MAX - 1);
	errs_add(&errs, "", "code", "near '\xc3' and \xff");
	assert_string_equal(errs.items[1].detail, "near '?' and ?");
	for (int i = 0; i < ERRS_MAX; i++)
		errs_add(&errs, "/a", "code", "%d", i);
	assert_int_equal(errs.n, ERRS_MAX);
	assert_int_equal(errs.dropped, 2);
	assert_int_equal(errs_count(&errs), ERRS_MAX + 2);
	errs_clear(&errs);
	assert_int_equal(errs_count(&errs), 0);
	free(text);
}

static void check_field_row(const struct resource *resource, const struct field *field)
{
	assert_true(strlen(field->doc) > 10);
	assert_ptr_equal(resource_field(resource, field->member), field);
	assert_true(strlen(field->member) <= 40); /* fits every pointer buffer twice */
	for (const char *c = field->member; *c; c++)
		assert_true(islower(*c) || isdigit(*c) || *c == '_');
	assert_true(field->offset < resource->size);
	if (field->kind == FIELD_INT || field->kind == FIELD_ENUM || field->kind == FIELD_BOOL)
		assert_true(field->initial >= field->min && field->initial <= field->max);
	if (field->kind == FIELD_REF || field->kind == FIELD_CHILDREN || field->kind == FIELD_NAMES)
		assert_true(field->target >= 0 && field->target < RESOURCES);
	else
		assert_int_equal(field->target, RESOURCE_NONE);
	for (int64_t i = 0; field->kind == FIELD_ENUM && i <= field->max; i++)
		assert_int_equal(field_word_value(field, field_word(field, i)), i);
}

static void test_tables(void **state)
{
	(void)state;
	assert_null(resource_by_path("listener"));
	assert_null(resource_by_path(""));
	for (enum resource_id i = 0; i < RESOURCES; i++) {
		const struct resource *resource = resource_get(i);

		assert_int_equal(resource->id, i);
		assert_null(resource_field(resource, "no_such_field"));
		if (resource->path)
			assert_ptr_equal(resource_by_path(resource->path), resource);
		else
			assert_true(resource->parent != RESOURCE_NONE && resource->parent < i);
		/* Whoever asks for a name looks at the first field. */
		assert_true(resource->parent != RESOURCE_NONE || resource->fields[0].kind == FIELD_NAME);
		for (size_t j = 0; j < resource->n_fields; j++)
			check_field_row(resource, &resource->fields[j]);
	}
	assert_int_equal(field_word_value(resource_field(resource_get(RESOURCE_LISTENER), "protocol"), "sctp"), -1);
	assert_string_equal(field_word(resource_field(resource_get(RESOURCE_LISTENER), "protocol"), 77), "");
}

static void test_row_defaults(void **state)
{
	struct listener *listener = (struct listener *)row_new(RESOURCE_LISTENER);

	(void)state;
	assert_true(listener->enabled);
	assert_string_equal(listener->comment, "");
	assert_null(listener->upstream);
	assert_int_equal(listener->connect_timeout_ms, 5000);
	assert_int_equal(listener->sources.n, 0);
	assert_int_equal(listener->row.references, 1);
	row_unref(row_ref(&listener->row));
	row_unref(&listener->row);
	row_unref(NULL);
}

static struct prefixes prefixes_of(const char *text)
{
	struct prefixes prefixes = { 0 };
	struct errs errs = { 0 };

	if (prefixes_parse(text, strlen(text), &errs, &prefixes) < 0)
		fail_msg("%s", errs.items[0].detail);
	return prefixes;
}

static void alter_prefixes(struct prefixes *prefixes)
{
	struct prefixes more = prefixes_of("192.0.2.77"), both = { 0 };

	assert_int_equal(prefixes_unite(prefixes, &more, &both), 0);
	prefixes_clear(prefixes);
	prefixes_clear(&more);
	*prefixes = both;
}

/* Changes the member to another value. */
static void alter(const struct field *field, struct row *row)
{
	switch (field->kind) {
	case FIELD_NAME:
		FIELD_AT(row, field, char)[0] ^= 1;
		return;
	case FIELD_BOOL:
		*FIELD_AT(row, field, bool) ^= 1;
		return;
	case FIELD_INT:
	case FIELD_ENUM:
	case FIELD_TIME:
		*FIELD_AT(row, field, int64_t) += 1;
		return;
	case FIELD_TEXT:
	case FIELD_REF:
	case FIELD_ADDRESS:
		generate_text(FIELD_AT(row, field, char *), "altered");
		return;
	case FIELD_PREFIXES:
		alter_prefixes(FIELD_AT(row, field, struct prefixes));
		return;
	case FIELD_LIST:
	case FIELD_NAMES:
		assert_int_equal(strings_append(FIELD_AT(row, field, struct strings), "altered"), 0);
		return;
	case FIELD_CHILDREN:
		assert_int_equal(rows_append(FIELD_AT(row, field, struct rows), row_new(field->target)), 0);
		return;
	case FIELD_KINDS:
		return;
	}
}

/* A field that copy or compare forgets is found here, whatever its kind. */
static void test_copy_and_equal(void **state)
{
	(void)state;
	for (enum resource_id i = 0; i < RESOURCES; i++)
		for (size_t j = 0; j < resource_get(i)->n_fields; j++) {
			struct row *row = generate_row(i, "a-name", NULL), *copy = row_copy(row);

			copy->id = 7;
			assert_true(row_equal(row, copy));
			assert_true(field_equal(&resource_get(i)->fields[j], row, copy));
			alter(&resource_get(i)->fields[j], copy);
			assert_false(row_equal(row, copy));
			row_unref(row);
			row_unref(copy);
		}
}

/* A change deep inside a child is a change of its parent. */
static void test_children_are_compared(void **state)
{
	struct upstream *a = (struct upstream *)row_new(RESOURCE_UPSTREAM), *b;

	(void)state;
	assert_int_equal(rows_append(&a->targets, row_new(RESOURCE_TARGET)), 0);
	b = (struct upstream *)row_copy(&a->row);
	assert_ptr_not_equal(a->targets.items[0], b->targets.items[0]);
	assert_true(row_equal(&a->row, &b->row));
	((struct target *)b->targets.items[0])->weight++;
	assert_false(row_equal(&a->row, &b->row));
	row_unref(&a->row);
	row_unref(&b->row);
}

static void test_lists(void **state)
{
	struct rows rows = { 0 }, shared = { 0 };
	struct strings a = { 0 }, b = { 0 };

	(void)state;
	for (size_t n = 0; n < 40; n++) {
		struct row *row = row_new(RESOURCE_TARGET);

		assert_int_equal(rows_insert(&rows, n / 2, row), 0);
		assert_ptr_equal(rows.items[n / 2], row);
		assert_int_equal(rows_share(&shared, &rows), 0); /* at every size: the next append must have room */
		assert_int_equal(rows_append(&shared, row_new(RESOURCE_TARGET)), 0);
		assert_int_equal(shared.n, n + 2);
		rows_clear(&shared);
	}
	rows_clear(&rows);
	assert_int_equal(strings_append(&a, "x"), 0);
	assert_false(strings_equal(&a, &b));
	assert_int_equal(strings_append(&b, "y"), 0);
	assert_false(strings_equal(&a, &b));
	strings_clear(&a);
	strings_clear(&b);
}

static void test_names(void **state)
{
	char longest[NAME_MAX_BYTES + 2];

	(void)state;
	memset(longest, 'a', sizeof(longest));
	longest[NAME_MAX_BYTES + 1] = '\0';
	assert_false(value_is_name(longest));
	assert_false(value_is_name(""));
	assert_false(value_is_name("-a"));
	assert_false(value_is_name("a-"));
	assert_false(value_is_name("A"));
	assert_false(value_is_name("a.b"));
	assert_false(value_is_name("a b"));
	assert_false(value_is_name("\xc3\xbc"));
	longest[NAME_MAX_BYTES] = '\0';
	assert_true(value_is_name(longest));
	assert_true(value_is_name("0"));
	assert_true(value_is_name("a--b"));
}

static void test_rows_are_checked(void **state)
{
	struct errs errs = { 0 };
	struct upstream *upstream = (struct upstream *)generate_row(RESOURCE_UPSTREAM, "pool", NULL);
	struct target *target = (struct target *)row_new(RESOURCE_TARGET);

	(void)state;
	target->port = 70000;
	rows_clear(&upstream->targets);
	assert_int_equal(rows_append(&upstream->targets, &target->row), 0);
	assert_int_equal(check_row(&upstream->row, &errs), -EINVAL);
	assert_int_equal(errs.n, 2);
	assert_string_equal(errs.items[0].pointer, "/targets/0/address");
	assert_string_equal(errs.items[1].pointer, "/targets/0/port");
	errs_clear(&errs);
	target->port = 0;
	generate_text(&target->address, "2001:DB8::1"); /* not canonical: never written by us */
	assert_int_equal(check_row(&upstream->row, &errs), -EINVAL);
	assert_string_equal(errs.items[0].pointer, "/targets/0/address");
	errs_clear(&errs);
	row_unref(&upstream->row);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errs_bounds),
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_rows_are_checked),
		cmocka_unit_test(test_row_defaults),
		cmocka_unit_test(test_copy_and_equal),
		cmocka_unit_test(test_children_are_compared),
		cmocka_unit_test(test_lists),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
