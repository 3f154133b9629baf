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
#include "gatewayd/relay/connect.h"
#include "gatewayd/relay/flow.h"

/* A non-blocking socket connected to the origin's target, the caller's. taken: another flow's target already sees the
 * client's port. *ret_port says what became of the port. Negative errno. */
int udp_socket_to_target(const struct flow_origin *origin, enum connect_source source, bool taken,
        const struct sockmark *mark, enum connect_port *ret_port);
/* A non-blocking socket that sends as addr and port, the caller's. Negative errno. */
int udp_socket_at(const struct addr *addr, uint16_t port, const struct sockmark *mark);
/* Lets the kernel hand over several datagrams as one. Failure does no harm. */
void udp_socket_gather(int fd);
/* Whether the descriptor is a UDP socket as the daemon makes them (sockets.h); then the marks that it carries. 0 or a
 * negative errno. */
int udp_socket_check(int fd, struct sockmark *ret);

#endif
