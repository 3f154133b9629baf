/*
 * Plans and the model; see plan.h.
 *
 * Theory of operation: the model keeps one contender per listener of the
 * snapshot in force, in the snapshot's order, so that a merge walk over row
 * pointers finds what a new snapshot changes. Each changed row's old contender
 * is marked as leaving, its new one is compiled, and the cells of both are
 * staged (stage.c); so are the cells of entries that an address set gained or
 * lost, for each listener that names it. A staged cell is cut again and compared with its present pieces;
 * nothing else is looked at. Until commit, the present state stays untouched.
 */
#include "rules/plan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/array.h"
#include "rules/cells.h"

struct growing {
	struct elements *elements;
	size_t size;
};

int model_new(struct model **ret)
{
	struct model *model = calloc(1, sizeof(*model));

	if (!model)
		return -ENOMEM;
	*ret = model;
	return 0;
}

void model_free(struct model *model)
{
	if (!model)
		return;
	for (size_t i = 0; i < model->n_contenders; i++)
		contender_free(model->contenders[i]);
	free(model->contenders);
	free(model->groups);
	limits_unref(model->limits);
	cells_free(&model->cells);
	free(model);
}

static int append(struct growing *to, const struct cell *cell, const struct piece *piece)
{
	if (array_reserve(&to->elements->items, &to->size, to->elements->n + 1, sizeof(struct element)) < 0)
		return -ENOMEM;
	cell_element(cell, piece, &to->elements->items[to->elements->n++]);
	return 0;
}

static int append_all(struct growing *to, const struct cell *cell, const struct cell_state *state)
{
	size_t n;
	const struct piece *pieces = state_pieces(state, &n);
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = append(to, cell, &pieces[i]);
	return r;
}

int model_elements(const struct model *model, struct elements *ret)
{
	struct elements all = { 0 };
	struct growing growing = { &all, 0 };
	int r = array_reserve(&all.items, &growing.size, 1, sizeof(*all.items));

	for (size_t b = 0; r == 0 && b < model->cells.n_buckets; b++)
		for (struct cell *cell = model->cells.buckets[b]; r == 0 && cell; cell = cell->chain)
			r = append_all(&growing, cell, &cell->now);
	if (r < 0) {
		free(all.items);
		return r;
	}
	elements_sort(&all);
	*ret = all;
	return 0;
}

static int copy_groups(const struct group_count *counts, size_t n, struct group **ret, size_t *ret_n)
{
	struct group *groups = calloc(n ? n : 1, sizeof(*groups));

	if (!groups)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		groups[i] = counts[i].group;
	*ret = groups;
	*ret_n = n;
	return 0;
}

struct limits *model_limits(const struct model *model)
{
	return model->limits;
}

size_t model_count(const struct model *model)
{
	size_t count = 0;

	for (size_t i = 0; i < model->n_groups; i++)
		count += model->groups[i].count;
	return count;
}

int model_groups(const struct model *model, struct group **ret, size_t *ret_n)
{
	return copy_groups(model->groups, model->n_groups, ret, ret_n);
}

int model_find(
        const struct model *model, const struct group *group, const struct match_packet *packet, struct element *ret)
{
	struct match_key key = { .shape = group->shape, .dst = packet->dst, .src = packet->src };
	const struct piece *pieces;
	const struct cell *cell;
	size_t n;

	if (group->shape.interface && !packet->interface)
		return 0;
	if (group->shape.interface)
		memcpy(key.interface, packet->interface, strnlen(packet->interface, IFNAMSIZ - 1));
	addr_mask(&key.dst, key.shape.dst_len);
	addr_mask(&key.src, key.shape.src_len);
	key.shape.port_kind = 0;
	cell = cells_find(&model->cells, &key);
	pieces = cell ? state_pieces(&cell->now, &n) : NULL;
	for (size_t i = 0; pieces && i < n; i++)
		if (pieces[i].kind == group->shape.port_kind && packet->dst_port >= pieces[i].lo &&
		        packet->dst_port <= pieces[i].hi) {
			struct group found;

			cell_element(cell, &pieces[i], ret);
			found = element_group(ret);
			return group_compare(&found, group) == 0;
		}
	return 0;
}

