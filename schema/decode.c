/*
 * JSON to rows; see decode.h. A fault is recorded and decoding goes on, so
 * that one answer names them all; only a lack of memory ends it early.
 * The functions below return 0 also when they recorded faults, unless said
 * otherwise; decode_row tells by the number of faults.
 */
#include "schema/decode.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "schema/check.h"
#include "schema/prefixes.h"
#include "schema/value.h"

/* Where a value stands: the field, its JSON pointer, and where faults go. */
struct place {
	const struct field *field;
	const char *pointer;
	struct errs *errs;
};

static int decode_object(const struct resource *resource, json_t *object, const char *name, const char *base,
        struct errs *errs, struct row *row);

static const char *type_word(const json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
		return "an integer";
	case JSON_REAL:
		return "a number with a fraction or exponent";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a boolean";
	case JSON_NULL:
		return "null";
	}
	return "something else";
}

static void wrong_type(const char *pointer, struct errs *errs, const char *wanted, const json_t *value)
{
	errs_add(errs, pointer, "wrong_type", "%s is wanted here, not %s", wanted, type_word(value));
}

/* The string's text, or NULL with a fault. */
static const char *text_of(const json_t *value, const char *pointer, struct errs *errs)
{
	const char *text = json_string_value(value);

	if (!text) {
		wrong_type(pointer, errs, "a string", value);
		return NULL;
	}
	if (strlen(text) != json_string_length(value)) {
		errs_add(errs, pointer, "bad_value", "the text contains a NUL character");
		return NULL;
	}
	return text;
}

static int set_text(char **member, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return -ENOMEM;
	free(*member);
	*member = copy;
	return 0;
}

static int decode_name(const struct place *at, const json_t *value, struct row *row)
{
	const char *text = text_of(value, at->pointer, at->errs);

	if (text && value_row_name(at->field, text, at->pointer, at->errs) == 0)
		memcpy(FIELD_AT(row, at->field, char), text, strlen(text) + 1);
	return 0;
}

static int decode_text(const struct place *at, const json_t *value, struct row *row)
{
	const char *text = text_of(value, at->pointer, at->errs);

	if (!text || value_text(at->field, text, at->pointer, at->errs) < 0)
		return 0;
	return set_text(FIELD_AT(row, at->field, char *), text);
}

static int decode_reference(const struct place *at, const json_t *value, struct row *row)
{
	const char *text;

	if (json_is_null(value))
		return 0;
	if (!json_is_string(value)) {
		wrong_type(at->pointer, at->errs, "a name or null", value);
		return 0;
	}
	text = text_of(value, at->pointer, at->errs);
	if (!text || value_name(text, at->pointer, at->errs) < 0)
		return 0;
	return set_text(FIELD_AT(row, at->field, char *), text);
}

static int decode_address(const struct place *at, const json_t *value, struct row *row)
{
	const char *text = text_of(value, at->pointer, at->errs);
	char canonical[VALUE_TEXT_MAX];

	if (!text || value_address(text, canonical, at->pointer, at->errs) < 0)
		return 0;
	return set_text(FIELD_AT(row, at->field, char *), canonical);
}

static int decode_int(const struct place *at, const json_t *value, struct row *row)
{
	if (!json_is_integer(value))
		wrong_type(at->pointer, at->errs, "an integer", value);
	else if (value_int(at->field, json_integer_value(value), at->pointer, at->errs) == 0)
		*FIELD_AT(row, at->field, int64_t) = json_integer_value(value);
	return 0;
}

static int decode_bool(const struct place *at, const json_t *value, struct row *row)
{
	if (!json_is_boolean(value))
		wrong_type(at->pointer, at->errs, "true or false", value);
	else
		*FIELD_AT(row, at->field, bool) = json_is_true(value);
	return 0;
}

static int decode_enum(const struct place *at, const json_t *value, struct row *row)
{
	const char *text = text_of(value, at->pointer, at->errs);
	int64_t number = text ? field_word_value(at->field, text) : -1;
	char words[256] = "";

	if (!text)
		return 0;
	if (number >= 0) {
		*FIELD_AT(row, at->field, int64_t) = number;
		return 0;
	}
	for (int64_t i = 0; i <= at->field->max; i++)
		snprintf(words + strlen(words), sizeof(words) - strlen(words), "%s%s", i ? ", " : "",
		        at->field->words[i]);
	errs_add(at->errs, at->pointer, "bad_value", "not one of: %s", words);
	return 0;
}

/* The array's length, or -EINVAL with a fault. */
static ssize_t count_of(const struct place *at, const json_t *value)
{
	size_t n = json_array_size(value);

	if (!json_is_array(value)) {
		wrong_type(at->pointer, at->errs, "an array", value);
		return -EINVAL;
	}
	if ((int64_t)n > at->field->max) {
		errs_add(at->errs, at->pointer, "too_many_items", "%zu items, at most %" PRId64 " are allowed", n,
		        at->field->max);
		return -EINVAL;
	}
	return (ssize_t)n;
}

