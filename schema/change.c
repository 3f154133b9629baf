/* Changes of rows as texts, and back; see change.h. */
#include "schema/change.h"

#include <errno.h>
#include <string.h>

#include "schema/decode.h"
#include "schema/encode.h"
#include "schema/prefixes.h"

/* A copy whose prefixes are those that `other` lacks. */
static int only_own(const struct row *row, const struct row *other, struct row **ret)
{
	const struct resource *resource = resource_get(row->resource);
	_cleanup_(row_unref_p) struct row *copy = row_copy(row);
	int r = copy ? 0 : -ENOMEM;

	for (size_t i = 0; i < resource->n_fields && r == 0; i++) {
		const struct field *field = &resource->fields[i];

		if (field->kind != FIELD_PREFIXES)
			continue;
		field_clear(field, copy);
		r = prefixes_subtract(FIELD_AT_CONST(row, field, struct prefixes),
		        FIELD_AT_CONST(other, field, struct prefixes), FIELD_AT(copy, field, struct prefixes));
	}
	if (r == 0)
		*ret = TAKE_PTR(copy);
	return r;
}

/* The row as it goes into a text: itself, or without what the other has too. */
static int reduce(const struct row *row, const struct row *other, struct row **ret)
{
	if (row && other)
		return only_own(row, other, ret);
	*ret = row ? row_ref((struct row *)(uintptr_t)row) : NULL;
	return 0;
}

static int encode_one(const struct row *row, const struct row *other, char **ret)
{
	_cleanup_(row_unref_p) struct row *reduced = NULL;
	struct text text = { 0 };
	int r = reduce(row, other, &reduced);

	if (r == 0 && reduced)
		r = encode_text(reduced, 0, &text);
	if (r < 0)
		text_clear(&text);
	else
		*ret = text.bytes;
	return r;
}

int change_encode(const struct row *old, const struct row *new, char **ret_before, char **ret_after)
{
	_cleanup_free_ char *before = NULL;
	int r = encode_one(old, new, &before);

	if (r == 0)
		r = encode_one(new, old, ret_after);
	if (r == 0)
		*ret_before = TAKE_PTR(before);
	return r;
}

static int json_one(const struct row *row, const struct row *other, json_t **ret)
{
	_cleanup_(row_unref_p) struct row *reduced = NULL;
	int r = reduce(row, other, &reduced);

	if (r < 0)
		return r;
	*ret = reduced ? encode_row(reduced) : json_null();
	return *ret ? 0 : -ENOMEM;
}

int change_json(const struct row *old, const struct row *new, json_t **ret_before, json_t **ret_after)
{
	json_t *before;
	int r = json_one(old, new, &before);

	if (r < 0)
		return r;
	r = json_one(new, old, ret_after);
	if (r < 0)
		json_decref(before);
	else
		*ret_before = before;
	return r;
}

static int decode_one(
        enum resource_id resource, const char *name, const char *text, struct errs *errs, struct row **ret)
{
	json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	int r = object ? decode_row(resource_get(resource), object, name, errs, ret) : -EBADMSG;

	json_decref(object);
	return r;
}

/* now - after + before, for each field of prefixes. */
static int restore_prefixes(struct row *row, const struct row *now, const struct row *after)
{
	const struct resource *resource = resource_get(row->resource);
	int r = 0;

	for (size_t i = 0; i < resource->n_fields && r == 0; i++) {
		const struct field *field = &resource->fields[i];
		_cleanup_prefixes_ struct prefixes kept = { 0 }, whole = { 0 };

		if (field->kind != FIELD_PREFIXES)
			continue;
		r = prefixes_subtract(FIELD_AT_CONST(now, field, struct prefixes),
		        FIELD_AT_CONST(after, field, struct prefixes), &kept);
		if (r == 0)
			r = prefixes_unite(&kept, FIELD_AT_CONST(row, field, struct prefixes), &whole);
		if (r < 0)
			return r;
		field_clear(field, row);
		prefixes_share(FIELD_AT(row, field, struct prefixes), &whole);
	}
	return r;
}

int change_undo(enum resource_id resource, const char *name, const struct row *now, const char *before,
        const char *after, struct errs *errs, struct row **ret)
{
	_cleanup_(row_unref_p) struct row *row = NULL, *gone = NULL;
	int r = decode_one(resource, name, before, errs, &row);

	if (r == 0 && now && after)
		r = decode_one(resource, name, after, errs, &gone);
	if (r == 0 && gone)
		r = restore_prefixes(row, now, gone);
	if (r < 0)
		return r;
	row->id = now ? now->id : 0;
	*ret = TAKE_PTR(row);
	return 0;
}
