/*
 * Round-trip times and retransmissions of the flows' connections, read from
 * the kernel into their rows (base/stats_row.h) when the daemon asks: somebody
 * looks at the list of flows. A few flows per turn of the loop, so that none
 * waits for it; connections that were silent since the last time are passed
 * over. Called by loop.c.
 */
#ifndef GW_RELAY_SAMPLE_H
#define GW_RELAY_SAMPLE_H

struct loop;

/* Flows looked at in one turn: two system calls each, some 20 us in all. */
#define SAMPLE_SLICE 16
/* Places of the table passed over in one turn. */
#define SAMPLE_PASS 1024

/* Begins with the first flow; a sample that is under way begins anew. */
void sample_begin(struct loop *loop);
/* Goes on with one slice. */
void sample_continue(struct loop *loop);

#endif
