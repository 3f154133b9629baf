/*
 * The sockmap mover: the kernel itself hands packets from one socket of a flow
 * to the other (rules/bpf/relay.bpf.c), bounded, and the relay only does what
 * the kernel cannot: it writes what did not fit, passes the end of stream on
 * when the last byte is through, and keeps the times. Called by tcp.c.
 *
 * Theory of operation. A flow enters once and for good: a socket is never
 * taken out of a map (the kernel would drop what it queues), closing it is the
 * only way out. Nothing of a socket's queue may have been read in part, or the
 * kernel would move the rest twice. Both sockets go into `tx` first, then both
 * into `rx`, and a peek makes the kernel look at what was there already.
 *
 * What is redirected waits in the peer's queue for a work item of the kernel;
 * closing or shutting down the peer before that has run would cut the stream
 * with a clean end. So an end of stream is passed on only when the kernel's
 * own counters say that all that came was written:
 *
 *   received from A since entry == tcpi_bytes_received(A) - FIN - in_base
 *   written to B since entry    == tcpi_bytes_acked(B) + SIOCOUTQ(B) - out_base
 *
 * (see base/tcp_counters.h). Nothing tells when a work item has run, so whoever
 * waits for one is looked at again and again, with growing pauses (loop_wait).
 */
#ifndef GW_RELAY_TCP_SOCKMAP_H
#define GW_RELAY_TCP_SOCKMAP_H

#include "gatewayd/relay/flow.h"

struct loop;

/* Most that may wait in a peer's queue: payload, and a fixed cost per packet. What one stalled direction holds beyond
 * the buffers of its sockets. */
#define SOCKMAP_LIMIT (512 * 1024)
/* When a flow of mode auto enters: after so many reads in a row, in both directions together, none of more bytes. By
 * measurement (docs/movers.md): what decides is the size of messages. For small ones the kernel saves the relay's
 * wake-up and its system calls, whether there are few or many of them; of 64 KiB it moves fewer than copying does.
 * Short connections never come so far and pay nothing, and a flow cannot leave again. */
#define SOCKMAP_MESSAGES      64
#define SOCKMAP_MESSAGE_BYTES 4096
/* How often the counters of a flow in the map are read; doubles while nothing moves. */
#define SOCKMAP_ACCOUNT_MS     1000
#define SOCKMAP_ACCOUNT_MAX_MS 8000
/* An end of stream that cannot be passed on because the peer takes nothing any more: then a reset, never a false end.
 * As long as TCP itself waits for a peer that is gone. */
#define SOCKMAP_DRAIN_MS (15 * 60 * 1000)

/* Whether the flow may enter now: both directions open, nothing held, nothing of either queue read in part. */
bool tcp_sockmap_may_enter(const struct loop *loop, const struct flow *flow);
/* Enters. Directions that the kernel does not take keep their mover, with MOVER_REASON_NO_MAP. Number of directions
 * that are in the map now; `reason` is theirs. */
unsigned tcp_sockmap_enter(struct loop *loop, struct flow *flow, uint8_t reason);
/* Whether a flow that another relay began has a direction in the maps. */
bool tcp_sockmap_find(struct loop *loop, struct flow *flow);
/* Of such a flow: whether the other relay had passed the end of stream of this end on. By the counters, for an end
 * whose state does not tell any more. */
bool tcp_sockmap_had_ended(const struct loop *loop, const struct flow *flow, enum flow_side side);
/* Takes a direction of a flow that tcp_sockmap_find was asked about over: all numbers are read from the maps, and
 * notices come to this loop from now on. The flow has both sockets and is in the table already, since notices name it;
 * the caller polls both ends with tcp_sockmap_events and queues the flow afterwards. ended: the end of stream was
 * passed on. 1, or 0 if this direction is not in the maps; -EIO: the numbers do not add up, the stream cannot go on:
 * reset the flow. Other negative errnos: the same. */
int tcp_sockmap_adopt(struct loop *loop, struct flow *flow, enum flow_side side, bool ended);
/* The events that an end is to be polled for: not those that would wake the thread for each packet. */
uint32_t tcp_sockmap_events(const struct flow *flow, enum flow_side side, uint32_t events);
/* Bytes that moved in this direction since the last call, by the kernel's count; sets *active_ms to when the last
 * packet came, if that is later. 0 for a direction that is not in the map. */
uint64_t tcp_sockmap_account(struct loop *loop, struct flow *flow, enum flow_side side, uint64_t *active_ms);
/* The flow has nothing to do with the maps any more, and is not to enter them again. */
void tcp_sockmap_left(struct loop *loop, struct flow *flow);
/* Notices of the thread's ring, all of them. */
void tcp_sockmap_notices(struct loop *loop);

#endif
