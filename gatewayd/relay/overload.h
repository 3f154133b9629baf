/*
 * Whether a thread can hardly take more flows: its table is nearly full, or
 * there was no descriptor for one lately. The control thread tells the daemon,
 * which lets new connections of `direct` listeners go past the relay until it
 * has passed; those of others are refused one by one (listen.c, tcp.c).
 */
#ifndef GW_RELAY_OVERLOAD_H
#define GW_RELAY_OVERLOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Shares of the flow table, in percent: overload begins when the upper one is reached and ends below the lower one, so
 * that it does not change its mind with each flow. */
#define OVERLOAD_BEGIN_PERCENT 95
#define OVERLOAD_END_PERCENT   85
/* How long a missing descriptor counts: nothing tells when there are enough again. */
#define OVERLOAD_STARVED_MS 2000

/* All zero is one without load. */
struct overload {
	_Atomic bool on; /* the thread's; anybody may look */
	uint64_t starved_until_ms;
};

/* There was no descriptor or memory for a flow. */
static inline void overload_starved(struct overload *overload, uint64_t now_ms)
{
	overload->starved_until_ms = now_ms + OVERLOAD_STARVED_MS;
}

/* To be called once per turn: `open` flows of `size`. Whether it has begun or ended just now. */
static inline bool overload_update(struct overload *overload, uint64_t now_ms, uint32_t open, uint32_t size)
{
	bool was = atomic_load_explicit(&overload->on, memory_order_relaxed);
	unsigned percent = was ? OVERLOAD_END_PERCENT : OVERLOAD_BEGIN_PERCENT;
	bool on = (uint64_t)open * 100 >= (uint64_t)size * percent || now_ms < overload->starved_until_ms;

	if (on != was)
		atomic_store_explicit(&overload->on, on, memory_order_relaxed);
	return on != was;
}

#endif
