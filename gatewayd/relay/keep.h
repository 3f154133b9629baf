/*
 * Flows that outlive this process. Once a flow is older than a moment its
 * descriptors are sent to the daemon, in batches, together with what cannot be
 * read from the sockets; the next relay adopts it (adopt.h). Short connections
 * pay nothing for it, and a kept one pays nothing more while it lives.
 *
 * Theory of operation. Moving bytes is the same for kept flows and others; it
 * is arranged so that at whatever instant the process is killed, what it had
 * in hand is still there and can be told to the byte:
 *  - The sockets and all pipes of the thread are held by the daemon too.
 *  - Buffers lie in a memfd that the daemon holds too. Beside them stands who
 *    has last read into each buffer and put bytes into each pipe, noted before
 *    the read (base/keep_memory.h).
 *  - How many bytes are in hand the kernel's counters say (ledger.h), which a
 *    system call changes together with the queues or not at all.
 * So between any two system calls of a pump, for one direction:
 *    noted, not yet read             in hand 0
 *    read, not yet written           in hand n > 0: in the noted buffer or pipe, all of it
 *    written in part                 in hand n > 0: the last n bytes there
 *    written, store not given back   in hand 0
 *    peeked at and written, not yet dropped (tcp_copy.c without a free buffer)
 *                                    in hand -n: to be dropped from the source
 * Ends of stream and resets are read from the sockets' states; the one case
 * that a state does not tell is decided in adopt.c. If what is found does not
 * add up, the flow is reset: a stream may end, but it is never wrong.
 *
 * The daemon is told by this thread itself, over a socket of its own (the
 * channel), so no descriptor can be closed by one thread while another sends it.
 * The channel never makes the loop wait: what the daemon does not take now is
 * told later. A new daemon gives a new channel and is told everything anew.
 */
#ifndef GW_RELAY_KEEP_H
#define GW_RELAY_KEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "gatewayd/base/keep.h"
#include "gatewayd/base/keep_memory.h"
#include "gatewayd/relay/adopt.h"
#include "gatewayd/relay/flow.h"
#include "gatewayd/relay/pipes.h"
#include "gatewayd/relay/wheel.h"

struct loop;

/* A flow is kept when it has lived this long: most connections are over by then, and what is lost with the process is
 * young enough to be tried again. */
#define KEEP_AFTER_MS 250
/* When the daemon takes nothing now, it is told after this long. */
#define KEEP_RETRY_MS 64
/* The daemon may hold what has ended this much longer, so that ends are told in batches too. */
#define KEEP_GONE_MS 64
/* Ends that are told at once, without waiting for more. */
#define KEEP_GONE_BATCH 512
/* Flows told at the end of one turn: as many as fit into a record. */
#define KEEP_BATCH_MAX 120

struct keep_slot {
	uint32_t index, generation;
};

struct keep {
	int fd;         /* the channel; -1: no daemon */
	uint32_t epoch; /* of the channel: a flow that was told has the same */
	struct keep_memory memory;
	int memory_fd;
	bool memory_told, blocked;
	bool pipe_told[PIPES_MAX];
	struct keep_slot batch[KEEP_BATCH_MAX];
	unsigned n_batch;
	bool everything; /* young flows too: this process is about to hand over */
	uint32_t resend; /* flows from this index on have still to be looked at for a new daemon */
	struct keep_gone
	        *gone; /* what the daemon has still to hear of flows: never more than two for each in the table */
	uint32_t n_gone, gone_max;
	struct wheel_entry timer;
	struct adopt adopt;
};

/* Before the filter of system calls is installed. 0 or a negative errno. */
int keep_init(struct keep *keep, uint32_t buffers, uint32_t buffer_size, uint32_t max_flows);
void keep_destroy(struct keep *keep);

/* A daemon has given a channel, which is taken over; the one before is closed. */
void keep_open(struct loop *loop, int fd);
/* The channel can be read. */
void keep_event(struct loop *loop);
/* When a flow that begins to relay has to look again: to be kept, or because it is idle. */
uint64_t keep_due_ms(const struct loop *loop, const struct flow *flow);
/* What the flow's counters are (ledger.h) while nobody but the relay moves its bytes, so before the kernel does: what
 * the kernel has in hand nobody knows. Once is enough. False if that cannot be said now. */
bool keep_measure(struct loop *loop, struct flow *flow);
/* Has a relaying flow told to the daemon at the end of this turn. False: that cannot be now; to be tried again after
 * KEEP_RETRY_MS. */
bool keep_add(struct loop *loop, struct flow *flow);
/* The flow ends. */
void keep_gone(struct loop *loop, const struct flow *flow);
/* Its sockets are to say nothing any more, whoever closes them, and however. */
void keep_mute(struct loop *loop, const struct flow *flow);
/* Makes sure that a pipe outlives us before bytes are put into it. False: not now. */
bool keep_pipe(struct loop *loop, uint32_t pipe);
/* From now on every flow is told as soon as it relays. */
void keep_hand_over(struct loop *loop);
/* Whether that is done: nothing is left that the daemon has not been told, or the time is over. */
bool keep_handed_over(struct loop *loop);
/* The timer was handed out. */
void keep_timer(struct loop *loop);
/* The end of a turn. True: there is more to tell, another turn is to follow at once. */
bool keep_turn(struct loop *loop);

/* Between a flow's origin and the message. Decoding checks: 0 or -EBADMSG. */
void keep_put_origin(const struct flow_origin *origin, struct keep_flow *ret);
int keep_get_origin(const struct keep_flow *message, struct flow_origin *ret);

#endif
