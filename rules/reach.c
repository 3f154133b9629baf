/* Where a listener reaches; see reach.h. */
#include "rules/reach.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct prefixes *set_of(const struct snapshot *snapshot, const char *text)
{
	const struct row *row = snapshot_find(snapshot, RESOURCE_ADDRESS_SET, text + 1);

	return row ? &((const struct address_set *)row)->entries : NULL;
}

/* The prefixes and ranges that are written out. -EINVAL without a fault told. */
static int literals_of(const struct strings *texts, struct prefixes *ret)
{
	_cleanup_prefixes_builder_ struct prefixes_builder builder = { 0 };
	struct prefix split[PREFIX_RANGE_MAX];

	if (texts->n == 0) {
		split[0] = (struct prefix){ .addr.family = AF_INET };
		split[1] = (struct prefix){ .addr.family = AF_INET6 };
		if (prefixes_add(&builder, &split[0]) < 0 || prefixes_add(&builder, &split[1]) < 0)
			return -ENOMEM;
	}
	for (size_t i = 0; i < texts->n; i++) {
		int n = texts->items[i][0] == '@' ? 0 : prefix_range_parse(texts->items[i], split);

		for (int k = 0; k < n; k++)
			if (prefixes_add(&builder, &split[k]) < 0)
				return -ENOMEM;
		if (n < 0)
			return -EINVAL;
	}
	return prefixes_finish(&builder, ret);
}

/* Puts a set in; the only part of a list is shared, not copied. */
static int unite(struct prefixes *to, const struct prefixes *set)
{
	struct prefixes united = { 0 };
	int r = 0;

	if (set->n == 0)
		return 0;
	if (to->n == 0)
		prefixes_share(&united, set);
	else
		r = prefixes_unite(to, set, &united);
	if (r < 0)
		return r;
	prefixes_clear(to);
	*to = united;
	return 0;
}

static int list_of(const struct listener *listener, const char *field, const struct strings *texts,
        const struct snapshot *snapshot, struct errs *errs, struct prefixes *ret)
{
	_cleanup_prefixes_ struct prefixes list = { 0 };
	char pointer[128];
	int r = literals_of(texts, &list);

	snprintf(pointer, sizeof(pointer), "/listeners/%s/%s", listener->name, field);
	if (r == -EINVAL)
		errs_add(errs, pointer, "invalid", "listener \"%s\": an address is not valid", listener->name);
	for (size_t i = 0; r == 0 && i < texts->n; i++) {
		const struct prefixes *set;

		if (texts->items[i][0] != '@')
			continue;
		set = set_of(snapshot, texts->items[i]);
		if (!set)
			errs_add(errs, pointer, "unknown_reference", "listener \"%s\": there is no address set \"%s\"",
			        listener->name, texts->items[i] + 1);
		r = set ? unite(&list, set) : -EINVAL;
	}
	if (r < 0)
		return r;
	*ret = list;
	list = (struct prefixes){ 0 };
	return 0;
}

int reach_entries(const struct strings *texts, const struct snapshot *snapshot, struct prefixes *ret)
{
	_cleanup_prefixes_ struct prefixes list = { 0 };
	int r = texts->n > 0 ? literals_of(texts, &list) : 0;

	for (size_t i = 0; r == 0 && i < texts->n; i++) {
		const struct prefixes *set;

		if (texts->items[i][0] != '@')
			continue;
		set = set_of(snapshot, texts->items[i]);
		r = set ? unite(&list, set) : -ENOENT;
	}
	if (r < 0)
		return r;
	*ret = list;
	list = (struct prefixes){ 0 };
	return 0;
}

int reach_of(const struct listener *listener, const struct snapshot *snapshot, struct errs *errs, struct reach *ret)
{
	struct reach reach = { 0 };
	int r = 0;

	if (listener->enabled)
		r = list_of(listener, "destinations", &listener->destinations, snapshot, errs, &reach.dst);
	if (listener->enabled && r == 0)
		r = list_of(listener, "sources", &listener->sources, snapshot, errs, &reach.src);
	if (r < 0) {
		reach_clear(&reach);
		return r;
	}
	*ret = reach;
	return 0;
}

void reach_clear(struct reach *reach)
{
	prefixes_clear(&reach->dst);
	prefixes_clear(&reach->src);
}

/* How many of the list are of IPv4; they stand first. */
static size_t count_v4(const struct prefixes *list)
{
	static const struct prefix first_v6 = { .addr = { .family = AF_INET6 } };

	return prefixes_lower_bound(list, &first_v6);
}

size_t reach_count(const struct reach *reach, const struct listener *listener)
{
	size_t dst = count_v4(&reach->dst), src = count_v4(&reach->src);
	size_t interfaces = listener->interfaces.n ? listener->interfaces.n : 1;

	/* Lists have at most some millions of entries: no overflow. */
	return (dst * src + (reach->dst.n - dst) * (reach->src.n - src)) * interfaces;
}

