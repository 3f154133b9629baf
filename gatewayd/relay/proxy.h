/*
 * The PROXY protocol in the relay: the header that a target is sent before the
 * client's first byte, and the one that a proxy in front of us begins with,
 * which makes somebody else the client. Called by tcp.c and udp_proxy.c; knows
 * nothing of states and timers. docs/proxy-protocol.md has it from outside.
 *
 * Neither header passes through a mover, and both are over before the flow
 * relays. So they count nowhere as payload, and to the ledger (ledger.h) they
 * are constants: what was sent is part of the offset, and what was taken is
 * flow_ledger.base, from the moment on that it is taken.
 */
#ifndef GW_RELAY_PROXY_H
#define GW_RELAY_PROXY_H

#include "gatewayd/base/proxy_header.h"
#include "gatewayd/base/stats.h"
#include "gatewayd/relay/flow.h"
#include "gatewayd/relay/peek.h"

/* The header that tells of this flow, and its length; 0 if the version cannot say it. The destination is the one that
 * the connection came to here. */
size_t proxy_write(
        const struct flow_origin *origin, uint8_t version, uint8_t protocol, uint8_t ret[PROXY_HEADER_WRITE_MAX]);
/* Sends what has not been sent yet of the header of this version to the target's socket; it waits there for the first
 * bytes to travel with (connect_finish). *sent_so_far: bytes of it, which this adds to. 1: it has been sent as a whole,
 * 0: the socket is full, or a negative errno. */
int proxy_send(int fd, const struct flow_origin *origin, uint8_t version, uint8_t *sent_so_far);
/* Looks for the header that the client's socket is to begin with, and takes it out: nothing behind it. The origin's
 * client is whom it names from then on. final: no more will come, or none is waited for. The bytes that were taken, 0:
 * more are needed, -EBADMSG: there is no header or it is broken, and *ret_counter says which, or another negative errno
 * of the socket. *ret_counter is set unless more bytes are needed. */
int proxy_take(struct peek *peek, int fd, bool final, struct flow_origin *origin, enum stats_counter *ret_counter);

#endif
