/*
 * The table of source_hash: which server has each of MAGLEV_SIZE places, by
 * the algorithm of Google's Maglev (NSDI 2016), weighted. Pure: the result
 * depends on the servers' addresses, ports and weights alone, not on their
 * order, ids or the machine, so gateways with one configuration agree.
 *
 * Theory of operation: each server has its own order of preference among the
 * places, a walk by an offset and a step that its address and port hash to.
 * Servers take turns, a heavier one more often, and each takes the first place
 * of its order that is free. When one goes, its places are given to others and
 * hardly any other place changes hands.
 */
#ifndef GW_RELAY_MAGLEV_H
#define GW_RELAY_MAGLEV_H

#include <stddef.h>
#include <stdint.h>

#include "gatewayd/base/addr.h"

/* Places; a prime, so that every step visits all of them. With 100 servers each has over 300, which keeps shares within
 * a few per cent; 64 KB per table. */
#define MAGLEV_SIZE 32749
/* Most servers: those of one upstream. */
#define MAGLEV_SERVERS_MAX 1024

struct maglev_server {
	struct addr addr;
	uint16_t port;
	uint16_t weight; /* 0: it has no place */
};

/* Fills the table with indices of servers. It takes n * MAGLEV_SIZE / 2 steps at the very worst and some 10 *
 * MAGLEV_SIZE as a rule, about a millisecond. -ENOENT if no server has a weight, -E2BIG, -ENOMEM: the table is as it
 * was. */
int maglev_build(const struct maglev_server *servers, size_t n, uint16_t table[MAGLEV_SIZE]);
/* The hash of a client's address; its place is the remainder by MAGLEV_SIZE. */
uint64_t maglev_hash(const struct addr *client);

#endif
