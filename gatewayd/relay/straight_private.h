/* What straight.c and straight_adopt.c share. */
#ifndef GW_RELAY_STRAIGHT_PRIVATE_H
#define GW_RELAY_STRAIGHT_PRIVATE_H

#include <stdatomic.h>

#include "gatewayd/relay/straight.h"

/* There has been a flow without sockets, or is one. */
extern atomic_bool straight_lived;

/* The maps (bpf_stitch.h). */
int straight_ways(const struct loop *loop);
int straight_stitches(const struct loop *loop);
/* The way of packets that come from this side, of which so many bytes are counted. */
struct bpf_stitch_way straight_way(
        const struct loop *loop, const struct flow *flow, enum flow_side side, uint64_t counted);
/* Whether the flow is over, as far as its packets say. */
bool straight_has_ended(const struct bpf_straight_shown *shown);
/* The flow with this id is over; its ways are taken out in a while. */
void straight_linger(struct loop *loop, uint64_t id);
/* Takes over the flows of an earlier relay that fall to this thread. */
void straight_adopt(struct loop *loop);

#endif
