/*
 * How many flows a target has, over all threads: for least_conn, random_two
 * and max_connections. One word in the memory that daemon and relay share
 * (base/target_state.h), which the loops change by compare and swap when a
 * flow begins and ends.
 *
 * Theory of operation: the word also names the run of the relay that counts;
 * another run begins at none, so what a dead relay had counted is void. Who
 * counts a flow remembers where (struct load_hold) and gives back only there:
 * what was counted in other memory, for an earlier run or for a target whose
 * slot is another's by now is nobody's any more.
 */
#ifndef GW_RELAY_LOAD_H
#define GW_RELAY_LOAD_H

#include "gatewayd/base/stats.h"

/* One flow's part in a target's count. All zero: it is not counted. */
struct load_hold {
	uint32_t run; /* 0: holds nothing */
	uint32_t slot, id;
};

/* The state of the target that has this slot; NULL if the slot is none or another's, or if there is no memory. */
struct target_state *load_state(const struct stats_place *place, uint32_t slot, uint32_t id);
/* Flows of the target now; 0 if nobody counts them. */
uint32_t load_now(const struct stats_place *place, const struct target_state *state);
/* Counts one more flow, unless the target has `most` (0: no limit): then false. *ret is the caller's to give back; it
 * holds nothing where nobody counts, which is no failure. */
bool load_take(const struct stats_place *place, uint32_t slot, uint32_t id, uint32_t most, struct load_hold *ret);
/* The flow does not count any more. Legal for a hold of nothing, which it is afterwards. */
void load_give(const struct stats_place *place, struct load_hold *hold);

#endif
