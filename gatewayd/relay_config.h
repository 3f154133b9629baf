/*
 * Plans and configurations as messages to the relay (base/proto.def). Called
 * by worker.c; pure translation, no state of its own.
 */
#ifndef GW_RELAY_CONFIG_H
#define GW_RELAY_CONFIG_H

#include "gatewayd/base/msg.h"
#include "gatewayd/meter.h"
#include "rules/plan.h"

/* In both: the objects' slots are the meter's. */

/* Sends CONFIG_BEGIN, every upstream, listener and match entry that concerns the relay, CONFIG_END, and flushes.
 * Waits at most timeout_ms for room at each send. 0 or the negative errno of msg_send. */
int relay_config_send_full(struct msg_channel *channel, const struct snapshot *snapshot, const struct model *model,
        struct meter *meter, int timeout_ms);
/* The same for what the plan changes; `base`: the generation that the relay has. 1, or 0 if none of it concerns the
 * relay: then nothing was sent. */
int relay_config_send_plan(
        struct msg_channel *channel, const struct plan *plan, int64_t base, struct meter *meter, int timeout_ms);

#endif
