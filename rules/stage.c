/*
 * Staging: who joins and who leaves which cells; see cells.h.
 *
 * Theory of operation: the listeners of both snapshots are walked side by
 * side, twice. First those that go are marked, and what they and the listeners
 * with changed address sets take of the limit is given back; then cells are
 * staged. A cell's next state begins as its present one without those that are
 * marked, so that a listener that goes costs no search.
 */
#include "rules/cells.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/array.h"
#include "rules/reach.h"

/* What a visit to keys does. */
struct joining {
	struct model *model;
	struct contender *contender; /* NULL: cells are staged, nobody joins */
};

static int begin_next(const struct cell *cell, struct cell_state *next)
{
	size_t n;
	struct contender *const *contenders = state_contenders(&cell->now, &n);
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		if (!contenders[i]->leaving)
			r = state_join(next, contenders[i]);
	return r;
}

static int stage_new(struct stage *stage, struct cell *cell)
{
	struct staged_cell staged = { .cell = cell };

	if (array_reserve(&stage->cells, &stage->cells_size, stage->n_cells + 1, sizeof(staged)) < 0 ||
	        begin_next(cell, &staged.next) < 0) {
		state_clear(&staged.next);
		return -ENOMEM;
	}
	stage->cells[stage->n_cells++] = staged;
	cell->staged = (uint32_t)stage->n_cells;
	return 0;
}

/* The staged state of the cell of this key. A cell that is made for it is empty until commit, and is in the stage,
 * which clears it away if it stays empty. */
static int stage_cell(struct model *model, const struct match_key *key, struct cell_state **ret)
{
	struct cell *cell;
	int r = cells_get(&model->cells, key, &cell);

	if (r < 0)
		return r;
	if (!cell->staged && stage_new(&model->stage, cell) < 0) {
		if (!cell->now.one && !cell->now.crowd)
			cells_remove(&model->cells, cell);
		return -ENOMEM;
	}
	*ret = &model->stage.cells[cell->staged - 1].next;
	return 0;
}

static int visit_cell(void *userdata, const struct match_key *key, bool added)
{
	struct joining *joining = userdata;
	struct cell_state *next;
	int r = stage_cell(joining->model, key, &next);

	if (r < 0 || !joining->contender)
		return r;
	if (added)
		return state_join(next, joining->contender);
	state_leave(next, joining->contender);
	return 0;
}

static int stage_leaving(struct model *model, const struct contender *old, const struct snapshot *from)
{
	const struct listener *listener = (const struct listener *)old->row;
	struct joining joining = { model, NULL };
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_reach_ struct reach reach = { 0 };
	int r = reach_of(listener, from, &errs, &reach);

	return r < 0 ? r : reach_visit(&reach, listener, false, visit_cell, &joining);
}

/* The longest of a listener's lists: what to shorten. */
static const char *longest_list(const struct listener *listener, const struct reach *reach)
{
	size_t lengths[] = { reach->dst.n, reach->src.n, listener->ports.n, listener->interfaces.n }, longest = 0;
	static const char *const pointers[] = { "/destinations", "/sources", "/ports", "/interfaces" };

	static_assert(ARRAY_SIZE(lengths) == ARRAY_SIZE(pointers), "a pointer for each list");
	for (size_t i = 1; i < ARRAY_SIZE(lengths); i++)
		if (lengths[i] > lengths[longest])
			longest = i;
	return pointers[longest];
}

static size_t own_range_min = PLAN_OWN_RANGE_MIN;

void plan_own_range_min(size_t n)
{
	own_range_min = n ? n : PLAN_OWN_RANGE_MIN;
}

static bool has_own_ranges(const struct listener *listener, const struct reach *reach)
{
	size_t count = reach_count(reach, listener);

	return count >= own_range_min && count >= own_range_min * reach_shapes(reach);
}

/* Takes what the contender with this reach needs of the limits. */
static int take_room(struct stage *stage, struct contender *contender, const struct reach *reach, struct errs *errs)
{
	const struct listener *listener = (const struct listener *)contender->row;
	size_t elements = reach_count(reach, listener) * (contender->n_ports ? contender->n_ports : 1);
	char pointer[CONTENDER_POINTER_MAX];

	contender_pointer(contender, longest_list(listener, reach), pointer);
	contender->next_elements = elements;
	if (has_own_ranges(listener, reach))
		contender_own_ranges(contender);
	if (!contender->has_sets && elements > PLAN_LISTENER_MAX)
		errs_add(errs, pointer, "too_complex",
		        "listener \"%s\": destinations, sources, interfaces and ports multiply to %zu combinations, "
		        "more than %d",
		        contender->name, elements, PLAN_LISTENER_MAX);
	else if (elements > PLAN_TOTAL_MAX || stage->total + elements > PLAN_TOTAL_MAX)
		errs_add(errs, pointer, "too_complex",
		        "listener \"%s\": with its %zu combinations of destinations, sources, interfaces and ports all "
		        "listeners together have more than %d",
		        contender->name, elements, PLAN_TOTAL_MAX);
	else
		return stage->total += elements, 0;
	return -EINVAL;
}

