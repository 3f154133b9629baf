/*
 * Pools of values of one size that many things of a table have in common, named
 * by number: each value is there once for all that have it. Called by tables of
 * flows (addr_trio.h, relay/flow.h, the daemon's keeper_entry.h); one thread's
 * own, without locks. No memory is allocated after start.
 *
 * Theory of operation: a value in the pool counts its users and is given back
 * with the last of them. The pool remembers by hash where it has put some of
 * the last values, and whoever has one of them shares it. Nothing depends on
 * that: one that is not found is put there once more. So the pool never takes
 * more than a value for each user, and little where there are a few hundred.
 */
#ifndef GW_BASE_SHARED_H
#define GW_BASE_SHARED_H

#include <stddef.h>
#include <stdint.h>

#include "gatewayd/base/parts.h"

/* Places that are remembered, a power of two: a pair for each hash, the later first. */
#define SHARED_RECENT 1024

struct shared {
	struct parts parts;
	uint32_t size;                  /* of a value */
	uint32_t recent[SHARED_RECENT]; /* by hash; 0: none */
};

/* Room for at least so many values of `size` bytes, a multiple of 4. 0 or -ENOMEM. */
int shared_init(struct shared *shared, uint32_t max, size_t size);
/* Legal for all zero. */
void shared_destroy(struct shared *shared);
/* The number of this value, from 1, which has one user more; 0: there is no room. */
uint32_t shared_use(struct shared *shared, const void *value);
/* One user less; legal for 0. */
void shared_leave(struct shared *shared, uint32_t number);

/* The value of this number, until its last user leaves; NULL for 0. Aligned to 4 bytes. */
static inline const void *shared_at(const struct shared *shared, uint32_t number)
{
	return parts_at(&shared->parts, number);
}

#endif
