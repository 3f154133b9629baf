/*
 * Records of what becomes of flows, into the thread's ring (base/stats_record.h):
 * nothing but stores into memory, and only for flows that the daemon wants told.
 * Called by accounting, while the flow's row still says all about it.
 */
#ifndef GW_RELAY_RECORD_H
#define GW_RELAY_RECORD_H

#include "gatewayd/base/stats.h"

struct loop;

/* The flow of the row of this number has got its connection, or as UDP its target. STATS_ROW_NONE: there is no row, and
 * no record. */
void record_start(const struct loop *loop, uint32_t row);
/* It ends. */
void record_end(const struct loop *loop, uint32_t row, enum flow_why why);
/* The end of a flow whose connect has failed with this negative errno, or that was refused with this counter. */
enum flow_why record_end_of_connect(int error);
enum flow_why record_end_of_refusal(enum stats_counter counter);
/* The same for a flow that has no row of this relay. */
void record_end_flow(const struct loop *loop, const struct stats_flow *flow, enum flow_why why);

#endif
