/*
 * Cutting the ports of a cell into disjoint pieces; see cells.h and plan.h.
 *
 * Theory of operation: each port item of each contender becomes an item with
 * its width. Sorted by width and priority, two items that tie are neighbours
 * (of equal width, the later one starts within the earlier one), so ties cost
 * one pass. Sorted by port, exact ports go to the first of their port, and
 * ranges are swept from left to right with a heap of the ranges that are open:
 * its top, the narrowest, owns the stretch up to its end or the next start.
 *
 * A range of all ports that can be named is found like no ports at all, once
 * ties are ruled out: it still wins against a listener that names none, for it
 * is narrower by port 0, which comes with it. In an interval set each of many
 * addresses would have it, in the sixteen pieces that the kernel cuts it into.
 */
#include "rules/cells.h"

#include <errno.h>
#include <stdlib.h>

struct item {
	uint8_t kind;
	uint16_t lo, hi;
	const struct contender *owner;
};

struct heap {
	const struct item **items;
	size_t n;
};

static int compare(int64_t a, int64_t b)
{
	return (a > b) - (a < b);
}

/* Who of two items of one kind that both match wins: the narrower, then the lower priority number. Equal ones that
 * meet are of one listener, once ties are ruled out. */
static int compare_strength(const struct item *a, const struct item *b)
{
	int order = compare(a->hi - a->lo, b->hi - b->lo);

	if (order == 0)
		order = compare(a->owner->priority, b->owner->priority);
	return order;
}

static int compare_for_ties(const void *one, const void *other)
{
	const struct item *a = one, *b = other;
	int order = compare(a->kind, b->kind);

	if (order == 0)
		order = compare_strength(a, b);
	return order ? order : compare(a->lo, b->lo);
}

static int compare_for_sweep(const void *one, const void *other)
{
	const struct item *a = one, *b = other;
	int order = compare(a->kind, b->kind);

	if (order == 0)
		order = compare(a->lo, b->lo);
	return order ? order : compare_strength(a, b);
}

/* The pieces made so far. */
struct cutting {
	struct piece *pieces;
	const struct contender **owners; /* of each */
	size_t n_pieces;
};

static int items_of(struct contender *const *contenders, size_t n_contenders, struct item **ret, size_t *ret_n)
{
	struct item *items;
	size_t n = 0;

	for (size_t i = 0; i < n_contenders; i++)
		n += contenders[i]->n_ports ? contenders[i]->n_ports : 1;
	items = reallocarray(NULL, n ? n : 1, sizeof(*items));
	if (!items)
		return -ENOMEM;
	n = 0;
	for (size_t i = 0; i < n_contenders; i++) {
		const struct contender *owner = contenders[i];

		if (owner->n_ports == 0)
			items[n++] = (struct item){ MATCH_PORT_ANY, 0, UINT16_MAX, owner };
		for (size_t p = 0; p < owner->n_ports; p++) {
			struct port_range range = owner->ports[p];

			items[n++] = (struct item){ range.lo == range.hi ? MATCH_PORT_EXACT : MATCH_PORT_RANGE,
				range.lo, range.hi, owner };
		}
	}
	*ret = items;
	*ret_n = n;
	return 0;
}

static int find_tie(const struct item *items, size_t n, struct tie *ret)
{
	for (size_t i = 1; i < n; i++) {
		const struct item *a = &items[i - 1], *b = &items[i];

		if (a->kind != b->kind || compare_strength(a, b) != 0 || b->lo > a->hi || a->owner == b->owner)
			continue;
		*ret = (struct tie){ a->owner, b->owner, a->kind, b->lo, a->hi };
		return -EEXIST;
	}
	return 0;
}

static void find_all_ports(struct item *items, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (items[i].kind == MATCH_PORT_RANGE && items[i].lo == 1 && items[i].hi == UINT16_MAX)
			items[i].kind = MATCH_PORT_ANY;
}

static void heap_swap(struct heap *heap, size_t a, size_t b)
{
	const struct item *item = heap->items[a];

	heap->items[a] = heap->items[b];
	heap->items[b] = item;
}

static void heap_push(struct heap *heap, const struct item *item)
{
	size_t at = heap->n++;

	heap->items[at] = item;
	while (at > 0 && compare_strength(heap->items[at], heap->items[(at - 1) / 2]) < 0) {
		heap_swap(heap, at, (at - 1) / 2);
		at = (at - 1) / 2;
	}
}

static void heap_pop(struct heap *heap)
{
	size_t at = 0;

	heap->items[0] = heap->items[--heap->n];
	for (;;) {
		size_t child = 2 * at + 1;

		if (child + 1 < heap->n && compare_strength(heap->items[child + 1], heap->items[child]) < 0)
			child++;
		if (child >= heap->n || compare_strength(heap->items[at], heap->items[child]) <= 0)
			return;
		heap_swap(heap, at, child);
		at = child;
	}
}

