/*
 * A fixed pool of buffers for bytes that were read but could not be written
 * at once, in memory that outlives the process (base/keep_memory.h). One buffer, the scratch, is always in hand for the
 * next read; when a write falls short the scratch is given to the flow as it is, without a copy, and another one takes
 * its place.
 */
#ifndef GW_RELAY_BUFFERS_H
#define GW_RELAY_BUFFERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gatewayd/base/keep_memory.h"

/* Bytes of one buffer: large enough for few system calls, small enough for a second-level cache. */
#define BUFFER_SIZE 65536
/* Buffers of one thread: 64 MiB of address space, of which only what was ever in use at once gets memory. */
#define BUFFERS_MAX 1024
#define BUFFER_NONE UINT32_MAX

struct buffers {
	uint8_t *memory;
	struct keep_owner *owner; /* of each buffer: who has last read into it, for the next relay */
	uint32_t count, n_free;
	uint32_t scratch;
	uint32_t *free_list;
};

/* A pool of the memory's buffers, of BUFFER_SIZE each; the memory must outlive it. 0 or -ENOMEM. */
int buffers_init(struct buffers *buffers, const struct keep_memory *memory);
void buffers_destroy(struct buffers *buffers);
uint8_t *buffers_data(const struct buffers *buffers, uint32_t buffer);
/* Notes who is about to read into the scratch: that direction's bytes from `position` on. */
void buffers_own(struct buffers *buffers, uint64_t flow, uint32_t side, uint64_t position);
/* Whether the scratch can be given away, i.e. another one is free. */
bool buffers_available(const struct buffers *buffers);
/* Gives the scratch away: legal only if buffers_available. */
uint32_t buffers_take_scratch(struct buffers *buffers);
void buffers_put(struct buffers *buffers, uint32_t buffer);

#endif
