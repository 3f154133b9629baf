/*
 * What a failed connect leads to besides the end of the flow: the target is
 * known to have failed, and another one may take its place before the client
 * has noticed anything. Called by tcp.c, and by udp.c for the first half of it.
 */
#ifndef GW_RELAY_RETRY_H
#define GW_RELAY_RETRY_H

#include "gatewayd/relay/config.h"
#include "gatewayd/relay/flow.h"

struct loop;

/* The target of a flow of these objects has failed it before it sent anything; counts the ejection if that leads to
 * one. slot: where the flow is counted. */
void retry_target_failed(struct loop *loop, const struct flow_objects *objects, const uint32_t slot[STATS_KINDS]);
/* The target's first byte or datagram, or an end of stream without any. */
void retry_target_answered(
        const struct loop *loop, const struct flow_objects *objects, const uint32_t slot[STATS_KINDS]);
/* After a failed connect (error: a negative errno): notes it for the target if the target is to blame, and gives the
 * flow another one that was not tried yet, if the upstream allows; the old socket is closed then. Whether to connect
 * again. */
bool retry_next(struct loop *loop, struct flow *flow, const struct config_listener *listener, int error);

#endif
