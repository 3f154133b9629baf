/*
 * Layout of the counters in memory shared by daemon and relay: one slot per
 * relay thread, derived from stats.def. The daemon makes the memory and it
 * outlives each relay. A writer adds with stats_add; a reader sums the slots.
 */
#ifndef GW_BASE_STATS_H
#define GW_BASE_STATS_H

#include <stdatomic.h>
#include <stdint.h>

/* Raised with every change of stats.def or of these structs. */
#define STATS_LAYOUT 3
/* Most relay threads; a named limit so that the memory has a fixed size. */
#define STATS_THREADS_MAX 64

enum stats_counter {
#define STAT(member, unit, doc) STATS_##member,
#include "gatewayd/base/stats.def"
#undef STAT
	STATS_COUNTERS
};

struct stats_thread {
	_Alignas(64) _Atomic uint64_t counter[STATS_COUNTERS];
};

struct stats_memory {
	uint32_t layout;
	uint32_t threads;
	struct stats_thread thread[STATS_THREADS_MAX];
	struct stats_thread daemon; /* what the daemon counts itself */
};

static inline void stats_add(struct stats_thread *slot, enum stats_counter counter, uint64_t amount)
{
	/* One writer per slot: a relaxed load and store is enough and needs no locked instruction. */
	uint64_t old = atomic_load_explicit(&slot->counter[counter], memory_order_relaxed);

	atomic_store_explicit(&slot->counter[counter], old + amount, memory_order_relaxed);
}

static inline uint64_t stats_sum(const struct stats_memory *memory, enum stats_counter counter)
{
	uint64_t sum = atomic_load_explicit(&memory->daemon.counter[counter], memory_order_relaxed);

	for (unsigned i = 0; i < STATS_THREADS_MAX; i++)
		sum += atomic_load_explicit(&memory->thread[i].counter[counter], memory_order_relaxed);
	return sum;
}

/* The counter's name and doc as in stats.def. */
const char *stats_name(enum stats_counter counter);
const char *stats_doc(enum stats_counter counter);

#endif
