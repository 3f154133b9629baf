/*
 * TCP flows that have no socket here: the kernel hands their SYN to us, we
 * choose the target, send the SYN on, and have packets translated from then on
 * (rules/bpf/straight.h). Called by loop.c and tcp.c.
 *
 * Theory of operation. A filter on the listening sockets takes SYNs for ports
 * whose listeners all want it, when they have come as far as a connection would
 * begin; so what rules drop or limit has not come. Each is admitted as an
 * accepted connection would be, and gets a flow without descriptors, which is
 * `carried` from the beginning. What a connect is to others is here: two ways
 * and an element in the maps of stitched flows, and the client's SYN, sent to
 * the target. Its answer opens the flow in the kernel; we need not know, and
 * hear of a flow when it has ended, is refused, or a timer of ours looks.
 * A refused SYN, and one without an answer in time, goes to the next target as
 * a failed connect does; the client does not see it.
 *
 * An ended flow is accounted for and given up at once, from what is told of it.
 * Its ways stay for a while, for packets that are under way or sent again
 * (`lingering`). What the kernel is to know of ends goes there at the end of a
 * turn of the loop, in one call (`settled`): calls cost more than what they do.
 *
 * The maps outlive us. All that the next relay needs to know of a flow stands
 * in its element, so these flows are kept by nobody: straight_adopt takes them.
 */
#ifndef GW_RELAY_STRAIGHT_H
#define GW_RELAY_STRAIGHT_H

#include <stdbool.h>
#include <stdint.h>

#include "gatewayd/base/bpf_stitch.h"
#include "gatewayd/base/bpf_straight.h"
#include "gatewayd/relay/flow.h"
#include "gatewayd/relay/ring.h"
#include "gatewayd/relay/straight_choice.h"
#include "gatewayd/relay/wheel.h"

struct loop;

/* How long the ways of a flow stay when it is over. */
#define STRAIGHT_LINGER_MS 1000
/* Flows of a thread that are over and linger; with more, the oldest ones' ways are taken out sooner. */
#define STRAIGHT_LINGER_MAX (1U << 14)
/* Flows of a thread that are in the making; with more, connections go the long way, where SYNs of nobody cost nothing.
 */
#define STRAIGHT_MAKING_MAX 1024
/* Flows in the maps, lingering ones among them, of all threads together: with more, connections go the long way. */
#define STRAIGHT_FLOWS_MAX (BPF_STITCH_MAX - 8192U)
/* A SYN that was taken so long ago is not answered any more. */
#define STRAIGHT_STALE_US 500000
/* Other ports of the client's address that are tried when the target knows its own already. */
#define STRAIGHT_PORTS_TRIED 8

struct straight {
	bool begun, wanted;  /* the maps are used; SYNs are taken */
	bool more;           /* the ring may have more */
	bool spared;         /* this thread has many flows: others are to have the next ones */
	struct ring ring;    /* not open: this thread has none, or there are no maps */
	uint64_t *lingering; /* ids; one after the other, each as long as the first */
	uint64_t *lingers_until;
	uint32_t first, n;
	uint64_t full_until;      /* the maps were full a short while ago; 0: they were not */
	struct wheel_entry timer; /* of the first, or of that */
	uint32_t ifindex, mtu;    /* of the interface that was asked for last */
	uint64_t mtu_ms;
	struct bpf_straight_settle settled[BPF_STRAIGHT_SETTLE_MAX]; /* to be told to the kernel in one call */
	uint32_t n_settled;
	uint64_t failed_ms; /* a failure was told of last */
	struct straight_choice choice;
};

/* 0 or a negative errno. */
int straight_init(struct straight *straight);
void straight_destroy(struct straight *straight);

/* There are maps, another configuration, or another choice of ports (straight_choice.h): SYNs are taken from this
 * thread's listening sockets from here on, if any listener wants that, as soon as the daemon lets them; those of an
 * earlier relay's flows that fall to this thread are taken over. Legal before there is either. */
void straight_configured(struct loop *loop);
/* A connection of this listener's has come by a socket. */
void straight_came(struct loop *loop, const struct config_listener *listener, const struct flow_origin *origin);
/* The ring can be read. */
void straight_events(struct loop *loop);
/* Ways that have lingered are taken out. */
void straight_timer(struct loop *loop);
/* At the end of a turn of the loop: what has become of flows in it is told to the kernel, and who is to have others. */
void straight_turn(struct loop *loop);
/* Sends the SYN of the flow, which is in the making, to its target, and has what follows translated. 0 or a negative
 * errno, as of a connect. */
int straight_connect(struct loop *loop, struct flow *flow);
/* Whether a flow of this client and target has no socket and uses the client's port: one with a socket cannot. */
bool straight_has_port(const struct loop *loop, const struct flow_origin *origin);
/* What has become of the flow. False: it is gone, or was begun anew. */
bool straight_look(struct loop *loop, struct flow *flow);
/* This process ends and the flows go on: they are forgotten. */
void straight_forget_all(struct loop *loop);

#endif
