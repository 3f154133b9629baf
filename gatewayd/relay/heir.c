/* Rows of earlier relays by flow; see heir.h. */
#include "gatewayd/relay/heir.h"

#include <assert.h>
#include <stdlib.h>

static_assert(STATS_BANKS * (uint64_t)STATS_ROWS_MAX < UINT32_MAX, "a number says bank and row");

typedef void row_visitor(struct heir *heir, uint64_t id, uint32_t number);

/* Ids grow by the number of threads: they are spread by their high half. */
static size_t slot_of(const struct heir *heir, uint64_t id)
{
	return (size_t)((id * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & heir->mask;
}

static void count(struct heir *heir, uint64_t id, uint32_t number)
{
	(void)number;
	heir->mask += id != 0;
}

static void enter(struct heir *heir, uint64_t id, uint32_t number)
{
	size_t slot = slot_of(heir, id);

	if (id == 0 || 2 * heir->n > heir->mask)
		return;
	while (heir->slots[slot])
		slot = (slot + 1) & heir->mask;
	heir->slots[slot] = number;
	heir->n++;
}

static void visit_all(struct heir *heir, const struct stats_memory *memory, row_visitor *visit)
{
	for (unsigned bank = 0; bank < STATS_BANKS; bank++)
		for (unsigned table = 0; table < stats_tables(memory, bank); table++) {
			uint32_t first, n = stats_rows_left(memory, bank, table, &first);

			for (uint32_t i = first; i < first + n; i++)
				visit(heir, stats_row_id(&memory->rows[bank].row[i]), bank * STATS_ROWS_MAX + i + 1);
		}
}

static void make(struct heir *heir, const struct stats_memory *memory)
{
	size_t room = 64;

	heir->tried = true;
	visit_all(heir, memory, count);
	/* Other threads' new flows may come in between: some to spare. */
	while (room < 4 * heir->mask)
		room *= 2;
	heir->slots = calloc(room, sizeof(*heir->slots));
	heir->mask = room - 1;
	if (heir->slots)
		visit_all(heir, memory, enter);
}

bool heir_find(struct heir *heir, const struct stats_memory *memory, uint64_t id, struct stats_flow *ret)
{
	if (!heir->tried && memory)
		make(heir, memory);
	if (!heir->slots)
		return false;
	for (size_t slot = slot_of(heir, id); heir->slots[slot]; slot = (slot + 1) & heir->mask) {
		uint32_t number = heir->slots[slot] - 1;
		const struct stats_rows *rows = &memory->rows[number / STATS_ROWS_MAX];

		if (stats_row_id(&rows->row[number % STATS_ROWS_MAX]) == id)
			return stats_row_read(rows, number % STATS_ROWS_MAX, ret) && ret->id == id;
	}
	return false;
}

void heir_clear(struct heir *heir)
{
	free(heir->slots);
	*heir = (struct heir){ 0 };
}
