/*
 * What is counted and shown of each UDP flow: the counters of its listener,
 * upstream and target, and its row in shared memory (base/stats.h). Called by
 * udp.c and udp_flow.c; never waits, never allocates. Bytes are those of
 * datagrams that were taken to be relayed; such as could not be sent on are
 * counted by the thread (udp_dropped).
 */
#ifndef GW_RELAY_ACCOUNT_UDP_H
#define GW_RELAY_ACCOUNT_UDP_H

#include "gatewayd/relay/udp_table.h"

struct loop;

/* A flow begins; its origin is set. */
void account_udp_begin(struct loop *loop, struct udp_flow *flow);
/* Datagrams from this side, of so many bytes, go to the other one; flow->active_ms is set. */
void account_udp_moved(struct loop *loop, struct udp_flow *flow, enum flow_side side, size_t bytes);
/* How the flow's datagrams travel from now on, for its row. */
void account_udp_mover(struct loop *loop, const struct udp_flow *flow, enum stats_mover mover);
/* Something that listener, upstream and target count. */
void account_udp_count(struct loop *loop, const struct udp_flow *flow, enum stats_object_counter counter);
/* It has its sockets. */
void account_udp_started(const struct loop *loop, const struct udp_flow *flow);
/* The flow ends; to be called before udp_table_remove. */
void account_udp_end(struct loop *loop, struct udp_flow *flow, enum flow_why why);
/* The thread counts in another place from now on: flows that are open move there. */
void account_udp_move(struct loop *loop);

#endif
