/* The pool of pipes; see pipes.h. */
#include "gatewayd/relay/pipes.h"

#include <fcntl.h>
#include <unistd.h>

/* Bytes thrown away at once; a pipe holds PIPE_SIZE_WANTED at most. */
#define DISCARD_BYTES 65536

void pipes_init(struct pipes *pipes, const struct keep_memory *memory)
{
	pipes->owner = memory->pipe_owner;
	pipes->n_idle = 0;
	pipes->n_closed = PIPES_MAX;
	pipes->retry_ms = 0;
	for (uint32_t i = 0; i < PIPES_MAX; i++) {
		pipes->closed[i] = PIPES_MAX - 1 - i;
		pipes->pair[i] = (struct pipe_pair){ -1, -1 };
	}
}

static void pipe_close(struct pipes *pipes, uint32_t pipe)
{
	close(pipes->pair[pipe].read_fd);
	close(pipes->pair[pipe].write_fd);
	pipes->pair[pipe] = (struct pipe_pair){ -1, -1 };
	pipes->closed[pipes->n_closed++] = pipe;
}

void pipes_destroy(struct pipes *pipes)
{
	while (pipes->n_idle > 0)
		pipe_close(pipes, pipes->idle[--pipes->n_idle]);
}

/* A pipe of the wanted size, or at least the least one. */
static int pair_open(struct pipe_pair *pair)
{
	int fds[2], size;

	if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0)
		return -1;
	size = fcntl(fds[1], F_SETPIPE_SZ, PIPE_SIZE_WANTED);
	if (size < 0)
		size = fcntl(fds[1], F_GETPIPE_SZ);
	if (size < PIPE_SIZE_LEAST) {
		close(fds[0]);
		close(fds[1]);
		return -1;
	}
	*pair = (struct pipe_pair){ fds[0], fds[1] };
	return 0;
}

uint32_t pipes_take(struct pipes *pipes, uint64_t now_ms)
{
	uint32_t pipe;

	if (pipes->n_idle > 0)
		return pipes->idle[--pipes->n_idle];
	if (pipes->n_closed == 0 || now_ms < pipes->retry_ms)
		return PIPE_NONE;
	pipe = pipes->closed[pipes->n_closed - 1];
	if (pair_open(&pipes->pair[pipe]) < 0) {
		pipes->retry_ms = now_ms + PIPES_RETRY_MS;
		return PIPE_NONE;
	}
	pipes->n_closed--;
	return pipe;
}

uint32_t pipes_adopt(struct pipes *pipes, const struct pipe_pair *pair)
{
	uint32_t pipe;

	if (pipes->n_closed == 0)
		return PIPE_NONE;
	pipe = pipes->closed[--pipes->n_closed];
	pipes->pair[pipe] = *pair;
	return pipe;
}

void pipes_own(struct pipes *pipes, uint32_t pipe, uint64_t flow, uint32_t side)
{
	pipes->owner[pipe] = (struct keep_owner){ .flow = flow, .side = side };
}

bool pipes_is_open(const struct pipes *pipes, uint32_t pipe)
{
	return pipes->pair[pipe].read_fd >= 0;
}

void pipes_put(struct pipes *pipes, uint32_t pipe)
{
	pipes->owner[pipe].flow = 0;
	pipes->idle[pipes->n_idle++] = pipe;
}

void pipes_discard(struct pipes *pipes, uint32_t pipe)
{
	/* Aligned as memory that is copied to should be; and mold makes a program that cannot be started of a thread's
	 * own bytes without any alignment, if they begin at the last byte of a page. */
	_Alignas(64) static _Thread_local uint8_t thrown_away[DISCARD_BYTES];
	ssize_t got;

	do
		got = read(pipes->pair[pipe].read_fd, thrown_away, sizeof(thrown_away));
	while (got > 0);
	pipes_put(pipes, pipe);
}
