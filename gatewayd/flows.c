/* Walking rows of flows; see flows.h. */
#include "gatewayd/flows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/first_route.h"

static bool is_in(const struct prefix *prefix, const struct addr *addr)
{
	struct addr masked = *addr;

	if (addr->family != prefix->addr.family)
		return false;
	addr_mask(&masked, prefix->length);
	return addr_equal(&masked, &prefix->addr);
}

bool flows_match(const struct flows_filter *filter, const struct stats_flow *flow)
{
	if ((filter->listener && flow->listener != filter->listener) ||
	        (filter->upstream && flow->upstream != filter->upstream) ||
	        (filter->protocol && flow->protocol != filter->protocol))
		return false;
	if (filter->sni && (!*flow->sni || !first_route_host_matches(flow->sni, filter->sni)))
		return false;
	if (filter->has_client && !is_in(&filter->client, &flow->client))
		return false;
	return !filter->has_target || (addr_equal(&filter->target, &flow->target) &&
	                                      (!filter->target_port || filter->target_port == flow->target_port));
}

/* On to the next table. */
static void next_table(const struct stats_memory *memory, struct flows_place *place)
{
	place->row = 0;
	place->table++;
	if (place->table >= stats_tables(memory, place->bank)) {
		place->table = 0;
		place->bank++;
	}
}

bool flows_next(const struct stats_memory *memory, struct flows_place *place, size_t *budget, struct flows_found *ret)
{
	while (place->bank < STATS_BANKS) {
		const struct stats_rows *rows = &memory->rows[place->bank];
		uint32_t first, n = stats_rows(memory, place->bank, place->table, &first);

		for (; place->row < n; place->row++) {
			if (*budget == 0)
				return false;
			(*budget)--;
			if (stats_row_id(&rows->row[first + place->row]) == 0 ||
			        !stats_row_read(rows, first + place->row, &ret->flow))
				continue;
			ret->place = *place;
			place->row++;
			return true;
		}
		next_table(memory, place);
	}
	return false;
}

bool flows_find(const struct stats_memory *memory, uint64_t id, struct flows_found *ret)
{
	struct flows_place place = { 0 };

	for (; place.bank < STATS_BANKS; next_table(memory, &place)) {
		const struct stats_rows *rows = &memory->rows[place.bank];
		uint32_t first, n = stats_rows(memory, place.bank, place.table, &first);

		for (place.row = 0; place.row < n; place.row++)
			if (stats_row_id(&rows->row[first + place.row]) == id &&
			        stats_row_read(rows, first + place.row, &ret->flow) && ret->flow.id == id) {
				ret->place = place;
				return true;
			}
	}
	return false;
}

/* --- the first of many --- */

bool flows_before(uint64_t rank, uint64_t id, uint64_t other_rank, uint64_t other_id)
{
	return rank != other_rank ? rank > other_rank : id < other_id;
}

static bool before(const struct flows_found *a, const struct flows_found *b)
{
	return flows_before(a->rank, a->flow.id, b->rank, b->flow.id);
}

int flows_top_init(struct flows_top *top, size_t room)
{
	*top = (struct flows_top){ .room = room };
	top->heap = calloc(room, sizeof(struct flows_found *));
	top->memory = calloc(room, sizeof(*top->memory));
	if (top->heap && top->memory)
		return 0;
	flows_top_clear(top);
	return -ENOMEM;
}

void flows_top_clear(struct flows_top *top)
{
	free(top->heap);
	free(top->memory);
	*top = (struct flows_top){ 0 };
}

static void swap(struct flows_top *top, size_t a, size_t b)
{
	struct flows_found *kept = top->heap[a];

	top->heap[a] = top->heap[b];
	top->heap[b] = kept;
}

static void rise(struct flows_top *top, size_t at)
{
	while (at > 0 && before(top->heap[(at - 1) / 2], top->heap[at])) {
		swap(top, at, (at - 1) / 2);
		at = (at - 1) / 2;
	}
}

static void sink(struct flows_top *top)
{
	size_t at = 0;

	for (;;) {
		size_t last = at;

		for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < top->n; child++)
			if (before(top->heap[last], top->heap[child]))
				last = child;
		if (last == at)
			return;
		swap(top, at, last);
		at = last;
	}
}

void flows_top_offer(struct flows_top *top, const struct flows_found *found)
{
	if (top->n < top->room) {
		top->heap[top->n] = &top->memory[top->n];
		*top->heap[top->n] = *found;
		rise(top, top->n++);
	} else if (top->n > 0 && before(found, top->heap[0])) {
		*top->heap[0] = *found;
		sink(top);
	}
}

static int compare(const void *a, const void *b)
{
	const struct flows_found *x = *(struct flows_found *const *)a, *y = *(struct flows_found *const *)b;

	return before(x, y) ? -1 : before(y, x);
}

void flows_top_sort(struct flows_top *top)
{
	if (top->n > 1)
		qsort(top->heap, top->n, sizeof(*top->heap), compare);
}
