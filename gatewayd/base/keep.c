/* Codec and records of the channel of kept flows; see keep.h. */
#include "gatewayd/base/keep.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"

/* On the wire: u16 type, u16 length of the payload. */
#define HEADER_SIZE 4

static const struct {
	const char *name;
	unsigned descriptors;
} rows[] = {
	[KEEP_NONE] = { "none", 0 },
#define MSG(upper, lower, descriptors, fields) [KEEP_##upper] = { #lower, descriptors },
#include "gatewayd/base/keep.def"
#undef MSG
};
static_assert(ARRAY_SIZE(rows) == KEEP_TYPES, "one row per type");
static_assert(KEEP_STORES == 1 && KEEP_PIPE == 2 && KEEP_FLOW == 3 && KEEP_GONE == 4 && KEEP_END == 5,
        "numbers on the wire do not move");

#define U8(member)         wire_put_u8(wire, message->member);
#define U16(member)        wire_put_u16(wire, message->member);
#define U32(member)        wire_put_u32(wire, message->member);
#define U64(member)        wire_put_u64(wire, message->member);
#define RAW(member, bytes) wire_put_raw(wire, message->member, bytes);
#define MSG(upper, lower, descriptors, fields)                                                                         \
	static void put_##lower(struct wire *wire, const struct keep_##lower *message)                                 \
	{                                                                                                              \
		fields                                                                                                 \
	}
#include "gatewayd/base/keep.def"
#undef MSG
#undef U8
#undef U16
#undef U32
#undef U64
#undef RAW

#define U8(member)         message->member = wire_get_u8(wire);
#define U16(member)        message->member = wire_get_u16(wire);
#define U32(member)        message->member = wire_get_u32(wire);
#define U64(member)        message->member = wire_get_u64(wire);
#define RAW(member, bytes) wire_get_raw(wire, message->member, bytes);
#define MSG(upper, lower, descriptors, fields)                                                                         \
	static void get_##lower(struct wire *wire, struct keep_##lower *message)                                       \
	{                                                                                                              \
		fields                                                                                                 \
	}
#include "gatewayd/base/keep.def"
#undef MSG
#undef U8
#undef U16
#undef U32
#undef U64
#undef RAW

const char *keep_name(unsigned type)
{
	return type < KEEP_TYPES ? rows[type].name : "unknown";
}

unsigned keep_descriptors(enum keep_type type)
{
	return rows[type].descriptors;
}

static void put_payload(struct wire *wire, const struct keep_message *message)
{
	switch (message->type) {
#define MSG(upper, lower, descriptors, fields)                                                                         \
	case KEEP_##upper:                                                                                             \
		put_##lower(wire, &message->lower);                                                                    \
		return;
#include "gatewayd/base/keep.def"
#undef MSG
	case KEEP_NONE:
	case KEEP_TYPES:
		break;
	}
	wire->error = -ENOBUFS;
}

static void get_payload(struct wire *wire, struct keep_message *message)
{
	switch (message->type) {
#define MSG(upper, lower, descriptors, fields)                                                                         \
	case KEEP_##upper:                                                                                             \
		get_##lower(wire, &message->lower);                                                                    \
		return;
#include "gatewayd/base/keep.def"
#undef MSG
	case KEEP_NONE:
	case KEEP_TYPES:
		break;
	}
	wire->error = -EBADMSG;
}

int keep_encode(struct wire *wire, const struct keep_message *message)
{
	struct wire head = *wire, body = *wire;

	if (wire->error)
		return wire->error;
	wire_put_u32(&body, 0); /* the header's place */
	put_payload(&body, message);
	if (body.error)
		return -ENOBUFS;
	wire_put_u16(&head, (uint16_t)message->type);
	wire_put_u16(&head, (uint16_t)(body.offset - wire->offset - HEADER_SIZE));
	wire->offset = body.offset;
	return 0;
}