int model_decide(const struct model *model, const struct match_packet *packet, bool own, struct element *ret)
{
	_cleanup_free_ struct group *groups = NULL;
	size_t n;
	int r = model_groups(model, &groups, &n);

	for (size_t i = 0; r == 0 && i < n; i++) {
		const struct match_shape *shape = &groups[i].shape;

		if (shape->protocol != packet->protocol || shape->family != packet->dst.family)
			continue;
		if (own && shape->dst_len < addr_bits(shape->family))
			return 2;
		r = model_find(model, &groups[i], packet, ret);
	}
	return r;
}

/* Which rows differ: a merge walk over two lists sorted by name. */

static int add_change(struct plan *plan, size_t *size, const struct row *old_row, const struct row *new_row)
{
	if (array_reserve(&plan->changes, size, plan->n_changes + 1, sizeof(*plan->changes)) < 0)
		return -ENOMEM;
	plan->changes[plan->n_changes++] = (struct row_change){ old_row, new_row };
	return 0;
}

/* The order of two rows of one list; a list that has ended stands behind everything. */
static int compare_rows(const struct row *a, const struct row *b)
{
	if (!a || !b)
		return a ? -1 : 1;
	return strcmp(row_name(a), row_name(b));
}

static int diff_rows(struct plan *plan, size_t *size, const struct rows *from, const struct rows *to)
{
	size_t i = 0, k = 0;
	int r = 0;

	while (r == 0 && (i < from->n || k < to->n)) {
		const struct row *a = i < from->n ? from->items[i] : NULL, *b = k < to->n ? to->items[k] : NULL;
		int order = a == b ? 0 : compare_rows(a, b);

		i += order <= 0;
		k += order >= 0;
		if (a != b)
			r = add_change(plan, size, order <= 0 ? a : NULL, order >= 0 ? b : NULL);
	}
	return r;
}

static int diff_snapshots(struct plan *plan)
{
	size_t size = 0;
	int r = 0;

	for (int id = 0; r == 0 && id < RESOURCES; id++)
		r = diff_rows(plan, &size, &plan->from->rows[id], &plan->to->rows[id]);
	return r;
}

/* Cutting the staged cells. */

static bool is_arriving(const struct stage *stage, const struct contender *contender)
{
	for (size_t i = 0; i < stage->n_arriving; i++)
		if (stage->arriving[i] == contender)
			return true;
	return false;
}

/* The item of the list of ports that is in the tie, of the listener that is being written; of two, the later by name.
 */
static void tie_pointer(const struct stage *stage, const struct tie *tie, char buffer[CONTENDER_POINTER_MAX])
{
	bool a_is_later = strcmp(tie->a->name, tie->b->name) > 0;
	const struct contender *later = a_is_later ? tie->a : tie->b, *earlier = a_is_later ? tie->b : tie->a;
	const struct contender *culprit = is_arriving(stage, later) ? later : earlier;
	char item[32] = "/ports";

	for (size_t i = 0; i < culprit->n_ports; i++)
		if (culprit->ports[i].lo <= tie->lo && tie->hi <= culprit->ports[i].hi &&
		        (culprit->ports[i].lo == culprit->ports[i].hi) == (tie->kind == MATCH_PORT_EXACT)) {
			snprintf(item, sizeof(item), "/ports/%zu", i);
			break;
		}
	contender_pointer(culprit, item, buffer);
}

