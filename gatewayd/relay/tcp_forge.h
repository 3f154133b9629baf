/*
 * Resets for connections that no socket of ours speaks for any more
 * (tcp_stitch.h): packets made by hand, from addresses that are not ours.
 */
#ifndef GW_RELAY_TCP_FORGE_H
#define GW_RELAY_TCP_FORGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gatewayd/base/addr.h"

/* Once per process, before the filter of system calls is installed. 0, or a negative errno: none can be sent. */
int tcp_forge_open(void);
/* Tells the peer at `to` that its connection with `from` is reset. seq: the next one it expects; ack: what it has sent
 * so far. Not waited for; whether it was sent. */
bool tcp_forge_reset(const struct addr *from, uint16_t from_port, const struct addr *to, uint16_t to_port, uint32_t seq,
        uint32_t ack);
/* Sends a TCP header of `length` bytes, at most 60, as it is but for the ports and the checksum. 0 or a negative errno.
 */
int tcp_forge_header(const struct addr *from, uint16_t from_port, const struct addr *to, uint16_t to_port,
        const uint8_t *header, size_t length);
/* Tells the sender of a packet with these addresses, ports and TCP number that it was larger than `mtu` bytes, as a
 * router would. Whether that was sent. */
bool tcp_forge_too_big(const struct addr *sender, uint16_t sender_port, const struct addr *receiver,
        uint16_t receiver_port, uint32_t seq, uint32_t mtu);

#endif
