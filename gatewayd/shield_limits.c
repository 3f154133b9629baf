/*
 * Rate limits of listeners at prefilters: where they are enforced, and what was
 * over. Counters of a pair lie in the map of each interface; when a prefilter
 * goes, or no longer enforces a limit, what it has counted is kept here, so that
 * the sum does not fall. See shield.h.
 */
#include <string.h>

#include "gatewayd/base/array.h"
#include "gatewayd/shield_private.h"

static struct prefilter_over key_of(const struct prefilter_pair *pair)
{
	return (struct prefilter_over){ pair->listener, pair->limit };
}

static bool same_pair(const struct prefilter_over *a, const struct prefilter_over *b)
{
	return a->listener == b->listener && a->limit == b->limit;
}

static bool has_pair(const struct xdp_config *config, const struct prefilter_over *pair)
{
	for (size_t i = 0; config && i < config->limits.n; i++) {
		const struct prefilter_over one = key_of(&config->limits.pairs[i]);

		if (same_pair(&one, pair))
			return true;
	}
	return false;
}

static void keep(struct shield *shield, const struct prefilter_over *pair, const struct prefilter_count *count)
{
	size_t i = 0;

	while (i < shield->n_overs && !same_pair(&shield->overs[i].pair, pair))
		i++;
	if (i == shield->n_overs) {
		if (array_reserve(&shield->overs, &shield->overs_size, i + 1, sizeof(*shield->overs)) < 0)
			return;
		shield->overs[shield->n_overs++] = (struct shield_over){ .pair = *pair };
	}
	shield->overs[i].count.packets += count->packets;
	shield->overs[i].count.bytes += count->bytes;
}

void shield_keep_overs(struct shield_item *item, const struct xdp_config *next)
{
	for (size_t i = 0; item->now && i < item->now->limits.n; i++) {
		const struct prefilter_over pair = key_of(&item->now->limits.pairs[i]);
		struct prefilter_count count;

		if (has_pair(next, &pair))
			continue;
		count = kernel_xdp_over(item->xdp, &pair);
		kernel_xdp_forget_over(item->xdp, &pair);
		if (count.packets)
			keep(item->shield, &pair, &count);
	}
}

static bool is_named(const struct snapshot *snapshot, const struct prefilter_over *pair)
{
	const struct rows *rows = &snapshot->rows[RESOURCE_LISTENER];

	for (size_t i = 0; i < rows->n; i++) {
		const struct listener *listener = (const struct listener *)rows->items[i];

		if ((uint32_t)listener->row.id != pair->listener || !listener->enabled)
			continue;
		for (size_t k = 0; k < listener->rate_limits.n; k++) {
			const struct row *limit =
			        snapshot_find(snapshot, RESOURCE_RATE_LIMIT, listener->rate_limits.items[k]);

			if (limit && (uint32_t)limit->id == pair->limit)
				return true;
		}
	}
	return false;
}

void shield_forget_overs(struct shield *shield, const struct snapshot *snapshot)
{
	size_t n = 0;

	for (size_t i = 0; i < shield->n_overs; i++)
		if (is_named(snapshot, &shield->overs[i].pair))
			shield->overs[n++] = shield->overs[i];
	shield->n_overs = n;
}

void shield_overs(const struct shield *shield,
        void (*visit)(void *userdata, const struct prefilter_over *pair, const struct prefilter_count *count),
        void *userdata)
{
	for (size_t i = 0; i < shield->n_overs; i++)
		visit(userdata, &shield->overs[i].pair, &shield->overs[i].count);
	for (size_t i = 0; i < shield->n; i++) {
		const struct shield_item *item = shield->items[i];

		for (size_t k = 0; item->now && k < item->now->limits.n; k++) {
			const struct prefilter_over pair = key_of(&item->now->limits.pairs[k]);
			const struct prefilter_count count = kernel_xdp_over(item->xdp, &pair);

			if (count.packets)
				visit(userdata, &pair, &count);
		}
	}
}

static bool asks_for(const struct shield_item *item, uint32_t limit)
{
	for (size_t i = 0; item->now && i < item->now->limits.n; i++)
		if (item->now->limits.pairs[i].limit == limit)
			return true;
	return false;
}

json_t *shield_limited_at(const struct shield *shield, uint32_t limit, const char **ret_why)
{
	json_t *array = json_array();

	*ret_why = NULL;
	for (size_t i = 0; array && i < shield->n; i++) {
		const struct shield_item *item = shield->items[i];
		struct xdp_look look;

		if (item->now && item->now->limits.why_none)
			*ret_why = item->now->limits.why_none;
		if (!asks_for(item, limit))
			continue;
		kernel_xdp_look(item->xdp, &look);
		if (look.mode == XDP_MODE_NONE)
			*ret_why = "the prefilter of an interface of its listeners is not in force";
		else if (!item->limits_work)
			*ret_why = "an interface with a prefilter is no Ethernet, or carries VLANs, whose frames are "
			           "not its own";
		else if (json_array_append_new(array, json_string(item->interface)) < 0) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}
