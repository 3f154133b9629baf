/*
 * A lazy timer wheel: each entry waits in one slot and is handed out when its
 * slot is reached. An entry further away than the wheel's span waits in the
 * furthest slot, so what is handed out may be early: the owner looks at its
 * own deadline and sets the entry again. Activity never touches the wheel.
 */
#ifndef GW_RELAY_WHEEL_H
#define GW_RELAY_WHEEL_H

#include <stdbool.h>
#include <stdint.h>

/* A deadline is met at most this late. */
#define WHEEL_TICK_MS 64
/* Times the tick: a span of 65 s. A power of two and a multiple of 64. */
#define WHEEL_SLOTS 1024

/* Lives inside what it times; all zero is an entry that is not set. */
struct wheel_entry {
	struct wheel_entry *next, **link;
};

struct wheel {
	uint64_t tick;                   /* slots up to this one have been handed out */
	uint64_t used[WHEEL_SLOTS / 64]; /* one bit per slot that is not empty */
	struct wheel_entry *slots[WHEEL_SLOTS];
};

/* An empty wheel that stands at now_ms. */
void wheel_init(struct wheel *wheel, uint64_t now_ms);
/* Sets the entry, or sets it anew; never in the slot that is being handed out. */
void wheel_set(struct wheel *wheel, struct wheel_entry *entry, uint64_t due_ms);
/* Legal for an entry that is not set. */
void wheel_clear(struct wheel *wheel, struct wheel_entry *entry);
bool wheel_is_set(const struct wheel_entry *entry);
/* Hands out, unset, each entry whose slot has been reached; the function may set or clear any entry. */
void wheel_advance(
        struct wheel *wheel, uint64_t now_ms, void (*fire)(struct wheel_entry *entry, void *context), void *context);
/* Milliseconds until the next slot that is not empty, at least 0; -1 if all are. */
int wheel_timeout(const struct wheel *wheel, uint64_t now_ms);

#endif
