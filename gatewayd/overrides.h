/*
 * What operators have said about targets beside the configuration (drain, down,
 * another weight): in memory, in the database (store_runtime.h), and for the
 * relay in the targets' states (base/target_state.h). Used by core_targets.c.
 *
 * A word counts until the operator takes it back, or until what it stands over
 * is configured to be something else: each keeps what was configured when it was
 * said, so that whether it still counts can be told at any time, also of a
 * database that was written by a daemon that died just then.
 */
#ifndef GW_OVERRIDES_H
#define GW_OVERRIDES_H

#include "gatewayd/store.h"
#include "gatewayd/worker.h"

#define OVERRIDES_ACTOR_MAX 80
/* Flows of a target per second that end at the deadline of its draining, if nothing else is said. */
#define OVERRIDES_RESET_PER_S 100
/* Nothing is said. */
#define OVERRIDES_NONE (-1)

struct override {
	uint32_t target;             /* id of its row */
	int64_t admin_state, weight; /* enum admin_state; or NONE */
	int64_t over_admin, over_weight;
	int64_t drain_deadline; /* seconds since 1970; or NONE */
	int64_t reset_per_s;
	int64_t said_at; /* seconds since 1970 */
	char actor[OVERRIDES_ACTOR_MAX];
};

/* All zero is one without any. */
struct overrides {
	struct override *items; /* by target */
	size_t n, room;
};

/* Reads those of the store that still count in this configuration; the others are forgotten there too. */
int overrides_load(struct overrides *overrides, struct store *store, const struct snapshot *snapshot);
void overrides_clear(struct overrides *overrides);
/* What is said of this target, or NULL; valid until the next change. */
const struct override *overrides_find(const struct overrides *overrides, uint32_t target);
/* Stores it, in place of an older one; one that says nothing any more is removed. Negative errno: nothing has changed.
 */
int overrides_set(struct overrides *overrides, struct store *store, const struct override *override);
/* The configuration has become another: forgets what does not count any more, also where the relay reads it (worker
 * NULL: nowhere yet). True if that was any. */
bool overrides_follow(
        struct overrides *overrides, struct store *store, const struct snapshot *snapshot, struct worker *worker);
/* Writes it (NULL: that nothing is said) where the relay reads it. */
void overrides_write(const struct override *override, struct target_state *state);
/* The same for all. */
void overrides_write_all(const struct overrides *overrides, struct worker *worker);

#endif
