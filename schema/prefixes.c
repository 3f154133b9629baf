/* Large sets of prefixes as such; see prefixes.h, and prefixes_private.h for how they are kept. */
#include "schema/prefixes.h"

#include <errno.h>
#include <string.h>

#include "gatewayd/base/array.h"
#include "schema/prefixes_private.h"

/* ---- runs ---- */

static struct run *run_new(size_t capacity)
{
	struct run *run = malloc(sizeof(*run) + capacity * sizeof(struct prefix));

	if (run) {
		run->references = 1;
		run->n = 0;
	}
	return run;
}

static struct run *run_ref(struct run *run)
{
	run->references++;
	return run;
}

static void run_unref(struct run *run)
{
	if (--run->references == 0)
		free(run);
}

static void run_append(struct run *run, const struct prefix *items, size_t n)
{
	memcpy(run->items + run->n, items, n * sizeof(*items));
	run->n += (unsigned)n;
}

/* ---- making a set ---- */

/* The last run of the list, and this one behind it, as one. */
static int merge_last(struct maker *maker, const struct run *run)
{
	struct run *last = maker->list->runs[maker->list->n - 1].run, *both = run_new(last->n + run->n);

	if (!both)
		return -ENOMEM;
	run_append(both, last->items, last->n);
	run_append(both, run->items, run->n);
	maker->list->runs[maker->list->n - 1].run = both;
	run_unref(last);
	return 0;
}

static int reserve_run(struct maker *maker)
{
	size_t n = maker->list ? maker->list->n : 0, capacity = maker->capacity ? 2 * maker->capacity : 16;
	struct prefixes_list *list;

	if (n < maker->capacity)
		return 0;
	list = realloc(maker->list, sizeof(*list) + capacity * sizeof(list->runs[0]));
	if (!list)
		return -ENOMEM;
	list->n = n;
	maker->list = list;
	maker->capacity = capacity;
	return 0;
}

/* Takes over the reference, also on failure. */
static int append_run(struct maker *maker, struct run *run)
{
	struct prefixes_list *list = maker->list;
	int r;

	if (list && list->n > 0 && list->runs[list->n - 1].run->n + run->n <= RUN_MAX) {
		r = merge_last(maker, run);
		run_unref(run);
		return r;
	}
	r = reserve_run(maker);
	if (r < 0)
		run_unref(run);
	else
		maker->list->runs[maker->list->n++].run = run;
	return r;
}

/* The open run goes into the list, with no more memory than it needs. */
static int close_run(struct maker *maker)
{
	struct run *run = TAKE_PTR(maker->open), *fitting;

	if (!run)
		return 0;
	fitting = realloc(run, sizeof(*run) + run->n * sizeof(struct prefix));
	return append_run(maker, fitting ? fitting : run);
}

int maker_items(struct maker *maker, const struct prefix *items, size_t n)
{
	int r = 0;

	while (r == 0 && n > 0) {
		size_t now = n;

		if (!maker->open)
			maker->open = run_new(RUN_MAX);
		if (!maker->open)
			return -ENOMEM;
		if (now > RUN_MAX - maker->open->n)
			now = RUN_MAX - maker->open->n;
		run_append(maker->open, items, now);
		items += now;
		n -= now;
		if (maker->open->n == RUN_MAX)
			r = close_run(maker);
	}
	return r;
}

int maker_share(struct maker *maker, struct run *run)
{
	int r = close_run(maker);

	return r < 0 ? r : append_run(maker, run_ref(run));
}

int maker_finish(struct maker *maker, struct prefixes *ret)
{
	struct prefixes_list *list, *fitting;
	size_t n = 0;
	int r = close_run(maker);

	if (r < 0)
		return r;
	list = TAKE_PTR(maker->list);
	for (size_t i = 0; list && i < list->n; i++) {
		list->runs[i].start = n;
		n += list->runs[i].run->n;
	}
	*maker = (struct maker){ 0 };
	if (list) {
		list->references = 1;
		fitting = realloc(list, sizeof(*list) + list->n * sizeof(list->runs[0]));
		list = fitting ? fitting : list;
	}
	*ret = (struct prefixes){ list, n };
	return 0;
}

