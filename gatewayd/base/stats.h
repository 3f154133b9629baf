/*
 * Layout of the memory in which the relay counts and shows what it does, and
 * the daemon reads: counters and histograms per thread (stats.def), counters
 * per listener, upstream, target and limit of flows (stats_object.def), one row per flow
 * (stats_row.h), and rings of what becomes of flows (stats_record.h). The daemon makes the memory; it outlives each
 * relay, and a relay hands it on to the next daemon. It is sparse: only what is written takes room, and readers must
 * not touch the rest.
 *
 * Theory of operation: each word has one writer, a thread of a relay, which
 * neither locks nor waits; readers sum over the threads. Two relays that take
 * over from one another write to two banks. A bank's `run` names the relay
 * that writes there now: what only a living relay can say (active flows, rows)
 * counts for that run alone.
 *
 * A slot is the place of one listener, upstream, target or limit, given out by
 * the daemon. A thread writes the object's id into the slot when it first counts
 * there, and clears what an earlier object has left; a reader ignores a slot
 * with another id, and a flow of the earlier object counts there no more.
 */
#ifndef GW_BASE_STATS_H
#define GW_BASE_STATS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "gatewayd/base/histogram.h"
#include "gatewayd/base/stats_record.h"
#include "gatewayd/base/stats_row.h"
#include "gatewayd/base/target_state.h"

/* Raised with every change of stats.def and its like, or of these structs. */
#define STATS_LAYOUT 17
/* A relay and the one that takes over from it. */
#define STATS_BANKS 2
/* Slots of each kind: ten thousand listeners and twenty thousand targets, and some to spare. Objects beyond that work
 * but are not counted one by one. */
#define STATS_LISTENERS_MAX 16384
#define STATS_UPSTREAMS_MAX 16384
#define STATS_TARGETS_MAX   32768
#define STATS_LIMITS_MAX    1024
#define STATS_SLOTS_MAX     (STATS_LISTENERS_MAX + STATS_UPSTREAMS_MAX + STATS_TARGETS_MAX + STATS_LIMITS_MAX)
#define STATS_SLOT_NONE     UINT32_MAX
/* Listeners, and as many upstreams, that have histograms of their own, those of the first slots: 20 kB for each that is
 * used, per thread. */
#define STATS_OWN_MAX 1024

enum stats_counter {
#define STAT(member, unit, doc) STATS_##member,
#include "gatewayd/base/stats.def"
#undef STAT
	STATS_COUNTERS
};

enum stats_object_counter {
#define STAT(member, unit, doc) STATS_OBJECT_##member,
#include "gatewayd/base/stats_object.def"
#undef STAT
	STATS_OBJECT_COUNTERS
};

enum stats_histogram {
#define HISTOGRAM(member, unit, doc) STATS_HISTOGRAM_##member,
#include "gatewayd/base/stats_histogram.def"
#undef HISTOGRAM
	STATS_HISTOGRAMS
};

/* A thread has two tables of flows, and rows for each. Tables of a relay are numbered through: thread * 2 + this. */
enum stats_table { STATS_CONNECTIONS, STATS_UDP, STATS_TABLES };

/* Slots are numbered through: first all listeners', then the upstreams', then the targets', then those of limits of key
 * flow. Every flow counts with the first three kinds; with a limit while it has one (relay/shape.h). */
enum stats_kind {
	STATS_LISTENER,
	STATS_UPSTREAM,
	STATS_TARGET,
	STATS_KINDS,
	STATS_LIMIT = STATS_KINDS,
	STATS_SLOT_KINDS,
	STATS_OWN_KINDS = STATS_TARGET /* those before have histograms of their own */
};

/* One slot, two lines of the cache. */
struct stats_object {
	_Alignas(128) _Atomic uint32_t id; /* 0: never used, or being cleared */
	_Atomic uint32_t run;              /* of `active` */
	_Atomic uint64_t active;           /* flows now */
	_Atomic uint64_t counter[STATS_OBJECT_COUNTERS];
};

