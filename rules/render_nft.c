/*
 * Models and plans as nft text; see render_nft.h.
 *
 * Order within a transaction: chains that use a set are emptied before it is
 * deleted, sets are declared before elements, elements deleted before others
 * are added in their place, and rules come last. All elements of a set stand
 * in one statement: one netlink message less per element.
 */
#include "rules/render_nft.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rules/kernel.h"
#include "rules/render_chains.h"
#include "rules/nftset.h"

/* A text that grows; freed unless it is handed on. */
struct text {
	FILE *out;
	char *bytes;
	size_t length;
};

static void text_clear(struct text *text)
{
	if (text->out)
		fclose(text->out);
	free(text->bytes);
}

static int text_open(struct text *text)
{
	text->out = open_memstream(&text->bytes, &text->length);
	return text->out ? 0 : -ENOMEM;
}

static int text_take(struct text *text, char **ret)
{
	bool failed = ferror(text->out) != 0;

	failed |= fclose(text->out) != 0;
	text->out = NULL;
	if (failed)
		return -ENOMEM;
	*ret = TAKE_PTR(text->bytes);
	return 0;
}

/* The marker holds 32 bits of the generation; kernel_nft_read compares the same bits. */
static void put_generation(FILE *out, int64_t generation)
{
	fprintf(out, "flush set inet " NFT_TABLE " generation\n");
	fprintf(out, "add element inet " NFT_TABLE " generation { 0x%08x }\n", (uint32_t)generation);
}

static int put_all_elements(FILE *out, const struct elements *elements)
{
	int r = 0;

	for (size_t i = 0, run; r == 0 && i < elements->n; i += run) {
		run = elements_run(elements, i);
		r = nftset_put_elements(out, "add", &elements->items[i], run);
	}
	return r;
}

/* All lengths of bans that there are sets for. */
static struct ban_lengths lengths_of(const struct limits *limits, const struct render_params *params)
{
	struct ban_lengths lengths = params->bans;

	if (limits)
		ban_lengths_unite(&lengths, &limits->bans);
	return lengths;
}

/* The chains that lead packets to listeners; with limits of accepted connections also those that lead to these. */
static void put_lookups(
        FILE *out, const struct chain_id *chain, const struct group *groups, size_t n, const struct limits *limits)
{
	chains_put_classify(out, chain, groups, n);
	if (chain->meter && limits && limits->metered)
		chains_put_meter(out, chain, groups, n);
}

static void put_lookups_flush(FILE *out, const struct chain_id *chain)
{
	fprintf(out, "flush chain inet " NFT_TABLE " %s\n", chain->name);
	if (chain->meter)
		fprintf(out, "flush chain inet " NFT_TABLE " %s\n", chain->meter);
}

static int put_full(FILE *out, const struct model *model, const struct render_params *params, int64_t generation)
{
	_cleanup_free_ struct group *groups = NULL;
	const struct limits *limits = model_limits(model);
	struct ban_lengths lengths = lengths_of(limits, params);
	struct elements elements = { 0 };
	_cleanup_free_ struct element *items = NULL;
	size_t n = 0;
	int r;

	r = model_groups(model, &groups, &n);
	if (r == 0)
		r = model_elements(model, &elements);
	if (r < 0)
		return r;
	items = elements.items;
	fputs("add table inet " NFT_TABLE "\ndelete table inet " NFT_TABLE "\nadd table inet " NFT_TABLE "\n", out);
	chains_put_objects(out);
	chains_put_ban_sets(out, &lengths);
	limits_put_new(out, NULL, limits);
	if (limits && (limits->exempt[0] || limits->exempt[1]))
		limits_put_exempt(out, limits);
	for (size_t i = 0; i < n; i++)
		nftset_put_declaration(out, &groups[i]);
	r = put_all_elements(out, &elements);
	chains_put_bans(out, params, &lengths, limits && limits->metered);
	limits_put_rules(out, NULL, limits);
	chains_put_rules(out, params);
	for (size_t i = 0; i < CLASSIFY_CHAINS; i++)
		put_lookups(out, &classify_chains[i], groups, n, limits);
	put_generation(out, generation);
	return r;
}

