/*
 * Flows that are reset because of their target: it is down and its upstream has
 * on_down reset, or it is still draining when its deadline is past. Looked for
 * when the control thread says so, and when a deadline comes; in slices, at a
 * bounded rate per target, so that neither the thread stands still nor all
 * clients come back at once.
 *
 * Theory of operation: a pass first looks at the states of all targets and
 * notes whose flows are to go, then at all flows. What the rate has left over
 * is for the next pass. The rate is one for all threads: each reset moves on the
 * target's reset_next_us in shared memory. A UDP flow is only forgotten: its next
 * datagram makes it again, towards another target.
 */
#ifndef GW_RELAY_REAP_H
#define GW_RELAY_REAP_H

#include "gatewayd/base/stats.h"
#include "gatewayd/relay/wheel.h"

struct loop;

/* Flows of a target that is down which are reset per second, all threads together. */
#define REAP_DOWN_PER_S 1000
/* Resets that were not used are made up for so long. */
#define REAP_BURST_US 100000
/* Flows looked at, and reset, in one turn of the loop. */
#define REAP_PASS  1024
#define REAP_SLICE 32
/* From a pass that left something over to the next. */
#define REAP_PAUSE_MS 50

enum reap_why { REAP_NOT, REAP_DOWN, REAP_DRAINED };

struct reap {
	struct wheel_entry timer; /* the next pass; owner: loop.c */
	uint32_t next; /* flow looked at next, UDP flows behind the others; FLOW_NONE: no pass is under way */
	bool left;     /* the pass had to leave some over */
	uint8_t why[STATS_TARGETS_MAX]; /* enum reap_why, by number of the target's slot */
};

/* Begins a pass; one that is under way begins anew. */
void reap_begin(struct loop *loop);
/* Goes on with one slice. */
void reap_continue(struct loop *loop);

/* Why flows of this target are to go. state: as the daemon and the health thread left it; configured: enum
 * target_admin. Lowers *wake_ms to when that may change by itself. */
enum reap_why reap_why(
        const struct target_state *state, uint8_t configured, bool reset_on_down, uint64_t now_ms, uint64_t *wake_ms);
/* Whether one more of the target's flows may be reset now; counts it if so. */
bool reap_pass(struct target_state *state, enum reap_why why, uint64_t now_us);

#endif
