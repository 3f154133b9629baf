/*
 * Datagrams that a target gets with a PROXY header in front of each, as name
 * servers and others that take headers over UDP expect it: none depends on one
 * before it, which may be lost or late. Called by udp.c.
 */
#ifndef GW_RELAY_UDP_PROXY_H
#define GW_RELAY_UDP_PROXY_H

#include "gatewayd/relay/udp_inbox.h"
#include "gatewayd/relay/udp_outbox.h"
#include "gatewayd/relay/udp_table.h"

/* Sends what the kernel handed over as one, datagram by datagram, to the flow's target. What it does not take is
 * dropped. Adds to *sent; headers are no payload. */
void udp_proxy_send(const struct udp_flow *flow, const struct udp_datagram *datagram, struct udp_sent *sent);

#endif
