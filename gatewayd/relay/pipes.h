/*
 * A pool of kernel pipes for splice(2). A direction of a flow takes one when
 * it has bytes to move and gives it back as soon as it is empty, so that a few
 * pipes serve many flows: a user without CAP_SYS_RESOURCE has a bounded amount
 * of pipe memory, beyond which the kernel only hands out tiny pipes. The daemon
 * holds each pipe too, and finds in memory that outlives the process whose
 * bytes are in it (base/keep_memory.h).
 */
#ifndef GW_RELAY_PIPES_H
#define GW_RELAY_PIPES_H

#include <stdint.h>

#include "gatewayd/base/keep_memory.h"

/* Pipes of one thread, each two descriptors. */
#define PIPES_MAX 256
/* Wanted and least capacity in bytes; a smaller pipe than that would be slower than copying. */
#define PIPE_SIZE_WANTED (512 * 1024)
#define PIPE_SIZE_LEAST  (64 * 1024)
/* After a refusal no new pipe is tried for this long. */
#define PIPES_RETRY_MS 1000
#define PIPE_NONE      UINT32_MAX

struct pipe_pair {
	int read_fd, write_fd;
};

struct pipes {
	struct pipe_pair pair[PIPES_MAX];
	uint32_t idle[PIPES_MAX]; /* open and empty */
	uint32_t closed[PIPES_MAX];
	uint32_t n_idle, n_closed;
	struct keep_owner *owner; /* of each pipe, for the next relay */
	uint64_t retry_ms;
};

/* An empty pool; pipes are made when they are taken. destroy closes those that lie in it. The memory's pipe_owner has
 * PIPES_MAX rows and must outlive the pool. */
void pipes_init(struct pipes *pipes, const struct keep_memory *memory);
void pipes_destroy(struct pipes *pipes);
/* The number of an empty pipe, or PIPE_NONE if none is to be had now. */
uint32_t pipes_take(struct pipes *pipes, uint64_t now_ms);
/* Takes over a pipe that another process has made: its number, or PIPE_NONE if there is no room (then it is still the
 * caller's). */
uint32_t pipes_adopt(struct pipes *pipes, const struct pipe_pair *pair);
/* Notes whose bytes are about to be put into a pipe. */
void pipes_own(struct pipes *pipes, uint32_t pipe, uint64_t flow, uint32_t side);
/* Whether a pipe of this number is open. */
bool pipes_is_open(const struct pipes *pipes, uint32_t pipe);
/* Gives an empty pipe back. */
void pipes_put(struct pipes *pipes, uint32_t pipe);
/* Gives a pipe back that may still hold bytes: they are thrown away. */
void pipes_discard(struct pipes *pipes, uint32_t pipe);

#endif
