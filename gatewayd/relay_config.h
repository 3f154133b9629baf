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
/* The same for what the plan changes. */
int relay_config_send_plan(struct msg_channel *channel, const struct plan *plan, struct meter *meter, int timeout_ms);

#endif
