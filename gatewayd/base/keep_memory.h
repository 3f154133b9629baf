/*
 * The memory of one relay thread in which bytes lie that were read and not
 * yet written: its buffers, and beside them who owns each buffer and each
 * pipe. A sealed memfd that the daemon holds too, so that it outlives the
 * thread; the next relay finds in it what the dead one had in hand. What bytes
 * those are is not written anywhere: the kernel's counters say it (see
 * relay/ledger.h).
 */
#ifndef GW_BASE_KEEP_MEMORY_H
#define GW_BASE_KEEP_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Raised with every change of the layout. */
#define KEEP_LAYOUT 1
/* Most buffers and pipes of a memory that is not our own, and their size: bounds what a mad relay can claim. */
#define KEEP_MEMORY_BUFFERS_MAX (1U << 16)
#define KEEP_MEMORY_PIPES_MAX   (1U << 12)
#define KEEP_MEMORY_BUFFER_SIZE (1U << 20)

/* Whose bytes a buffer or a pipe was last filled with. */
struct keep_owner {
	uint64_t flow;     /* its id; 0: nobody's */
	uint64_t position; /* of the buffer's first byte in the stream of that direction */
	uint32_t side;     /* the direction: enum flow_side of the end that it was read from */
	uint32_t unused;
};

struct keep_memory {
	void *map; /* NULL: none */
	size_t size;
	uint32_t buffers, buffer_size, pipes;
	struct keep_owner *buffer_owner; /* [buffers] */
	struct keep_owner *pipe_owner;   /* [pipes] */
	uint8_t *data;                   /* buffers * buffer_size */
};

/* Makes one, all zero; only what is used gets memory. ret_fd is the caller's. 0 or a negative errno. */
int keep_memory_make(
        uint32_t buffers, uint32_t buffer_size, uint32_t pipes, struct keep_memory *ret_memory, int *ret_fd);
/* Maps another thread's, to be read only. -EBADMSG: it does not have the size that follows from the numbers. */
int keep_memory_map(int fd, uint32_t buffers, uint32_t buffer_size, uint32_t pipes, struct keep_memory *ret);
/* Whether the descriptor is a memfd that nobody can shrink any more: reading it can then never fault. */
bool keep_memory_is_sealed(int fd);
void keep_memory_unmap(struct keep_memory *memory);

#endif
