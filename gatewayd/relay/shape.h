/*
 * Rates of single flows: what the listener's limit of key flow gives each
 * direction. Called by life.c and tcp.c for each flow, by adopt.c for one that
 * another relay had, and by loop.c after a configuration.
 *
 * Theory of operation: the sockets are told to send no faster
 * (SO_MAX_PACING_RATE), the client's for what goes to it, the target's for what
 * goes there. What waits fills their send buffers, then nobody reads from the
 * other end, whose window closes: nothing is dropped, and every mover obeys,
 * for each of them writes to a socket in the end. The rate is the socket's own,
 * so it stays when the mover changes, and when the relay dies. After a change of
 * the configuration all flows are looked at, in slices.
 *
 * A flow whose listener is gone keeps what it has. Flows of a listener with a limit
 * are not stitched (tcp_stitch.h); one that is already when the limit comes is out
 * of reach, and not counted with it. What there is to know of a flow lies in a
 * part that flows without a limit do not have.
 */
#ifndef GW_RELAY_SHAPE_H
#define GW_RELAY_SHAPE_H

#include "gatewayd/relay/flow.h"

struct loop;

/* Places of the table passed over, and flows changed, in one turn of the loop: a change is two system calls. */
#define SHAPE_PASS  1024
#define SHAPE_SLICE 64
/* A flow has come to its rate if it moved this share of it, in percent, in a time that is no shorter than this: the
 * rest is for how coarse the times are. */
#define SHAPE_AT_RATE_PERCENT 90
#define SHAPE_AT_RATE_MS      1000

/* What is in force for the flow; one that nothing is has it all zero, and no slot. */
const struct flow_shape *shape_of(const struct loop *loop, const struct flow *flow);
/* What the flow's sockets have, wherever they come from. */
void shape_read(struct loop *loop, struct flow *flow);
/* What its row said in the relay before: the limit that has counted it, and whether it had come to the rate. */
void shape_inherit(struct loop *loop, struct flow *flow, uint32_t limit, bool at_rate);
/* A flow begins to live, its client's socket and origin are there: before account_begin. */
void shape_begin(struct loop *loop, struct flow *flow);
/* It has another socket towards its target. */
void shape_target(const struct loop *loop, const struct flow *flow);
/* Looks whether the flow has come to its rate, if it has one. */
void shape_look(struct loop *loop, struct flow *flow);
/* Bytes of it were moved and counted. */
static inline void shape_moved(struct loop *loop, struct flow *flow)
{
	if (flow->shape)
		shape_look(loop, flow);
}
/* It ends. Legal for one that did not begin. */
void shape_end(struct loop *loop, struct flow *flow);
/* The kernel carries it past its sockets. */
void shape_lost(struct loop *loop, struct flow *flow);
/* There is another configuration: begins to look at all flows; anew, if that is under way. */
void shape_configured(struct loop *loop);
/* Goes on with one slice. */
void shape_continue(struct loop *loop);
/* The thread counts in another place from now on. */
void shape_move(struct loop *loop);

#endif
