/*
 * The UDP sockets that the relay makes: towards a target, and at an original
 * destination to answer from. Knows nothing of flows' lives.
 *
 * Both kinds lie about their address, and both must let others have the same
 * address and port (SO_REUSEADDR): a client's flows to several targets come
 * from one port of its own, and each thread answers for the same server. So
 * that no socket gets what is another's: those towards targets are connected,
 * and get the mark of their own (base/sockmark.h) only then; the others never
 * have it, and so get nothing at all.
 */
#ifndef GW_RELAY_UDP_SOCKET_H
#define GW_RELAY_UDP_SOCKET_H

#include "gatewayd/base/sockmark.h"
#include "gatewayd/relay/flow.h"

/* What became of the client's port. */
enum udp_port {
	UDP_PORT_KEPT,
	UDP_PORT_UNWANTED,   /* the target is to see the gateway */
	UDP_PORT_TAKEN,      /* another socket has it */
	UDP_PORT_PRIVILEGED, /* it is below net.ipv4.ip_unprivileged_port_start and the relay lacks the right */
	UDP_PORTS
};

/* A non-blocking socket connected to the origin's target, the caller's. as_client: from the client's address; keep:
 * also from its port if that can be had. *ret_port says what became of it. Negative errno. */
int udp_socket_to_target(const struct flow_origin *origin, bool as_client, bool keep, const struct sockmark *mark,
        enum udp_port *ret_port);
/* A non-blocking socket that sends as addr and port, the caller's. Negative errno. */
int udp_socket_at(const struct addr *addr, uint16_t port, const struct sockmark *mark);
/* Lets the kernel hand over several datagrams as one. Failure does no harm. */
void udp_socket_gather(int fd);
/* Whether the descriptor is a UDP socket as the daemon makes them (sockets.h); then the marks that it carries. 0 or a
 * negative errno. */
int udp_socket_check(int fd, struct sockmark *ret);

#endif
