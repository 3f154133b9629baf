/*
 * How many bytes went through a TCP socket, by the kernel's own count: what
 * tells whether data that the kernel moves by itself has arrived. Used by the
 * sockmap mover and by the check that precedes its use.
 */
#ifndef GW_BASE_TCP_COUNTERS_H
#define GW_BASE_TCP_COUNTERS_H

#include <stdint.h>

/* Bytes that the peer sent and this socket has in order, read or not; its end of stream counts as one. 0 or a negative
 * errno, as for the others. */
int tcp_counters_received(int fd, uint64_t *ret);
/* Bytes ever written to the socket, sent or not, by a count that may begin at one; only while it is not shut down for
 * writing. Read while acknowledgements come in, the figure may be too small, but never too large. */
int tcp_counters_written(int fd, uint64_t *ret);
/* The same, exactly, provided that nobody writes meanwhile. -EAGAIN if acknowledgements come too fast. */
int tcp_counters_written_exactly(int fd, uint64_t *ret);

#endif
