/* Rate limits at prefilters; see xdp_limits.h. */
#include "rules/xdp_limits.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/array.h"
#include "rules/limits.h"
#include "rules/render_xdp.h"

static const char of_tcp[] =
        "a listener of TCP names it: segments are merged before nft counts them, a prefilter would "
        "count each";
static const char behind[] = "a listener names it behind limits of packets or bytes that are enforced in nft, and come "
                             "first";
static const char too_many[] = "a listener names it behind too many others that prefilters enforce";

/* What the limit itself says; NULL: nothing against it. */
static const char *why_not(const struct rate_limit *limit)
{
	if (limit->metric != METRIC_PACKETS)
		return "";
	if (limit->key != LIMIT_KEY_SOURCE && limit->key != LIMIT_KEY_SOURCE_PREFIX)
		return "all of a listener's packets share it, whatever interface they come in at";
	if (limit->mode == LIMIT_MODE_SHADOW)
		return "with mode shadow nothing is dropped";
	if (limit->action == LIMIT_ACTION_BAN || limit->escalate_after > 0)
		return "who is over it is banned, by what nft sees of his excess";
	return limit->action == LIMIT_ACTION_DROP ? NULL : "";
}

static const struct rate_limit *limit_at(
        const struct snapshot *snapshot, const struct listener *listener, size_t i, size_t *ret_place)
{
	const char *name = listener->rate_limits.items[i];
	const struct row *row = snapshot_find(snapshot, RESOURCE_RATE_LIMIT, name);

	if (row)
		*ret_place = snapshot_after(snapshot, RESOURCE_RATE_LIMIT, name) - 1;
	return (const struct rate_limit *)row;
}

/* What a listener has against limits that it names. Whether anything has changed. */
static bool strike(const struct snapshot *snapshot, const struct listener *listener, const char **why)
{
	bool nft = false, changed = false;
	size_t place, n = 0;

	for (size_t i = 0; i < listener->rate_limits.n; i++) {
		const struct rate_limit *limit = limit_at(snapshot, listener, i, &place);

		if (!limit || !limits_is_of_packets(limit) || limits_is_of_flows(limit))
			continue;
		if (!why[place] && (listener->protocol != PROTOCOL_UDP || nft || n == PREFILTER_PAIRS_OF_ONE)) {
			why[place] = listener->protocol != PROTOCOL_UDP ? of_tcp : nft ? behind : too_many;
			changed = true;
		}
		n++;
		nft |= why[place] != NULL;
	}
	return changed;
}

const char **xdp_limits_plan(const struct snapshot *snapshot)
{
	const struct rows *rows = &snapshot->rows[RESOURCE_RATE_LIMIT], *listeners = &snapshot->rows[RESOURCE_LISTENER];
	const char **why = calloc(rows->n + 1, sizeof(*why));
	bool changed = why != NULL;

	for (size_t i = 0; why && i < rows->n; i++)
		why[i] = why_not((const struct rate_limit *)rows->items[i]);
	/* One that is struck out may strike out those behind it. */
	while (changed) {
		changed = false;
		for (size_t i = 0; i < listeners->n; i++) {
			const struct listener *listener = (const struct listener *)listeners->items[i];

			if (listener->enabled && listener->rate_limits.n > 0)
				changed |= strike(snapshot, listener, why);
		}
	}
	return why;
}

/* --- of one interface --- */

struct making {
	const struct snapshot *snapshot;
	const char *const *why;
	struct xdp_limits *limits;
	size_t size;
	struct relayed_owner *owners;
	size_t n_owners;
};

static struct prefilter_pair make_pair(const struct rate_limit *limit, const struct listener *listener)
{
	struct prefilter_pair pair = { .limit = (uint32_t)limit->row.id,
		.listener = (uint32_t)listener->row.id,
		.number = limits_number(limit),
		.length_v4 = (uint8_t)limits_length(limit, 4),
		.length_v6 = (uint8_t)limits_length(limit, 6) };

	render_xdp_rate(
	        limit->rate, limit->per == PER_MINUTE ? 60 : 1, limits_burst(limit), &pair.interval, &pair.depth);
	return pair;
}

