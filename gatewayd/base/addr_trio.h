/*
 * The three addresses of a flow (its client's, the one that the client wanted,
 * its target's) in as little room as they need: IPv4 in itself, IPv6 by its
 * number in a pool (shared.h), for few servers have many flows, and so have some
 * clients. Called by whoever has a table of flows; without locks.
 */
#ifndef GW_BASE_ADDR_TRIO_H
#define GW_BASE_ADDR_TRIO_H

#include "gatewayd/base/addr.h"
#include "gatewayd/base/shared.h"

struct addr_pool {
	struct shared shared;
};

/* All zero is a trio of addresses without a family. Without padding, so that it fits anywhere. */
struct addr_trio {
	uint8_t kind;         /* two bits for each: 0 none, 1 IPv4, 2 IPv6 */
	uint8_t bytes[3 * 4]; /* client, original, target: an address, or a number */
};

/* Room for the addresses of so many trios. 0 or -ENOMEM. */
int addr_pool_init(struct addr_pool *pool, uint32_t trios);
/* Legal for all zero. */
void addr_pool_destroy(struct addr_pool *pool);

/* Sets the addresses, of which each may have family 0; what was held before is given back. 0, or -ENOMEM (the pool is
 * full, for there were more trios than it has room for; the address has no family then). */
int addr_trio_put(struct addr_trio *trio, struct addr_pool *pool, const struct addr *client,
        const struct addr *original, const struct addr *target);
void addr_trio_get(const struct addr_trio *trio, const struct addr_pool *pool, struct addr *ret_client,
        struct addr *ret_original, struct addr *ret_target);
/* Gives back what it holds. */
void addr_trio_drop(struct addr_trio *trio, struct addr_pool *pool);

#endif