static void tell_tie(const struct stage *stage, const struct cell *cell, const struct tie *tie, struct errs *errs)
{
	struct prefix dst = { cell->key.dst, cell->key.shape.dst_len },
	              src = { cell->key.src, cell->key.shape.src_len };
	char dst_text[ADDR_TEXT_MAX], src_text[ADDR_TEXT_MAX], ports[24] = "any port", pointer[CONTENDER_POINTER_MAX];
	bool swap = strcmp(tie->a->name, tie->b->name) > 0;

	if (tie->kind == MATCH_PORT_EXACT)
		snprintf(ports, sizeof(ports), "port %u", tie->lo);
	else if (tie->kind == MATCH_PORT_RANGE)
		snprintf(ports, sizeof(ports), "ports %u-%u", tie->lo, tie->hi);
	tie_pointer(stage, tie, pointer);
	errs_add(errs, pointer, "overlap",
	        "listeners \"%s\" and \"%s\" match the same packets equally well with priority %lld: %s to %s, %s, "
	        "from %s%s%s",
	        swap ? tie->b->name : tie->a->name, swap ? tie->a->name : tie->b->name, (long long)tie->a->priority,
	        cell->key.shape.protocol == IPPROTO_TCP ? "tcp" : "udp", prefix_format(&dst, dst_text), ports,
	        prefix_format(&src, src_text), cell->key.shape.interface ? " on " : "", cell->key.interface);
}

static int cut_cell(const struct stage *stage, struct staged_cell *staged, struct errs *errs, struct tie *last)
{
	struct tie tie;
	int r = state_cut(&staged->next, &tie);

	if (r == -EEXIST && (tie.a != last->a || tie.b != last->b)) {
		tell_tie(stage, staged->cell, &tie, errs);
		*last = tie;
	}
	return r;
}

static int cut_cells(struct stage *stage, struct errs *errs)
{
	struct tie last = { 0 };
	int r = 0;

	for (size_t i = 0; i < stage->n_cells; i++) {
		int one = cut_cell(stage, &stage->cells[i], errs, &last);

		if (one == -ENOMEM)
			return one;
		r = one < 0 ? one : r;
	}
	return r;
}

/* The difference in elements. */

static int compare_pieces(const struct piece *a, const struct piece *b)
{
	if (!a || !b)
		return a ? -1 : 1;
	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	if (a->lo != b->lo)
		return a->lo < b->lo ? -1 : 1;
	return (a->hi > b->hi) - (a->hi < b->hi);
}

static int diff_cell(const struct staged_cell *staged, struct growing *removed, struct growing *added)
{
	size_t n_now, n_next, i = 0, k = 0;
	const struct piece *now = state_pieces(&staged->cell->now, &n_now);
	const struct piece *next = state_pieces(&staged->next, &n_next);
	int r = 0;

	while (r == 0 && (i < n_now || k < n_next)) {
		const struct piece *a = i < n_now ? &now[i] : NULL, *b = k < n_next ? &next[k] : NULL;
		int order = compare_pieces(a, b);

		i += order <= 0;
		k += order >= 0;
		if (order == 0 && a->verdict == b->verdict && a->listener == b->listener && a->limited == b->limited &&
		        a->own_range == b->own_range)
			continue;
		if (order <= 0)
			r = append(removed, staged->cell, a);
		if (order >= 0 && r == 0)
			r = append(added, staged->cell, b);
	}
	return r;
}

static int diff_cells(struct plan *plan, const struct stage *stage)
{
	struct growing removed = { &plan->removed, 0 }, added = { &plan->added, 0 };
	int r = 0;

	for (size_t i = 0; r == 0 && i < stage->n_cells; i++)
		r = diff_cell(&stage->cells[i], &removed, &added);
	elements_sort(&plan->removed);
	elements_sort(&plan->added);
	return r;
}

/* The groups in use: counts, changed by the runs of one group in removed and added. */

/* How many blocks a range consists of. */
static size_t blocks_of(const struct match_key *key)
{
	size_t n = 0;

	for (uint32_t at = key->port_lo; at <= key->port_hi; at += 1U << port_block_bits(at, key->port_hi))
		n++;
	return n;
}

/* What the run of this group has, if one stands at *at. */
static struct group_count take_run(const struct elements *elements, size_t *at, const struct group *group)
{
	struct group_count ret = { .group = *group };
	struct group first;

	if (*at == elements->n)
		return ret;
	first = element_group(&elements->items[*at]);
	ret.count = group_compare(&first, group) == 0 ? elements_run(elements, *at) : 0;
	for (size_t i = 0; group_is_interval(group) && i < ret.count; i++)
		ret.blocks += blocks_of(&elements->items[*at + i].key);
	*at += ret.count;
	return ret;
}

