/* Every name that a row gives to another row; see field.h. */
#include "schema/field.h"
#include "schema/value.h"

/* Who is told, and of what. */
struct walk {
	reference_visitor visitor;
	void *userdata;
};

static int tell(const struct walk *walk, enum resource_id target, const char *name, const char *pointer)
{
	struct reference reference = { target, name, pointer };

	return walk->visitor(walk->userdata, &reference);
}

/* Names, or those items of a list of prefixes that are sets. */
static int walk_strings(
        const struct walk *walk, const struct field *field, const struct strings *list, const char *pointer)
{
	char item[VALUE_POINTER_MAX];
	int r = 0;

	for (size_t i = 0; i < list->n && r == 0; i++) {
		value_pointer_item(item, pointer, i);
		if (field->kind == FIELD_NAMES)
			r = tell(walk, field->target, list->items[i], item);
		else if (field->item == ITEM_PREFIX && list->items[i][0] == '@')
			r = tell(walk, RESOURCE_ADDRESS_SET, list->items[i] + 1, item);
	}
	return r;
}

static int walk_row(const struct walk *walk, const struct row *row, const char *base);

static int walk_children(const struct walk *walk, const struct rows *children, const char *pointer)
{
	char item[VALUE_POINTER_MAX];
	int r = 0;

	for (size_t i = 0; i < children->n && r == 0; i++) {
		value_pointer_item(item, pointer, i);
		r = walk_row(walk, children->items[i], item);
	}
	return r;
}

static int walk_row(const struct walk *walk, const struct row *row, const char *base)
{
	const struct resource *resource = resource_get(row->resource);
	char pointer[VALUE_POINTER_MAX];
	int r = 0;

	for (size_t i = 0; i < resource->n_fields && r == 0; i++) {
		const struct field *field = &resource->fields[i];

		value_pointer_field(pointer, base, field);
		if (field->kind == FIELD_REF && *FIELD_AT_CONST(row, field, char *))
			r = tell(walk, field->target, *FIELD_AT_CONST(row, field, char *), pointer);
		else if (field->kind == FIELD_LIST || field->kind == FIELD_NAMES)
			r = walk_strings(walk, field, FIELD_AT_CONST(row, field, struct strings), pointer);
		else if (field->kind == FIELD_CHILDREN)
			r = walk_children(walk, FIELD_AT_CONST(row, field, struct rows), pointer);
	}
	return r;
}

int resource_references(const struct row *row, reference_visitor visitor, void *userdata)
{
	struct walk walk = { visitor, userdata };

	return walk_row(&walk, row, "");
}