static int add_listener(struct making *making, const struct listener *listener)
{
	struct xdp_limits *limits = making->limits;
	size_t first = limits->n, place;

	for (size_t i = 0; i < listener->rate_limits.n; i++) {
		const struct rate_limit *limit = limit_at(making->snapshot, listener, i, &place);

		if (!limit || making->why[place])
			continue;
		if (limits->n == PREFILTER_PAIRS_MAX)
			break;
		if (array_reserve(&limits->pairs, &making->size, limits->n + 1, sizeof(*limits->pairs)) < 0)
			return -ENOMEM;
		limits->pairs[limits->n] = make_pair(limit, listener);
		if (limits->n++ > first)
			limits->pairs[limits->n - 2].more = 1;
	}
	if (limits->n > first)
		making->owners[making->n_owners++] =
		        (struct relayed_owner){ (uint32_t)listener->row.id, (uint32_t)first + 1 };
	return 0;
}

static int compare_owners(const void *a, const void *b)
{
	const struct relayed_owner *one = a, *other = b;

	return (one->listener > other->listener) - (one->listener < other->listener);
}

static int add_listeners(struct making *making, const char *interface)
{
	const struct rows *rows = &making->snapshot->rows[RESOURCE_LISTENER];
	int r = 0;

	for (size_t i = 0; i < rows->n && r == 0; i++) {
		const struct listener *listener = (const struct listener *)rows->items[i];

		if (listener->enabled && listener->protocol == PROTOCOL_UDP && relayed_comes_in_at(listener, interface))
			r = add_listener(making, listener);
	}
	if (making->n_owners > 1)
		qsort(making->owners, making->n_owners, sizeof(*making->owners), compare_owners);
	return r;
}

/* The ports of entries that have an owner. */
static void note_ports(const struct relayed *relayed, uint64_t *ports)
{
	for (size_t i = 0; i < relayed->n; i++) {
		const struct relayed_entry *entry = &relayed->items[i];
		bool is_v4 = entry->family == AF_INET;
		unsigned way = is_v4 ? entry->v4.way : entry->v6.way;
		const __u8 *bytes = is_v4 ? entry->v4.port : entry->v6.port;
		unsigned bits = is_v4 ? PREFILTER_RELAYED_BITS(v4) - entry->v4.length
		                      : PREFILTER_RELAYED_BITS(v6) - entry->v6.length;
		unsigned first = (unsigned)bytes[0] << 8 | bytes[1];

		if (way < PREFILTER_WAYS_MAX || entry->value == 0)
			continue;
		for (unsigned port = first; port < first + (1U << bits); port++)
			ports[port >> 6] |= UINT64_C(1) << (port & 63);
	}
}

static int add_entries(
        struct making *making, const char *interface, struct prefilter_params *params, struct relayed *relayed)
{
	struct prefilter_params before = *params;
	int r = relayed_add_limited(making->snapshot, interface, making->owners, making->n_owners, params, relayed);

	if (r == 0) {
		params->limits = 1;
		note_ports(relayed, making->limits->ports);
		return 0;
	}
	*params = before;
	xdp_limits_clear(making->limits);
	making->limits->why_none = "its listeners match in too many ways for a prefilter";
	return r == -ENOMEM ? r : 0;
}

int xdp_limits_of(const struct snapshot *snapshot, const char *interface, uint32_t own_mark,
        struct prefilter_params *params, struct relayed *relayed, struct xdp_limits *ret)
{
	_cleanup_free_ const char **why = xdp_limits_plan(snapshot);
	_cleanup_free_ struct relayed_owner *owners = calloc(snapshot->rows[RESOURCE_LISTENER].n + 1, sizeof(*owners));
	struct making making = { .snapshot = snapshot, .why = why, .limits = ret, .owners = owners };
	int r = why && owners ? 0 : -ENOMEM;

	if (r == 0 && own_mark)
		r = add_listeners(&making, interface);
	if (r == 0 && ret->n > 0) {
		params->own_mark = own_mark;
		r = add_entries(&making, interface, params, relayed);
	}
	if (r < 0)
		xdp_limits_clear(ret);
	return r;
}

void xdp_limits_clear(struct xdp_limits *limits)
{
	free(limits->pairs);
	*limits = (struct xdp_limits){ 0 };
}
