/*
 * The splicing mover: socket to pipe to socket without a copy. The pipe is
 * only read into while it is empty, so that EAGAIN from the source says that
 * the source has nothing (and not that the pipe is full), and a direction
 * holds a pipe only while bytes are in it. SPLICE_F_MORE is never used: with
 * it the kernel may keep the last bytes back for 200 ms.
 *
 * A kill loses no byte of it: the daemon holds the pipe too, its owner is noted
 * before bytes are put in, and what is in the pipe is exactly what was taken and
 * not given on (keep.h).
 */
#include <errno.h>
#include <fcntl.h>

#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/mover.h"

#define SPLICE_FLAGS (SPLICE_F_MOVE | SPLICE_F_NONBLOCK)

/* 1: the pipe is empty, 0: the other end is full, or a negative errno. */
static int drain(struct loop *loop, struct flow_direction *direction, struct flow_end *to)
{
	const struct pipe_pair *pair = &loop->pipes.pair[direction->store];

	while (direction->held > 0) {
		ssize_t sent = splice(pair->read_fd, NULL, to->fd, NULL, direction->held, SPLICE_FLAGS);

		if (sent > 0) {
			direction->held -= (uint32_t)sent;
			continue;
		}
		if (sent == 0)
			return -EIO; /* the pipe does not hold what went into it */
		if (errno != EAGAIN)
			return -errno;
		to->writable = false;
		return 0;
	}
	return 1;
}

/* The source gave nothing although nothing more is to come: that is the end of stream, or splice(2) stands before the
 * mark of urgent data, with the end of stream behind it. */
static void stopped(struct flow_direction *direction, struct flow_end *from)
{
	mover_take_urgent(from->fd);
	if (mover_nothing_waits(from->fd)) {
		direction->state = DIRECTION_ENDING;
	} else {
		from->urgent = true; /* copying gets past it (tcp.c) */
		from->readable = false;
	}
}

/* Fills the empty pipe. Bytes in it, 0 for none now, or a negative errno. */
static ssize_t fill(struct loop *loop, struct flow_direction *direction, struct flow_end *from)
{
	ssize_t got =
	        splice(from->fd, NULL, loop->pipes.pair[direction->store].write_fd, NULL, MOVER_BUDGET, SPLICE_FLAGS);

	if (got < 0 && errno != EAGAIN)
		return -errno;
	if (got == 0)
		stopped(direction, from);
	if (got < 0) {
		from->readable = false;
		return 0;
	}
	direction->held = (uint32_t)got;
	direction->taken += (uint64_t)got;
	return got;
}

static int pump_with_pipe(struct loop *loop, struct flow *flow, enum flow_side side, size_t budget, size_t *ret_moved)
{
	struct flow_direction *direction = &flow->direction[side];
	struct flow_end *from = &flow->end[side], *to = &flow->end[!side];

	while (*ret_moved < budget) {
		ssize_t got;
		int r;

		if (!to->writable && (direction->held > 0 || direction->state == DIRECTION_OPEN))
			return MOVER_BLOCKED;
		r = drain(loop, direction, to);
		if (r <= 0)
			return r < 0 ? r : MOVER_BLOCKED;
		if (direction->state != DIRECTION_OPEN)
			return MOVER_ENDED;
		if (!from->readable)
			return MOVER_BLOCKED;
		got = fill(loop, direction, from);
		if (got < 0)
			return (int)got;
		*ret_moved += (size_t)got;
	}
	return MOVER_MORE;
}

/* A pipe that outlives us, noted as this direction's; PIPE_NONE if none is to be had. */
static uint32_t pipe_take(struct loop *loop, const struct flow *flow, enum flow_side side)
{
	uint32_t pipe = pipes_take(&loop->pipes, loop->now_ms);

	if (pipe == PIPE_NONE)
		return PIPE_NONE;
	if (!keep_pipe(loop, pipe)) {
		pipes_put(&loop->pipes, pipe);
		return PIPE_NONE;
	}
	pipes_own(&loop->pipes, pipe, flow->id, side);
	return pipe;
}

static int splice_pump(struct loop *loop, struct flow *flow, enum flow_side side, size_t budget, size_t *ret_moved)
{
	struct flow_direction *direction = &flow->direction[side];
	int r;

	*ret_moved = 0;
	if (direction->held == 0) {
		if (direction->state != DIRECTION_OPEN)
			return MOVER_ENDED;
		if (!flow->end[side].readable || !flow->end[!side].writable)
			return MOVER_BLOCKED;
		direction->store = pipe_take(loop, flow, side);
		if (direction->store == PIPE_NONE)
			return MOVER_UNFIT;
	}
	r = pump_with_pipe(loop, flow, side, budget, ret_moved);
	if (direction->held == 0) {
		pipes_put(&loop->pipes, direction->store);
		direction->store = PIPE_NONE;
	}
	if (*ret_moved >= MOVER_LITTLE_BYTES)
		direction->streak = 0;
	else if (*ret_moved > 0)
		direction->streak++;
	return r;
}

static void splice_release(struct loop *loop, struct flow *flow, enum flow_side side)
{
	struct flow_direction *direction = &flow->direction[side];

	if (direction->held == 0)
		return;
	pipes_discard(&loop->pipes, direction->store);
	direction->store = PIPE_NONE;
	direction->held = 0;
}

const struct mover tcp_splice = { splice_pump, splice_release };
