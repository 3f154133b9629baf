/* Every name that a row gives to another row; see field.h. */
#include "schema/field.h"
#include "schema/value.h"

/* Who is told, and of what. */
struct walk {
	reference_visitor visitor;
	void *userdata;
};

/* Where in a row: pointers are written only when there is something to tell, which is seldom. */
struct place {
	const struct place *above; /* NULL: the row itself */
	const struct field *field;
	size_t item; /* of the field, if it is a list */
};

static bool is_list(const struct field *field)
{
	return field->kind == FIELD_LIST || field->kind == FIELD_NAMES || field->kind == FIELD_CHILDREN;
}

static void write_pointer(const struct place *place, char pointer[VALUE_POINTER_MAX])
{
	char base[VALUE_POINTER_MAX] = "", list[VALUE_POINTER_MAX];

	if (place->above)
		write_pointer(place->above, base);
	value_pointer_field(is_list(place->field) ? list : pointer, base, place->field);
	if (is_list(place->field))
		value_pointer_item(pointer, list, place->item);
}

static int tell(const struct walk *walk, enum resource_id target, const char *name, const struct place *place)
{
	char pointer[VALUE_POINTER_MAX];
	struct reference reference = { target, name, pointer };

	write_pointer(place, pointer);
	return walk->visitor(walk->userdata, &reference);
}

/* Names, or those items of a list of prefixes that are sets. */
static int walk_strings(const struct walk *walk, const struct strings *list, struct place *place)
{
	const struct field *field = place->field;
	int r = 0;

	for (place->item = 0; place->item < list->n && r == 0; place->item++) {
		const char *item = list->items[place->item];

		if (field->kind == FIELD_NAMES)
			r = tell(walk, field->target, item, place);
		else if (field->item == ITEM_PREFIX && item[0] == '@')
			r = tell(walk, RESOURCE_ADDRESS_SET, item + 1, place);
	}
	return r;
}

static int walk_row(const struct walk *walk, const struct row *row, const struct place *above);

static int walk_children(const struct walk *walk, const struct rows *children, struct place *place)
{
	int r = 0;

	for (place->item = 0; place->item < children->n && r == 0; place->item++)
		r = walk_row(walk, children->items[place->item], place);
	return r;
}

static int walk_row(const struct walk *walk, const struct row *row, const struct place *above)
{
	const struct resource *resource = resource_get(row->resource);
	int r = 0;

	for (size_t i = 0; i < resource->n_fields && r == 0; i++) {
		const struct field *field = &resource->fields[i];
		struct place place = { above, field, 0 };

		if (field->kind == FIELD_REF && *FIELD_AT_CONST(row, field, char *))
			r = tell(walk, field->target, *FIELD_AT_CONST(row, field, char *), &place);
		else if (field->kind == FIELD_LIST || field->kind == FIELD_NAMES)
			r = walk_strings(walk, FIELD_AT_CONST(row, field, struct strings), &place);
		else if (field->kind == FIELD_CHILDREN)
			r = walk_children(walk, FIELD_AT_CONST(row, field, struct rows), &place);
	}
	return r;
}

int resource_references(const struct row *row, reference_visitor visitor, void *userdata)
{
	struct walk walk = { visitor, userdata };

	return walk_row(&walk, row, NULL);
}
