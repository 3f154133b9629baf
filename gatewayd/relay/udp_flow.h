/*
 * The beginning and the end of a UDP flow: which listener and target its first
 * datagram has, room in the table, the socket towards the target, the one to
 * answer from, how long it may be idle. Moves no datagrams.
 */
#ifndef GW_RELAY_UDP_FLOW_H
#define GW_RELAY_UDP_FLOW_H

#include "gatewayd/relay/udp.h"
#include "gatewayd/relay/udp_inbox.h"
#include "gatewayd/relay/udp_table.h"

/* However long the listener allows: RFC 4787 recommends five minutes. A flow that ends too early costs nothing but a
 * new one, of the same addresses and ports. */
#define UDP_IDLE_MAX_MS 300000
/* A flow of a question and an answer will hardly be used again. */
#define UDP_IDLE_SHORT_MS 30000
/* From so many datagrams of the client on, and an answer, it is more than that. */
#define UDP_CONVERSATION 3
/* UDP flows are at most this part of all that a thread may have, so that a flood of datagrams from addresses that
 * nobody has leaves room for connections. */
#define UDP_SHARE_OF_FLOWS 2

/* The flow that the datagram of a client's belongs to, begun now if need be; NULL if there can be none (counted). fd:
 * the socket it came from. */
struct udp_flow *udp_flow_of(struct loop *loop, const struct udp_datagram *datagram, int fd);
/* Ends a flow that is not held. */
void udp_flow_end(struct loop *loop, struct udp_flow *flow, enum flow_why why);
/* Ends the flow that was not used for longest; false if there is none that may end. Counted as evicted. */
bool udp_flow_evict(struct loop *loop);
/* How long the flow, as it is now, may be idle. */
uint64_t udp_flow_idle_ms(const struct udp_flow *flow);

#endif