/* Three sorted lists in step: the counts before, the removals, the additions. */
static int count_groups(const struct model *model, const struct plan *plan, struct stage *stage)
{
	size_t c = 0, i = 0, k = 0, size = 0;

	while (c < model->n_groups || k < plan->added.n) {
		struct group_count next = { 0 }, added, removed;

		if (k < plan->added.n)
			next.group = element_group(&plan->added.items[k]);
		if (c < model->n_groups &&
		        (k == plan->added.n || group_compare(&model->groups[c].group, &next.group) <= 0))
			next = model->groups[c++];
		added = take_run(&plan->added, &k, &next.group);
		removed = take_run(&plan->removed, &i, &next.group);
		next.count += added.count - removed.count;
		next.blocks += added.blocks - removed.blocks;
		if (next.count == 0)
			continue;
		if (array_reserve(&stage->groups, &size, stage->n_groups + 1, sizeof(next)) < 0)
			return -ENOMEM;
		stage->groups[stage->n_groups++] = next;
	}
	return 0;
}

static size_t blocks_of_all(const struct group_count *groups, size_t n)
{
	size_t blocks = 0;

	for (size_t i = 0; i < n; i++)
		blocks += groups[i].blocks;
	return blocks;
}

/* A listener that the plan gives ranges in interval sets. */
static const struct contender *who_adds_blocks(const struct model *model, const struct plan *plan)
{
	const struct stage *stage = &model->stage;
	size_t at = 0;

	while (at < plan->added.n) {
		struct group group = element_group(&plan->added.items[at]);

		if (group_is_interval(&group))
			break;
		at += elements_run(&plan->added, at);
	}
	for (size_t i = 0; at < plan->added.n && i < stage->n_contenders; i++)
		if (stage->contenders[i]->listener == plan->added.items[at].listener)
			return stage->contenders[i];
	return NULL;
}

int plan_check_load(const struct model *model, const struct plan *plan, struct errs *errs)
{
	size_t blocks = blocks_of_all(model->stage.groups, model->stage.n_groups);
	const struct contender *contender;
	char pointer[CONTENDER_POINTER_MAX] = "";

	if (blocks <= PLAN_BLOCKS_MAX || blocks <= blocks_of_all(model->groups, model->n_groups))
		return 0;
	contender = who_adds_blocks(model, plan);
	if (contender)
		contender_pointer(contender, "/ports", pointer);
	errs_add(errs, pointer, "too_complex",
	        "listener \"%s\": with it, ranges of ports for their combinations of addresses would lie in the kernel "
	        "in "
	        "%zu pieces, more than %d. Name all ports or single ones, or fewer addresses.",
	        contender ? contender->name : "", blocks, PLAN_BLOCKS_MAX);
	return -EINVAL;
}

/* Interval sets that are made anew. */

static int choose_rebuilt(struct plan *plan)
{
	size_t size = 0;

	for (size_t i = 0, run; i < plan->removed.n; i += run) {
		struct group group = element_group(&plan->removed.items[i]);

		run = elements_run(&plan->removed, i);
		if (!group_is_interval(&group) || run < PLAN_REBUILD_MIN ||
		        !group_is_in(plan->groups_after, plan->n_groups_after, &group))
			continue;
		if (array_reserve(&plan->groups_rebuilt, &size, plan->n_groups_rebuilt + 1, sizeof(group)) < 0)
			return -ENOMEM;
		plan->groups_rebuilt[plan->n_groups_rebuilt++] = group;
	}
	return 0;
}

/* The pieces of a cell that lie in sets made anew. */
static int append_rebuilt(
        struct growing *to, const struct plan *plan, const struct cell *cell, const struct cell_state *state)
{
	size_t n;
	const struct piece *pieces = state_pieces(state, &n);
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++) {
		struct element element;
		struct group group;

		cell_element(cell, &pieces[i], &element);
		group = element_group(&element);
		if (group_is_in(plan->groups_rebuilt, plan->n_groups_rebuilt, &group))
			r = append(to, cell, &pieces[i]);
	}
	return r;
}

