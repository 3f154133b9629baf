/*
 * Bans as they are listed: those of the daemon (bans.c) and those that
 * prefilters have made themselves, in one order, each prefix once; see bans.h.
 */
#include <string.h>

#include "gatewayd/bans_private.h"
#include "gatewayd/document.h"
#include "schema/value.h"

static size_t own_bans(const struct bans *bans, const struct shield_ban **ret)
{
	*ret = NULL;
	return bans->owner.shield ? shield_own_bans(bans->owner.shield, ret) : 0;
}

/* Where the two lists stand; the one that is less is next, or both. */
struct merge {
	const struct bans *bans;
	size_t at;
	const struct shield_ban *own;
	size_t n_own, own_at;
};

/* The same source at several interfaces is told once. */
static void take_own(const struct shield_ban *own, size_t n, size_t at, struct ban_view *ret)
{
	ret->own = &own[at];
	while (at + ret->n_own < n && prefix_compare(&own[at + ret->n_own].prefix, &own[at].prefix) == 0)
		ret->n_own++;
}

/* False at the end of both. */
static bool next(struct merge *merge, struct ban_view *ret)
{
	const struct ban *ban = merge->at < merge->bans->n ? &merge->bans->items[merge->at] : NULL;
	const struct shield_ban *own = merge->own_at < merge->n_own ? &merge->own[merge->own_at] : NULL;
	int order = !ban ? 1 : !own ? -1 : prefix_compare(&ban->prefix, &own->prefix);

	if (!ban && !own)
		return false;
	*ret = (struct ban_view){ .ban = order <= 0 ? ban : NULL };
	if (order >= 0)
		take_own(merge->own, merge->n_own, merge->own_at, ret);
	merge->at += order <= 0;
	merge->own_at += ret->n_own;
	return true;
}

const struct prefix *ban_view_prefix(const struct ban_view *view)
{
	return view->ban ? &view->ban->prefix : &view->own->prefix;
}

size_t bans_page(
        const struct bans *bans, const struct prefix *after, size_t max, struct ban_view *ret, size_t *ret_total)
{
	struct merge merge = { .bans = bans };
	struct ban_view view;
	size_t n = 0, total = 0;

	merge.n_own = own_bans(bans, &merge.own);
	while (next(&merge, &view)) {
		total++;
		if (n < max && (!after || prefix_compare(ban_view_prefix(&view), after) > 0))
			ret[n++] = view;
	}
	*ret_total = total;
	return n;
}

bool bans_view(const struct bans *bans, const struct prefix *prefix, struct ban_view *ret)
{
	const struct shield_ban *own;
	size_t n = own_bans(bans, &own);

	*ret = (struct ban_view){ .ban = bans_find(bans, prefix) };
	for (size_t i = 0; i < n && !ret->own; i++)
		if (prefix_compare(&own[i].prefix, prefix) == 0)
			take_own(own, n, i, ret);
	return ret->ban || ret->own;
}

static json_t *time_document(int64_t at)
{
	char text[32];

	return at ? json_string(value_time_format(at, text)) : json_null();
}

/* Where it is in force before the network stack, put there by us or by the programs. */
static json_t *interfaces_document(const struct bans *bans, const struct ban_view *view)
{
	struct shield *shield = bans->owner.shield;
	json_t *array = shield ? shield_where_shut(shield, ban_view_prefix(view)) : json_array();
	const json_t *value;
	bool failed = !array;
	size_t i;

	for (size_t k = 0; k < view->n_own && !failed; k++) {
		bool known = false;

		json_array_foreach(array, i, value)
		{
			known |= strcmp(json_string_value(value), view->own[k].interface) == 0;
		}
		failed = !known && json_array_append_new(array, json_string(view->own[k].interface)) < 0;
	}
	return document_done(array, failed);
}

static json_t *own_document(const struct bans *bans, const struct ban_view *view)
{
	const struct shield_ban *own = view->own;
	char text[ADDR_TEXT_MAX + 4], reason[128];

	snprintf(reason, sizeof(reason), "more packets than source_pps of the prefilter of %s", own->interface);
	return json_pack("{s:s, s:s, s:s, s:n, s:o, s:o, s:s, s:o, s:s}", "address", prefix_format(&own->prefix, text),
	        "reason", reason, "actor", "prefilter", "rate_limit", "created_at", time_document(own->created_at),
	        "expires_at", time_document(own->expires_at), "placement", "xdp", "interfaces",
	        interfaces_document(bans, view), "prefilter", own->interface);
}

json_t *bans_document(const struct bans *bans, const struct ban_view *view)
{
	const struct ban *ban = view->ban;
	char text[ADDR_TEXT_MAX + 4];

	if (!ban)
		return own_document(bans, view);
	return json_pack("{s:s, s:s, s:s, s:s?, s:o, s:o, s:s, s:o, s:s?}", "address",
	        prefix_format(&ban->prefix, text), "reason", ban->reason, "actor", ban->actor, "rate_limit",
	        *ban->limit ? ban->limit : NULL, "created_at", time_document(ban->created_at), "expires_at",
	        time_document(ban->expires_at), "placement", ban->xdp ? "xdp" : "nft", "interfaces",
	        interfaces_document(bans, view), "prefilter", view->own ? view->own->interface : NULL);
}
