/* The flows of a target; see load.h. */
#include "gatewayd/relay/load.h"

#define RUN_SHIFT 32

struct target_state *load_state(const struct stats_place *place, uint32_t slot, uint32_t id)
{
	struct target_state *state = place->memory ? stats_target(place->memory, slot) : NULL;

	if (!state || atomic_load_explicit(&place->memory->id[slot], memory_order_relaxed) != id)
		return NULL;
	return state;
}

static uint32_t count_of(uint64_t word, uint32_t run)
{
	return word >> RUN_SHIFT == run ? (uint32_t)word : 0;
}

uint32_t load_now(const struct stats_place *place, const struct target_state *state)
{
	return state ? count_of(atomic_load_explicit(&state->flows, memory_order_relaxed), place->run) : 0;
}

bool load_take(const struct stats_place *place, uint32_t slot, uint32_t id, uint32_t most, struct load_hold *ret)
{
	struct target_state *state = load_state(place, slot, id);
	uint64_t word, next;

	*ret = (struct load_hold){ 0 };
	if (!state)
		return true;
	word = atomic_load_explicit(&state->flows, memory_order_relaxed);
	do {
		uint32_t count = count_of(word, place->run);

		if (most > 0 && count >= most)
			return false;
		next = (uint64_t)place->run << RUN_SHIFT | (uint64_t)(count + 1);
	} while (!atomic_compare_exchange_weak_explicit(
	        &state->flows, &word, next, memory_order_relaxed, memory_order_relaxed));
	*ret = (struct load_hold){ .run = place->run, .slot = slot, .id = id };
	return true;
}

void load_give(const struct stats_place *place, struct load_hold *hold)
{
	struct target_state *state = load_state(place, hold->slot, hold->id);
	uint32_t run = hold->run;
	uint64_t word;

	*hold = (struct load_hold){ 0 };
	if (run == 0 || !state)
		return;
	word = atomic_load_explicit(&state->flows, memory_order_relaxed);
	while (count_of(word, run) > 0 && !atomic_compare_exchange_weak_explicit(&state->flows, &word, word - 1,
	                                          memory_order_relaxed, memory_order_relaxed))
		;
}
