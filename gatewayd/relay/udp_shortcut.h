/*
 * UDP flows that take the short cut: once both sides have spoken for a while
 * the kernel carries their datagrams by itself (rules/bpf/shortcut.bpf.c), and
 * the relay only reads from time to time what has passed. Called by udp.c and
 * udp_flow.c.
 *
 * Theory of operation. A flow that may (config: its listener's mover is auto,
 * no limit and no header wants to see each datagram) enters after a number of
 * datagrams, so that short ones pay nothing: two elements of a map, one for
 * each direction, made for the epoch in force. The daemon raises the epoch
 * whenever rules or bans change: then the elements rest, datagrams come to the
 * relay's sockets again, through all rules, and the flow that still gets its
 * datagrams enters anew. The flow keeps its sockets: what the program does not
 * take comes to them at any time.
 */
#ifndef GW_RELAY_UDP_SHORTCUT_H
#define GW_RELAY_UDP_SHORTCUT_H

#include <stdbool.h>

#include "gatewayd/relay/udp_table.h"

struct loop;

/* Datagrams by way of the relay, both directions together, after which a flow enters, or enters anew. */
#define UDP_SHORTCUT_AFTER 8
/* How often it is read what has passed; doubles while that is nothing. */
#define UDP_SHORTCUT_LOOK_MS     1000
#define UDP_SHORTCUT_LOOK_MAX_MS 8000

/* So many datagrams of the flow have gone by way of the relay: perhaps it enters now. */
void udp_shortcut_consider(struct loop *loop, struct udp_flow *flow, unsigned datagrams);
/* Counts what has passed since the last look, and when; whether that was anything. */
bool udp_shortcut_look(struct loop *loop, struct udp_flow *flow);
/* The flow ends, or may not take it any more; legal if it does not. */
void udp_shortcut_leave(struct loop *loop, struct udp_flow *flow);

#endif
