/*
 * Bytes to JSON and merge patch: the parts of decode.h that know no resource.
 * Depth is bounded before the parser runs, as the parser calls itself once
 * per level.
 */
#include "schema/decode.h"

#include <errno.h>
#include <string.h>

/* Deepest level of nesting that is open at any byte. Counts brackets outside strings; what is not JSON at all
 * is the parser's business. */
static size_t nesting(const char *bytes, size_t length)
{
	size_t depth = 0, deepest = 0;
	bool inside = false;

	for (size_t i = 0; i < length; i++) {
		if (inside) {
			if (bytes[i] == '\\')
				i++;
			else if (bytes[i] == '"')
				inside = false;
		} else if (bytes[i] == '"') {
			inside = true;
		} else if (bytes[i] == '{' || bytes[i] == '[') {
			if (++depth > deepest)
				deepest = depth;
		} else if ((bytes[i] == '}' || bytes[i] == ']') && depth > 0) {
			depth--;
		}
	}
	return deepest;
}

int decode_parse(const char *bytes, size_t length, struct errs *errs, json_t **ret)
{
	json_error_t error;
	json_t *value;

	if (nesting(bytes, length) > DECODE_DEPTH_MAX) {
		errs_add(errs, "", "malformed", "nested more than %d deep", DECODE_DEPTH_MAX);
		return -EBADMSG;
	}
	value = json_loadb(bytes, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
	if (!value && json_error_code(&error) == json_error_out_of_memory)
		return -ENOMEM;
	if (!value) {
		errs_add(errs, "", json_error_code(&error) == json_error_duplicate_key ? "duplicate_key" : "malformed",
		        "line %d, column %d: %s", error.line, error.column, error.text);
		return -EBADMSG;
	}
	if (!json_is_object(value)) {
		json_decref(value);
		errs_add(errs, "", "malformed", "the document must be a JSON object");
		return -EBADMSG;
	}
	*ret = value;
	return 0;
}

static int merge_key(json_t *target, const char *key, json_t *value)
{
	json_t *member;

	if (json_is_null(value)) {
		(void)json_object_del(target, key);
		return 0;
	}
	if (!json_is_object(value))
		return json_object_set(target, key, value) < 0 ? -ENOMEM : 0;
	if (!json_is_object(json_object_get(target, key)) && json_object_set_new(target, key, json_object()) < 0)
		return -ENOMEM;
	member = json_object_get(target, key);
	return decode_merge_patch(member, value);
}

int decode_merge_patch(json_t *target, json_t *patch)
{
	const char *key;
	json_t *value;
	int r = 0;

	json_object_foreach(patch, key, value)
	{
		r = merge_key(target, key, value);
		if (r < 0)
			break;
	}
	return r;
}

int decode_list(const char *text, struct strings *ret)
{
	json_t *array = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	int r = json_is_array(array) ? 0 : -EBADMSG;

	for (size_t i = 0; r == 0 && i < json_array_size(array); i++) {
		const char *item = json_string_value(json_array_get(array, i));

		r = item ? strings_append(ret, item) : -EBADMSG;
	}
	json_decref(array);
	if (r < 0)
		strings_clear(ret);
	return r;
}
