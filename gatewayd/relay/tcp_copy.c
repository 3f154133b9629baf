/*
 * The copying mover. Reads into the thread's scratch buffer and writes at
 * once; only what the other end does not take is kept, by handing the scratch
 * to the flow. While no buffer is free for that, bytes are peeked at, written,
 * and then dropped from the source: slower, but it needs no store.
 *
 * Whatever instant a kill strikes at, no byte is lost or doubled (keep.h). The
 * scratch's owner is noted before the read, so bytes that were read and not
 * written lie in a buffer that says whose they are, and from which byte of the
 * stream on. Bytes that were peeked at and written, but not dropped, show as
 * more given than taken.
 */
#include <errno.h>
#include <sys/socket.h>

#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/mover.h"

/* Behind the last bytes the end of stream follows at once: both are to travel in one packet. */
static int send_flags(const struct flow_direction *direction)
{
	return direction->state == DIRECTION_OPEN ? MSG_NOSIGNAL : MSG_NOSIGNAL | MSG_MORE;
}

/* 1: all held bytes are written, 0: the other end is full, or a negative errno. */
static int write_held(struct loop *loop, struct flow_direction *direction, struct flow_end *to)
{
	const uint8_t *data = buffers_data(&loop->buffers, direction->store) + direction->offset;
	ssize_t sent = send(to->fd, data, direction->held, send_flags(direction));

	if (sent < 0 && errno != EAGAIN)
		return -errno;
	if (sent > 0) {
		direction->offset += (uint32_t)sent;
		direction->held -= (uint32_t)sent;
	}
	if (direction->held > 0) {
		to->writable = false;
		return 0;
	}
	buffers_put(&loop->buffers, direction->store);
	direction->store = BUFFER_NONE;
	return 1;
}

/* Bytes in the scratch, 0 for none now, or a negative errno. Notes what the read says about the source. */
static ssize_t read_scratch(struct loop *loop, struct flow_direction *direction, struct flow_end *from, int flags)
{
	void *scratch = buffers_data(&loop->buffers, loop->buffers.scratch);
	ssize_t got = recv(from->fd, scratch, BUFFER_SIZE, flags);

	if (got < 0 && errno != EAGAIN)
		return -errno;
	if (got == 0) {
		direction->state = DIRECTION_ENDING;
	} else if (got < 0) {
		from->readable = false;
		got = 0;
	} else if (got < BUFFER_SIZE && !from->urgent && !from->broken && !(flags & MSG_PEEK)) {
		/* Nothing more waits. With a known hang-up that is the end of the stream. */
		from->readable = false;
		if (from->hangup)
			direction->state = DIRECTION_ENDING;
	}
	if (got == BUFFER_SIZE)
		direction->streak++;
	else
		direction->streak = 0;
	return got;
}

/* Keeps scratch[sent..got) for later. */
static void keep_rest(struct loop *loop, struct flow_direction *direction, size_t sent, size_t got)
{
	direction->store = buffers_take_scratch(&loop->buffers);
	direction->offset = (uint32_t)sent;
	direction->held = (uint32_t)(got - sent);
}

/* Bytes moved (0: none for now), or a negative errno. */
static ssize_t move_once(struct loop *loop, struct flow *flow, enum flow_side side)
{
	struct flow_direction *direction = &flow->direction[side];
	struct flow_end *from = &flow->end[side], *to = &flow->end[!side];
	bool storable = buffers_available(&loop->buffers);
	ssize_t got, sent;

	if (storable)
		buffers_own(&loop->buffers, flow->id, side, direction->taken);
	got = read_scratch(loop, direction, from, storable ? 0 : MSG_PEEK);
	if (got <= 0)
		return got;
	if (storable)
		direction->taken += (uint64_t)got;
	sent = send(to->fd, buffers_data(&loop->buffers, loop->buffers.scratch), (size_t)got, send_flags(direction));
	if (sent < 0 && errno != EAGAIN)
		return -errno;
	if (sent < 0)
		sent = 0;
	if (sent < got)
		to->writable = false;
	if (!storable) {
		/* MSG_TRUNC drops bytes that were peeked at before; they are there, so this cannot fall short. */
		if (sent > 0 && recv(from->fd, NULL, (size_t)sent, MSG_TRUNC) != sent)
			return -EIO;
		direction->taken += (uint64_t)sent;
		return sent;
	}
	if (sent < got)
		keep_rest(loop, direction, (size_t)sent, (size_t)got);
	return got;
}

static int copy_pump(struct loop *loop, struct flow *flow, enum flow_side side, size_t budget, size_t *ret_moved)
{
	struct flow_direction *direction = &flow->direction[side];
	struct flow_end *from = &flow->end[side], *to = &flow->end[!side];

	*ret_moved = 0;
	while (*ret_moved < budget) {
		ssize_t moved;

		if (!to->writable && (direction->held > 0 || direction->state == DIRECTION_OPEN))
			return MOVER_BLOCKED;
		if (direction->held > 0) {
			int r = write_held(loop, direction, to);

			if (r <= 0)
				return r < 0 ? r : MOVER_BLOCKED;
		}
		if (direction->state != DIRECTION_OPEN)
			return MOVER_ENDED;
		if (!from->readable)
			return MOVER_BLOCKED;
		moved = move_once(loop, flow, side);
		if (moved < 0)
			return (int)moved;
		*ret_moved += (size_t)moved;
	}
	return MOVER_MORE;
}

static void copy_release(struct loop *loop, struct flow *flow, enum flow_side side)
{
	struct flow_direction *direction = &flow->direction[side];

	if (direction->held == 0)
		return;
	buffers_put(&loop->buffers, direction->store);
	direction->store = BUFFER_NONE;
	direction->held = 0;
}

const struct mover tcp_copy = { copy_pump, copy_release };
