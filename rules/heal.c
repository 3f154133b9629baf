/* Healing; see heal.h. The chains are always written anew: they are short, and the relay's ports may differ. */
#include "rules/heal.h"

#include <errno.h>
#include <stdlib.h>

#include "rules/cells.h"
#include "rules/render_map.h"

/* What the plan is made of; owned. */
struct work {
	struct plan plan;
	size_t added_size, removed_size;
};

static int append(struct elements *to, size_t *size, const struct element *element)
{
	if (array_reserve(&to->items, size, to->n + 1, sizeof(*element)) < 0)
		return -ENOMEM;
	to->items[to->n++] = *element;
	return 0;
}

/* Merges two sorted lists into what is missing from and what is too much in the kernel. */
static int compare(const struct elements *wanted, const struct elements *found, struct work *work)
{
	size_t w = 0, f = 0;
	int r = 0;

	while (r == 0 && (w < wanted->n || f < found->n)) {
		int order = w == wanted->n  ? 1
		            : f == found->n ? -1
		                            : match_key_compare(&wanted->items[w].key, &found->items[f].key);
		bool same = order == 0 && wanted->items[w].verdict == found->items[f].verdict;

		if (order >= 0 && !same)
			r = append(&work->plan.removed, &work->removed_size, &found->items[f]);
		if (r == 0 && order <= 0 && !same)
			r = append(&work->plan.added, &work->added_size, &wanted->items[w]);
		w += order <= 0;
		f += order >= 0;
	}
	return r;
}

/* Interval maps that must lose many elements are cheaper made anew (see PLAN_REBUILD_MIN): their new content. */
static int choose_rebuilt(struct plan *plan, const struct elements *wanted)
{
	size_t shapes_size = 0, elements_size = 0;
	int r = 0;

	for (size_t i = 0, run; i < plan->removed.n; i += run) {
		run = map_run(&plan->removed, i);
		if (!map_is_interval(&plan->removed.items[i].key.shape) || run < PLAN_REBUILD_MIN)
			continue;
		if (array_reserve(&plan->shapes_rebuilt, &shapes_size, plan->n_shapes_rebuilt + 1,
		            sizeof(struct match_shape)) < 0)
			return -ENOMEM;
		plan->shapes_rebuilt[plan->n_shapes_rebuilt++] = plan->removed.items[i].key.shape;
	}
	for (size_t s = 0; s < plan->n_shapes_rebuilt; s++)
		for (size_t i = 0; r == 0 && i < wanted->n; i++)
			if (match_shape_compare(&wanted->items[i].key.shape, &plan->shapes_rebuilt[s]) == 0)
				r = append(&plan->rebuilt, &elements_size, &wanted->items[i]);
	return r;
}

static void work_clear(struct work *work)
{
	free(work->plan.shapes_after);
	free(work->plan.shapes_rebuilt);
	free(work->plan.rebuilt.items);
	free(work->plan.added.items);
	free(work->plan.removed.items);
}

static bool same_shapes(const struct plan *plan)
{
	if (plan->n_shapes_before != plan->n_shapes_after)
		return false;
	for (size_t i = 0; i < plan->n_shapes_after; i++)
		if (match_shape_compare(&plan->shapes_before[i], &plan->shapes_after[i]) != 0)
			return false;
	return true;
}

static int repair(const struct model *model, const struct kernel_state *found, const struct render_params *params,
        int64_t generation, struct heal *ret)
{
	_cleanup_(work_clear) struct work work = { .plan = { .to_revision = generation,
		                                           .shapes_before = found->shapes,
		                                           .n_shapes_before = found->n_shapes,
		                                           .rewrite_chains = true } };
	struct elements wanted = { 0 };
	_cleanup_free_ struct element *items = NULL;
	int r = model_elements(model, &wanted);

	if (r < 0)
		return r;
	items = wanted.items;
	r = model_shapes(model, &work.plan.shapes_after, &work.plan.n_shapes_after);
	if (r == 0)
		r = compare(&wanted, &found->elements, &work);
	if (r == 0)
		r = choose_rebuilt(&work.plan, &wanted);
	if (r == 0)
		r = render_nft_repair(&work.plan, found, params, &ret->text);
	if (r < 0)
		return r;
	ret->added = work.plan.added.n;
	ret->removed = work.plan.removed.n;
	ret->strays = found->n_strays;
	ret->chains = found->chains_differ || !same_shapes(&work.plan);
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