/* The histograms of one listener or upstream. */
struct stats_own {
	_Atomic uint64_t sum[STATS_HISTOGRAMS];
	struct histogram histogram[STATS_HISTOGRAMS];
};

struct stats_thread {
	_Alignas(64) _Atomic uint64_t counter[STATS_COUNTERS];
	_Atomic uint64_t active[STATS_TABLES];       /* flows now */
	_Atomic uint32_t rows_first[STATS_TABLES];   /* where its rows begin in the bank's */
	_Atomic uint32_t rows_touched[STATS_TABLES]; /* those behind were never written */
	_Atomic uint64_t histogram_sum[STATS_HISTOGRAMS];
	struct histogram histogram[STATS_HISTOGRAMS];
	_Atomic uint64_t claimed[STATS_SLOTS_MAX / 64]; /* one bit per slot that was ever written */
	struct stats_object object[STATS_SLOTS_MAX];
	struct stats_own own[STATS_OWN_KINDS][STATS_OWN_MAX];
};

struct stats_bank {
	_Atomic uint32_t run;     /* the daemon's; 0: no relay writes here */
	_Atomic uint32_t threads; /* the daemon's: most that a relay of this bank has had */
	struct stats_thread thread[STATS_THREADS_MAX];
};

/* What the health checks do as a whole; written by the relay's health thread. */
struct stats_health {
	_Alignas(64) _Atomic uint64_t checks, failures;
	_Atomic uint64_t late;    /* checks that had to wait because too many were under way */
	_Atomic uint32_t targets; /* that are checked */
	_Atomic uint32_t under_way;
};

struct stats_memory {
	uint32_t layout;
	_Atomic uint32_t runs;                   /* the daemon's: given out so far */
	_Atomic uint32_t id[STATS_SLOTS_MAX];    /* the daemon's: which object has the slot; 0: none */
	_Atomic uint64_t daemon[STATS_COUNTERS]; /* what the daemon counts itself */
	struct stats_health health;
	struct stats_wanted wanted;                    /* the daemon's */
	struct target_state target[STATS_TARGETS_MAX]; /* of the targets' slots, from 0 */
	struct stats_bank bank[STATS_BANKS];
	struct stats_ring ring[STATS_BANKS][STATS_THREADS_MAX];
	struct stats_rows rows[STATS_BANKS];
};

/* The state of the target that has this slot; NULL for STATS_SLOT_NONE and slots of other kinds. */
static inline struct target_state *stats_target(struct stats_memory *memory, uint32_t slot)
{
	uint32_t number = slot - (STATS_LISTENERS_MAX + STATS_UPSTREAMS_MAX);

	return slot < STATS_SLOTS_MAX && number < STATS_TARGETS_MAX ? &memory->target[number] : 0;
}

/* Where the thread of a relay writes. */
struct stats_place {
	struct stats_thread *thread;
	struct stats_rows *rows; /* the bank's; NULL: none */
	uint32_t first[STATS_TABLES], n_rows[STATS_TABLES];
	struct stats_memory *memory; /* the whole of it: other threads' counters, and targets' states; NULL: none */
	struct stats_ring *ring;     /* of records; NULL: none */
	uint32_t run;
};

/* The number of the row that the flow at this index of a table has; STATS_ROW_NONE if there is none for it. */
static inline uint32_t stats_place_number(const struct stats_place *place, enum stats_table table, uint32_t index)
{
	return index < place->n_rows[table] ? place->first[table] + index : STATS_ROW_NONE;
}

/* And the row; NULL if there is none. */
static inline struct stats_row *stats_place_row(const struct stats_place *place, enum stats_table table, uint32_t index)
{
	return index < place->n_rows[table] ? &place->rows->row[place->first[table] + index] : 0;
}

static inline void stats_word_add(_Atomic uint64_t *word, uint64_t amount)
{
	/* One writer: a relaxed load and store is enough and needs no locked instruction. */
	atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + amount, memory_order_relaxed);
}

static inline void stats_add(struct stats_thread *slot, enum stats_counter counter, uint64_t amount)
{
	stats_word_add(&slot->counter[counter], amount);
}

