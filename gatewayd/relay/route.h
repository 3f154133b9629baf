/*
 * From a packet to its listener and target: what accepting a connection
 * (listen.c) and the first datagram of a flow (udp_flow.c) have in common.
 * Looks at the thread's own tables; touches no socket but to ask for the name
 * of an interface.
 */
#ifndef GW_RELAY_ROUTE_H
#define GW_RELAY_ROUTE_H

#include "gatewayd/relay/config.h"
#include "gatewayd/relay/flow.h"

/* Whether it lies in 127.0.0.0/8 or is ::1. */
bool route_is_loopback(const struct addr *addr);
/* The listener that the packet belongs to, or NULL. ifindex: where it came in, 0 if that is not known; fd: any socket,
 * to ask for the interface's name if some listener looks at it. */
const struct config_listener *route_classify(
        const struct config *config, const struct match_packet *packet, int ifindex, int fd);
/* Where the listener's flow of this client and original destination goes: fills in target and upstream. -ENOENT if no
 * target can be used. */
int route_find(const struct config *config, const struct config_listener *listener, struct flow_origin *origin);

#endif
