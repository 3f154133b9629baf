/*
 * From a packet to its listener and target: what accepting a connection
 * (listen.c) and the first datagram of a flow (udp_flow.c) have in common.
 * Looks at the thread's own tables; touches no socket but to ask for the name
 * of an interface.
 */
#ifndef GW_RELAY_ROUTE_H
#define GW_RELAY_ROUTE_H

#include "gatewayd/relay/config.h"
#include "gatewayd/relay/connect.h"
#include "gatewayd/relay/flow.h"

struct loop;

/* Whether it lies in 127.0.0.0/8 or is ::1. */
bool route_is_loopback(const struct addr *addr);
/* The listener that the packet belongs to, or NULL. ifindex: where it came in, 0 if that is not known; fd: any socket,
 * to ask for the interface's name if some listener looks at it. */
const struct config_listener *route_classify(
        const struct config *config, const struct match_packet *packet, int ifindex, int fd);
/* Where the listener's flow of this client and original destination goes: fills in target and upstream, and *ret_hold,
 * the flow's part in the target's count, which the caller gives back when it makes no flow of it. 0, or the counter of
 * the refusal: no target can be used, or all that could be have as many flows as they may. */
int route_find(struct loop *loop, const struct config_listener *listener, struct flow_origin *origin,
        struct load_hold *ret_hold);
/* Another target of the flow's upstream, none of those that were tried: the flow counts as that one's from here on. As
 * route_find; on failure the flow is as it was. */
int route_again(struct loop *loop, struct flow *flow, enum connect_source source);

#endif