static inline uint32_t stats_slot_first(enum stats_kind kind)
{
	return kind == STATS_LISTENER   ? 0
	       : kind == STATS_UPSTREAM ? STATS_LISTENERS_MAX
	       : kind == STATS_TARGET   ? STATS_LISTENERS_MAX + STATS_UPSTREAMS_MAX
	                                : STATS_LISTENERS_MAX + STATS_UPSTREAMS_MAX + STATS_TARGETS_MAX;
}

static inline uint32_t stats_slot_count(enum stats_kind kind)
{
	return kind == STATS_LISTENER   ? STATS_LISTENERS_MAX
	       : kind == STATS_UPSTREAM ? STATS_UPSTREAMS_MAX
	       : kind == STATS_TARGET   ? STATS_TARGETS_MAX
	                                : STATS_LIMITS_MAX;
}

/* --- the writer, a thread of the relay --- */

/* The object's counters: cleared first if the slot was another's. NULL if it has no slot (STATS_SLOT_NONE, or a number
 * out of range). */
struct stats_object *stats_claim(const struct stats_place *place, uint32_t slot, uint32_t id);
/* The same for an object that has counted here before: NULL if the slot is another's by now. */
static inline struct stats_object *stats_object(const struct stats_place *place, uint32_t slot, uint32_t id)
{
	struct stats_object *object = slot < STATS_SLOTS_MAX ? &place->thread->object[slot] : 0;

	return object && atomic_load_explicit(&object->id, memory_order_relaxed) == id ? object : 0;
}
/* The histograms of the listener or upstream that has this slot; NULL if it has none. */
struct stats_own *stats_own(const struct stats_place *place, uint32_t slot);

/* --- readers --- */

struct stats_object_sum {
	uint64_t active;
	uint64_t counter[STATS_OBJECT_COUNTERS];
};

/* Threads of the bank that may have been written. */
unsigned stats_threads(const struct stats_memory *memory, unsigned bank);
uint64_t stats_sum(const struct stats_memory *memory, enum stats_counter counter);
/* Flows now, of the relays that live: in all tables of this kind. */
uint64_t stats_active(const struct stats_memory *memory, enum stats_table kind);
/* And in those of both. */
uint64_t stats_active_all(const struct stats_memory *memory);
/* What the object has counted; zeros if nothing, or without a slot. */
void stats_object_read(const struct stats_memory *memory, uint32_t slot, uint32_t id, struct stats_object_sum *ret);
void stats_histogram_read(const struct stats_memory *memory, enum stats_histogram histogram, struct histogram_sum *ret);
/* The same for one listener or upstream. False if it has no histograms of its own. */
bool stats_own_read(const struct stats_memory *memory, uint32_t slot, uint32_t id, enum stats_histogram histogram,
        struct histogram_sum *ret);
/* Tables of the bank that may have been written. */
unsigned stats_tables(const struct stats_memory *memory, unsigned bank);
/* How many rows of one table may hold flows, and the number of the first among the bank's (memory->rows); 0 if no relay
 * writes to the bank. */
uint32_t stats_rows(const struct stats_memory *memory, unsigned bank, unsigned table, uint32_t *ret_first);
/* The same for a bank whose relay may be dead: what it has left. */
uint32_t stats_rows_left(const struct stats_memory *memory, unsigned bank, unsigned table, uint32_t *ret_first);

/* Whether a row of any bank, also of a relay that is dead, still shows this flow: whoever had it has not counted its
 * end. */
bool stats_flow_is_shown(const struct stats_memory *memory, uint64_t id);

/* The name, unit and doc as in the .def file. */
const char *stats_name(enum stats_counter counter);
const char *stats_unit(enum stats_counter counter);
const char *stats_doc(enum stats_counter counter);
const char *stats_object_name(enum stats_object_counter counter);
const char *stats_object_unit(enum stats_object_counter counter);
const char *stats_object_doc(enum stats_object_counter counter);
const char *stats_histogram_name(enum stats_histogram histogram);
const char *stats_histogram_unit(enum stats_histogram histogram);
const char *stats_histogram_doc(enum stats_histogram histogram);

#endif