int render_nft_full(const struct model *model, const struct render_params *params, int64_t generation, char **ret)
{
	_cleanup_(text_clear) struct text text = { 0 };
	int r = text_open(&text);

	if (r == 0)
		r = put_full(text.out, model, params, generation);
	return r < 0 ? r : text_take(&text, ret);
}

static bool is_rebuilt(const struct plan *plan, const struct group *group)
{
	return group_is_in(plan->groups_rebuilt, plan->n_groups_rebuilt, group);
}

static bool of_chain(const struct group *group, const struct chain_id *chain)
{
	return group->shape.protocol == chain->protocol && group->shape.family == chain->family;
}

static bool is_metered(const struct limits *limits)
{
	return limits && limits->metered;
}

/* Whether a set of this chain comes, goes, or is made anew. */
static bool chain_changes(const struct plan *plan, const struct chain_id *chain)
{
	if (plan->rewrite_chains)
		return true;
	if (chain->meter && is_metered(plan->limits_before) != is_metered(plan->limits_after))
		return true;
	for (size_t i = 0; i < plan->n_groups_rebuilt; i++)
		if (of_chain(&plan->groups_rebuilt[i], chain))
			return true;
	for (size_t i = 0; i < plan->n_groups_before; i++)
		if (of_chain(&plan->groups_before[i], chain) &&
		        !group_is_in(plan->groups_after, plan->n_groups_after, &plan->groups_before[i]))
			return true;
	for (size_t i = 0; i < plan->n_groups_after; i++)
		if (of_chain(&plan->groups_after[i], chain) &&
		        !group_is_in(plan->groups_before, plan->n_groups_before, &plan->groups_after[i]))
			return true;
	return false;
}

static void put_set_changes(FILE *out, const struct plan *plan)
{
	char name[NFTSET_NAME_MAX];

	for (size_t i = 0; i < plan->n_groups_before; i++) {
		const struct group *group = &plan->groups_before[i];

		if (group_is_in(plan->groups_after, plan->n_groups_after, group) && !is_rebuilt(plan, group))
			continue;
		nftset_name(group, name);
		fprintf(out, "delete %s inet " NFT_TABLE " %s\n", nftset_kind(group), name);
	}
	for (size_t i = 0; i < plan->n_groups_after; i++) {
		const struct group *group = &plan->groups_after[i];

		if (!group_is_in(plan->groups_before, plan->n_groups_before, group) || is_rebuilt(plan, group))
			nftset_put_declaration(out, group);
	}
}

/* Removals or additions, set by set, but for sets that come with their whole content or go with it. */
static int put_element_changes(FILE *out, const struct plan *plan, const char *verb, const struct elements *elements)
{
	int r = 0;

	for (size_t i = 0, run; r == 0 && i < elements->n; i += run) {
		struct group group = element_group(&elements->items[i]);

		run = elements_run(elements, i);
		if (group_is_in(plan->groups_after, plan->n_groups_after, &group) && !is_rebuilt(plan, &group))
			r = nftset_put_elements(out, verb, &elements->items[i], run);
	}
	return r;
}

static bool limits_change(const struct plan *plan)
{
	return !limits_equal(plan->limits_before, plan->limits_after);
}

/* Whether the chains of bans must be written anew. */
static bool bans_change(const struct plan *plan, const struct render_params *params)
{
	struct ban_lengths before = lengths_of(plan->limits_before, params),
	                   after = lengths_of(plan->limits_after, params);

	return plan->rewrite_chains || !ban_lengths_equal(&before, &after) ||
	       is_metered(plan->limits_before) != is_metered(plan->limits_after);
}

bool render_nft_needs_check(const struct plan *plan)
{
	if (limits_change(plan))
		return true;
	for (size_t i = 0; i < CLASSIFY_CHAINS; i++)
		if (chain_changes(plan, &classify_chains[i]))
			return true;
	return false;
}

