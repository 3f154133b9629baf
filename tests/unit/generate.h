/*
 * Random rows that keep every rule, made from the field tables: a new field
 * is filled without a change here. For round-trip tests of schema and store.
 */
#ifndef GW_TESTS_UNIT_GENERATE_H
#define GW_TESTS_UNIT_GENERATE_H

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schema/check.h"
#include "schema/flow_field.h"
#include "schema/prefixes.h"
#include "schema/value.h"

static unsigned generate_state = 1;
/* Names that exist, for lists of prefixes and for NAMES fields; NULL: none. */
static const char *generate_sets, *generate_limits;

static inline unsigned generate_number(unsigned below)
{
	return (unsigned)rand_r(&generate_state) % below;
}

static inline void generate_item_text(enum item_kind kind, char *text, size_t size)
{
	unsigned a = generate_number(256), b = generate_number(256), length = generate_number(33);

	switch (kind) {
	case ITEM_INTERFACE:
		snprintf(text, size, "eth%u.%u", a, b);
		return;
	case ITEM_PORTS:
		if (generate_number(2))
			snprintf(text, size, "%u", a * 256 + b);
		else
			snprintf(text, size, "%u-%u", 1 + a, 300 + b);
		return;
	case ITEM_PREFIX:
		if (generate_number(3) == 0)
			snprintf(text, size, "2001:db8:%x:%x::/64", a, b);
		else if (generate_sets && generate_number(4) == 0)
			snprintf(text, size, "@%s", generate_sets);
		else if (generate_number(2))
			snprintf(text, size, "10.%u.%u.1-10.%u.%u.%u", a, b, a, b, 2 + length);
		else
			snprintf(text, size, "172.%u.%u.0/24", a, b);
		return;
	case ITEM_HOST:
		snprintf(text, size, "%sh%u.example-%u.com", generate_number(2) ? "*." : "", a, b);
		return;
	case ITEM_ALPN:
		snprintf(text, size, "proto/%u.%u", a, b);
		return;
	case ITEM_METHOD:
		snprintf(text, size, "GET-%c%c", 'A' + a % 26, 'A' + b % 26);
		return;
	case ITEM_PATH:
		snprintf(text, size, "/p%u/%%20%u", a, b);
		return;
	case ITEM_FLOW_FIELD:
		snprintf(text, size, "%s", flow_field_word((enum flow_field)(b % FLOW_FIELDS)));
		return;
	case ITEM_KINDS:
		return;
	}
}

static inline void generate_prefixes(struct prefixes *ret)
{
	struct prefixes_builder builder = { 0 };
	struct errs errs = { 0 };
	char text[64];

	for (unsigned n = generate_number(200); n > 0; n--) {
		snprintf(text, sizeof(text), generate_number(3) ? "10.%u.%u.0/24" : "2001:db8:%x:%x::/64",
		        generate_number(256), generate_number(256));
		if (prefixes_add_text(&builder, text, "", &errs) < 0)
			abort();
	}
	prefixes_clear(ret);
	if (prefixes_finish(&builder, ret) < 0)
		abort();
}

static inline void generate_list(const struct field *field, struct strings *list)
{
	unsigned n = generate_number(3) ? generate_number(4) : generate_number((unsigned)field->max + 1);
	struct errs errs = { 0 };
	char text[VALUE_TEXT_MAX], canonical[VALUE_TEXT_MAX];

	for (unsigned i = 0; i < n; i++) {
		bool known = false;

		generate_item_text(field->item, text, sizeof(text));
		if (value_item(field->item, text, canonical, "", &errs) < 0)
			continue;
		for (size_t j = 0; j < list->n; j++)
			known |= strcmp(list->items[j], canonical) == 0;
		if (!known && strings_append(list, canonical) < 0)
			abort();
	}
	errs_clear(&errs);
}

static inline void generate_text(char **member, const char *text)
{
	free(*member);
	*member = strdup(text);
}

static inline struct row *generate_row(enum resource_id resource, const char *name, const char *reference);

/* The row's members of every kind; REF fields get `reference`, which may be NULL. */
static inline void generate_field(const struct field *field, struct row *row, const char *name, const char *reference)
{
	char text[64];
	unsigned span;

	switch (field->kind) {
	case FIELD_NAME:
		snprintf(FIELD_AT(row, field, char), NAME_MAX_BYTES + 1, "%s",
		        field->flags & FLAG_FIXED ? field->initial_text : name);
		return;
	case FIELD_TIME:
		*FIELD_AT(row, field, int64_t) = generate_number(2) ? 0 : 1 + generate_number(2000000000);
		return;
	case FIELD_NAMES:
		if (generate_limits && generate_number(2) &&
		        strings_append(FIELD_AT(row, field, struct strings), generate_limits) < 0)
			abort();
		return;
	case FIELD_PREFIXES:
		generate_prefixes(FIELD_AT(row, field, struct prefixes));
		return;
	case FIELD_BOOL:
		*FIELD_AT(row, field, bool) = generate_number(2);
		return;
	case FIELD_TEXT:
		snprintf(text, sizeof(text),
		        !strcmp(field->key, "http_host") || !strcmp(field->key, "file") ? "h%u"
		        : field->group                                                  ? "/%u"
		                       : "gr\xc3\xbc\xc3\x9f' \"%u\"; -- \\",
		        generate_number(1000));
		generate_text(FIELD_AT(row, field, char *), text);
		return;
	case FIELD_INT:
	case FIELD_ENUM:
		span = field->max - field->min < INT32_MAX ? (unsigned)(field->max - field->min) + 1 : INT32_MAX;
		*FIELD_AT(row, field, int64_t) = field->min + generate_number(span);
		return;
	case FIELD_REF:
		if (reference && generate_number(2))
			generate_text(FIELD_AT(row, field, char *), reference);
		return;
	case FIELD_LIST:
		generate_list(field, FIELD_AT(row, field, struct strings));
		return;
	case FIELD_ADDRESS:
		snprintf(text, sizeof(text), generate_number(2) ? "10.0.%u.%u" : "2001:db8::%u:%u",
		        1 + generate_number(200), 1 + generate_number(200));
		generate_text(FIELD_AT(row, field, char *), text);
		return;
	case FIELD_CHILDREN:
		for (unsigned n = generate_number(6); n > 0; n--)
			if (rows_append(FIELD_AT(row, field, struct rows),
			            generate_row(field->target, NULL, reference)) < 0)
				abort();
		return;
	case FIELD_KINDS:
		return;
	}
}

/* A new row; rows that break a rule about several fields are thrown away until one keeps them. */
static inline struct row *generate_row(enum resource_id id, const char *name, const char *reference)
{
	for (int attempts = 0; attempts < 100000; attempts++) {
		const struct resource *resource = resource_get(id);
		struct row *row = row_new(id);
		struct errs errs = { 0 };

		for (size_t i = 0; i < resource->n_fields; i++)
			generate_field(&resource->fields[i], row, name, reference);
		if (check_row(row, &errs) == 0)
			return row;
		errs_clear(&errs);
		row_unref(row);
	}
	fputs("no random row keeps the rules\n", stderr);
	abort();
}

#endif
