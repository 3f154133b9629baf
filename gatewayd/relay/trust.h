/*
 * The peers of one listener that a PROXY header is taken from: prefixes,
 * filled by config.c and looked up for each connection that is accepted. There
 * may be as many as an address set has entries; a look-up costs as many steps
 * as there are different lengths among them.
 */
#ifndef GW_RELAY_TRUST_H
#define GW_RELAY_TRUST_H

#include <stdbool.h>

#include "gatewayd/base/addr.h"

struct match_table;

/* All zero: nobody. */
struct trust {
	struct match_table *prefixes;
};

/* Frees what it holds; nobody is trusted again. */
void trust_clear(struct trust *trust);
/* -EINVAL (no prefix, or bits behind its length), -ENOMEM. One that is there already is no fault. */
int trust_add(struct trust *trust, const struct prefix *prefix);
bool trust_has(const struct trust *trust, const struct addr *peer);

#endif
