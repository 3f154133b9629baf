/* Rows to JSON; see encode.h. */
#include "schema/encode.h"

#include "schema/prefixes.h"
#include "schema/value.h"

static json_t *encode_strings(const struct strings *strings)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < strings->n; i++)
		if (json_array_append_new(array, json_string(strings->items[i])) < 0) {
			json_decref(array);
			return NULL;
		}
	return array;
}

static json_t *encode_children(const struct rows *rows)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < rows->n; i++)
		if (json_array_append_new(array, encode_row(rows->items[i])) < 0) {
			json_decref(array);
			return NULL;
		}
	return array;
}

static json_t *encode_prefixes(const struct prefixes *prefixes)
{
	struct prefixes_cursor cursor = prefixes_from(prefixes, 0);
	const struct prefix *prefix;
	json_t *array = json_array();
	char text[ADDR_TEXT_MAX];

	while (array && (prefix = prefixes_next(&cursor)))
		if (json_array_append_new(array, json_string(prefix_format(prefix, text))) < 0) {
			json_decref(array);
			return NULL;
		}
	return array;
}

static json_t *encode_time(int64_t time)
{
	char text[32];

	return time ? json_string(value_time_format(time, text)) : json_null();
}

static json_t *encode_field(const struct field *field, const struct row *row)
{
	const char *text;

	switch (field->kind) {
	case FIELD_NAME:
		return json_string(FIELD_AT_CONST(row, field, char));
	case FIELD_BOOL:
		return json_boolean(*FIELD_AT_CONST(row, field, bool));
	case FIELD_INT:
		return json_integer(*FIELD_AT_CONST(row, field, int64_t));
	case FIELD_ENUM:
		return json_string(field_word(field, *FIELD_AT_CONST(row, field, int64_t)));
	case FIELD_TEXT:
	case FIELD_ADDRESS:
	case FIELD_REF:
		text = *FIELD_AT_CONST(row, field, char *);
		return text ? json_string(text) : json_null();
	case FIELD_TIME:
		return encode_time(*FIELD_AT_CONST(row, field, int64_t));
	case FIELD_PREFIXES:
		return encode_prefixes(FIELD_AT_CONST(row, field, struct prefixes));
	case FIELD_LIST:
	case FIELD_NAMES:
		return encode_strings(FIELD_AT_CONST(row, field, struct strings));
	case FIELD_CHILDREN:
		return encode_children(FIELD_AT_CONST(row, field, struct rows));
	case FIELD_KINDS:
		break;
	}
	return NULL;
}

/* The object that the field's key goes into: the row's own, or its group's, made when it is first needed. */
static json_t *place_of(json_t *object, const struct field *field)
{
	if (!field->group)
		return object;
	if (!json_object_get(object, field->group))
		(void)json_object_set_new(object, field->group, json_object());
	return json_object_get(object, field->group);
}

json_t *encode_row(const struct row *row)
{
	const struct resource *resource = resource_get(row->resource);
	json_t *object = json_object();

	for (size_t i = 0; object && i < resource->n_fields; i++) {
		const struct field *field = &resource->fields[i];

		if (!field_in_documents(field))
			continue;
		if (json_object_set_new(place_of(object, field), field->key, encode_field(field, row)) < 0) {
			json_decref(object);
			return NULL;
		}
	}
	return object;
}

char *encode_list(const struct strings *strings)
{
	json_t *array = encode_strings(strings);
	char *text = array ? json_dumps(array, JSON_COMPACT) : NULL;

	json_decref(array);
	return text;
}
