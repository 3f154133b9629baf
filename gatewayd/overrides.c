/* Operators' words about targets; see overrides.h. */
#include "gatewayd/overrides.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gatewayd/base/clock.h"
#include "gatewayd/base/log.h"
#include "gatewayd/names.h"
#include "gatewayd/store_runtime.h"

static size_t place_of(const struct overrides *overrides, uint32_t target)
{
	size_t low = 0, high = overrides->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (overrides->items[middle].target < target)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool is_at(const struct overrides *overrides, size_t place, uint32_t target)
{
	return place < overrides->n && overrides->items[place].target == target;
}

const struct override *overrides_find(const struct overrides *overrides, uint32_t target)
{
	size_t place = place_of(overrides, target);

	return is_at(overrides, place, target) ? &overrides->items[place] : NULL;
}

void overrides_clear(struct overrides *overrides)
{
	free(overrides->items);
	*overrides = (struct overrides){ 0 };
}

static int reserve(struct overrides *overrides)
{
	size_t room = overrides->room ? 2 * overrides->room : 16;
	struct override *grown;

	if (overrides->n < overrides->room)
		return 0;
	grown = reallocarray(overrides->items, room, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	overrides->items = grown;
	overrides->room = room;
	return 0;
}

/* There is room. */
static void keep(struct overrides *overrides, const struct override *override)
{
	size_t place = place_of(overrides, override->target);

	if (!is_at(overrides, place, override->target)) {
		memmove(&overrides->items[place + 1], &overrides->items[place],
		        (overrides->n - place) * sizeof(*override));
		overrides->n++;
	}
	overrides->items[place] = *override;
}

static void drop(struct overrides *overrides, size_t place)
{
	overrides->n--;
	memmove(&overrides->items[place], &overrides->items[place + 1],
	        (overrides->n - place) * sizeof(*overrides->items));
}

static bool says_nothing(const struct override *override)
{
	return override->admin_state == OVERRIDES_NONE && override->weight == OVERRIDES_NONE &&
	       override->drain_deadline == OVERRIDES_NONE;
}

static int store_one(struct store *store, const struct override *override)
{
	const struct store_runtime runtime = { .target = override->target,
		.admin_state = override->admin_state,
		.weight = override->weight,
		.over_admin = override->over_admin,
		.over_weight = override->over_weight,
		.drain_deadline = override->drain_deadline,
		.reset_per_s = override->reset_per_s,
		.said_at = override->said_at,
		.actor = override->actor };

	return says_nothing(override) ? store_runtime_delete(store, override->target)
	                              : store_runtime_put(store, &runtime);
}

int overrides_set(struct overrides *overrides, struct store *store, const struct override *override)
{
	size_t place = place_of(overrides, override->target);
	int r = reserve(overrides);

	if (r == 0)
		r = store_one(store, override);
	if (r < 0)
		return r;
	if (!says_nothing(override))
		keep(overrides, override);
	else if (is_at(overrides, place, override->target))
		drop(overrides, place);
	return 0;
}

/* --- for the relay --- */

/* CLOCK_MONOTONIC in milliseconds; 0: none. Never 0 for one that is past. */
static uint64_t deadline_ms(const struct override *override)
{
	int64_t left_s, now_ms = (int64_t)(clock_us() / 1000), at_ms;

	if (!override || override->drain_deadline == OVERRIDES_NONE)
		return 0;
	left_s = override->drain_deadline - (int64_t)time(NULL);
	at_ms = now_ms + left_s * 1000;
	return at_ms > 0 ? (uint64_t)at_ms : 1;
}

void overrides_write(const struct override *override, struct target_state *state)
{
	bool admin = override && override->admin_state != OVERRIDES_NONE;
	bool weight = override && override->weight != OVERRIDES_NONE;

	atomic_store_explicit(
	        &state->reset_per_s, override ? (uint32_t) override->reset_per_s : 0, memory_order_relaxed);
	atomic_store_explicit(&state->drain_deadline_ms, deadline_ms(override), memory_order_relaxed);
	atomic_store_explicit(&state->weight, weight ? (uint32_t) override->weight + 1 : 0, memory_order_relaxed);
	atomic_store_explicit(&state->admin, admin ? (uint32_t) override->admin_state + 1 : 0, memory_order_release);
}

static void write_one(const struct override *override, struct worker *worker)
{
	struct target_state *state = worker_target(worker, override->target);

	if (state)
		overrides_write(says_nothing(override) ? NULL : override, state);
}

void overrides_write_all(const struct overrides *overrides, struct worker *worker)
{
	for (size_t i = 0; i < overrides->n; i++)
		write_one(&overrides->items[i], worker);
}

/* --- what still counts --- */

/* Takes out of the override what the configuration has overtaken. target NULL: it is gone. True if that was any. */
static bool settle(struct override *override, const struct target *target)
{
	bool admin = !target || target->admin_state != override->over_admin;
	bool weight = !target || target->weight != override->over_weight;
	struct override before = *override;

	if (admin)
		override->admin_state = override->drain_deadline = OVERRIDES_NONE;
	if (weight)
		override->weight = OVERRIDES_NONE;
	if (target) {
		override->over_admin = target->admin_state;
		override->over_weight = target->weight;
	}
	return override->admin_state != before.admin_state || override->weight != before.weight ||
	       override->drain_deadline != before.drain_deadline || says_nothing(override);
}

static const struct target *target_of(const struct names *names, uint32_t id)
{
	const struct name *name = names_find(names, STATS_TARGET, id);

	return name ? (const struct target *)name->row : NULL;
}

/* Each is settled where it is; what says nothing any more is dropped. */
static bool settle_all(
        struct overrides *overrides, struct store *store, const struct names *names, struct worker *worker)
{
	bool any = false;

	for (size_t i = overrides->n; i-- > 0;) {
		struct override *override = &overrides->items[i];
		const struct target *target = target_of(names, override->target);

		if (!settle(override, target))
			continue;
		any = true;
		if (target && worker)
			write_one(override, worker);
		/* Of a target that is gone the database has forgotten it already. What cannot be stored is settled
		 * again at the next start. */
		if (target && store_one(store, override) < 0)
			log_warning("the state of a target cannot be stored: %s", store_error(store));
		if (says_nothing(override))
			drop(overrides, i);
	}
	return any;
}

bool overrides_follow(
        struct overrides *overrides, struct store *store, const struct snapshot *snapshot, struct worker *worker)
{
	struct names names = { 0 };
	bool any = false;

	if (overrides->n == 0)
		return false;
	if (names_follow(&names, snapshot) == 0)
		any = settle_all(overrides, store, &names, worker);
	names_clear(&names);
	return any;
}

static int load_one(void *userdata, const struct store_runtime *runtime)
{
	struct overrides *overrides = userdata;
	struct override override = { .target = (uint32_t)runtime->target,
		.admin_state = runtime->admin_state,
		.weight = runtime->weight,
		.over_admin = runtime->over_admin,
		.over_weight = runtime->over_weight,
		.drain_deadline = runtime->drain_deadline,
		.reset_per_s = runtime->reset_per_s,
		.said_at = runtime->said_at };
	int r = reserve(overrides);

	snprintf(override.actor, sizeof(override.actor), "%s", runtime->actor);
	if (r == 0)
		keep(overrides, &override);
	return r;
}

int overrides_load(struct overrides *overrides, struct store *store, const struct snapshot *snapshot)
{
	int r = store_runtime_list(store, load_one, overrides);

	if (r == 0)
		(void)overrides_follow(overrides, store, snapshot, NULL);
	return r;
}
