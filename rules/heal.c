/* Healing; see heal.h. The chains are always written anew: they are short, and the relay's ports may differ. */
#include "rules/heal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/array.h"
#include "rules/nftset.h"
#include "rules/render_chains.h"

/* What the plan is made of; owned. */
struct work {
	struct plan plan;
	size_t added_size, removed_size;
	struct kernel_state found; /* with other strays */
};

static int append(struct elements *to, size_t *size, const struct element *element)
{
	if (array_reserve(&to->items, size, to->n + 1, sizeof(*element)) < 0)
		return -ENOMEM;
	to->items[to->n++] = *element;
	return 0;
}

static int append_run(struct elements *to, size_t *size, const struct element *elements, size_t n)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = append(to, size, &elements[i]);
	return r;
}

/* Merges two sorted lists into what is missing from and what is too much in the kernel. */
static int compare(const struct elements *wanted, const struct elements *found, struct work *work)
{
	size_t w = 0, f = 0;
	int r = 0;

	while (r == 0 && (w < wanted->n || f < found->n)) {
		int order = w == wanted->n  ? 1
		            : f == found->n ? -1
		                            : element_compare(&wanted->items[w], &found->items[f]);

		if (order > 0)
			r = append(&work->plan.removed, &work->removed_size, &found->items[f]);
		if (order < 0)
			r = append(&work->plan.added, &work->added_size, &wanted->items[w]);
		w += order <= 0;
		f += order >= 0;
	}
	return r;
}

/* Interval sets that must lose many elements are cheaper made anew (see PLAN_REBUILD_MIN): their new content. */
static int choose_rebuilt(struct plan *plan, const struct elements *wanted)
{
	size_t groups_size = 0, elements_size = 0;
	int r = 0;

	for (size_t i = 0, run; i < plan->removed.n; i += run) {
		struct group group = element_group(&plan->removed.items[i]);

		run = elements_run(&plan->removed, i);
		if (!group_is_interval(&group) || run < PLAN_REBUILD_MIN)
			continue;
		if (array_reserve(&plan->groups_rebuilt, &groups_size, plan->n_groups_rebuilt + 1, sizeof(group)) < 0)
			return -ENOMEM;
		plan->groups_rebuilt[plan->n_groups_rebuilt++] = group;
	}
	for (size_t i = 0, run; r == 0 && plan->n_groups_rebuilt > 0 && i < wanted->n; i += run) {
		struct group group = element_group(&wanted->items[i]);

		run = elements_run(wanted, i);
		if (group_is_in(plan->groups_rebuilt, plan->n_groups_rebuilt, &group))
			r = append_run(&plan->rebuilt, &elements_size, &wanted->items[i], run);
	}
	return r;
}

static void work_clear(struct work *work)
{
	free(work->plan.groups_after);
	free(work->plan.groups_rebuilt);
	free(work->plan.rebuilt.items);
	free(work->plan.added.items);
	free(work->plan.removed.items);
	free(work->found.strays);
}

/* What the reader of the kernel does not know is a stray, unless it belongs to rate limits and bans. */
static bool is_wanted(const struct kernel_stray *stray, const struct limits *limits, const struct ban_lengths *lengths)
{
	for (int kind = 0; kind < LIMITS_KINDS; kind++)
		if (strcmp(stray->kind, limits_kind_word((enum limits_kind)kind)) == 0 &&
		        limits_find(limits, (enum limits_kind)kind, stray->name))
			return true;
	return strcmp(stray->kind, "set") == 0 && chains_is_ban_set(stray->name, lengths);
}

static int sort_strays(struct work *work, const struct kernel_state *found, const struct limits *limits,
        const struct render_params *params)
{
	struct ban_lengths lengths = params->bans;

	if (limits)
		ban_lengths_unite(&lengths, &limits->bans);
	work->found = *found;
	work->found.strays = calloc(found->n_strays + 1, sizeof(*found->strays));
	work->found.n_strays = 0;
	for (size_t i = 0; work->found.strays && i < found->n_strays; i++)
		if (!is_wanted(&found->strays[i], limits, &lengths))
			work->found.strays[work->found.n_strays++] = found->strays[i];
	return work->found.strays ? 0 : -ENOMEM;
}

static bool same_groups(const struct plan *plan)
{
	if (plan->n_groups_before != plan->n_groups_after)
		return false;
	for (size_t i = 0; i < plan->n_groups_after; i++)
		if (group_compare(&plan->groups_before[i], &plan->groups_after[i]) != 0)
			return false;
	return true;
}

static int repair(const struct model *model, const struct kernel_state *found, const struct render_params *params,
        int64_t generation, struct heal *ret)
{
	_cleanup_(work_clear) struct work work = { .plan = { .to_revision = generation,
		                                           .groups_before = found->groups,
		                                           .n_groups_before = found->n_groups,
		                                           .rewrite_chains = true } };
	struct elements wanted = { 0 };
	_cleanup_free_ struct element *items = NULL;
	int r = model_elements(model, &wanted);

	if (r < 0)
		return r;
	items = wanted.items;
	work.plan.limits_after = model_limits(model);
	r = sort_strays(&work, found, model_limits(model), params);
	if (r == 0)
		r = model_groups(model, &work.plan.groups_after, &work.plan.n_groups_after);
	if (r == 0)
		r = compare(&wanted, &found->elements, &work);
	if (r == 0)
		r = append_run(&work.plan.removed, &work.removed_size, found->odd.items, found->odd.n);
	elements_sort(&work.plan.removed);
	if (r == 0)
		r = choose_rebuilt(&work.plan, &wanted);
	if (r == 0)
		r = render_nft_repair(&work.plan, &work.found, params, &ret->text);
	if (r < 0)
		return r;
	ret->added = work.plan.added.n;
	ret->removed = work.plan.removed.n;
	ret->strays = work.found.n_strays;
	ret->chains = found->chains_differ || !same_groups(&work.plan);
	ret->needed = ret->added || ret->removed || ret->strays || ret->chains ||
	              found->generation != (int64_t)(uint32_t)generation;
	return 0;
}

int heal_new(const struct model *model, const struct kernel_state *found, const struct render_params *params,
        int64_t generation, struct heal *ret)
{
	struct heal heal = { .needed = true, .replaces = true };
	int r;

	if (found->present && found->compatible) {
		heal.replaces = false;
		r = repair(model, found, params, generation, &heal);
	} else {
		r = render_nft_full(model, params, generation, &heal.text);
	}
	if (r == 0)
		*ret = heal;
	return r;
}

void heal_clear(struct heal *heal)
{
	free(heal->text);
	*heal = (struct heal){ 0 };
}