void maker_clear(struct maker *maker)
{
	for (size_t i = 0; maker->list && i < maker->list->n; i++)
		run_unref(maker->list->runs[i].run);
	free(maker->list);
	free(maker->open);
	*maker = (struct maker){ 0 };
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

/* Each of the sorted prefixes once. */
static int make_set(const struct prefix *items, size_t n, struct prefixes *ret)
{
	_cleanup_maker_ struct maker maker = { 0 };
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		if (i == 0 || prefix_compare(&items[i - 1], &items[i]) != 0)
			r = maker_items(&maker, &items[i], 1);
	return r < 0 ? r : maker_finish(&maker, ret);
}

int prefixes_finish(struct prefixes_builder *builder, struct prefixes *ret)
{
	int r;

	if (!is_sorted(builder->items, builder->n))
		qsort(builder->items, builder->n, sizeof(*builder->items), compare_items);
	r = make_set(builder->items, builder->n, ret);
	if (r == 0)
		prefixes_builder_clear(builder);
	return r;
}

/* ---- sharing ---- */

void prefixes_share(struct prefixes *to, const struct prefixes *from)
{
	if (from->list)
		from->list->references++;
	*to = *from;
}

void prefixes_clear(struct prefixes *prefixes)
{
	struct prefixes_list *list = prefixes->list;

	*prefixes = (struct prefixes){ 0 };
	if (!list || --list->references > 0)
		return;
	for (size_t i = 0; i < list->n; i++)
		run_unref(list->runs[i].run);
	free(list);
}

/* ---- reading ---- */

/* The run that has the prefix of this index, which must be one of the set's. */
static size_t run_of(const struct prefixes_list *list, size_t index)
{
	size_t low = 0, high = list->n;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (list->runs[middle].start <= index)
			low = middle;
		else
			high = middle;
	}
	return low;
}

const struct prefix *prefixes_at(const struct prefixes *set, size_t index)
{
	size_t at;

	if (index >= set->n)
		return NULL;
	at = run_of(set->list, index);
	return &set->list->runs[at].run->items[index - set->list->runs[at].start];
}

struct prefixes_cursor prefixes_from(const struct prefixes *set, size_t index)
{
	struct prefixes_cursor cursor = { .list = set->list };

	if (index >= set->n)
		return (struct prefixes_cursor){ 0 };
	cursor.run = run_of(set->list, index);
	cursor.at = index - set->list->runs[cursor.run].start;
	return cursor;
}

const struct prefix *prefixes_next(struct prefixes_cursor *cursor)
{
	const struct prefixes_list *list = cursor->list;

	if (!list || cursor->run == list->n)
		return NULL;
	if (cursor->at < list->runs[cursor->run].run->n)
		return &list->runs[cursor->run].run->items[cursor->at++];
	cursor->run++;
	cursor->at = 0;
	return prefixes_next(cursor);
}

/* Index of the first run that does not end before the prefix; n if all do. */
static size_t first_run(const struct prefixes_list *list, const struct prefix *prefix)
{
	size_t low = 0, high = list->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct run *run = list->runs[middle].run;

		if (prefix_compare(&run->items[run->n - 1], prefix) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

size_t prefixes_lower_bound(const struct prefixes *set, const struct prefix *prefix)
{
	size_t at = set->list ? first_run(set->list, prefix) : 0, low = 0, high;
	const struct run *run;

	if (!set->list || at == set->list->n)
		return set->n;
	run = set->list->runs[at].run;
	high = run->n;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (prefix_compare(&run->items[middle], prefix) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return set->list->runs[at].start + low;
}

bool prefixes_contain(const struct prefixes *set, const struct prefix *prefix)
{
	const struct prefix *found = prefixes_at(set, prefixes_lower_bound(set, prefix));

	return found && prefix_compare(found, prefix) == 0;
}

static bool is_canonical(const struct prefix *prefix)
{
	struct addr masked = prefix->addr;

	if ((masked.family != AF_INET && masked.family != AF_INET6) || prefix->length > addr_bits(masked.family))
		return false;
	addr_mask(&masked, prefix->length);
	return addr_equal(&masked, &prefix->addr);
}

bool prefixes_are_canonical(const struct prefixes *prefixes)
{
	struct prefixes_cursor cursor = prefixes_from(prefixes, 0);
	const struct prefix *prefix, *before = NULL;

	while ((prefix = prefixes_next(&cursor))) {
		if ((before && prefix_compare(before, prefix) >= 0) || !is_canonical(prefix))
			return false;
		before = prefix;
	}
	return true;
}
