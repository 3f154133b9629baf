/* Flows that go because of their target; see reap.h. */
#include "gatewayd/relay/reap.h"

#include <string.h>

#include "gatewayd/base/clock.h"
#include "gatewayd/relay/life.h"
#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/udp_flow.h"

enum reap_why reap_why(
        const struct target_state *state, uint8_t configured, bool reset_on_down, uint64_t now_ms, uint64_t *wake_ms)
{
	uint32_t admin = target_state_admin(state, configured);
	uint64_t deadline_ms = atomic_load_explicit(&state->drain_deadline_ms, memory_order_relaxed);
	bool down = admin == TARGET_DOWN ||
	            atomic_load_explicit(&state->health, memory_order_acquire) == TARGET_HEALTH_DOWN;

	if (down && reset_on_down)
		return REAP_DOWN;
	if (admin == TARGET_UP || deadline_ms == 0)
		return REAP_NOT;
	if (now_ms >= deadline_ms)
		return atomic_load_explicit(&state->reset_per_s, memory_order_relaxed) ? REAP_DRAINED : REAP_NOT;
	if (deadline_ms < *wake_ms)
		*wake_ms = deadline_ms;
	return REAP_NOT;
}

bool reap_pass(struct target_state *state, enum reap_why why, uint64_t now_us)
{
	uint32_t per_s =
	        why == REAP_DRAINED ? atomic_load_explicit(&state->reset_per_s, memory_order_relaxed) : REAP_DOWN_PER_S;
	uint64_t next = atomic_load_explicit(&state->reset_next_us, memory_order_relaxed), moved;

	if (per_s == 0)
		return false;
	do {
		if (next > now_us)
			return false;
		moved = (next + REAP_BURST_US < now_us ? now_us - REAP_BURST_US : next) + 1000000 / per_s;
	} while (!atomic_compare_exchange_weak_explicit(
	        &state->reset_next_us, &next, moved, memory_order_relaxed, memory_order_relaxed));
	return true;
}

/* The target's state, and its number among the slots; NULL if it has none. */
static struct target_state *state_at(const struct loop *loop, uint32_t slot, uint32_t id, uint32_t *ret_number)
{
	struct stats_memory *memory = loop->place.memory;

	if (!memory || slot >= STATS_SLOTS_MAX || atomic_load_explicit(&memory->id[slot], memory_order_relaxed) != id)
		return NULL;
	*ret_number = slot - stats_slot_first(STATS_TARGET);
	return stats_target(memory, slot);
}

/* Notes which targets' flows are to go; whether there are any. */
static bool look_at_targets(struct loop *loop, uint64_t *wake_ms)
{
	struct reap *reap = &loop->reap;
	bool any = false;

	memset(reap->why, REAP_NOT, sizeof(reap->why));
	for (size_t i = 0; i < loop->config->upstreams.n; i++) {
		struct config_upstream *upstream = loop->config->upstreams.items[i].value;

		upstream->reaped = false;
		for (size_t j = 0; j < upstream->balance.n; j++) {
			const struct target *target = &upstream->balance.targets[j];
			uint32_t number;
			const struct target_state *state = state_at(loop, target->slot, target->id, &number);
			enum reap_why why = state ? reap_why(state, target->state, upstream->reset_on_down,
			                                    clock_us() / 1000, wake_ms)
			                          : REAP_NOT;

			if (why == REAP_NOT)
				continue;
			reap->why[number] = (uint8_t)why;
			upstream->reaped = any = true;
		}
	}
	return any;
}

void reap_begin(struct loop *loop)
{
	uint64_t wake_ms = UINT64_MAX;

	loop->reap.next = look_at_targets(loop, &wake_ms) ? 0 : FLOW_NONE;
	loop->reap.left = false;
	wheel_clear(&loop->wheel, &loop->reap.timer);
	if (wake_ms != UINT64_MAX)
		wheel_set(&loop->wheel, &loop->reap.timer, wake_ms);
}

static enum flow_why end_of(enum reap_why why)
{
	return why == REAP_DOWN ? FLOW_END_target_down : FLOW_END_drained;
}

/* True if the flow was reset. */
static bool reap_tcp(struct loop *loop, struct flow *flow)
{
	static const enum stats_counter counters[] = {
		[REAP_DOWN] = STATS_reset_on_down, [REAP_DRAINED] = STATS_reset_drained
	};
	const struct flow_way *way = flow_way(&loop->flows, flow);
	struct target_state *state;
	uint32_t number;
	enum reap_why why;

	if ((flow->state != FLOW_RELAYING && flow->state != FLOW_CONNECTING) || way->objects.target == 0)
		return false;
	state = state_at(loop, way->slot[STATS_TARGET], way->objects.target, &number);
	why = state ? (enum reap_why)loop->reap.why[number] : REAP_NOT;
	if (why == REAP_NOT)
		return false;
	if (!reap_pass(state, why, clock_us())) {
		loop->reap.left = true;
		return false;
	}
	stats_add(loop->stats, counters[why], 1);
	life_reset(loop, flow, end_of(why));
	return true;
}

/* UDP flows do not know their target's slot. True if the flow was ended. */
static bool reap_udp(struct loop *loop, struct udp_flow *flow)
{
	const struct config_upstream *upstream = flow->used && flow->origin.objects.target
	                                                 ? config_upstream(loop->config, flow->origin.objects.upstream)
	                                                 : NULL;
	const struct target *target =
	        upstream && upstream->reaped ? balance_target(&upstream->balance, flow->origin.objects.target) : NULL;
	uint32_t number;

	if (!target || !state_at(loop, target->slot, target->id, &number) || loop->reap.why[number] == REAP_NOT)
		return false;
	if (flow->held) {
		loop->reap.left = true;
		return false;
	}
	udp_flow_end(loop, flow, end_of((enum reap_why)loop->reap.why[number]));
	return true;
}

static void pass_end(struct loop *loop)
{
	uint64_t due_ms = loop->now_ms + REAP_PAUSE_MS;

	loop->reap.next = FLOW_NONE;
	/* What is left over comes first; the look at the targets then finds the next deadline again. */
	if (loop->reap.left)
		wheel_set(&loop->wheel, &loop->reap.timer, due_ms);
}

void reap_continue(struct loop *loop)
{
	struct udp_table *udp = &loop->udp->table;
	unsigned reaped = 0;

	for (unsigned i = 0; i < REAP_PASS && reaped < REAP_SLICE; i++) {
		uint32_t next = loop->reap.next++;

		if (next < loop->flows.touched)
			reaped += reap_tcp(loop, &loop->flows.flows[next]);
		else if (next - loop->flows.touched < udp->touched)
			reaped += reap_udp(loop, &udp->flows[next - loop->flows.touched]);
		else
			break;
	}
	if (loop->reap.next > loop->flows.touched + udp->touched)
		pass_end(loop);
}