static int canonical_item(const struct field *field, const char *text, char canonical[VALUE_TEXT_MAX],
        const char *pointer, struct errs *errs)
{
	if (field->kind == FIELD_LIST)
		return value_item(field->item, text, canonical, pointer, errs);
	if (value_name(text, pointer, errs) < 0)
		return -EINVAL;
	memcpy(canonical, text, strlen(text) + 1);
	return 0;
}

static int decode_items(const struct place *at, const json_t *value, struct row *row)
{
	struct strings *list = FIELD_AT(row, at->field, struct strings);
	ssize_t n = count_of(at, value);
	char canonical[VALUE_TEXT_MAX], pointer[VALUE_POINTER_MAX];

	for (ssize_t i = 0; i < n; i++) {
		const char *text;

		value_pointer_item(pointer, at->pointer, (size_t)i);
		text = text_of(json_array_get(value, (size_t)i), pointer, at->errs);
		if (!text || canonical_item(at->field, text, canonical, pointer, at->errs) < 0)
			continue;
		if (strings_append(list, canonical) < 0)
			return -ENOMEM;
		value_unique(list, pointer, at->errs);
	}
	return 0;
}

static int decode_children(const struct place *at, const json_t *value, struct row *row)
{
	const struct resource *resource = resource_get(at->field->target);
	ssize_t n = count_of(at, value);
	char pointer[VALUE_POINTER_MAX];
	int r = 0;

	for (ssize_t i = 0; i < n && r == 0; i++) {
		json_t *item = json_array_get(value, (size_t)i);
		struct row *child = row_new(resource->id);

		if (!child)
			return -ENOMEM;
		value_pointer_item(pointer, at->pointer, (size_t)i);
		if (json_is_object(item))
			r = decode_object(resource, item, NULL, pointer, at->errs, child);
		else
			wrong_type(pointer, at->errs, "an object", item);
		if (rows_append(FIELD_AT(row, at->field, struct rows), child) < 0)
			return -ENOMEM;
	}
	return r;
}

static int decode_prefixes(const struct place *at, const json_t *value, struct row *row)
{
	_cleanup_prefixes_builder_ struct prefixes_builder builder = { 0 };
	struct prefixes *member = FIELD_AT(row, at->field, struct prefixes);
	ssize_t n = count_of(at, value);
	char pointer[VALUE_POINTER_MAX];
	int r = 0;

	for (ssize_t i = 0; i < n && r != -ENOMEM; i++) {
		const char *text;

		value_pointer_item(pointer, at->pointer, (size_t)i);
		text = text_of(json_array_get(value, (size_t)i), pointer, at->errs);
		if (text)
			r = prefixes_add_text(&builder, text, pointer, at->errs);
	}
	if (r == -ENOMEM || n < 0)
		return n < 0 ? 0 : r;
	r = prefixes_finish(&builder, member);
	if (r == 0 && (int64_t)member->n > at->field->max)
		errs_add(at->errs, at->pointer, "too_many_items",
		        "%zu prefixes after ranges are split, at most %" PRId64 " are allowed", member->n,
		        at->field->max);
	return r;
}

static int decode_time(const struct place *at, const json_t *value, struct row *row)
{
	const char *text;
	int64_t time;

	if (json_is_null(value))
		return 0;
	if (!json_is_string(value)) {
		wrong_type(at->pointer, at->errs, "a time or null", value);
		return 0;
	}
	text = text_of(value, at->pointer, at->errs);
	if (text && value_time_parse(text, &time) == 0)
		*FIELD_AT(row, at->field, int64_t) = time;
	else if (text)
		errs_add(at->errs, at->pointer, "bad_value", "not a time as in 2030-01-31T12:00:00Z, after 1970");
	return 0;
}

static int decode_value(const struct place *at, const json_t *value, struct row *row)
{
	switch (at->field->kind) {
	case FIELD_NAME:
		return decode_name(at, value, row);
	case FIELD_BOOL:
		return decode_bool(at, value, row);
	case FIELD_TEXT:
		return decode_text(at, value, row);
	case FIELD_INT:
		return decode_int(at, value, row);
	case FIELD_ENUM:
		return decode_enum(at, value, row);
	case FIELD_REF:
		return decode_reference(at, value, row);
	case FIELD_LIST:
	case FIELD_NAMES:
		return decode_items(at, value, row);
	case FIELD_TIME:
		return decode_time(at, value, row);
	case FIELD_PREFIXES:
		return decode_prefixes(at, value, row);
	case FIELD_ADDRESS:
		return decode_address(at, value, row);
	case FIELD_CHILDREN:
		return decode_children(at, value, row);
	case FIELD_KINDS:
		break;
	}
	return 0;
}

