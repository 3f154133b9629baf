/*
 * TCP flows whose two connections become one in the kernel: packets of one
 * peer get the other connection's numbers and go on, and the peers acknowledge
 * to each other (rules/bpf/stitch.h). Called by tcp.c, life.c and adopt.c.
 *
 * Theory of operation. What the relay takes from one socket it gives to the
 * other, byte for byte, so the numbers of both connections differ by a
 * constant. A flow that is kept (keep.h) is put into the maps, where it waits;
 * its bytes go on being moved as before. The program takes it over, for good,
 * at a packet at which both sockets have got and given all that there was.
 * From then on the sockets see nothing any more, and are not to say anything:
 * the relay takes them out of its sight and only reads from time to time what
 * has passed, and whether it is over. They stay open, so that whoever adopts
 * the flow has it whole; in the end they are closed without a word, which the
 * daemon sees to (keep_gone), or what they say is too old for the peers to
 * take. Ending such a flow before its peers do takes resets that are made by
 * hand (tcp_forge.h).
 */
#ifndef GW_RELAY_TCP_STITCH_H
#define GW_RELAY_TCP_STITCH_H

#include <stdbool.h>

#include "gatewayd/relay/flow.h"

struct loop;

/* How soon a flow in the maps is looked at; doubles while nothing moves. */
#define STITCH_LOOK_MS     128
#define STITCH_LOOK_MAX_MS 4096
/* Flows that have begun at once are considered within so much time. */
#define STITCH_SPREAD_MS 256
/* After both ends of stream are acknowledged, and after a reset, packets may still come that belong to it. */
#define STITCH_LINGER_MS 2000
/* Longer than the program is busy with one packet: whoever has found a way that is deleted has done by then. */
#define STITCH_WITHDRAW_MS 50

/* Puts a kept flow into the maps, once, if it may be stitched and is not in them. */
void tcp_stitch_consider(struct loop *loop, struct flow *flow);
/* The flow is to stay with the relay: it is not put into the maps any more, and taken out if it waits there. False: the
 * kernel carries it already, for good. */
bool tcp_stitch_withdraw(struct loop *loop, struct flow *flow);
/* When to look again; UINT64_MAX: not at all. */
uint64_t tcp_stitch_due_ms(const struct loop *loop, const struct flow *flow);
/* What has become of a flow in the maps: counts what has passed. False: the flow was over, and is gone. */
bool tcp_stitch_look(struct loop *loop, struct flow *flow);
/* The same, for the kernel says that a flow it carries has ended; its ways stay for a while. */
void tcp_stitch_told(struct loop *loop, struct flow *flow);
/* The flow ends here: it is taken out of the maps. Whether the sockets are to be silent, for the kernel has carried it
 * past them; then, if `reset`, the peers are told here. Legal for one that is not in them. */
bool tcp_stitch_leave(struct loop *loop, struct flow *flow, bool reset);
/* Looks for a flow of another relay in the maps: what was counted of it is known from here on. Whether the kernel
 * carries it, so that its sockets tell nothing. */
bool tcp_stitch_find(struct loop *loop, struct flow *flow);
/* Such a flow is one of ours by now; its directions have movers. */
void tcp_stitch_adopt(struct loop *loop, struct flow *flow);

#endif
