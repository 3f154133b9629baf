/*
 * What the rows of relays before this one say of flows that it takes over: the
 * name and the route that were found in the first bytes, how long the connect
 * took. An index by flow that is made when the first one is looked for and
 * freed when all are taken over. Called by adopt.c; not in the data path.
 */
#ifndef GW_RELAY_HEIR_H
#define GW_RELAY_HEIR_H

#include "gatewayd/base/stats.h"

/* All zero: not made yet. */
struct heir {
	uint32_t *slots; /* a bank and a row of it, from 1; 0: none */
	size_t mask, n;
	bool tried;
};

/* The row of the flow as it was left, by whatever relay. False: none has it, or there is no memory for the index. */
bool heir_find(struct heir *heir, const struct stats_memory *memory, uint64_t id, struct stats_flow *ret);
void heir_clear(struct heir *heir);

#endif