int keep_decode(struct wire *wire, struct keep_message *ret)
{
	struct keep_message message = { 0 };
	unsigned type = wire_get_u16(wire);
	size_t length = wire_get_u16(wire);
	struct wire body;

	if (wire->error || type == KEEP_NONE || type >= KEEP_TYPES || length > wire->size - wire->offset)
		return -EBADMSG;
	wire_init(&body, wire->data + wire->offset, length);
	message.type = (enum keep_type)type;
	get_payload(&body, &message);
	if (body.error || body.offset != length)
		return -EBADMSG;
	wire->offset += length;
	*ret = message;
	return 0;
}

/* --- records --- */

void keep_record_init(struct keep_record *record)
{
	record->n_fds = 0;
	record->next_fd = 0;
	record->cut = false;
	wire_init(&record->wire, record->data, sizeof(record->data));
}

int keep_record_put(struct keep_record *record, const struct keep_message *message, const int *fds)
{
	unsigned n = keep_descriptors(message->type);
	int r;

	if (record->n_fds + n > KEEP_DESCRIPTORS_MAX)
		return -ENOBUFS;
	r = keep_encode(&record->wire, message);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < n; i++)
		record->fds[record->n_fds++] = fds[i];
	return 0;
}

union control {
	struct cmsghdr header;
	uint8_t space[CMSG_SPACE(KEEP_DESCRIPTORS_MAX * sizeof(int))];
};

int keep_record_send(const struct keep_record *record, int socket)
{
	struct iovec iov = { (void *)record->data, record->wire.offset };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };
	union control control;

	if (record->n_fds > 0) {
		struct cmsghdr *cmsg;

		memset(&control, 0, sizeof(control.header));
		header.msg_control = &control;
		header.msg_controllen = CMSG_SPACE(record->n_fds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&header);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(record->n_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), record->fds, record->n_fds * sizeof(int));
	}
	if (sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
		return 0;
	if (errno == ECONNRESET || errno == EPIPE || errno == ENOTCONN)
		return -EPIPE;
	/* Too many descriptors are under way: it will be better when the other side has read. */
	return errno == ETOOMANYREFS || errno == EINTR || errno == ENOBUFS ? -EAGAIN : -errno;
}

static void collect(struct keep_record *record, struct msghdr *header)
{
	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(header); cmsg; cmsg = CMSG_NXTHDR(header, cmsg)) {
		size_t here = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		memcpy(record->fds + record->n_fds, CMSG_DATA(cmsg), here * sizeof(int));
		record->n_fds += (unsigned)here;
	}
}

int keep_record_receive(struct keep_record *record, int socket)
{
	struct iovec iov = { record->data, sizeof(record->data) };
	union control control;
	struct msghdr header = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	ssize_t got = recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	keep_record_init(record);
	if (got < 0)
		return errno == ECONNRESET || errno == ENOTCONN ? -EPIPE : errno == EINTR ? -EAGAIN : -errno;
	collect(record, &header);
	record->cut = header.msg_flags & MSG_CTRUNC;
	if (got == 0 || header.msg_flags & MSG_TRUNC) {
		keep_record_close(record);
		return got == 0 ? -EPIPE : -EBADMSG;
	}
	wire_init(&record->wire, record->data, (size_t)got);
	return 0;
}

int keep_record_next(struct keep_record *record, struct keep_message *ret, int ret_fds[KEEP_DESCRIPTORS_EACH])
{
	struct keep_message message;
	unsigned n;

	if (record->wire.offset == record->wire.size)
		return record->next_fd == record->n_fds ? 0 : -EBADMSG;
	if (keep_decode(&record->wire, &message) < 0)
		return -EBADMSG;
	n = keep_descriptors(message.type);
	if (record->n_fds - record->next_fd < n && !record->cut)
		return -EBADMSG;
	for (unsigned i = 0; i < KEEP_DESCRIPTORS_EACH; i++)
		ret_fds[i] = i < n && record->next_fd < record->n_fds ? record->fds[record->next_fd++] : -1;
	*ret = message;
	return 1;
}

void keep_record_close(struct keep_record *record)
{
	while (record->next_fd < record->n_fds)
		close(record->fds[record->next_fd++]);
}
