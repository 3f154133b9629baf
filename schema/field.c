/* What each kind of field can do with its member: default, free, copy, compare. One switch per operation. */
#include "schema/field.h"

#include <errno.h>
#include <string.h>

#include "schema/prefixes.h"

const char *field_word(const struct field *field, int64_t value)
{
	return value >= 0 && value <= field->max ? field->words[value] : "";
}

int64_t field_word_value(const struct field *field, const char *word)
{
	for (int64_t i = 0; i <= field->max; i++)
		if (strcmp(field->words[i], word) == 0)
			return i;
	return -1;
}

bool field_required(const struct field *field)
{
	return field_in_documents(field) &&
	       (field->kind == FIELD_NAME || field->kind == FIELD_ADDRESS || (field->flags & FLAG_REQUIRED));
}

bool field_in_documents(const struct field *field)
{
	return !(field->flags & (FLAG_SECRET | FLAG_FIXED));
}

bool field_is_key(const struct field *field)
{
	return field->flags & FLAG_KEY;
}

bool field_has_column(const struct field *field)
{
	return field->kind != FIELD_CHILDREN && field->kind != FIELD_PREFIXES;
}

int field_init(const struct field *field, struct row *row)
{
	switch (field->kind) {
	case FIELD_BOOL:
		*FIELD_AT(row, field, bool) = field->initial != 0;
		return 0;
	case FIELD_INT:
	case FIELD_ENUM:
		*FIELD_AT(row, field, int64_t) = field->initial;
		return 0;
	case FIELD_TEXT:
	case FIELD_ADDRESS:
		*FIELD_AT(row, field, char *) = strdup(field->initial_text ? field->initial_text : "");
		return *FIELD_AT(row, field, char *) ? 0 : -ENOMEM;
	case FIELD_NAME:
		if (field->initial_text)
			memcpy(FIELD_AT(row, field, char), field->initial_text, strlen(field->initial_text) + 1);
		return 0;
	case FIELD_REF:
	case FIELD_LIST:
	case FIELD_CHILDREN:
	case FIELD_TIME:
	case FIELD_NAMES:
	case FIELD_PREFIXES:
	case FIELD_KINDS:
		return 0;
	}
	return 0;
}

void field_clear(const struct field *field, struct row *row)
{
	switch (field->kind) {
	case FIELD_TEXT:
	case FIELD_ADDRESS:
	case FIELD_REF:
		free(*FIELD_AT(row, field, char *));
		*FIELD_AT(row, field, char *) = NULL;
		return;
	case FIELD_LIST:
	case FIELD_NAMES:
		strings_clear(FIELD_AT(row, field, struct strings));
		return;
	case FIELD_PREFIXES:
		prefixes_clear(FIELD_AT(row, field, struct prefixes));
		return;
	case FIELD_CHILDREN:
		rows_clear(FIELD_AT(row, field, struct rows));
		return;
	case FIELD_NAME:
	case FIELD_BOOL:
	case FIELD_INT:
	case FIELD_ENUM:
	case FIELD_TIME:
	case FIELD_KINDS:
		return;
	}
}

static int copy_text(char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return from && !*to ? -ENOMEM : 0;
}

static int copy_strings(struct strings *to, const struct strings *from)
{
	int r = 0;

	for (size_t i = 0; i < from->n && r == 0; i++)
		r = strings_append(to, from->items[i]);
	return r;
}

static int copy_children(struct rows *to, const struct rows *from)
{
	int r = 0;

	for (size_t i = 0; i < from->n && r == 0; i++) {
		struct row *child = row_copy(from->items[i]);

		r = child ? rows_append(to, child) : -ENOMEM;
	}
	return r;
}

