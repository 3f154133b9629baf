/*
 * The daemon's side of the memory in which the relay counts (base/stats.h):
 * made here, or taken back from the relay that was found running; the banks
 * that relays write to; the slots of listeners, upstreams, targets and limits. Called
 * by worker.c and by what translates configurations for the relay. A slot
 * belongs to an object from the first time it is asked for until the object is
 * gone, whatever becomes of relays and daemons in between.
 */
#ifndef GW_METER_H
#define GW_METER_H

#include "gatewayd/base/stats.h"
#include "rules/plan.h"

struct meter;

/* Makes new memory. 0 or negative errno. */
int meter_new(struct meter **ret);
void meter_free(struct meter *meter);
/* Takes over the memory of a relay that writes to this bank as this run, in place of what is there. The descriptor is
 * the meter's from here on. Negative errno if it cannot be used (another layout, not sealed): nothing has changed. */
int meter_take(struct meter *meter, int fd, unsigned bank, uint32_t run);

/* Borrowed; the memory's address changes with meter_take. */
const struct stats_memory *meter_memory(const struct meter *meter);
int meter_fd(const struct meter *meter);
/* The daemon's word on what it wants to be told of flows, and the ring in which a thread of a bank tells it. */
struct stats_wanted *meter_wanted(const struct meter *meter);
struct stats_ring *meter_ring(const struct meter *meter, unsigned bank, unsigned thread);
/* What the daemon counts itself. */
void meter_add(struct meter *meter, enum stats_counter counter, uint64_t amount);

/* A bank for a relay of this many threads that is about to start, with no rows in it, and the number of its run. */
int meter_bank_open(struct meter *meter, unsigned threads, unsigned *ret_bank, uint32_t *ret_run);
/* The relay of this bank is gone. */
void meter_bank_close(struct meter *meter, unsigned bank);

/* The object's slot, given out now if it has none yet; STATS_SLOT_NONE if all are taken. */
uint32_t meter_slot(struct meter *meter, enum stats_kind kind, int64_t id);
/* The slot if it has one, else STATS_SLOT_NONE. */
uint32_t meter_find(const struct meter *meter, enum stats_kind kind, int64_t id);
/* What is observed and said of the target of this id, with a slot given out if it has none yet; NULL if all are taken.
 */
struct target_state *meter_target(struct meter *meter, int64_t id);
/* The same to be read, if it has a slot, else NULL. */
const struct target_state *meter_target_find(const struct meter *meter, int64_t id);
/* How many objects of the kind have a slot, and the i-th of them by id. */
size_t meter_count(const struct meter *meter, enum stats_kind kind);
uint32_t meter_at(const struct meter *meter, enum stats_kind kind, size_t i, uint32_t *ret_slot);
/* Takes back the slots of what the plan has deleted; or, if it was taken back, of what it would have made. */
void meter_planned(struct meter *meter, const struct plan *plan, bool done);
/* Takes back the slots of everything that is not in the snapshot. */
void meter_sweep(struct meter *meter, const struct snapshot *snapshot);

#endif
