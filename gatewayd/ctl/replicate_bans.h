/*
 * Bans of two gateways, for the command replicate: those of one are copied to
 * the other, and lifted there with the original. Called after each look at the
 * configurations; knows nothing of those.
 */
#ifndef GW_CTL_REPLICATE_BANS_H
#define GW_CTL_REPLICATE_BANS_H

#include "gatewayd/ctl/ctl.h"

/* Both ways. A copy says in its reason that it is one, and is never copied on. CTL_OK, or the exit code of the first
 * request that failed, after it was said why. What one gateway never bans (ban_exempt) is no failure. */
int replicate_bans(struct ctl *own, struct ctl *peer);

#endif
