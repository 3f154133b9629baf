/*
 * A pool of kernel pipes for splice(2). A direction of a flow takes one when
 * it has bytes to move and gives it back as soon as it is empty, so that a few
 * pipes serve many flows: a user without CAP_SYS_RESOURCE has a bounded amount
 * of pipe memory, beyond which the kernel only hands out tiny pipes.
 */
#ifndef GW_RELAY_PIPES_H
#define GW_RELAY_PIPES_H

#include <stdint.h>

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
	uint64_t retry_ms;
};

/* An empty pool; pipes are made when they are taken. destroy closes those that lie in it. */
void pipes_init(struct pipes *pipes);
void pipes_destroy(struct pipes *pipes);
/* The number of an empty pipe, or PIPE_NONE if none is to be had now. */
uint32_t pipes_take(struct pipes *pipes, uint64_t now_ms);
/* Gives an empty pipe back. */
void pipes_put(struct pipes *pipes, uint32_t pipe);
/* Closes a pipe that still holds bytes. */
void pipes_discard(struct pipes *pipes, uint32_t pipe);

#endif
