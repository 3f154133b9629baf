/* Rise and fall; see health_rule.h. */
#include "gatewayd/relay/health_rule.h"

static void set32(_Atomic uint32_t *word, uint32_t value)
{
	atomic_store_explicit(word, value, memory_order_relaxed);
}

static void set64(_Atomic uint64_t *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_relaxed);
}

/* One writer. */
static void count(_Atomic uint64_t *word)
{
	set64(word, atomic_load_explicit(word, memory_order_relaxed) + 1);
}

static uint8_t one_more(uint8_t n)
{
	return n < UINT8_MAX ? (uint8_t)(n + 1) : n;
}

static bool set_health(struct target_state *state, enum target_health health, uint64_t now_ms)
{
	if (atomic_load_explicit(&state->health, memory_order_relaxed) == health)
		return false;
	set64(&state->since_ms, now_ms);
	/* Behind the rest: whoever sees the new health sees why and since when. */
	atomic_store_explicit(&state->health, health, memory_order_release);
	return true;
}

static enum target_health judge(
        const struct health_rule *rule, const struct health_streak *streak, enum target_health before)
{
	if (streak->good >= rule->rise || (before == TARGET_HEALTH_UNKNOWN && streak->good > 0))
		return TARGET_HEALTH_UP;
	return streak->bad >= rule->fall ? TARGET_HEALTH_DOWN : before;
}

bool health_rule_note(const struct health_rule *rule, struct health_streak *streak, struct target_state *state,
        const struct health_verdict *verdict, uint64_t now_ms)
{
	bool good = verdict->cause == TARGET_CAUSE_OK;

	set32(&state->cause, verdict->cause);
	set32(&state->detail, verdict->detail);
	set64(&state->checked_ms, now_ms);
	if (verdict->cause == TARGET_CAUSE_LOCAL)
		return false;
	*streak = good ? (struct health_streak){ .good = one_more(streak->good) }
	               : (struct health_streak){ .bad = one_more(streak->bad) };
	count(&state->checks);
	if (good)
		set32(&state->latency_us, verdict->latency_us);
	else
		count(&state->failures);
	set32(&state->streak, good ? streak->good : streak->bad);
	return set_health(state,
	        judge(rule, streak, (enum target_health)atomic_load_explicit(&state->health, memory_order_relaxed)),
	        now_ms);
}

uint64_t health_rule_meet(uint64_t due_ms, uint32_t interval_ms)
{
	uint64_t step = HEALTH_MEET_MS;

	while (step > 1 && step > interval_ms / HEALTH_MEET_PART)
		step /= 2;
	return (due_ms + step / 2) / step * step;
}

bool health_rule_forget(struct health_streak *streak, struct target_state *state, uint64_t now_ms)
{
	*streak = (struct health_streak){ 0 };
	set32(&state->cause, TARGET_CAUSE_NONE);
	set32(&state->detail, 0);
	set32(&state->streak, 0);
	return set_health(state, TARGET_HEALTH_UNKNOWN, now_ms);
}
