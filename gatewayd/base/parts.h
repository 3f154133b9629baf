/*
 * Pools of parts of one size, named by number: what only some things of a
 * table need, or need only for a while. Called by the relay's table of flows
 * and by the daemon's; one thread's own, without locks. No memory is allocated
 * after start.
 *
 * Theory of operation: the parts lie in chunks of a few pages. A part is taken
 * from a chunk that has pages already, as long as one has room. A chunk of
 * which nothing is used any more gives its pages back to the kernel, but for
 * one, so that use that goes up and down by one part makes no system call; and
 * none does where pages are larger than chunks.
 */
#ifndef GW_BASE_PARTS_H
#define GW_BASE_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A multiple of the usual page sizes, 4 and 16 KiB. */
#define PARTS_CHUNK_BYTES 16384
/* Most parts of a chunk, which bounds the least size: smaller ones take as much room. */
#define PARTS_EACH_BITS 10

struct parts_chunk {
	uint16_t used;
	uint16_t touched;    /* parts behind this one were never used */
	uint16_t free_head;  /* a part's place in the chunk + 1; 0: none */
	uint32_t next, prev; /* among the chunks with room */
};

struct parts {
	uint8_t *memory;
	struct parts_chunk *chunks;
	uint32_t size;     /* of a part */
	uint32_t each;     /* parts of a chunk */
	uint32_t n_chunks; /* and so many there may be */
	uint32_t touched;  /* chunks behind this one were never used */
	uint32_t room_head, room_tail;
	uint32_t spare;  /* the chunk that is not used and has pages */
	uint32_t used;   /* parts */
	bool gives_back; /* pages, to the kernel */
};

/* Room for at least max parts of so many bytes, at most PARTS_CHUNK_BYTES. 0 or -ENOMEM. */
int parts_init(struct parts *parts, uint32_t max, size_t size);
/* Legal for all zero. */
void parts_destroy(struct parts *parts);
/* The number of a part that is all zero, from 1; 0: there is no room. */
uint32_t parts_take(struct parts *parts);
/* Takes it back; legal for 0. */
void parts_give(struct parts *parts, uint32_t number);

/* The part of this number; NULL for 0. Aligned to 8 bytes if its size is a multiple of that. */
static inline void *parts_at(const struct parts *parts, uint32_t number)
{
	uint32_t chunk = (number - 1) >> PARTS_EACH_BITS, place = (number - 1) & ((1U << PARTS_EACH_BITS) - 1);

	return number ? parts->memory + (size_t)chunk * PARTS_CHUNK_BYTES + (size_t)place * parts->size : NULL;
}

#endif