/* The name of the request's path: taken where the body has none, and never contradicted. */
static void settle_name(const struct place *at, const char *name, const json_t *value, struct row *row)
{
	if (value && json_is_string(value) && strcmp(json_string_value(value), name) != 0)
		errs_add(at->errs, at->pointer, "name_mismatch", "the path says %s; a resource cannot be renamed",
		        value_names_row(resource_get(row->resource), name) ? name : "another name");
	else if (!value && value_row_name(at->field, name, at->pointer, at->errs) == 0)
		memcpy(FIELD_AT(row, at->field, char), name, strlen(name) + 1);
}

static int decode_field(const struct place *at, json_t *object, const char *name, struct row *row)
{
	json_t *value = json_object_get(object, at->field->key);

	if (at->field->kind == FIELD_NAME && name)
		settle_name(at, name, value, row);
	else if (!value && field_required(at->field))
		errs_add(at->errs, at->pointer, "required", "this field is missing and has no default");
	return value ? decode_value(at, value, row) : 0;
}

/* `base` with one more step, escaped as RFC 6901 wants it; a new string, NULL when memory is out. */
static char *pointer_to(const char *base, const char *key)
{
	char *text = malloc(strlen(base) + 2 * strlen(key) + 2), *at = text;

	if (!text)
		return NULL;
	at = stpcpy(at, base);
	*at++ = '/';
	for (; *key; key++)
		if (*key == '~' || *key == '/') {
			*at++ = '~';
			*at++ = *key == '~' ? '0' : '1';
		} else {
			*at++ = *key;
		}
	*at = '\0';
	return text;
}

/* Whether the object of this group (NULL: the row's own) has the key. */
static bool has_key(const struct resource *resource, const char *group, const char *key)
{
	for (size_t i = 0; i < resource->n_fields; i++) {
		const struct field *field = &resource->fields[i];
		bool same = group ? field->group && strcmp(field->group, group) == 0 : !field->group;

		if (!field_in_documents(field))
			continue;
		if ((same && strcmp(field->key, key) == 0) ||
		        (!group && field->group && strcmp(field->group, key) == 0))
			return true;
	}
	return false;
}

static int refuse_unknown(
        const struct resource *resource, const char *group, json_t *object, const char *base, struct errs *errs)
{
	const char *key;
	json_t *value;

	json_object_foreach(object, key, value)
	{
		_cleanup_free_ char *pointer = NULL;

		if (has_key(resource, group, key))
			continue;
		pointer = pointer_to(base, key);
		if (!pointer)
			return -ENOMEM;
		errs_add(errs, pointer, "unknown_key", "%s %s has no such field%s%s",
		        strchr("aeiou", resource->name[0]) ? "an" : "a", resource->name, group ? " in " : "",
		        group ? group : "");
	}
	return 0;
}

/* The object that holds the group's fields; an empty one if the document has none, or something else (a fault). */
static json_t *group_of(const struct field *field, json_t *object, json_t *none)
{
	json_t *group = json_object_get(object, field->group);

	return json_is_object(group) ? group : none;
}

/* Once per group: its type and its keys. */
static int check_group(
        const struct resource *resource, const struct field *field, json_t *object, const char *base, struct errs *errs)
{
	json_t *group = json_object_get(object, field->group);
	char pointer[VALUE_POINTER_MAX];

	if (!group || (field > resource->fields && field[-1].group && strcmp(field[-1].group, field->group) == 0))
		return 0;
	value_pointer(pointer, base, field->group);
	if (json_is_object(group))
		return refuse_unknown(resource, field->group, group, pointer, errs);
	wrong_type(pointer, errs, "an object", group);
	return 0;
}

static int decode_object(const struct resource *resource, json_t *object, const char *name, const char *base,
        struct errs *errs, struct row *row)
{
	char pointer[VALUE_POINTER_MAX];
	json_t *none = json_object();
	int r = none ? refuse_unknown(resource, NULL, object, base, errs) : -ENOMEM;

	for (size_t i = 0; i < resource->n_fields && r == 0; i++) {
		struct place at = { &resource->fields[i], pointer, errs };

		if (!field_in_documents(at.field))
			continue;
		value_pointer_field(pointer, base, at.field);
		if (at.field->group)
			r = check_group(resource, at.field, object, base, errs);
		if (r == 0)
			r = decode_field(&at, at.field->group ? group_of(at.field, object, none) : object, name, row);
	}
	json_decref(none);
	if (r == 0)
		check_rules(row, base, errs);
	return r;
}

int decode_row(const struct resource *resource, json_t *object, const char *name, struct errs *errs, struct row **ret)
{
	_cleanup_(row_unref_p) struct row *row = row_new(resource->id);
	size_t before = errs_count(errs);
	int r;

	if (!row)
		return -ENOMEM;
	if (!json_is_object(object)) {
		wrong_type("", errs, "an object", object);
		return -EINVAL;
	}
	r = decode_object(resource, object, name, "", errs, row);
	if (r < 0)
		return r;
	if (errs_count(errs) > before)
		return -EINVAL;
	*ret = TAKE_PTR(row);
	return 0;
}
