/*
 * The target's side of a flow up to the handshake: the socket, its source
 * address and port, its options, connect(). Called by tcp.c; knows nothing of
 * loops, states or bytes.
 */
#ifndef GW_RELAY_CONNECT_H
#define GW_RELAY_CONNECT_H

#include "gatewayd/relay/flow.h"

/* Where the target sees the flow come from. */
enum connect_source {
	CONNECT_AS_CLIENT,          /* the client's address, and its port where that can be had */
	CONNECT_AS_CLIENT_ANY_PORT, /* the client's address */
	CONNECT_AS_GATEWAY,
	CONNECT_SOURCES
};

/* What became of the client's port. */
enum connect_port {
	CONNECT_PORT_KEPT,
	CONNECT_PORT_ANY,        /* it was not wanted */
	CONNECT_PORT_TAKEN,      /* another flow, or one in TIME_WAIT, has the same four addresses and ports */
	CONNECT_PORT_PRIVILEGED, /* below net.ipv4.ip_unprivileged_port_start, which the relay may not bind */
	CONNECT_PORT_TRACKED,    /* conntrack would take both legs for one connection */
	CONNECT_PORTS
};

/* A non-blocking socket that connects to the origin's target, the caller's from here on. tracked: conntrack is in use
 * on this machine. *ret says what became of the client's port, also on failure. Negative errno: -EADDRNOTAVAIL if no
 * source port is free, else as socket, bind and connect say. */
int connect_start(const struct flow_origin *origin, enum connect_source source, bool tracked, enum connect_port *ret);
/* Makes a socket transparent: it may have others' addresses, and the ruleset finds what comes for it at once; else it
 * would look everywhere to find out that it knows nothing of the packet. So those that have the gateway's own address
 * are transparent too. 0 or negative errno. */
int connect_set_transparent(int fd, uint8_t family);
/* To be called once after the first pump of a flow that has just been connected: sends the handshake's last packet, or
 * the PROXY header that waits, unless the client's first bytes have carried it. */
void connect_finish(const struct flow *flow);

#endif