int field_copy(const struct field *field, struct row *to, const struct row *from)
{
	switch (field->kind) {
	case FIELD_NAME:
		memcpy(FIELD_AT(to, field, char), FIELD_AT_CONST(from, field, char), NAME_MAX_BYTES + 1);
		return 0;
	case FIELD_BOOL:
		*FIELD_AT(to, field, bool) = *FIELD_AT_CONST(from, field, bool);
		return 0;
	case FIELD_INT:
	case FIELD_ENUM:
	case FIELD_TIME:
		*FIELD_AT(to, field, int64_t) = *FIELD_AT_CONST(from, field, int64_t);
		return 0;
	case FIELD_TEXT:
	case FIELD_ADDRESS:
	case FIELD_REF:
		return copy_text(FIELD_AT(to, field, char *), *FIELD_AT_CONST(from, field, char *));
	case FIELD_PREFIXES:
		prefixes_share(FIELD_AT(to, field, struct prefixes), FIELD_AT_CONST(from, field, struct prefixes));
		return 0;
	case FIELD_LIST:
	case FIELD_NAMES:
		return copy_strings(FIELD_AT(to, field, struct strings), FIELD_AT_CONST(from, field, struct strings));
	case FIELD_CHILDREN:
		return copy_children(FIELD_AT(to, field, struct rows), FIELD_AT_CONST(from, field, struct rows));
	case FIELD_KINDS:
		break;
	}
	return 0;
}

static bool text_equal(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool children_equal(const struct rows *a, const struct rows *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (!row_equal(a->items[i], b->items[i]))
			return false;
	return true;
}

bool field_equal(const struct field *field, const struct row *a, const struct row *b)
{
	switch (field->kind) {
	case FIELD_NAME:
		return strcmp(FIELD_AT_CONST(a, field, char), FIELD_AT_CONST(b, field, char)) == 0;
	case FIELD_BOOL:
		return *FIELD_AT_CONST(a, field, bool) == *FIELD_AT_CONST(b, field, bool);
	case FIELD_INT:
	case FIELD_ENUM:
	case FIELD_TIME:
		return *FIELD_AT_CONST(a, field, int64_t) == *FIELD_AT_CONST(b, field, int64_t);
	case FIELD_TEXT:
	case FIELD_ADDRESS:
	case FIELD_REF:
		return text_equal(*FIELD_AT_CONST(a, field, char *), *FIELD_AT_CONST(b, field, char *));
	case FIELD_PREFIXES:
		return prefixes_equal(
		        FIELD_AT_CONST(a, field, struct prefixes), FIELD_AT_CONST(b, field, struct prefixes));
	case FIELD_LIST:
	case FIELD_NAMES:
		return strings_equal(
		        FIELD_AT_CONST(a, field, struct strings), FIELD_AT_CONST(b, field, struct strings));
	case FIELD_CHILDREN:
		return children_equal(FIELD_AT_CONST(a, field, struct rows), FIELD_AT_CONST(b, field, struct rows));
	case FIELD_KINDS:
		break;
	}
	return true;
}

bool field_is_initial(const struct field *field, const struct row *row)
{
	const char *text;

	switch (field->kind) {
	case FIELD_NAME:
	case FIELD_ADDRESS:
		return false;
	case FIELD_BOOL:
		return *FIELD_AT_CONST(row, field, bool) == (field->initial != 0);
	case FIELD_INT:
	case FIELD_ENUM:
	case FIELD_TIME:
		return *FIELD_AT_CONST(row, field, int64_t) == field->initial;
	case FIELD_TEXT:
	case FIELD_REF:
		text = *FIELD_AT_CONST(row, field, char *);
		return text_equal(text, field->initial_text);
	case FIELD_LIST:
	case FIELD_NAMES:
		return FIELD_AT_CONST(row, field, struct strings)->n == 0;
	case FIELD_CHILDREN:
		return FIELD_AT_CONST(row, field, struct rows)->n == 0;
	case FIELD_PREFIXES:
		return FIELD_AT_CONST(row, field, struct prefixes)->n == 0;
	case FIELD_KINDS:
		break;
	}
	return true;
}
