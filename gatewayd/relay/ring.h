/*
 * The reading end of one BPF ring buffer, whose records are all of one size.
 * One reader; the kernel writes. Its descriptor can be polled.
 */
#ifndef GW_RELAY_RING_H
#define GW_RELAY_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ring {
	uint64_t *consumed; /* ours to write; NULL: not open */
	const uint64_t *produced;
	const uint8_t *data; /* mapped twice in a row, so that no record is cut in two */
	size_t size;
};

/* Maps the ring of this descriptor, with `size` bytes (a power of two), which stays the caller's and may be closed. 0
 * or a negative errno. */
int ring_open(int fd, size_t size, struct ring *ret);
void ring_close(struct ring *ring);
/* Takes the next record of `size` bytes, if there is one. */
bool ring_next(struct ring *ring, void *ret, size_t size);

#endif
