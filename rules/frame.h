/* A described packet as the bytes of an Ethernet frame, for running programs on it: the first of a flow, a bare SYN or
 * an empty datagram. Pure. */
#ifndef GW_RULES_FRAME_H
#define GW_RULES_FRAME_H

#include "gatewayd/base/match.h"

/* Ethernet, IPv6, TCP. */
#define FRAME_MAX 128

/* Checksums are left zero: nobody who is asked looks at them. How many bytes. */
size_t frame_build(const struct match_packet *packet, uint16_t source_port, uint8_t ret[FRAME_MAX]);

#endif