/* Appends a piece, or lengthens the last one if it is the same owner's and ends right before. */
static void emit(struct cutting *cutting, uint8_t kind, uint32_t lo, uint32_t hi, const struct contender *owner)
{
	struct piece *last = cutting->n_pieces ? &cutting->pieces[cutting->n_pieces - 1] : NULL;

	if (last && kind == MATCH_PORT_RANGE && last->kind == kind && last->listener == owner->listener &&
	        last->verdict == owner->verdict && last->hi + 1U == lo) {
		last->hi = (uint16_t)hi;
		return;
	}
	cutting->owners[cutting->n_pieces] = owner;
	cutting->pieces[cutting->n_pieces++] = (struct piece){ .kind = kind,
		.lo = (uint16_t)lo,
		.hi = (uint16_t)hi,
		.verdict = owner->verdict,
		.listener = owner->listener,
		.limited = owner->limited };
}

/* A set of its own is for the ranges that a listener has wherever it is alone; what others cut out of them is as many
 * as the others are, and lies with their ranges. */
static bool is_own_range(const struct piece *piece, const struct contender *owner)
{
	for (size_t i = 0; owner->own_ranges && i < owner->n_pieces; i++)
		if (owner->pieces[i].own_range && owner->pieces[i].lo == piece->lo && owner->pieces[i].hi == piece->hi)
			return piece->kind == MATCH_PORT_RANGE;
	return false;
}

/* Exact ports, sorted: the strongest of each port stands first. */
static void take_first(struct cutting *cutting, const struct item *items, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (i == 0 || items[i].lo != items[i - 1].lo)
			emit(cutting, items[i].kind, items[i].lo, items[i].hi, items[i].owner);
}

static void take_strongest(struct cutting *cutting, const struct item *items, size_t n)
{
	const struct item *best = &items[0];

	for (size_t i = 1; i < n; i++)
		if (compare_strength(&items[i], best) < 0)
			best = &items[i];
	emit(cutting, MATCH_PORT_ANY, 0, UINT16_MAX, best->owner);
}

static void sweep(struct cutting *cutting, const struct item *items, size_t n, struct heap *heap)
{
	uint32_t at = 0, end;
	size_t i = 0;

	while (i < n || heap->n > 0) {
		if (heap->n == 0)
			at = items[i].lo;
		while (i < n && items[i].lo == at)
			heap_push(heap, &items[i++]);
		while (heap->n > 0 && heap->items[0]->hi < at)
			heap_pop(heap);
		if (heap->n == 0)
			continue;
		end = heap->items[0]->hi;
		if (i < n && items[i].lo <= end)
			end = items[i].lo - 1U;
		emit(cutting, MATCH_PORT_RANGE, at, end, heap->items[0]->owner);
		at = end + 1;
	}
}

static int cut_sorted(struct cutting *cutting, const struct item *items, size_t n)
{
	_cleanup_free_ const struct item **open = reallocarray(NULL, n + 1, sizeof(*open));
	_cleanup_free_ const struct contender **owners = reallocarray(NULL, 2 * n + 1, sizeof(*owners));
	size_t begin = 0, end;

	/* Each range's start and end begin at most one piece each. */
	cutting->pieces = reallocarray(NULL, 2 * n + 1, sizeof(*cutting->pieces));
	if (!open || !owners || !cutting->pieces)
		return -ENOMEM;
	cutting->owners = owners;
	for (; begin < n; begin = end) {
		for (end = begin; end < n && items[end].kind == items[begin].kind; end++)
			;
		if (items[begin].kind == MATCH_PORT_RANGE)
			sweep(cutting, items + begin, end - begin, &(struct heap){ open, 0 });
		else if (items[begin].kind == MATCH_PORT_ANY)
			take_strongest(cutting, items + begin, end - begin);
		else
			take_first(cutting, items + begin, end - begin);
	}
	for (size_t i = 0; i < cutting->n_pieces; i++)
		cutting->pieces[i].own_range = is_own_range(&cutting->pieces[i], owners[i]);
	cutting->owners = NULL;
	return 0;
}

int pieces_cut(struct contender *const *contenders, size_t n_contenders, struct piece **ret, size_t *ret_n,
        struct tie *ret_tie)
{
	_cleanup_free_ struct item *items = NULL;
	struct cutting cutting = { 0 };
	size_t n = 0;
	int r;

	r = items_of(contenders, n_contenders, &items, &n);
	if (r < 0)
		return r;
	qsort(items, n, sizeof(*items), compare_for_ties);
	r = find_tie(items, n, ret_tie);
	if (r < 0)
		return r;
	find_all_ports(items, n);
	qsort(items, n, sizeof(*items), compare_for_sweep);
	r = cut_sorted(&cutting, items, n);
	if (r < 0) {
		free(cutting.pieces);
		return r;
	}
	*ret = cutting.pieces;
	*ret_n = cutting.n_pieces;
	return 0;
}