static int stage_arriving(
        struct model *model, struct contender *contender, const struct snapshot *to, struct errs *errs)
{
	const struct listener *listener = (const struct listener *)contender->row;
	struct joining joining = { model, contender };
	_cleanup_reach_ struct reach reach = { 0 };
	int r = reach_of(listener, to, errs, &reach);

	if (r < 0)
		return r;
	r = take_room(&model->stage, contender, &reach, errs);
	return r < 0 ? r : reach_visit(&reach, listener, true, visit_cell, &joining);
}

/* A listener that stays, with other entries in its address sets. */
static int stage_changed(struct model *model, struct contender *contender, const struct snapshot *from,
        const struct snapshot *to, struct errs *errs)
{
	const struct listener *listener = (const struct listener *)contender->row;
	struct joining joining = { model, contender };
	_cleanup_reach_ struct reach old = { 0 }, new = { 0 };
	int r = reach_of(listener, from, errs, &old);

	if (r == 0)
		r = reach_of(listener, to, errs, &new);
	if (r < 0)
		return r;
	r = take_room(&model->stage, contender, &new, errs);
	return r < 0 ? r : reach_differences(&old, &new, listener, visit_cell, &joining);
}

static int new_contender(
        struct model *model, struct row *row, const struct snapshot *to, struct errs *errs, struct contender **ret)
{
	struct stage *stage = &model->stage;
	struct contender *contender;
	int r;

	if (array_reserve(&stage->arriving, &stage->arriving_size, stage->n_arriving + 1, sizeof(contender)) < 0)
		return -ENOMEM;
	r = contender_new(row, errs, &contender);
	if (r < 0)
		return r;
	stage->arriving[stage->n_arriving++] = contender;
	*ret = contender;
	return stage_arriving(model, contender, to, errs);
}

/* Whether the listener's ranges go to other sets now that its address sets have other entries: then it is compiled
 * anew, for the pieces of its cells are others. One whose sets cannot be told is refused by who stages it. */
static bool moves_ranges(const struct contender *contender, const struct snapshot *to)
{
	const struct listener *listener = (const struct listener *)contender->row;
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_reach_ struct reach reach = { 0 };

	return reach_of(listener, to, &errs, &reach) == 0 && has_own_ranges(listener, &reach) != contender->own_ranges;
}

/* The walk over the listeners of the model and of a snapshot, both sorted by name. */
struct pairs {
	const struct model *model;
	const struct rows *to;
	size_t i, k; /* the next of each */
	struct contender *old;
	struct row *row;
	size_t at; /* row's index in `to` */
};

/* The next pair of one name, either of them NULL if there is none. False at the end. */
static bool next_pair(struct pairs *pairs)
{
	bool has_old = pairs->i < pairs->model->n_contenders, has_row = pairs->k < pairs->to->n;
	struct contender *old = has_old ? pairs->model->contenders[pairs->i] : NULL;
	struct row *row = has_row ? pairs->to->items[pairs->k] : NULL;
	int order = !has_row ? -1 : !has_old ? 1 : old->row == row ? 0 : strcmp(old->name, row_name(row));

	if (!has_old && !has_row)
		return false;
	pairs->at = pairs->k;
	pairs->old = order <= 0 ? old : NULL;
	pairs->row = order >= 0 ? row : NULL;
	pairs->i += order <= 0;
	pairs->k += order >= 0;
	return true;
}

static bool stays(const struct pairs *pairs)
{
	return pairs->old && pairs->old->row == pairs->row;
}

static bool same_rows(const struct rows *a, const struct rows *b)
{
	return a->n == b->n && (a->n == 0 || memcmp(a->items, b->items, a->n * sizeof(struct row *)) == 0);
}

static bool is_changed(const struct contender *contender, const struct snapshot *from, const struct snapshot *to)
{
	return contender->has_sets && reach_sets_differ((const struct listener *)contender->row, from, to);
}

