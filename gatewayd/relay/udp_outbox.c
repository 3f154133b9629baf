/* Datagrams on their way out; see udp_outbox.h. */
#include "gatewayd/relay/udp_outbox.h"

#include <errno.h>
#include <netinet/udp.h>
#include <string.h>

void udp_outbox_init(struct udp_outbox *outbox)
{
	outbox->fd = -1;
	outbox->n = 0;
	outbox->n_vectors = 0;
}

bool udp_outbox_takes(const struct udp_outbox *outbox, const struct udp_receiver *receiver)
{
	return outbox->fd < 0 || (outbox->fd == receiver->fd && outbox->n < UDP_BATCH && outbox->n_vectors < UDP_BATCH);
}

static uint16_t segment_of(const struct udp_datagram *datagram)
{
	return datagram->segment ? datagram->segment : (uint16_t)datagram->length;
}

static uint16_t segments_of(const struct udp_datagram *datagram)
{
	uint32_t segment = datagram->segment;

	if (segment == 0)
		return 1;
	return (uint16_t)((datagram->length + segment - 1) / segment);
}

/* Whether the datagram can be the continuation of the run. An empty datagram would get lost in it. */
static bool run_takes(
        const struct udp_run *run, const struct udp_receiver *receiver, const struct udp_datagram *datagram)
{
	uint16_t segment = segment_of(datagram);
	bool fits = datagram->segment ? segment == run->segment : segment <= run->segment && segment > 0;

	return run->receiver == receiver->identity && !run->closed && fits && run->segment <= *receiver->segment_max &&
	       run->segments + segments_of(datagram) <= UDP_SEGMENTS_MAX &&
	       run->bytes + datagram->length <= UDP_MESSAGE_MAX;
}

static void run_extend(struct udp_run *run, const struct udp_datagram *datagram)
{
	run->bytes += datagram->length;
	run->segments = (uint16_t)(run->segments + segments_of(datagram));
	run->closed = run->bytes % run->segment != 0;
}

static void run_begin(
        struct udp_outbox *outbox, const struct udp_receiver *receiver, const struct udp_datagram *datagram)
{
	struct msghdr *header = &outbox->messages[outbox->n].msg_hdr;
	struct udp_run *run = &outbox->runs[outbox->n];

	*header = (struct msghdr){ .msg_iov = &outbox->vectors[outbox->n_vectors] };
	if (receiver->addr) {
		header->msg_name = &outbox->names[outbox->n];
		header->msg_namelen = addr_to_sockaddr(receiver->addr, receiver->port, &outbox->names[outbox->n]);
	}
	*run = (struct udp_run){ .receiver = receiver->identity,
		.segment_max = receiver->segment_max,
		.bytes = datagram->length,
		.segment = segment_of(datagram),
		.segments = segments_of(datagram) };
	run->closed = run->segment == 0 || run->bytes % run->segment != 0;
	outbox->fd = receiver->fd;
	outbox->n++;
}

void udp_outbox_add(struct udp_outbox *outbox, const struct udp_receiver *receiver, const struct udp_datagram *datagram)
{
	if (outbox->n > 0 && run_takes(&outbox->runs[outbox->n - 1], receiver, datagram))
		run_extend(&outbox->runs[outbox->n - 1], datagram);
	else
		run_begin(outbox, receiver, datagram);
	outbox->messages[outbox->n - 1].msg_hdr.msg_iovlen++;
	outbox->vectors[outbox->n_vectors++] = (struct iovec){ (void *)datagram->bytes, datagram->length };
}

/* Tells the kernel to cut the message, if there is anything to cut. */
static void message_finish(struct udp_outbox *outbox, unsigned number)
{
	struct msghdr *header = &outbox->messages[number].msg_hdr;
	struct cmsghdr *control = &outbox->controls[number].header;

	if (outbox->runs[number].segments < 2)
		return;
	*control = (struct cmsghdr){
		.cmsg_len = CMSG_LEN(sizeof(uint16_t)), .cmsg_level = SOL_UDP, .cmsg_type = UDP_SEGMENT
	};
	memcpy(CMSG_DATA(control), &outbox->runs[number].segment, sizeof(uint16_t));
	header->msg_control = control;
	header->msg_controllen = CMSG_SPACE(sizeof(uint16_t));
}

static void count_sent(const struct udp_run *run, struct udp_sent *sent)
{
	sent->datagrams += run->segments;
	sent->bytes += run->bytes;
}

bool udp_outbox_is_told_late(int error)
{
	return error != EAGAIN && error != ENOBUFS && error != ENOMEM && error != EPERM;
}

/* Sends one datagram alone, once more if the first try was told of an earlier one. */
static void send_alone(int fd, const struct msghdr *header, struct udp_sent *sent)
{
	ssize_t n = sendmsg(fd, header, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && udp_outbox_is_told_late(errno)) {
		sent->refused |= errno == ECONNREFUSED;
		n = sendmsg(fd, header, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	if (n < 0) {
		sent->dropped++;
		sent->error = -errno;
		return;
	}
	sent->datagrams++;
	sent->bytes += (uint64_t)n;
}

/* Sends the datagrams of a message one by one: each lies within one vector. */
static void send_cut(const struct udp_outbox *outbox, unsigned number, struct udp_sent *sent)
{
	const struct msghdr *whole = &outbox->messages[number].msg_hdr;
	uint16_t segment = outbox->runs[number].segment;

	for (size_t i = 0; i < whole->msg_iovlen; i++) {
		const struct iovec *vector = &whole->msg_iov[i];

		for (size_t offset = 0; offset < vector->iov_len; offset += segment) {
			size_t left = vector->iov_len - offset;
			struct iovec part = { (uint8_t *)vector->iov_base + offset, left < segment ? left : segment };
			struct msghdr header = { .msg_name = whole->msg_name,
				.msg_namelen = whole->msg_namelen,
				.msg_iov = &part,
				.msg_iovlen = 1 };

			send_alone(outbox->fd, &header, sent);
		}
	}
}

/* Deals with the message that the kernel did not take. It cannot cut what is larger than the path takes in one packet
 * (EINVAL, EMSGSIZE), nor for a device that does not compute checksums (EIO), nor if it is old; larger sizes of this
 * receiver then go one by one. */
static void send_failed(struct udp_outbox *outbox, unsigned number, int error, struct udp_sent *sent)
{
	struct udp_run *run = &outbox->runs[number];

	if (!udp_outbox_is_told_late(error)) {
		sent->dropped += run->segments;
		sent->error = -error;
		return;
	}
	sent->refused |= error == ECONNREFUSED;
	if (run->segments < 2) {
		send_alone(outbox->fd, &outbox->messages[number].msg_hdr, sent);
		return;
	}
	if ((error == EINVAL || error == EMSGSIZE || error == EIO) && *run->segment_max >= run->segment)
		*run->segment_max = error == EIO ? 0 : (uint16_t)(run->segment - 1);
	send_cut(outbox, number, sent);
}

void udp_outbox_send(struct udp_outbox *outbox, struct udp_sent *sent)
{
	unsigned done = 0;

	for (unsigned i = 0; i < outbox->n; i++)
		message_finish(outbox, i);
	while (done < outbox->n) {
		int n = sendmmsg(outbox->fd, &outbox->messages[done], outbox->n - done, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		for (int i = 0; i < n; i++)
			count_sent(&outbox->runs[done++], sent);
		if (n <= 0)
			send_failed(outbox, done++, errno, sent);
	}
	udp_outbox_init(outbox);
}
