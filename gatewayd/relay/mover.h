/*
 * What moves the bytes of one direction of a flow from one socket to the
 * other. One file per mover; tcp.c calls them and decides about half-close,
 * resets and which mover serves a direction. A mover never waits and never
 * closes a socket.
 *
 * Rules that all movers keep: nothing is read while earlier bytes are held or
 * while the other end cannot take any (that is the back-pressure: the sender's
 * window closes); a flag of an end is cleared only when a system call has
 * shown it; an end of stream counts only with all bytes before it.
 */
#ifndef GW_RELAY_MOVER_H
#define GW_RELAY_MOVER_H

#include "gatewayd/relay/flow.h"

struct loop;

/* Most bytes moved in one go before other flows have their turn. */
#define MOVER_BUDGET (1024 * 1024)

/* Outcomes of a pump besides a negative errno (of the socket that failed: the flow is to be reset). */
enum mover_outcome {
	MOVER_BLOCKED, /* an event on one of the ends will go on */
	MOVER_MORE,    /* the budget is used up; to be called again without waiting for an event */
	MOVER_ENDED,   /* end of stream, and every byte before it is written */
	MOVER_UNFIT    /* no resources for this mover, nothing held: another one must take over */
};

/* Why a direction is served by the mover that serves it. */
enum mover_reason {
	MOVER_REASON_START,   /* copy: every flow begins so, nothing is known about it yet */
	MOVER_REASON_FORCED,  /* the setting of the relay or of the listener names this mover */
	MOVER_REASON_MUCH,    /* splice: whole buffers were read several times in a row */
	MOVER_REASON_LITTLE,  /* copy: only small amounts came lately */
	MOVER_REASON_NO_PIPE, /* copy: no pipe was to be had */
	MOVER_REASON_URGENT,  /* copy: splice does not get past urgent data */
	MOVER_REASON_STEADY, /* sockmap: the flow has lived long enough, and its messages are small; kernel: it lasts */
	MOVER_REASON_NO_MAP, /* the kernel or the maps did not take the socket (ended, full, or no maps at all) */
	MOVER_REASON_OFTEN,  /* kernel: connections to this port come often, and this one has none here */
	MOVER_REASONS
};

struct mover {
	/* Moves up to `budget` bytes; *ret_moved is always set. */
	int (*pump)(struct loop *loop, struct flow *flow, enum flow_side from, size_t budget, size_t *ret_moved);
	/* Lets go of what the direction from this side holds; the bytes are lost. Legal when it holds nothing. */
	void (*release)(struct loop *loop, struct flow *flow, enum flow_side from);
};

/* What a direction has as its mover. */
enum mover_kind {
	MOVER_NONE,    /* not set: nothing is held */
	MOVER_COPY,    /* recv and send through a buffer: best for little data */
	MOVER_SPLICE,  /* splice through a pipe: best for much */
	MOVER_SOCKMAP, /* the kernel redirects from socket to socket: best for small messages on a flow that lasts
	                * (tcp_sockmap.h) */
	MOVER_KERNEL,  /* the kernel carries packets past both sockets: best for whatever it can (tcp_stitch.h) */
	MOVERS
};

extern const struct mover tcp_copy, tcp_splice, tcp_sockmap, tcp_kernel;
/* By kind; that of MOVER_NONE has nothing. */
extern const struct mover *const mover_table[MOVERS];

/* From here on an urgent byte of this socket is one of its stream's. */
void mover_take_urgent(int fd);
/* Whether all that has come to this socket was read; an urgent byte only counts if it is one of the stream's. */
bool mover_nothing_waits(int fd);

/* The reason as a row of the flow has it. */
enum stats_reason mover_reason_shown(enum mover_reason reason);

/* Full reads in a row after which a direction is thought to carry much, and small ones after which little. */
#define MOVER_STREAK_MUCH   3
#define MOVER_STREAK_LITTLE 8
/* A splice of less than this is small. */
#define MOVER_LITTLE_BYTES 8192

#endif