/* How many lengths the prefixes from first to n have. */
static size_t count_lengths(const struct prefixes *list, size_t first, size_t n)
{
	struct prefixes_cursor cursor = prefixes_from(list, first);
	uint64_t seen[3] = { 0 };
	size_t count = 0;

	for (size_t i = first; i < n; i++) {
		unsigned length = prefixes_next(&cursor)->length;

		seen[length / 64] |= UINT64_C(1) << length % 64;
	}
	for (size_t i = 0; i < ARRAY_SIZE(seen); i++)
		count += (size_t)__builtin_popcountll(seen[i]);
	return count;
}

size_t reach_shapes(const struct reach *reach)
{
	size_t dst = count_v4(&reach->dst), src = count_v4(&reach->src);

	return count_lengths(&reach->dst, 0, dst) * count_lengths(&reach->src, 0, src) +
	       count_lengths(&reach->dst, dst, reach->dst.n) * count_lengths(&reach->src, src, reach->src.n);
}

/* One walk over a product. */
struct walk {
	const struct listener *listener;
	bool added;
	reach_visitor visitor;
	void *userdata;
};

static int visit_pair(const struct walk *walk, const struct prefix *dst, const struct prefix *src)
{
	const struct strings *interfaces = &walk->listener->interfaces;
	struct match_key key = { .shape = { .protocol = walk->listener->protocol == PROTOCOL_TCP ? IPPROTO_TCP
		                                                                                 : IPPROTO_UDP,
		                         .family = dst->addr.family,
		                         .dst_len = dst->length,
		                         .src_len = src->length,
		                         .interface = interfaces->n > 0 },
		.dst = dst->addr,
		.src = src->addr };
	int r = 0;

	if (interfaces->n == 0)
		return walk->visitor(walk->userdata, &key, walk->added);
	for (size_t i = 0; r >= 0 && i < interfaces->n; i++) {
		/* The rest of the name is zero; that it fits was seen to by contender_new. */
		strncpy(key.interface, interfaces->items[i], sizeof(key.interface) - 1);
		r = walk->visitor(walk->userdata, &key, walk->added);
	}
	return r;
}

static int visit_product(const struct walk *walk, const struct prefixes *dst, const struct prefixes *src)
{
	size_t dst_v4 = count_v4(dst), src_v4 = count_v4(src);
	struct prefixes_cursor at = prefixes_from(dst, 0);
	int r = 0;

	for (size_t d = 0; r >= 0 && d < dst->n && src->n > 0; d++) {
		size_t s = d < dst_v4 ? 0 : src_v4, end = d < dst_v4 ? src_v4 : src->n;
		struct prefixes_cursor other = prefixes_from(src, s);
		const struct prefix *prefix = prefixes_next(&at);

		for (; r >= 0 && s < end; s++)
			r = visit_pair(walk, prefix, prefixes_next(&other));
	}
	return r < 0 ? r : 0;
}

int reach_visit(
        const struct reach *reach, const struct listener *listener, bool added, reach_visitor visitor, void *userdata)
{
	struct walk walk = { listener, added, visitor, userdata };

	return visit_product(&walk, &reach->dst, &reach->src);
}

/* What only one of two lists has, and what both have. */
struct split {
	struct prefixes removed, added, kept;
};

static void split_clear(struct split *split)
{
	prefixes_clear(&split->removed);
	prefixes_clear(&split->added);
	prefixes_clear(&split->kept);
}

static int split_lists(const struct prefixes *old, const struct prefixes *new, struct split *ret)
{
	int r = 0;

	if (old->list == new->list) {
		prefixes_share(&ret->kept, old);
		return 0;
	}
	r = prefixes_subtract(old, new, &ret->removed);
	if (r == 0)
		r = prefixes_subtract(new, old, &ret->added);
	if (r == 0)
		r = prefixes_subtract(old, &ret->removed, &ret->kept);
	return r;
}

int reach_differences(const struct reach *old, const struct reach *new, const struct listener *listener,
        reach_visitor visitor, void *userdata)
{
	struct walk removed = { listener, false, visitor, userdata }, added = { listener, true, visitor, userdata };
	_cleanup_(split_clear) struct split dst = { 0 }, src = { 0 };
	int r = split_lists(&old->dst, &new->dst, &dst);

	if (r == 0)
		r = split_lists(&old->src, &new->src, &src);
	if (r == 0)
		r = visit_product(&removed, &dst.removed, &old->src);
	if (r == 0)
		r = visit_product(&removed, &dst.kept, &src.removed);
	if (r == 0)
		r = visit_product(&added, &dst.added, &new->src);
	if (r == 0)
		r = visit_product(&added, &dst.kept, &src.added);
	return r;
}

static bool any_set(const struct strings *texts, const struct snapshot *from, const struct snapshot *to)
{
	for (size_t i = 0; i < texts->n; i++) {
		const char *text = texts->items[i];

		if (text[0] == '@' && (!from || snapshot_find(from, RESOURCE_ADDRESS_SET, text + 1) !=
		                                        snapshot_find(to, RESOURCE_ADDRESS_SET, text + 1)))
			return true;
	}
	return false;
}

bool reach_has_sets(const struct listener *listener)
{
	return any_set(&listener->sources, NULL, NULL) || any_set(&listener->destinations, NULL, NULL);
}

bool reach_sets_differ(const struct listener *listener, const struct snapshot *from, const struct snapshot *to)
{
	return any_set(&listener->sources, from, to) || any_set(&listener->destinations, from, to);
}
