/*
 * What accounting of connections (account.c) and of UDP flows (account_udp.c)
 * have in common: counting at the listener, upstream and target of a flow, and
 * what every row says. slot: where each of the three is counted, as noted in
 * the flow when it began.
 */
#ifndef GW_RELAY_ACCOUNT_OBJECT_H
#define GW_RELAY_ACCOUNT_OBJECT_H

#include "gatewayd/relay/flow.h"

struct loop;

/* Where the configuration in force has a flow of these objects counted; STATS_SLOT_NONE for objects that are gone. */
void account_slots(const struct loop *loop, const struct flow_objects *objects, uint32_t ret[STATS_KINDS]);
/* The counters of one of its objects, NULL if it has none any more. */
struct stats_object *account_object(const struct loop *loop, const struct flow_objects *objects,
        const uint32_t slot[STATS_KINDS], enum stats_kind kind);
/* The same for an object that may count here for the first time. */
struct stats_object *account_object_claim(const struct loop *loop, const struct flow_objects *objects,
        const uint32_t slot[STATS_KINDS], enum stats_kind kind);
/* Adds to this counter of all three. */
void account_objects_count(const struct loop *loop, const struct flow_objects *objects,
        const uint32_t slot[STATS_KINDS], enum stats_object_counter counter, uint64_t amount);
/* The thread and all three have a flow more now, or less. */
void account_objects_enter(const struct loop *loop, enum stats_table table, const struct flow_objects *objects,
        const uint32_t slot[STATS_KINDS]);
void account_objects_leave(const struct loop *loop, enum stats_table table, const struct flow_objects *objects,
        const uint32_t slot[STATS_KINDS]);

/* The flow is counted as one of its target's (load.h): it may be already, if it was routed here; one that was adopted,
 * or counted elsewhere so far, is so from here on, whatever limit the target has. */
void account_hold(const struct loop *loop, const struct flow_objects *objects, const uint32_t slot[STATS_KINDS],
        struct load_hold *hold);

/* A row's beginning: what the origin says. */
struct stats_flow account_row_of(const struct flow_origin *origin, uint8_t protocol);
/* The row of this number was written: readers may look at it. */
void account_row_touched(const struct loop *loop, enum stats_table table, uint32_t number);

#endif