/* Objects first, then chains without rules, so that elements can lead to them; what is gone goes last. */
static void put_limits_begin(FILE *out, const struct plan *plan, const struct render_params *params)
{
	struct ban_lengths lengths = lengths_of(plan->limits_after, params);

	if (bans_change(plan, params))
		chains_put_ban_sets(out, &lengths);
	if (!limits_change(plan))
		return;
	limits_put_new(out, plan->limits_before, plan->limits_after);
	limits_put_exempt_change(out, plan->limits_before, plan->limits_after);
	limits_put_emptied(out, plan->limits_before, plan->limits_after);
}

static void put_limits_end(FILE *out, const struct plan *plan, const struct render_params *params)
{
	struct ban_lengths lengths = lengths_of(plan->limits_after, params);

	if (bans_change(plan, params)) {
		chains_put_bans_flush(out);
		chains_put_bans(out, params, &lengths, is_metered(plan->limits_after));
	}
	if (!limits_change(plan))
		return;
	limits_put_rules(out, plan->limits_before, plan->limits_after);
	limits_put_gone(out, plan->limits_before, plan->limits_after);
}

static int put_plan(FILE *out, const struct plan *plan, const struct render_params *params)
{
	int r;

	if (plan->rewrite_chains)
		chains_put_flush(out);
	for (size_t i = 0; i < CLASSIFY_CHAINS; i++)
		if (chain_changes(plan, &classify_chains[i]))
			put_lookups_flush(out, &classify_chains[i]);
	put_limits_begin(out, plan, params);
	put_set_changes(out, plan);
	r = put_element_changes(out, plan, "delete", &plan->removed);
	if (r == 0)
		r = put_element_changes(out, plan, "add", &plan->added);
	if (r == 0)
		r = put_all_elements(out, &plan->rebuilt);
	put_limits_end(out, plan, params);
	if (plan->rewrite_chains)
		chains_put_rules(out, params);
	for (size_t i = 0; i < CLASSIFY_CHAINS; i++)
		if (chain_changes(plan, &classify_chains[i]))
			put_lookups(
			        out, &classify_chains[i], plan->groups_after, plan->n_groups_after, plan->limits_after);
	put_generation(out, plan->to_revision);
	return r;
}

int render_nft_plan(const struct plan *plan, const struct render_params *params, char **ret)
{
	_cleanup_(text_clear) struct text text = { 0 };
	int r = text_open(&text);

	if (r == 0)
		r = put_plan(text.out, plan, params);
	return r < 0 ? r : text_take(&text, ret);
}

enum stray_group { STRAY_CHAINS, STRAY_SETS, STRAY_OTHERS };

static enum stray_group stray_group_of(const struct kernel_stray *stray)
{
	if (strcmp(stray->kind, "chain") == 0)
		return STRAY_CHAINS;
	return strcmp(stray->kind, "set") == 0 || strcmp(stray->kind, "map") == 0 ? STRAY_SETS : STRAY_OTHERS;
}

static void put_strays(FILE *out, const struct kernel_state *found, const char *verb, enum stray_group group)
{
	for (size_t i = 0; i < found->n_strays; i++)
		if (stray_group_of(&found->strays[i]) == group)
			fprintf(out, "%s %s inet " NFT_TABLE " %s\n", verb, found->strays[i].kind,
			        found->strays[i].name);
}

