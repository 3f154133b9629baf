/* One end of the record channel between daemon and relay; see msg.h. */
#include "gatewayd/base/msg.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include "gatewayd/base/cleanup.h"

struct msg_channel {
	int fd;
	enum proto_direction sends, receives;
	struct wire out; /* the open record: offset bytes of it are filled */
	struct wire in;  /* the last received record: size bytes, offset of them handed out */
	int in_fd;       /* the descriptor that came with it, until handed out */
	uint8_t out_data[PROTO_RECORD_MAX];
	uint8_t in_data[PROTO_RECORD_MAX];
};

union control {
	struct cmsghdr header;
	uint8_t space[CMSG_SPACE(MSG_DESCRIPTORS_MAX * sizeof(int))];
};

int msg_channel_new(int fd, enum proto_direction sends, struct msg_channel **ret)
{
	struct msg_channel *channel = malloc(sizeof(*channel));

	if (!channel)
		return -ENOMEM;
	channel->fd = fd;
	channel->sends = sends;
	channel->receives = sends == PROTO_DOWN ? PROTO_UP : PROTO_DOWN;
	channel->in_fd = -1;
	wire_init(&channel->out, channel->out_data, sizeof(channel->out_data));
	wire_init(&channel->in, channel->in_data, 0);
	*ret = channel;
	return 0;
}

void msg_channel_free(struct msg_channel *channel)
{
	if (!channel)
		return;
	if (channel->in_fd >= 0)
		close(channel->in_fd);
	close(channel->fd);
	free(channel);
}

int msg_channel_fd(const struct msg_channel *channel)
{
	return channel->fd;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits for events until the deadline (now_ms; negative: without end). 0, -EAGAIN or another errno. */
static int wait_for(int fd, short events, int64_t deadline)
{
	for (;;) {
		int64_t left = deadline < 0 ? -1 : deadline - now_ms();
		struct pollfd poll_fd = { .fd = fd, .events = events };
		int r;

		if (deadline >= 0 && left <= 0)
			return -EAGAIN;
		r = poll(&poll_fd, 1, (int)(left > INT32_MAX ? INT32_MAX : left));
		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
	}
}

static int64_t deadline_of(int timeout_ms)
{
	return timeout_ms < 0 ? -1 : now_ms() + timeout_ms;
}

static void attach(struct msghdr *header, union control *control, int fd)
{
	struct cmsghdr *cmsg;

	header->msg_control = control;
	header->msg_controllen = CMSG_SPACE(sizeof(int));
	cmsg = CMSG_FIRSTHDR(header);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
}

/* Sends the open record whole, with the descriptor if it is one. On failure the record stays open. */
static int record_send(struct msg_channel *channel, int fd, int timeout_ms)
{
	struct iovec iov = { channel->out_data, channel->out.offset };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };
	union control control = { 0 };
	int64_t deadline = deadline_of(timeout_ms);

	if (fd >= 0)
		attach(&header, &control, fd);
	while (sendmsg(channel->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
		int r;

		if (errno == EINTR)
			continue;
		if (errno == ECONNRESET || errno == EPIPE || errno == ENOTCONN)
			return -EPIPE;
		if (errno != EAGAIN)
			return -errno;
		r = wait_for(channel->fd, POLLOUT, deadline);
		if (r < 0)
			return r;
	}
	channel->out.offset = 0;
	return 0;
}

int msg_flush(struct msg_channel *channel, int timeout_ms)
{
	return channel->out.offset == 0 ? 0 : record_send(channel, -1, timeout_ms);
}

int msg_send(struct msg_channel *channel, const struct proto_message *message, int fd, int timeout_ms)
{
	bool alone = proto_descriptors(message->type) > 0;
	int r;

	if (alone != (fd >= 0))
		return -EINVAL;
	r = alone ? msg_flush(channel, timeout_ms) : 0;
	if (r < 0)
		return r;
	r = proto_encode(&channel->out, message);
	if (r == -ENOBUFS && channel->out.offset > 0) {
		r = msg_flush(channel, timeout_ms);
		if (r == 0)
			r = proto_encode(&channel->out, message);
	}
	if (r < 0 || !alone)
		return r;
	r = record_send(channel, fd, timeout_ms);
	channel->out.offset = 0;
	return r;
}

/* Keeps the one descriptor of a record; closes all of them and fails if there are more. */
static int collect(struct msg_channel *channel, struct msghdr *header)
{
	int fds[MSG_DESCRIPTORS_MAX];
	size_t n = 0;

	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(header); cmsg; cmsg = CMSG_NXTHDR(header, cmsg)) {
		size_t here = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		memcpy(fds + n, CMSG_DATA(cmsg), here * sizeof(int));
		n += here;
	}
	if (n <= 1 && !(header->msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		channel->in_fd = n == 1 ? fds[0] : -1;
		return 0;
	}
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
	return -EBADMSG;
}

/* Reads the next record into `in`. */
static int record_receive(struct msg_channel *channel, int timeout_ms)
{
	struct iovec iov = { channel->in_data, sizeof(channel->in_data) };
	int64_t deadline = deadline_of(timeout_ms);
	union control control;
	struct msghdr header;
	ssize_t got;

	for (;;) {
		int r;

		header = (struct msghdr){
			.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
		};
		got = recvmsg(channel->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (got >= 0)
			break;
		if (errno == EINTR)
			continue;
		if (errno == ECONNRESET || errno == ENOTCONN)
			return -EPIPE;
		if (errno != EAGAIN)
			return -errno;
		r = wait_for(channel->fd, POLLIN, deadline);
		if (r < 0)
			return r;
	}
	if (collect(channel, &header) < 0)
		return -EBADMSG;
	if (got == 0)
		return -EPIPE;
	wire_init(&channel->in, channel->in_data, (size_t)got);
	return 0;
}

int msg_receive(struct msg_channel *channel, struct proto_message *ret, int *ret_fd, int timeout_ms)
{
	struct proto_message message;
	bool first, alone;
	int r;

	if (!msg_pending(channel)) {
		r = record_receive(channel, timeout_ms);
		if (r < 0)
			return r;
	}
	first = channel->in.offset == 0;
	r = proto_decode(&channel->in, channel->receives, &message);
	if (r < 0)
		return r;
	/* A descriptor belongs to the only message of its record, and to no message that wants none. */
	alone = proto_descriptors(message.type) > 0;
	if (alone != (channel->in_fd >= 0) || (alone && (!first || msg_pending(channel))))
		return -EBADMSG;
	*ret = message;
	*ret_fd = TAKE_FD(channel->in_fd);
	return 0;
}

void msg_skip(struct msg_channel *channel)
{
	channel->in.offset = channel->in.size;
	cleanup_close(&channel->in_fd);
	channel->in_fd = -1;
}

bool msg_pending(const struct msg_channel *channel)
{
	return channel->in.offset < channel->in.size;
}
