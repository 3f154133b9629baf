/* Targets' states in words; see health_view.h. */
#include "gatewayd/health_view.h"

#include <assert.h>
#include <string.h>
#include <time.h>

#include "gatewayd/base/clock.h"

static_assert(ADMIN_STATE_UP == 0 && ADMIN_STATE_DRAIN == 1 && ADMIN_STATE_DOWN == 2, "as in relay/balance.h");

const char *health_view_state_name(enum target_health health)
{
	static const char *const names[] = { "unknown", "up", "down" };

	static_assert(ARRAY_SIZE(names) == TARGET_HEALTHS, "one word each");
	return health < TARGET_HEALTHS ? names[health] : names[0];
}

const char *health_view_cause_name(enum target_cause cause)
{
	static const char *const names[] = { "none", "ok", "connect", "timeout", "status", "body", "protocol",
		"local" };

	static_assert(ARRAY_SIZE(names) == TARGET_CAUSES, "one word each");
	return cause < TARGET_CAUSES ? names[cause] : names[0];
}

static uint32_t word(const _Atomic uint32_t *from)
{
	return atomic_load_explicit(from, memory_order_relaxed);
}

static uint64_t number(const _Atomic uint64_t *from)
{
	return atomic_load_explicit(from, memory_order_relaxed);
}

static bool is_usable(const struct health_view *view)
{
	return view->admin == ADMIN_STATE_UP && view->weight > 0 && view->health != TARGET_HEALTH_DOWN &&
	       view->ejected_until_ms == 0;
}

void health_view_read(const struct meter *meter, const struct target *target, uint64_t now_ms, struct health_view *ret)
{
	const struct target_state *state = meter_target_find(meter, target->row.id);
	uint64_t ejected;

	*ret = (struct health_view){ .admin = (uint32_t)target->admin_state, .weight = (uint32_t)target->weight };
	if (state) {
		ejected = number(&state->ejected_until_ms);
		*ret = (struct health_view){ .health = (enum target_health)atomic_load_explicit(
			                             &state->health, memory_order_acquire),
			.cause = (enum target_cause)word(&state->cause),
			.detail = word(&state->detail),
			.latency_us = word(&state->latency_us),
			.streak = word(&state->streak),
			.since_ms = number(&state->since_ms),
			.checked_ms = number(&state->checked_ms),
			.checks = number(&state->checks),
			.failures = number(&state->failures),
			.ejected_until_ms = ejected > now_ms ? ejected : 0,
			.ejections = word(&state->ejections),
			.admin = target_state_admin(state, ret->admin),
			.weight = target_state_weight(state, ret->weight) };
	}
	ret->usable = is_usable(ret);
}

/* Why nothing was checked so far. */
static const char *words_of_none(const struct upstream *upstream, const struct target *target)
{
	if (upstream->health_type == HEALTH_TYPE_NONE)
		return "not checked: the upstream has no health check";
	if (target->port == 0 && upstream->health_port == 0)
		return "not checked: the target has no port of its own, and the check names none";
	return "not checked yet";
}

const char *health_view_words(const struct health_view *view, const struct upstream *upstream,
        const struct target *target, char words[HEALTH_VIEW_WORDS_MAX])
{
	unsigned detail = view->detail, n = view->streak;

#define SAY(...) snprintf(words, HEALTH_VIEW_WORDS_MAX, __VA_ARGS__)
	switch (view->cause) {
	case TARGET_CAUSE_OK:
		if (n == 1 && detail)
			SAY("the last check was answered with status %u", detail);
		else if (n == 1)
			SAY("the last check could connect");
		else if (detail)
			SAY("the last %u checks were answered with status %u", n, detail);
		else
			SAY("the last %u checks could connect", n);
		break;
	case TARGET_CAUSE_CONNECT:
		SAY("%u checks in a row failed; the last could not connect: %s", n, strerror((int)detail));
		break;
	case TARGET_CAUSE_TIMEOUT:
		SAY("%u checks in a row failed; the last had no answer within %u ms", n, detail);
		break;
	case TARGET_CAUSE_STATUS:
		SAY("%u checks in a row failed; the last was answered with status %u", n, detail);
		break;
	case TARGET_CAUSE_BODY:
		SAY("%u checks in a row failed; the last answer, of status %u, does not hold the wanted text", n,
		        detail);
		break;
	case TARGET_CAUSE_PROTOCOL:
		SAY("%u checks in a row failed; the last answer is not HTTP, or ended early", n);
		break;
	case TARGET_CAUSE_LOCAL:
		SAY("the last check could not be made here, which says nothing of the target: %s",
		        strerror((int)detail));
		break;
	case TARGET_CAUSE_NONE:
	case TARGET_CAUSES:
		SAY("%s", words_of_none(upstream, target));
		break;
	}
#undef SAY
	return words;
}

const char *health_view_upstream_name(enum health_view_upstream_state state)
{
	static const char *const names[] = { "up", "degraded", "down" };

	static_assert(ARRAY_SIZE(names) == HEALTH_VIEW_STATES, "one word each");
	return names[state];
}

void health_view_upstream(
        const struct meter *meter, const struct upstream *upstream, uint64_t now_ms, struct health_view_upstream *ret)
{
	*ret = (struct health_view_upstream){ .state = HEALTH_VIEW_UP };
	for (size_t i = 0; i < upstream->targets.n; i++) {
		const struct target *target = (const struct target *)upstream->targets.items[i];
		struct health_view view;

		health_view_read(meter, target, now_ms, &view);
		*(target->backup ? &ret->backups : &ret->targets) += 1;
		*(target->backup ? &ret->backups_usable : &ret->usable) += view.usable;
	}
	if (ret->usable + ret->backups_usable == 0)
		ret->state = HEALTH_VIEW_DOWN;
	else if (ret->usable < (size_t)upstream->quorum)
		ret->state = HEALTH_VIEW_DEGRADED;
}

/* Rounded once, at the end: each of two roundings would move it by a second from one look to the next. */
int64_t health_view_time_by(uint64_t at_ms, uint64_t day_us, uint64_t monotonic_us)
{
	return (int64_t)((day_us - monotonic_us + at_ms * 1000) / 1000000);
}

int64_t health_view_time(uint64_t at_ms)
{
	struct timespec day;

	clock_gettime(CLOCK_REALTIME, &day);
	return health_view_time_by(at_ms, (uint64_t)day.tv_sec * 1000000 + (uint64_t)day.tv_nsec / 1000, clock_us());
}
