/* Rows and the lists in them: made, shared, copied and compared by walking the resource's descriptor. */
#include "schema/types.h"

#include <errno.h>
#include <string.h>

#include "schema/field.h"

struct row *row_new(enum resource_id id)
{
	const struct resource *resource = resource_get(id);
	struct row *row = calloc(1, resource->size);

	if (!row)
		return NULL;
	row->resource = id;
	row->references = 1;
	for (size_t i = 0; i < resource->n_fields; i++)
		if (field_init(&resource->fields[i], row) < 0) {
			row_unref(row);
			return NULL;
		}
	return row;
}

struct row *row_ref(struct row *row)
{
	row->references++;
	return row;
}

void row_unref(struct row *row)
{
	const struct resource *resource;

	if (!row || --row->references > 0)
		return;
	resource = resource_get(row->resource);
	for (size_t i = 0; i < resource->n_fields; i++)
		field_clear(&resource->fields[i], row);
	free(row);
}

struct row *row_copy(const struct row *row)
{
	const struct resource *resource = resource_get(row->resource);
	struct row *copy = calloc(1, resource->size);

	if (!copy)
		return NULL;
	*copy = (struct row){ .resource = row->resource, .references = 1, .id = row->id, .revision = row->revision };
	for (size_t i = 0; i < resource->n_fields; i++)
		if (field_copy(&resource->fields[i], copy, row) < 0) {
			row_unref(copy);
			return NULL;
		}
	return copy;
}

const char *row_name(const struct row *row)
{
	const struct field *field = &resource_get(row->resource)->fields[0];

	return field->kind == FIELD_NAME ? FIELD_AT_CONST(row, field, char) : NULL;
}

bool row_equal(const struct row *a, const struct row *b)
{
	const struct resource *resource = resource_get(a->resource);

	if (a->resource != b->resource)
		return false;
	for (size_t i = 0; i < resource->n_fields; i++)
		if (!field_equal(&resource->fields[i], a, b))
			return false;
	return true;
}

/* The lists keep no capacity: it is the next power of two of n, and grows when n reaches it. */
static int list_grow(void ***items, size_t n)
{
	void **grown;

	if (n & (n - 1))
		return 0;
	grown = realloc(*items, (n ? 2 * n : 1) * sizeof(**items));
	if (!grown)
		return -ENOMEM;
	*items = grown;
	return 0;
}

int rows_insert(struct rows *rows, size_t at, struct row *row)
{
	void **items = (void **)rows->items;
	int r = list_grow(&items, rows->n);

	rows->items = (struct row **)items;
	if (r < 0) {
		row_unref(row);
		return r;
	}
	memmove(rows->items + at + 1, rows->items + at, (rows->n - at) * sizeof(*rows->items));
	rows->items[at] = row;
	rows->n++;
	return 0;
}

int rows_append(struct rows *rows, struct row *row)
{
	return rows_insert(rows, rows->n, row);
}

int rows_share(struct rows *rows, const struct rows *from)
{
	size_t capacity = 1;

	if (from->n == 0)
		return 0;
	while (capacity < from->n)
		capacity *= 2;
	rows->items = calloc(capacity, sizeof(*rows->items));
	if (!rows->items)
		return -ENOMEM;
	for (size_t i = 0; i < from->n; i++)
		rows->items[i] = row_ref(from->items[i]);
	rows->n = from->n;
	return 0;
}

void rows_clear(struct rows *rows)
{
	for (size_t i = 0; i < rows->n; i++)
		row_unref(rows->items[i]);
	free(rows->items);
	*rows = (struct rows){ 0 };
}

int strings_append(struct strings *strings, const char *text)
{
	void **items = (void **)strings->items;
	char *copy = strdup(text);
	int r = copy ? list_grow(&items, strings->n) : -ENOMEM;

	strings->items = (char **)items;
	if (r < 0) {
		free(copy);
		return r;
	}
	strings->items[strings->n++] = copy;
	return 0;
}

void strings_clear(struct strings *strings)
{
	for (size_t i = 0; i < strings->n; i++)
		free(strings->items[i]);
	free(strings->items);
	*strings = (struct strings){ 0 };
}

bool strings_equal(const struct strings *a, const struct strings *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->items[i], b->items[i]) != 0)
			return false;
	return true;
}
