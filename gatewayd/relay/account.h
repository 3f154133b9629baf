/*
 * What is counted and shown of each flow: the counters of its listener,
 * upstream and target, the histograms, and its row in shared memory
 * (base/stats.h). Called by tcp.c and life.c, which also begins flows of an
 * earlier relay; never waits, never allocates.
 */
#ifndef GW_RELAY_ACCOUNT_H
#define GW_RELAY_ACCOUNT_H

#include "gatewayd/relay/flow.h"

struct loop;

/* A flow begins, or one of an earlier relay goes on here (adopted: it is not counted as opened again). Its origin,
 * start, state, movers, ended directions and the bytes it has taken are set. */
void account_begin(struct loop *loop, struct flow *flow, bool adopted);
/* There is another configuration: flows that were adopted before it learn where they are counted. */
void account_configured(struct loop *loop);
/* The flow's connect has succeeded; at this time (CLOCK_MONOTONIC, microseconds). */
void account_connected(struct loop *loop, struct flow *flow, uint64_t at_us);
/* The target has said something for the first time; at this time, as above. Of flows without sockets; of others
 * account_moved knows. */
void account_first_byte(struct loop *loop, struct flow *flow, uint64_t at_us);
/* Bytes were moved from this side to the other one. */
void account_moved(struct loop *loop, struct flow *flow, enum flow_side side, size_t bytes);
/* A flow that has begun without a target has got one: it counts with it, and its times are taken, from here on. */
void account_routed(struct loop *loop, struct flow *flow);
/* The flow's target has failed its connect and another one takes its place: the flow has ended for the old one, which
 * the origin still names, and that is counted as tried again. To be followed by account_routed_again. */
void account_target_left(struct loop *loop, struct flow *flow);
/* The origin names the new target. Its times go on from where they began: the client has waited for all of it. */
void account_routed_again(struct loop *loop, struct flow *flow);
/* State, a mover, a reason or an ended direction has changed. */
void account_changed(struct loop *loop, const struct flow *flow);
/* Something else that its row shows has changed. */
void account_shown(struct loop *loop, const struct flow *flow);
/* What the kernel says of both connections at loop->now_ms. */
void account_sampled(
        struct loop *loop, const struct flow *flow, struct stats_flow_tcp client, struct stats_flow_tcp target);
/* The server name that the client asked for; any bytes, cut to what a row holds. */
void account_name(struct loop *loop, const struct flow *flow, const char *name, size_t length);
/* Something that the listener, upstream and target of the flow count, besides the thread's own counter. */
void account_count(struct loop *loop, const struct flow *flow, enum stats_object_counter counter);
/* The flow ends; to be called before flow_free. Legal for one that did not begin. counted: it has not gone on in
 * another process, and was not lost. */
void account_end(struct loop *loop, struct flow *flow, bool counted);
/* A connection of these objects got no flow. */
void account_refused(struct loop *loop, const struct flow_objects *objects);
/* The thread counts in another place (loop->place) from now on: flows that are open move there. */
void account_move(struct loop *loop);

#endif