static void mark(struct model *model, const struct snapshot *from, const struct snapshot *to, bool sets_differ)
{
	struct pairs pairs = { .model = model, .to = &to->rows[RESOURCE_LISTENER] };
	struct stage *stage = &model->stage;

	stage->total = model->total;
	while (next_pair(&pairs)) {
		if (!pairs.old || (stays(&pairs) && (!sets_differ || !is_changed(pairs.old, from, to))))
			continue;
		pairs.old->leaving = !stays(&pairs) || moves_ranges(pairs.old, to);
		stage->total -= pairs.old->n_elements;
	}
}

static int stage_pair(struct model *model, const struct pairs *pairs, const struct snapshot *from,
        const struct snapshot *to, bool sets_differ, struct errs *errs)
{
	struct contender **place = pairs->row ? &model->stage.contenders[pairs->at] : NULL;
	int r = 0;

	if (stays(pairs) && !pairs->old->leaving) {
		*place = pairs->old;
		return sets_differ && is_changed(pairs->old, from, to)
		               ? stage_changed(model, pairs->old, from, to, errs)
		               : 0;
	}
	if (pairs->old)
		r = stage_leaving(model, pairs->old, from);
	if (r == 0 && pairs->row)
		r = new_contender(model, pairs->row, to, errs, place);
	return r;
}

int stage_listeners(struct model *model, const struct snapshot *from, const struct snapshot *to, struct errs *errs)
{
	struct pairs pairs = { .model = model, .to = &to->rows[RESOURCE_LISTENER] };
	bool sets_differ = !same_rows(&from->rows[RESOURCE_ADDRESS_SET], &to->rows[RESOURCE_ADDRESS_SET]);
	int r = 0, refused = 0;

	model->stage.contenders = calloc(pairs.to->n ? pairs.to->n : 1, sizeof(struct contender *));
	if (!model->stage.contenders)
		return -ENOMEM;
	model->stage.n_contenders = pairs.to->n;
	for (size_t i = 0; i < model->n_contenders; i++)
		model->contenders[i]->next_elements = model->contenders[i]->n_elements;
	mark(model, from, to, sets_differ);
	while (r == 0 && next_pair(&pairs)) {
		r = stage_pair(model, &pairs, from, to, sets_differ, errs);
		if (r == -EINVAL)
			refused = r, r = 0;
	}
	return r ? r : refused;
}

/* Forgets the staged states; cells without contenders go. */
static void settle_cells(struct model *model)
{
	for (size_t i = 0; i < model->stage.n_cells; i++) {
		struct cell *cell = model->stage.cells[i].cell;

		state_clear(&model->stage.cells[i].next);
		cell->staged = 0;
		if (!cell->now.one && !cell->now.crowd)
			cells_remove(&model->cells, cell);
	}
}

static void stage_clear(struct model *model)
{
	free(model->stage.cells);
	free(model->stage.contenders);
	free(model->stage.arriving);
	free(model->stage.groups);
	limits_unref(model->stage.limits);
	model->stage = (struct stage){ 0 };
	model->planning = false;
}

void stage_abort(struct model *model)
{
	settle_cells(model);
	for (size_t i = 0; i < model->stage.n_arriving; i++)
		contender_free(model->stage.arriving[i]);
	for (size_t i = 0; i < model->n_contenders; i++)
		model->contenders[i]->leaving = false;
	stage_clear(model);
}

static void swap_states(struct stage *stage)
{
	for (size_t i = 0; i < stage->n_cells; i++) {
		struct cell_state before = stage->cells[i].cell->now;

		stage->cells[i].cell->now = stage->cells[i].next;
		stage->cells[i].next = before;
	}
}

void stage_commit(struct model *model)
{
	struct stage *stage = &model->stage;

	swap_states(stage);
	settle_cells(model);
	for (size_t i = 0; i < model->n_contenders; i++)
		if (model->contenders[i]->leaving)
			contender_free(model->contenders[i]);
	free(model->contenders);
	model->contenders = TAKE_PTR(stage->contenders);
	model->n_contenders = stage->n_contenders;
	for (size_t i = 0; i < model->n_contenders; i++)
		model->contenders[i]->n_elements = model->contenders[i]->next_elements;
	free(model->groups);
	model->groups = TAKE_PTR(stage->groups);
	model->n_groups = stage->n_groups;
	model->total = stage->total;
	limits_unref(model->limits);
	model->limits = TAKE_PTR(stage->limits);
	stage_clear(model);
}
