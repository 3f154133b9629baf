/*
 * A keyed hash (SipHash-1-3) of two addresses with their ports, for tables
 * whose keys are chosen by whoever can send datagrams.
 */
#ifndef GW_RELAY_UDP_HASH_H
#define GW_RELAY_UDP_HASH_H

#include <stdint.h>

#include "gatewayd/base/addr.h"

struct udp_hash {
	uint64_t secret[2];
};

/* A secret of its own. */
void udp_hash_init(struct udp_hash *hash);
/* Both addresses must be of one family. */
uint32_t udp_hash_pair(
        const struct udp_hash *hash, const struct addr *a, uint16_t a_port, const struct addr *b, uint16_t b_port);

#endif
