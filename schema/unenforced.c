/* What has no effect yet; see unenforced.h. */
#include "schema/unenforced.h"

#include <string.h>

#include "schema/field.h"
#include "schema/value.h"

/* A field that is ignored unless it has its initial value; without a member the resource as a whole is. */
static const struct unenforced {
	enum resource_id resource;
	const char *member;
	const char *words;
} table[] = {
	{ RESOURCES, NULL, "" }, /* of nothing: every plane has learnt everything */
};

static bool is_ignored(const struct unenforced *entry, const struct row *row)
{
	const struct resource *resource = resource_get(row->resource);
	const struct field *enabled = resource_field(resource, "enabled");

	if (entry->resource != row->resource || (enabled && !*FIELD_AT_CONST(row, enabled, bool)))
		return false;
	return !entry->member || !field_is_initial(resource_field(resource, entry->member), row);
}

static bool check_at(const struct row *row, const char *base, struct errs *ret)
{
	const struct resource *resource = resource_get(row->resource);
	char pointer[VALUE_POINTER_MAX], child[VALUE_POINTER_MAX];
	bool found = false;

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		if (!is_ignored(&table[i], row))
			continue;
		found = true;
		snprintf(pointer, sizeof(pointer), "%s", base);
		if (table[i].member)
			value_pointer_field(pointer, base, resource_field(resource, table[i].member));
		if (ret)
			errs_add(ret, pointer, "not_enforced", "not in this version yet: %s", table[i].words);
	}
	for (size_t i = 0; i < resource->n_fields; i++) {
		const struct field *field = &resource->fields[i];

		if (field->kind != FIELD_CHILDREN)
			continue;
		value_pointer_field(pointer, base, field);
		for (size_t j = 0; j < FIELD_AT_CONST(row, field, struct rows)->n; j++) {
			value_pointer_item(child, pointer, j);
			found |= check_at(FIELD_AT_CONST(row, field, struct rows)->items[j], child, ret);
		}
	}
	return found;
}

bool check_unenforced(const struct row *row, struct errs *ret)
{
	return check_at(row, "", ret);
}
