/*
 * The reading end of one BPF ring buffer, whose records are notices of the
 * verdict program (base/bpf_flow.h). One reader; the kernel writes. Its
 * descriptor can be polled.
 */
#ifndef GW_RELAY_RING_H
#define GW_RELAY_RING_H

#include <stdbool.h>
#include <stdint.h>

struct ring {
	uint64_t *consumed; /* ours to write; NULL: not open */
	const uint64_t *produced;
	const uint8_t *data; /* mapped twice in a row, so that no record is cut in two */
};

/* Maps the ring of this descriptor, which stays the caller's and may be closed. 0 or a negative errno. */
int ring_open(int fd, struct ring *ret);
void ring_close(struct ring *ring);
/* Takes the next notice, if there is one: its tag. */
bool ring_next(struct ring *ring, uint64_t *ret_tag);

#endif