/* Whoever refers goes before what is referred to: rules, then sets and elements, then chains and objects. */
static int put_repair(
        FILE *out, const struct plan *plan, const struct kernel_state *found, const struct render_params *params)
{
	struct ban_lengths lengths = lengths_of(plan->limits_after, params);
	int r;

	chains_put_objects(out);
	chains_put_ban_sets(out, &lengths);
	limits_put_new(out, NULL, plan->limits_after);
	chains_put_flush(out);
	limits_put_emptied(out, NULL, plan->limits_after);
	for (size_t i = 0; i < CLASSIFY_CHAINS; i++)
		put_lookups_flush(out, &classify_chains[i]);
	limits_put_exempt(out, plan->limits_after);
	put_strays(out, found, "flush", STRAY_CHAINS);
	chains_put_version(out);
	put_strays(out, found, "delete", STRAY_SETS);
	put_set_changes(out, plan);
	r = put_element_changes(out, plan, "delete", &plan->removed);
	put_strays(out, found, "delete", STRAY_CHAINS);
	put_strays(out, found, "delete", STRAY_OTHERS);
	if (r == 0)
		r = put_element_changes(out, plan, "add", &plan->added);
	if (r == 0)
		r = put_all_elements(out, &plan->rebuilt);
	chains_put_bans(out, params, &lengths, is_metered(plan->limits_after));
	limits_put_rules(out, NULL, plan->limits_after);
	chains_put_rules(out, params);
	for (size_t i = 0; i < CLASSIFY_CHAINS; i++)
		put_lookups(out, &classify_chains[i], plan->groups_after, plan->n_groups_after, plan->limits_after);
	put_generation(out, plan->to_revision);
	return r;
}

int render_nft_repair(
        const struct plan *plan, const struct kernel_state *found, const struct render_params *params, char **ret)
{
	_cleanup_(text_clear) struct text text = { 0 };
	int r = text_open(&text);

	if (r == 0)
		r = put_repair(text.out, plan, found, params);
	return r < 0 ? r : text_take(&text, ret);
}

/* Added so that there is something to delete. */
static void put_absent(FILE *out, const char *set, const char *address)
{
	fprintf(out, "add element inet " NFT_TABLE " %s { %s }\ndelete element inet " NFT_TABLE " %s { %s }\n", set,
	        address, set, address);
}

/* The time of an element cannot be changed; it is another element then. */
static void put_ban(FILE *out, const struct limits *limits, const struct render_ban *ban)
{
	char address[ADDR_TEXT_MAX], set[16], timeout[48] = "", name[LIMITS_NAME_MAX];

	addr_format(&ban->prefix.addr, address);
	snprintf(set, sizeof(set), "ban%c_%u", ban->prefix.addr.family == AF_INET ? '4' : '6', ban->prefix.length);
	if (ban->seconds > 0)
		snprintf(timeout, sizeof(timeout), " timeout %llds", (long long)ban->seconds);
	put_absent(out, set, address);
	if (ban->seconds == 0 && ban->limit && *ban->limit) {
		limits_banned_set(ban->limit, ban->prefix.addr.family == AF_INET ? 4 : 6, name);
		if (limits_find(limits, LIMITS_SET, name))
			put_absent(out, name, address);
	}
	if (ban->seconds != 0)
		fprintf(out, "add element inet " NFT_TABLE " %s { %s%s }\n", set, address, timeout);
}

int render_nft_bans(const struct limits *limits, const struct render_params *params,
        const struct ban_lengths *more_lengths, const struct render_ban *bans, size_t n, char **ret)
{
	struct ban_lengths before = lengths_of(limits, params), after = before;
	_cleanup_(text_clear) struct text text = { 0 };
	int r = text_open(&text);

	if (r < 0)
		return r;
	ban_lengths_unite(&after, more_lengths);
	if (!ban_lengths_equal(&before, &after)) {
		chains_put_ban_sets(text.out, &after);
		chains_put_bans_flush(text.out);
		chains_put_bans(text.out, params, &after, is_metered(limits));
	}
	for (size_t i = 0; i < n; i++)
		put_ban(text.out, limits, &bans[i]);
	return text_take(&text, ret);
}

int render_nft_gate(bool open, char **ret)
{
	_cleanup_(text_clear) struct text text = { 0 };
	int r = text_open(&text);

	if (r < 0)
		return r;
	fputs("flush chain inet " NFT_TABLE " direct_gate\n", text.out);
	chains_put_gate(text.out, open);
	return text_take(&text, ret);
}
