/* Shared sorted arrays of prefixes; see prefixes.h. */
#include "schema/prefixes.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "gatewayd/base/array.h"

/* Prefixes are compared as bytes. */
static_assert(sizeof(struct prefix) == 1 + 16 + 1, "no padding");

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
	if (array_reserve(&builder->items, &builder->capacity, builder->n + 1, sizeof(*builder->items)) < 0)
		return -ENOMEM;
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
	return a->n == 0 || memcmp(a->items, b->items, a->n * sizeof(*a->items)) == 0;
}

size_t prefixes_lower_bound(const struct prefixes *set, const struct prefix *prefix)
{
	size_t low = 0, high = set->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (prefix_compare(&set->items[middle], prefix) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
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

/*
 * Walks over two sorted sets. Mostly the sets are large and differ little, so
 * they are walked in runs: what both have is skipped by comparing bytes in
 * blocks, what only one has by searching for where the other's head belongs.
 */
struct walk {
	const struct prefixes *a, *b;
	size_t i, j;
};

/* Items compared at once. */
#define BLOCK 64U

/* Takes what both have from here on: how many. */
static size_t take_common(struct walk *walk)
{
	const struct prefix *a = walk->a->items + walk->i, *b = walk->b->items + walk->j;
	size_t left_a = walk->a->n - walk->i, left_b = walk->b->n - walk->j, n = left_a < left_b ? left_a : left_b;
	size_t run = 0;

	while (run + BLOCK <= n && memcmp(a + run, b + run, BLOCK * sizeof(*a)) == 0)
		run += BLOCK;
	while (run < n && memcmp(a + run, b + run, sizeof(*a)) == 0)
		run++;
	walk->i += run;
	walk->j += run;
	return run;
}

/* How many of the set, from `at` on, stand before the head of the other; all the rest if that is exhausted. */
static size_t run_before(const struct prefixes *set, size_t at, const struct prefixes *other, size_t head)
{
	size_t step = 1, lo = at, hi;

	if (head == other->n)
		return set->n - at;
	while (lo + step < set->n && prefix_compare(&set->items[lo + step], &other->items[head]) < 0) {
		lo += step;
		step *= 2;
	}
	hi = lo + step < set->n ? lo + step : set->n;
	while (lo < hi) {
		size_t middle = lo + (hi - lo) / 2;

		if (prefix_compare(&set->items[middle], &other->items[head]) < 0)
			lo = middle + 1;
		else
			hi = middle;
	}
	return lo - at;
}

/* Takes what only a has, and stands before the head of b. */
static size_t take_a(struct walk *walk)
{
	size_t run = run_before(walk->a, walk->i, walk->b, walk->j);

	walk->i += run;
	return run;
}

static size_t take_b(struct walk *walk)
{
	size_t run = run_before(walk->b, walk->j, walk->a, walk->i);

	walk->j += run;
	return run;
}

/* Appends the run that ends before `end`. */
static void append_run(struct array *array, size_t *n, const struct prefix *end, size_t run)
{
	if (run > 0)
		memcpy(array->items + *n, end - run, run * sizeof(*end));
	*n += run;
}

int prefixes_unite(const struct prefixes *a, const struct prefixes *b, struct prefixes *ret)
{
	struct array *array = array_new(a->n + b->n);
	struct walk walk = { a, b, 0, 0 };
	size_t n = 0, run;

	if (!array)
		return -ENOMEM;
	while (walk.i < a->n || walk.j < b->n) {
		run = take_common(&walk);
		append_run(array, &n, a->items + walk.i, run);
		run = take_a(&walk);
		append_run(array, &n, a->items + walk.i, run);
		run = take_b(&walk);
		append_run(array, &n, b->items + walk.j, run);
	}
	hand_over(array, n, ret);
	return 0;
}

int prefixes_subtract(const struct prefixes *a, const struct prefixes *b, struct prefixes *ret)
{
	struct array *array = array_new(a->n);
	struct walk walk = { a, b, 0, 0 };
	size_t n = 0, run;

	if (!array)
		return -ENOMEM;
	while (walk.i < a->n) {
		(void)take_common(&walk);
		run = take_a(&walk);
		append_run(array, &n, a->items + walk.i, run);
		(void)take_b(&walk);
	}
	hand_over(array, n, ret);
	return 0;
}

static int visit_run(const struct prefix *end, size_t run, bool added, prefixes_visitor visitor, void *userdata)
{
	int r = 0;

	for (; r >= 0 && run > 0; run--)
		r = visitor(userdata, end - run, added);
	return r;
}

int prefixes_differences(
        const struct prefixes *old, const struct prefixes *new, prefixes_visitor visitor, void *userdata)
{
	struct walk walk = { old, new, 0, 0 };
	int r = 0;

	if (old->n == new->n && old->items == new->items)
		return 0;
	while (r >= 0 && (walk.i < old->n || walk.j < new->n)) {
		size_t run;

		(void)take_common(&walk);
		run = take_a(&walk);
		r = visit_run(old->items + walk.i, run, false, visitor, userdata);
		if (r < 0)
			break;
		run = take_b(&walk);
		r = visit_run(new->items + walk.j, run, true, visitor, userdata);
	}
	return r < 0 ? r : 0;
}
