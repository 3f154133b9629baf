/*
 * Two sets of prefixes beside each other; see prefixes.h. Mostly they are
 * large and differ little, so they are walked in segments: a run that both
 * have is passed by its address, what is equal otherwise by comparing bytes in
 * blocks, and what only one has by searching for where the other's head
 * belongs.
 */
#include "schema/prefixes_private.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* Prefixes are compared as bytes. */
static_assert(sizeof(struct prefix) == 1 + 16 + 1, "no padding");

/* Items compared at once. */
#define BLOCK 64U

/* A place in a set. */
struct side {
	const struct prefixes_list *list; /* NULL: nothing is left */
	size_t index, at;                 /* of the run; in it */
};

struct walk {
	struct side a, b;
};

/* Prefixes in a row, all of one run. */
struct segment {
	enum { SEGMENT_BOTH, SEGMENT_A, SEGMENT_B } kind;
	struct run *run; /* of b only for what only b has */
	size_t at, n;
};

static struct side begin(const struct prefixes *set)
{
	return (struct side){ .list = set->list };
}

static struct run *run_of(const struct side *side)
{
	return side->list->runs[side->index].run;
}

static void advance(struct side *side, size_t n)
{
	side->at += n;
	if (side->at < run_of(side)->n)
		return;
	side->at = 0;
	if (++side->index == side->list->n)
		side->list = NULL;
}

static const struct prefix *head(const struct side *side)
{
	return run_of(side)->items + side->at;
}

static size_t left(const struct side *side)
{
	return run_of(side)->n - side->at;
}

/* How many both have from here on, as far as neither's run ends. */
static size_t count_common(const struct walk *walk)
{
	const struct prefix *a = head(&walk->a), *b = head(&walk->b);
	size_t n = left(&walk->a) < left(&walk->b) ? left(&walk->a) : left(&walk->b), count = 0;

	if (a == b)
		return n;
	while (count + BLOCK <= n && memcmp(a + count, b + count, BLOCK * sizeof(*a)) == 0)
		count += BLOCK;
	while (count < n && memcmp(a + count, b + count, sizeof(*a)) == 0)
		count++;
	return count;
}

/* How many of the run, from here on, stand before the head of the other; all the rest if that has none. */
static size_t count_before(const struct side *side, const struct side *other)
{
	const struct prefix *items = head(side);
	size_t n = left(side), step = 1, low = 0, high;

	if (!other->list)
		return n;
	while (low + step < n && prefix_compare(&items[low + step], head(other)) < 0) {
		low += step;
		step *= 2;
	}
	high = low + step < n ? low + step : n;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (prefix_compare(&items[middle], head(other)) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* What comes next. False at the end of both. */
static bool next_segment(struct walk *walk, struct segment *ret)
{
	size_t n = walk->a.list && walk->b.list ? count_common(walk) : 0;

	if (!walk->a.list && !walk->b.list)
		return false;
	if (n > 0) {
		*ret = (struct segment){ SEGMENT_BOTH, run_of(&walk->a), walk->a.at, n };
		advance(&walk->a, n);
		advance(&walk->b, n);
		return true;
	}
	if (walk->a.list)
		n = count_before(&walk->a, &walk->b);
	if (n > 0) {
		*ret = (struct segment){ SEGMENT_A, run_of(&walk->a), walk->a.at, n };
		advance(&walk->a, n);
		return true;
	}
	n = count_before(&walk->b, &walk->a);
	*ret = (struct segment){ SEGMENT_B, run_of(&walk->b), walk->b.at, n };
	advance(&walk->b, n);
	return true;
}

static int append(struct maker *maker, const struct segment *segment)
{
	if (segment->n == segment->run->n)
		return maker_share(maker, segment->run);
	return maker_items(maker, segment->run->items + segment->at, segment->n);
}

bool prefixes_equal(const struct prefixes *a, const struct prefixes *b)
{
	struct walk walk = { begin(a), begin(b) };
	struct segment segment;

	if (a->n != b->n || a->list == b->list)
		return a->n == b->n;
	while (next_segment(&walk, &segment))
		if (segment.kind != SEGMENT_BOTH)
			return false;
	return true;
}

int prefixes_unite(const struct prefixes *a, const struct prefixes *b, struct prefixes *ret)
{
	_cleanup_maker_ struct maker maker = { 0 };
	struct walk walk = { begin(a), begin(b) };
	struct segment segment;
	int r = 0;

	while (r == 0 && next_segment(&walk, &segment))
		r = append(&maker, &segment);
	return r < 0 ? r : maker_finish(&maker, ret);
}

int prefixes_subtract(const struct prefixes *a, const struct prefixes *b, struct prefixes *ret)
{
	_cleanup_maker_ struct maker maker = { 0 };
	struct walk walk = { begin(a), begin(b) };
	struct segment segment;
	int r = 0;

	while (r == 0 && walk.a.list && next_segment(&walk, &segment))
		if (segment.kind == SEGMENT_A)
			r = append(&maker, &segment);
	return r < 0 ? r : maker_finish(&maker, ret);
}

int prefixes_differences(
        const struct prefixes *old, const struct prefixes *new, prefixes_visitor visitor, void *userdata)
{
	struct walk walk = { begin(old), begin(new) };
	struct segment segment;
	int r = 0;

	if (old->list == new->list)
		return 0;
	while (r >= 0 && next_segment(&walk, &segment))
		for (size_t i = 0; segment.kind != SEGMENT_BOTH && r >= 0 && i < segment.n; i++)
			r = visitor(userdata, &segment.run->items[segment.at + i], segment.kind == SEGMENT_B);
	return r < 0 ? r : 0;
}
