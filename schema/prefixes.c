/* Shared sorted arrays of prefixes; see prefixes.h. */
#include "schema/prefixes.h"

#include <errno.h>
#include <string.h>

/* What is allocated: the items that struct prefixes points to stand behind the count. */
struct array {
	size_t references;
	struct prefix items[];
};

static struct array *array_of(const struct prefix *items)
{
	return (struct array *)((char *)(uintptr_t)items - offsetof(struct array, items));
}

static struct array *array_new(size_t n)
{
	struct array *array = malloc(sizeof(*array) + n * sizeof(struct prefix));

	if (array)
		array->references = 1;
	return array;
}

/* Hands the array over as a set of n; none is kept without items. */
static void hand_over(struct array *array, size_t n, struct prefixes *ret)
{
	if (n == 0)
		free(array);
	*ret = (struct prefixes){ n ? array->items : NULL, n };
}

int prefix_compare(const struct prefix *a, const struct prefix *b)
{
	int order = addr_compare(&a->addr, &b->addr);

	return order ? order : (int)a->length - (int)b->length;
}

static int compare_items(const void *a, const void *b)
{
	return prefix_compare(a, b);
}

/* ---- building ---- */

int prefixes_add(struct prefixes_builder *builder, const struct prefix *prefix)
{
	if (builder->n == builder->capacity) {
		size_t capacity = builder->capacity ? 2 * builder->capacity : 64;
		struct prefix *grown = realloc(builder->items, capacity * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		builder->items = grown;
		builder->capacity = capacity;
	}
	builder->items[builder->n++] = *prefix;
	return 0;
}

void prefixes_builder_clear(struct prefixes_builder *builder)
{
	free(builder->items);
	*builder = (struct prefixes_builder){ 0 };
}

/* Text that is mostly in order already, as ours is when it comes back, needs no sorting. */
static bool is_sorted(const struct prefix *items, size_t n)
{
	for (size_t i = 1; i < n; i++)
		if (prefix_compare(&items[i - 1], &items[i]) > 0)
			return false;
	return true;
}

int prefixes_finish(struct prefixes_builder *builder, struct prefixes *ret)
{
	struct array *array = array_new(builder->n);
	size_t n = 0;

	if (!array)
		return -ENOMEM;
	if (!is_sorted(builder->items, builder->n))
		qsort(builder->items, builder->n, sizeof(*builder->items), compare_items);
	for (size_t i = 0; i < builder->n; i++)
		if (n == 0 || prefix_compare(&array->items[n - 1], &builder->items[i]) != 0)
			array->items[n++] = builder->items[i];
	prefixes_builder_clear(builder);
	hand_over(array, n, ret);
	return 0;
}

/* ---- sharing and comparing ---- */

void prefixes_share(struct prefixes *to, const struct prefixes *from)
{
	if (from->n)
		array_of(from->items)->references++;
	*to = *from;
}

void prefixes_clear(struct prefixes *prefixes)
{
	if (prefixes->n && --array_of(prefixes->items)->references == 0)
		free(array_of(prefixes->items));
	*prefixes = (struct prefixes){ 0 };
}

bool prefixes_equal(const struct prefixes *a, const struct prefixes *b)
{
	if (a->n != b->n)
		return false;
	if (a->items == b->items)
		return true;
	for (size_t i = 0; i < a->n; i++)
		if (prefix_compare(&a->items[i], &b->items[i]) != 0)
			return false;
	return true;
}

bool prefixes_contain(const struct prefixes *set, const struct prefix *prefix)
{
	return set->n && bsearch(prefix, set->items, set->n, sizeof(*prefix), compare_items);
}

bool prefixes_are_canonical(const struct prefixes *prefixes)
{
	for (size_t i = 0; i < prefixes->n; i++) {
		struct addr masked = prefixes->items[i].addr;

		if (i > 0 && prefix_compare(&prefixes->items[i - 1], &prefixes->items[i]) >= 0)
			return false;
		if ((masked.family != AF_INET && masked.family != AF_INET6) ||
		        prefixes->items[i].length > addr_bits(masked.family))
			return false;
		addr_mask(&masked, prefixes->items[i].length);
		if (!addr_equal(&masked, &prefixes->items[i].addr))
			return false;
	}
	return true;
}

/* One walk over two sorted sets: how the heads stand to each other; an exhausted set stands behind everything. */
static int compare_heads(const struct prefixes *a, size_t i, const struct prefixes *b, size_t j)
{
	if (i == a->n || j == b->n)
		return (i == a->n) - (j == b->n);
	return prefix_compare(&a->items[i], &b->items[j]);
}

int prefixes_unite(const struct prefixes *a, const struct prefixes *b, struct prefixes *ret)
{
	struct array *array = array_new(a->n + b->n);
	size_t i = 0, j = 0, n = 0;

	if (!array)
		return -ENOMEM;
	while (i < a->n || j < b->n) {
		int order = compare_heads(a, i, b, j);

		array->items[n++] = order <= 0 ? a->items[i] : b->items[j];
		i += order <= 0;
		j += order >= 0;
	}
	hand_over(array, n, ret);
	return 0;
}

int prefixes_subtract(const struct prefixes *a, const struct prefixes *b, struct prefixes *ret)
{
	struct array *array = array_new(a->n);
	size_t i = 0, j = 0, n = 0;

	if (!array)
		return -ENOMEM;
	while (i < a->n) {
		int order = compare_heads(a, i, b, j);

		if (order < 0)
			array->items[n++] = a->items[i];
		i += order <= 0;
		j += order >= 0;
	}
	hand_over(array, n, ret);
	return 0;
}

int prefixes_differences(
        const struct prefixes *old, const struct prefixes *new, prefixes_visitor visitor, void *userdata)
{
	size_t i = 0, j = 0;
	int r = 0;

	if (old->n == new->n && old->items == new->items)
		return 0;
	while (r >= 0 && (i < old->n || j < new->n)) {
		int order = compare_heads(old, i, new, j);

		if (order < 0)
			r = visitor(userdata, &old->items[i], false);
		else if (order > 0)
			r = visitor(userdata, &new->items[j], true);
		i += order <= 0;
		j += order >= 0;
	}
	return r < 0 ? r : 0;
}
