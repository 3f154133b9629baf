/*
 * Passive health: what the connections of clients show of a target. Called by
 * tcp.c and retry.c; writes to the memory that daemon and relay share
 * (base/target_state.h), so all threads and the next relay know.
 *
 * Theory of operation: failed connections in a row are counted over all
 * threads, and the first byte from the target ends the row. The row that is
 * long enough ejects the target: for PASSIVE_EJECT_MS the first time, twice as
 * long each time after, up to PASSIVE_EJECT_MAX_MS, until it has kept well for
 * PASSIVE_FORGET_MS. No more than PASSIVE_SHARE per cent of an upstream's
 * targets are ejected at a time: where all fail, the cause lies elsewhere.
 */
#ifndef GW_RELAY_PASSIVE_H
#define GW_RELAY_PASSIVE_H

#include "gatewayd/relay/balance.h"

#define PASSIVE_EJECT_MS     5000
#define PASSIVE_EJECT_MAX_MS 300000
#define PASSIVE_FORGET_MS    600000
#define PASSIVE_SHARE        50

/* A connection to the target of this id has failed: it was refused, not answered, or reset before the target's first
 * byte. Whether the target is ejected for it. */
bool passive_failed(const struct balance *balance, const struct stats_place *place, uint32_t id, uint64_t now_ms);
/* The target that has this slot has answered. Cheap when nothing has failed. */
void passive_succeeded(const struct stats_place *place, uint32_t slot, uint32_t id, uint64_t now_ms);

#endif
