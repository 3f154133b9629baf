/* Ejection of targets that fail; see passive.h. */
#include "gatewayd/relay/passive.h"

#include "gatewayd/relay/load.h"

static bool is_ejected(const struct target_state *state, uint64_t now_ms)
{
	return atomic_load_explicit(&state->ejected_until_ms, memory_order_seq_cst) > now_ms;
}

/* Whether no more than the capped share of the upstream's targets is ejected, with `more` of them besides. */
static bool is_within_share(
        const struct balance *balance, const struct stats_place *place, uint64_t now_ms, size_t more)
{
	size_t ejected = more;

	for (size_t i = 0; i < balance->n; i++) {
		const struct target_state *state = load_state(place, balance->targets[i].slot, balance->targets[i].id);

		ejected += state && is_ejected(state, now_ms);
	}
	return ejected * 100 <= balance->n * PASSIVE_SHARE;
}

static uint64_t eject_ms(uint32_t ejections)
{
	uint64_t ms = PASSIVE_EJECT_MS;

	for (uint32_t i = 0; i < ejections && ms < PASSIVE_EJECT_MAX_MS; i++)
		ms *= 2;
	return ms < PASSIVE_EJECT_MAX_MS ? ms : PASSIVE_EJECT_MAX_MS;
}

/* Only one thread's attempt counts. Where two have ejected two targets at once and that is one too many, both may take
 * it back: the next failure tries again. */
static bool eject(
        const struct balance *balance, const struct stats_place *place, struct target_state *state, uint64_t now_ms)
{
	uint64_t old = atomic_load_explicit(&state->ejected_until_ms, memory_order_seq_cst);
	uint64_t until = now_ms + eject_ms(atomic_load_explicit(&state->ejections, memory_order_relaxed));

	if (old > now_ms || !is_within_share(balance, place, now_ms, 1))
		return false;
	if (!atomic_compare_exchange_strong_explicit(
	            &state->ejected_until_ms, &old, until, memory_order_seq_cst, memory_order_seq_cst))
		return false;
	if (!is_within_share(balance, place, now_ms, 0)) {
		atomic_compare_exchange_strong_explicit(
		        &state->ejected_until_ms, &until, old, memory_order_seq_cst, memory_order_seq_cst);
		return false;
	}
	atomic_store_explicit(&state->failing, 0, memory_order_relaxed);
	atomic_fetch_add_explicit(&state->ejections, 1, memory_order_relaxed);
	return true;
}

bool passive_failed(const struct balance *balance, const struct stats_place *place, uint32_t id, uint64_t now_ms)
{
	const struct target *target = balance_target(balance, id);
	struct target_state *state = target ? load_state(place, target->slot, id) : NULL;
	uint32_t failing;

	if (!state || balance->rules.passive_failures == 0)
		return false;
	failing = atomic_fetch_add_explicit(&state->failing, 1, memory_order_relaxed) + 1;
	return failing >= balance->rules.passive_failures && eject(balance, place, state, now_ms);
}

void passive_succeeded(const struct stats_place *place, uint32_t slot, uint32_t id, uint64_t now_ms)
{
	struct target_state *state = load_state(place, slot, id);

	if (!state)
		return;
	if (atomic_load_explicit(&state->failing, memory_order_relaxed) != 0)
		atomic_store_explicit(&state->failing, 0, memory_order_relaxed);
	if (atomic_load_explicit(&state->ejections, memory_order_relaxed) != 0 &&
	        now_ms >= atomic_load_explicit(&state->ejected_until_ms, memory_order_relaxed) + PASSIVE_FORGET_MS)
		atomic_store_explicit(&state->ejections, 0, memory_order_relaxed);
}
