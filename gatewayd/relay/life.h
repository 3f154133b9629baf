/*
 * How a relayed flow begins and ends, whoever starts or adopts it: its place
 * among the counted, its sockets in epoll, its descriptors and what it holds.
 * Called by tcp.c and adopt.c.
 *
 * A socket that the daemon holds too (flow.kept.shared) does not end by our
 * close: the peers are told beforehand, by shutdown() in an orderly end and by
 * connect(AF_UNSPEC), which makes the kernel send a reset at once, in any other.
 */
#ifndef GW_RELAY_LIFE_H
#define GW_RELAY_LIFE_H

#include "gatewayd/relay/flow.h"

struct loop;

/* The flow, with its origin, movers and ended directions, is from here on one of those that live. adopted: it lived
 * before, in another process. */
void life_begin(struct loop *loop, struct flow *flow, bool adopted);
/* Polls one end. 0 or a negative errno. */
int life_poll(struct loop *loop, struct flow *flow, enum flow_side side);
/* Polls an end that is polled already for what its mover wants to know by now. */
void life_poll_again(const struct loop *loop, const struct flow *flow, enum flow_side side);
/* Ends the flow at once: both peers see a reset. why: unless flow.end_why says it already. */
void life_reset(struct loop *loop, struct flow *flow, enum flow_why why);
/* The orderly end, both directions having ended: what is left and the ends of stream are sent in the background. */
void life_close(struct loop *loop, struct flow *flow, enum flow_why why);
/* For a flow whose orderly end another process has seen to and counted. */
void life_forget(struct loop *loop, struct flow *flow);
/* For a flow that could not be adopted: as life_reset, but it counts as lost. Legal before life_begin. */
void life_lose(struct loop *loop, struct flow *flow);

#endif
