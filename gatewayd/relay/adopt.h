/*
 * Taking over the flows of a relay that has died or handed over: the daemon
 * sends what that one had told it (keep.h), the kernel's counters say where it
 * stopped. Called by keep.c with each message of the daemon.
 *
 * Theory of operation. The memories and pipes that bytes may lie in come
 * first, those of the last relay before those of earlier ones, then the flows,
 * then END. For each direction what is in hand follows from the ledger; it is
 * looked for in the pipe and in the buffer that belong to the direction, in the
 * first memory that names it. Then the flow goes on as if nothing had been.
 *
 * Ends of stream. The sockets' states tell which have been received and which
 * passed on, except for a socket in state CLOSED, which is so after an orderly
 * end and after a reset. A reset leaves an error, but the dead relay may have
 * fetched it and died before it acted, and a read would then give the end of
 * stream that never was. So for one closed end E and its other end O:
 *  - An error: reset.
 *  - The relay has never ended the stream towards E: then E cannot have been
 *    closed in order: reset. Whether it has shows in the ledger: the end of
 *    stream counts as a byte given.
 *  - Otherwise the relay only reads from E, and it can only have fetched an
 *    error with nothing unread, in hand or peeked at. So if anything is, there
 *    was no error; and if nothing is, the end of stream, if there was one, is
 *    just one byte received that was never given on: without it, reset.
 * A flow with both ends closed is over.
 */
#ifndef GW_RELAY_ADOPT_H
#define GW_RELAY_ADOPT_H

#include <stdbool.h>
#include <stdint.h>

#include "gatewayd/base/keep.h"
#include "gatewayd/base/keep_memory.h"
#include "gatewayd/relay/heir.h"
#include "gatewayd/relay/pipes.h"

struct loop;

/* Memories that bytes may lie in: those of each thread of the last relay, and of some that died before its flows were
 * taken over. */
#define ADOPT_MEMORIES_MAX 256
/* Pipes with bytes in them, in all these memories together. */
#define ADOPT_PIPES_MAX 8192

struct adopt_pipe {
	uint32_t memory, number;
	struct pipe_pair pair;
};

/* What an adoption needs; empty at all other times. */
struct adopt {
	struct keep_memory *memories;
	struct adopt_pipe *pipes;
	uint32_t n_memories, n_pipes;
	uint32_t adopted, over; /* flows that live on, or that had ended before */
	bool answer_due;        /* the daemon waits for our END */
	struct heir heir;       /* what is known of the flows besides */
};

/* Handles a message; its descriptors are taken over. 0, -EBADMSG, -ENOMEM. */
int adopt_message(struct loop *loop, const struct keep_message *message, int fds[KEEP_DESCRIPTORS_EACH]);
/* Lets go of everything. */
void adopt_clear(struct adopt *adopt);

#endif
