/*
 * Rows straight to JSON text, without a tree: what is hashed, kept outside
 * the database and recorded as history. Compact, in the order of the fields.
 */
#include <errno.h>
#include <string.h>

#include "schema/encode.h"
#include "schema/prefixes.h"
#include "schema/value.h"

static void write_row(struct text *text, const struct row *row, unsigned flags);

static void write_strings(struct text *text, const struct strings *strings)
{
	text_add(text, "[");
	for (size_t i = 0; i < strings->n; i++) {
		text_add(text, i ? "," : "");
		text_json(text, strings->items[i]);
	}
	text_add(text, "]");
}

static void write_children(struct text *text, const struct rows *rows, unsigned flags)
{
	text_add(text, "[");
	for (size_t i = 0; i < rows->n; i++) {
		text_add(text, i ? "," : "");
		write_row(text, rows->items[i], flags);
	}
	text_add(text, "]");
}

static void write_prefixes(struct text *text, const struct prefixes *prefixes)
{
	struct prefixes_cursor cursor = prefixes_from(prefixes, 0);
	const struct prefix *prefix;
	char buffer[ADDR_TEXT_MAX + 3];
	bool first = true;

	text_add(text, "[");
	while ((prefix = prefixes_next(&cursor))) {
		char *at = buffer;

		if (!first)
			*at++ = ',';
		first = false;
		*at++ = '"';
		prefix_format(prefix, at);
		at += strlen(at);
		*at++ = '"';
		text_bytes(text, buffer, (size_t)(at - buffer));
	}
	text_add(text, "]");
}

static void write_optional(struct text *text, const char *string)
{
	if (string)
		text_json(text, string);
	else
		text_add(text, "null");
}

static void write_value(struct text *text, const struct field *field, const struct row *row, unsigned flags)
{
	int64_t number;
	char time[32];

	switch (field->kind) {
	case FIELD_NAME:
		text_json(text, FIELD_AT_CONST(row, field, char));
		return;
	case FIELD_BOOL:
		text_add(text, *FIELD_AT_CONST(row, field, bool) ? "true" : "false");
		return;
	case FIELD_INT:
		text_number(text, *FIELD_AT_CONST(row, field, int64_t));
		return;
	case FIELD_ENUM:
		text_json(text, field_word(field, *FIELD_AT_CONST(row, field, int64_t)));
		return;
	case FIELD_TIME:
		number = *FIELD_AT_CONST(row, field, int64_t);
		write_optional(text, number ? value_time_format(number, time) : NULL);
		return;
	case FIELD_TEXT:
	case FIELD_ADDRESS:
	case FIELD_REF:
		write_optional(text, *FIELD_AT_CONST(row, field, char *));
		return;
	case FIELD_LIST:
	case FIELD_NAMES:
		write_strings(text, FIELD_AT_CONST(row, field, struct strings));
		return;
	case FIELD_CHILDREN:
		write_children(text, FIELD_AT_CONST(row, field, struct rows), flags);
		return;
	case FIELD_PREFIXES:
		write_prefixes(text, FIELD_AT_CONST(row, field, struct prefixes));
		return;
	case FIELD_KINDS:
		return;
	}
}

static bool is_wanted(const struct field *field, unsigned flags)
{
	if (field->kind == FIELD_PREFIXES && (flags & ENCODE_WITHOUT_PREFIXES))
		return false;
	return field_in_documents(field) || ((flags & ENCODE_SECRETS) && (field->flags & FLAG_SECRET));
}

/* Whether two fields stand in the same object below the row. */
static bool same_group(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static void write_row(struct text *text, const struct row *row, unsigned flags)
{
	const struct resource *resource = resource_get(row->resource);
	const char *group = NULL, *separator = "{";

	for (size_t i = 0; i < resource->n_fields; i++) {
		const struct field *field = &resource->fields[i];

		if (!is_wanted(field, flags))
			continue;
		if (!same_group(group, field->group)) {
			text_add(text, group ? "}" : "");
			if (field->group) {
				text_add(text, separator);
				text_json(text, field->group);
				text_add(text, ":");
			}
			separator = field->group ? "{" : ",";
			group = field->group;
		}
		text_add(text, separator);
		text_json(text, field->key);
		text_add(text, ":");
		write_value(text, field, row, flags);
		separator = ",";
	}
	text_add(text, *separator == '{' ? "{" : "");
	text_add(text, group ? "}}" : "}");
}

int encode_text(const struct row *row, unsigned flags, struct text *text)
{
	write_row(text, row, flags);
	return text->failed ? -ENOMEM : 0;
}