static int collect_rebuilt(const struct model *model, struct plan *plan)
{
	struct growing growing = { &plan->rebuilt, 0 };
	int r = choose_rebuilt(plan);

	for (size_t b = 0; r == 0 && plan->n_groups_rebuilt > 0 && b < model->cells.n_buckets; b++)
		for (struct cell *cell = model->cells.buckets[b]; r == 0 && cell; cell = cell->chain)
			r = append_rebuilt(&growing, plan, cell,
			        cell->staged ? &model->stage.cells[cell->staged - 1].next : &cell->now);
	elements_sort(&plan->rebuilt);
	return r;
}

/* Ends of a plan. */

static void plan_free(struct plan *plan)
{
	snapshot_unref(plan->from);
	snapshot_unref(plan->to);
	limits_unref(plan->limits_before);
	limits_unref(plan->limits_after);
	free(plan->removed.items);
	free(plan->added.items);
	free(plan->groups_before);
	free(plan->groups_after);
	free(plan->groups_rebuilt);
	free(plan->rebuilt.items);
	free(plan->changes);
	free(plan);
}

void plan_commit(struct model *model, struct plan *plan)
{
	stage_commit(model);
	plan_free(plan);
}

void plan_abort(struct model *model, struct plan *plan)
{
	stage_abort(model);
	plan_free(plan);
}

/* The model was made from `from`, row by row; anything else is a mistake of the caller. */
static bool model_is_at(const struct model *model, const struct snapshot *from)
{
	const struct rows *rows = &from->rows[RESOURCE_LISTENER];

	if (model->planning || rows->n != model->n_contenders)
		return false;
	for (size_t i = 0; i < rows->n; i++)
		if (rows->items[i] != model->contenders[i]->row)
			return false;
	return true;
}

/* Compiled anew only if something of them has changed. */
static int stage_limits(struct model *model, struct plan *plan, struct errs *errs)
{
	bool concerned = !model->limits;

	for (size_t i = 0; i < plan->n_changes && !concerned; i++)
		concerned = limits_concern(plan->changes[i].old_row, plan->changes[i].new_row);
	if (concerned) {
		int r = limits_compile(plan->to, errs, &model->stage.limits);

		if (r < 0)
			return r;
	} else {
		model->stage.limits = limits_ref(model->limits);
	}
	plan->limits_before = limits_ref(model->limits);
	plan->limits_after = limits_ref(model->stage.limits);
	return 0;
}

static int fill(struct model *model, struct plan *plan, struct errs *errs)
{
	struct stage *stage = &model->stage;
	int r;

	r = diff_snapshots(plan);
	if (r == 0)
		r = stage_listeners(model, plan->from, plan->to, errs);
	if (r == 0)
		r = cut_cells(stage, errs);
	if (r == 0)
		r = diff_cells(plan, stage);
	if (r == 0)
		r = count_groups(model, plan, stage);
	if (r == 0)
		r = copy_groups(model->groups, model->n_groups, &plan->groups_before, &plan->n_groups_before);
	if (r == 0)
		r = copy_groups(stage->groups, stage->n_groups, &plan->groups_after, &plan->n_groups_after);
	if (r == 0)
		r = collect_rebuilt(model, plan);
	if (r == 0)
		r = stage_limits(model, plan, errs);
	return r;
}

int plan_new(struct model *model, struct snapshot *from, struct snapshot *to, struct errs *errs, struct plan **ret)
{
	struct plan *plan;
	int r;

	if (!model_is_at(model, from))
		return -EINVAL;
	plan = calloc(1, sizeof(*plan));
	if (!plan)
		return -ENOMEM;
	plan->from = snapshot_ref(from);
	plan->to = snapshot_ref(to);
	plan->from_revision = from->revision;
	plan->to_revision = to->revision;
	model->planning = true;
	r = fill(model, plan, errs);
	if (r < 0) {
		plan_abort(model, plan);
		return r;
	}
	*ret = plan;
	return 0;
}
