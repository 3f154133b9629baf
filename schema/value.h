/*
 * The rules of single values: what a name, a text, an address and the item of
 * a list must look like, and their canonical text. Called by decode (before a
 * value is taken) and by check (for rows out of the store), so that both
 * refuse the same. Knows no JSON and no SQL.
 */
#ifndef GW_SCHEMA_VALUE_H
#define GW_SCHEMA_VALUE_H

#include "schema/errs.h"
#include "schema/field.h"

/* Longest canonical text of an item or address with its terminator: a DNS name, or the beginning of a path. */
#define VALUE_TEXT_MAX 256
/* Longest JSON pointer to a known field with its terminator, e.g. "/targets/1023/admin_state". */
#define VALUE_POINTER_MAX 256

/* `base` with one more step: a field's member name, or an item's index. */
void value_pointer(char buffer[VALUE_POINTER_MAX], const char *base, const char *member);
/* The same for a field, with its group: "/health/type". */
void value_pointer_field(char buffer[VALUE_POINTER_MAX], const char *base, const struct field *field);
void value_pointer_item(char buffer[VALUE_POINTER_MAX], const char *base, size_t index);

/* Whether the text is a resource's name: 1 to 63 of a-z 0-9 and '-', a letter or digit first and last. */
bool value_is_name(const char *text);
/* Whether the text can name a row of this resource: as above, or the name of an interface. */
bool value_names_row(const struct resource *resource, const char *text);

/* Whether the address is IPv4 in IPv6 form, which no packet has. */
bool value_is_mapped(const struct addr *addr);

/* The Unicode character that begins at `text` and its length in bytes, or 0 if that is not UTF-8. */
size_t value_character(const char *text, uint32_t *ret);

/* Each records its faults at `pointer` and returns 0 or -EINVAL. */
int value_name(const char *text, const char *pointer, struct errs *errs);
/* The NAME of a row: a name, or an interface. */
int value_row_name(const struct field *field, const char *text, const char *pointer, struct errs *errs);
/* RFC 3339 in UTC, "2030-01-31T12:00:00Z"; an offset is taken and converted, a fraction is not. 0 or -EINVAL. */
int value_time_parse(const char *text, int64_t *ret);
/* Writes the text of a time from 1 to FIELD_TIME_MAX into a buffer of at least 32 bytes and returns the buffer. */
const char *value_time_format(int64_t time, char *buffer);
int value_text(const struct field *field, const char *text, const char *pointer, struct errs *errs);
int value_int(const struct field *field, int64_t value, const char *pointer, struct errs *errs);
/* A unicast address a target can have; writes the canonical text. */
int value_address(const char *text, char buffer[VALUE_TEXT_MAX], const char *pointer, struct errs *errs);
/* An item of a list; writes the canonical text. */
int value_item(
        enum item_kind kind, const char *text, char buffer[VALUE_TEXT_MAX], const char *pointer, struct errs *errs);
/* Whether the last string of a list is the same as an earlier one (code "duplicate_item"). */
int value_unique(const struct strings *strings, const char *pointer, struct errs *errs);

/* Whether a member of a typed row keeps its field's rules and is in canonical form; of CHILDREN only the number. */
int value_check(const struct field *field, const struct row *row, const char *pointer, struct errs *errs);

#endif
