/* Compiling one listener: its verdict, its ports, and the cells it takes part in; see cells.h. */
#include "rules/cells.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct expansion {
	struct prefix *items;
	size_t n, size;
};

static void expansion_clear(struct expansion *prefixes)
{
	free(prefixes->items);
}

static enum verdict verdict_of(const struct listener *listener)
{
	switch ((enum action)listener->action) {
	case ACTION_RELAY:
		return listener->on_worker_down == ON_WORKER_DOWN_DIRECT ? VERDICT_RELAY_DIRECT : VERDICT_RELAY;
	case ACTION_REJECT:
		return VERDICT_REJECT;
	case ACTION_BYPASS:
		return VERDICT_BYPASS;
	case ACTION_DROP:
	case ACTION_WORDS:
		break;
	}
	return VERDICT_DROP;
}

static int parse_prefixes(const struct strings *texts, struct expansion *ret)
{
	struct prefix split[PREFIX_RANGE_MAX];

	for (size_t i = 0; i < texts->n; i++) {
		int n = prefix_range_parse(texts->items[i], split);

		if (n < 0)
			return n;
		if (array_reserve(&ret->items, &ret->size, ret->n + (size_t)n, sizeof(*ret->items)) < 0)
			return -ENOMEM;
		for (int k = 0; k < n; k++)
			ret->items[ret->n++] = split[k];
	}
	return 0;
}

static int parse_ports(const struct strings *texts, struct contender *contender)
{
	contender->ports = calloc(texts->n ? texts->n : 1, sizeof(*contender->ports));
	if (!contender->ports)
		return -ENOMEM;
	for (size_t i = 0; i < texts->n; i++) {
		int r = port_range_parse(texts->items[i], &contender->ports[i]);

		if (r < 0)
			return r;
	}
	contender->n_ports = texts->n;
	return 0;
}

/* The prefixes of one family out of `all`; "any" for an empty list, none if the list does not admit the family. */
static int of_family(const struct expansion *all, uint8_t family, struct expansion *ret)
{
	if (all->n == 0) {
		if (array_reserve(&ret->items, &ret->size, 1, sizeof(*ret->items)) < 0)
			return -ENOMEM;
		ret->items[ret->n++] = (struct prefix){ .addr.family = family, .length = 0 };
	}
	for (size_t i = 0; i < all->n; i++) {
		if (all->items[i].addr.family != family)
			continue;
		if (array_reserve(&ret->items, &ret->size, ret->n + 1, sizeof(*ret->items)) < 0)
			return -ENOMEM;
		ret->items[ret->n++] = all->items[i];
	}
	return 0;
}

static int add_cell(struct cell_index *index, struct contender *contender, const struct match_key *key)
{
	struct cell *cell;
	int r = cells_get(index, key, &cell);

	if (r == 0)
		contender->cells[contender->n_cells++] = cell;
	return r;
}

static int add_pair(struct cell_index *index, const struct listener *listener, struct contender *contender,
        const struct prefix *dst, const struct prefix *src)
{
	struct match_key key = { .shape = { .protocol = listener->protocol == PROTOCOL_TCP ? IPPROTO_TCP : IPPROTO_UDP,
		                         .family = dst->addr.family,
		                         .dst_len = dst->length,
		                         .src_len = src->length,
		                         .interface = listener->interfaces.n > 0 },
		.dst = dst->addr,
		.src = src->addr };
	int r = 0;

	if (listener->interfaces.n == 0)
		return add_cell(index, contender, &key);
	for (size_t i = 0; r == 0 && i < listener->interfaces.n; i++) {
		const char *name = listener->interfaces.items[i];
		size_t length = strlen(name);

		if (length == 0 || length >= IFNAMSIZ)
			return -EINVAL;
		memset(key.interface, 0, sizeof(key.interface));
		memcpy(key.interface, name, length);
		r = add_cell(index, contender, &key);
	}
	return r;
}

/* Room for `more` cells, within the limit. -E2BIG beyond it. */
static int reserve_cells(struct contender *contender, size_t *size, size_t dst, size_t src, size_t interfaces)
{
	size_t per_dst = src * (interfaces ? interfaces : 1);

	if (dst > 0 && per_dst > (PLAN_CELLS_MAX - contender->n_cells) / dst)
		return -E2BIG;
	return array_reserve(&contender->cells, size, contender->n_cells + dst * per_dst, sizeof(struct cell *));
}

static int add_family(struct cell_index *index, const struct listener *listener, struct contender *contender,
        size_t *size, const struct expansion *destinations, const struct expansion *sources, uint8_t family)
{
	_cleanup_(expansion_clear) struct expansion dst = { 0 }, src = { 0 };
	int r;

	if (of_family(destinations, family, &dst) < 0 || of_family(sources, family, &src) < 0)
		return -ENOMEM;
	r = reserve_cells(contender, size, dst.n, src.n, listener->interfaces.n);
	for (size_t d = 0; r == 0 && d < dst.n; d++)
		for (size_t s = 0; r == 0 && s < src.n; s++)
			r = add_pair(index, listener, contender, &dst.items[d], &src.items[s]);
	return r;
}

static int expand(struct cell_index *index, const struct listener *listener, struct contender *contender)
{
	_cleanup_(expansion_clear) struct expansion destinations = { 0 }, sources = { 0 };
	size_t size = 0;
	int r;

	r = parse_ports(&listener->ports, contender);
	if (r == 0)
		r = parse_prefixes(&listener->destinations, &destinations);
	if (r == 0)
		r = parse_prefixes(&listener->sources, &sources);
	if (r == 0)
		r = add_family(index, listener, contender, &size, &destinations, &sources, AF_INET);
	if (r == 0)
		r = add_family(index, listener, contender, &size, &destinations, &sources, AF_INET6);
	return r;
}

/* Cells that were made for a listener that is refused after all must not stay behind. */
static void drop_unused_cells(struct cell_index *index, struct contender *contender)
{
	for (size_t i = 0; i < contender->n_cells; i++) {
		struct cell *cell = contender->cells[i];
		bool seen = false;

		for (size_t k = 0; k < i && !seen; k++)
			seen = contender->cells[k] == cell;
		if (!seen && !cell->staged && cell->now.n_contenders == 0)
			cells_remove(index, cell);
	}
	contender->n_cells = 0;
}

int contender_new(struct cell_index *index, struct row *row, struct errs *errs, struct contender **ret)
{
	const struct listener *listener = (const struct listener *)row;
	struct contender *contender = calloc(1, sizeof(*contender));
	int r = 0;

	if (!contender)
		return -ENOMEM;
	*contender = (struct contender){ .row = row_ref(row),
		.name = listener->name,
		.priority = listener->priority,
		.listener = (uint32_t)row->id,
		.verdict = verdict_of(listener) };
	if (listener->enabled)
		r = expand(index, listener, contender);
	if (r == 0) {
		*ret = contender;
		return 0;
	}
	drop_unused_cells(index, contender);
	if (r == -E2BIG)
		errs_add(errs, "", "too_complex",
		        "listener \"%s\": destinations, sources and interfaces multiply to more than %d combinations",
		        listener->name, PLAN_CELLS_MAX);
	else if (r != -ENOMEM)
		errs_add(errs, "", "invalid", "listener \"%s\": an address, port or interface is not valid",
		        listener->name);
	contender_free(contender);
	return r == -ENOMEM ? r : -EINVAL;
}

void contender_free(struct contender *contender)
{
	if (!contender)
		return;
	row_unref(contender->row);
	free(contender->ports);
	free(contender->cells);
	free(contender);
}
