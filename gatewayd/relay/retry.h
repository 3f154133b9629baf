/*
 * What a failed connect leads to besides the end of the flow: the target is
 * known to have failed, and another one may take its place before the client
 * has noticed anything. Called by tcp.c.
 */
#ifndef GW_RELAY_RETRY_H
#define GW_RELAY_RETRY_H

#include "gatewayd/relay/config.h"
#include "gatewayd/relay/flow.h"

struct loop;

/* The flow's target has failed it before it sent anything; counts that, and the ejection if there is one. */
void retry_target_failed(struct loop *loop, const struct flow *flow);
/* The target's first byte, or an end of stream without any. */
void retry_target_answered(struct loop *loop, const struct flow *flow);
/* After a failed connect (error: a negative errno): notes it for the target if the target is to blame, and gives the
 * flow another one that was not tried yet, if the upstream allows; the old socket is closed then. Whether to connect
 * again. */
bool retry_next(struct loop *loop, struct flow *flow, const struct config_listener *listener, int error);

#endif
