/*
 * The target's side of a flow up to the handshake: the socket, its source
 * address and port, its options, connect(). Called by tcp.c; knows nothing of
 * loops, states or bytes.
 */
#ifndef GW_RELAY_CONNECT_H
#define GW_RELAY_CONNECT_H

#include "gatewayd/relay/flow.h"

/* A non-blocking socket that connects to the origin's target, the caller's from here on; as_client: from the client's
 * address. Negative errno: -EADDRNOTAVAIL if no source port is free, else as socket, bind and connect say. */
int connect_start(const struct flow_origin *origin, bool as_client);
/* To be called once after the first pump of a flow that has just been connected: sends the handshake's last packet
 * unless the client's first bytes have carried it. */
void connect_finish(const struct flow *flow);

#endif
