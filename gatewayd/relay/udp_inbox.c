/* Received datagrams; see udp_inbox.h. */
#include "gatewayd/relay/udp_inbox.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/mman.h>

static void slot_reset(struct udp_inbox *inbox, unsigned slot)
{
	struct msghdr *header = &inbox->messages[slot].msg_hdr;

	header->msg_namelen = sizeof(inbox->names[slot]);
	header->msg_controllen = sizeof(inbox->controls[slot]);
	header->msg_flags = 0;
}

int udp_inbox_init(struct udp_inbox *inbox)
{
	void *memory = mmap(NULL, (size_t)UDP_BATCH * UDP_BUFFER_STRIDE, PROT_READ | PROT_WRITE,
	        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		return -ENOMEM;
	*inbox = (struct udp_inbox){ .memory = memory };
	for (unsigned i = 0; i < UDP_BATCH; i++) {
		inbox->vectors[i] = (struct iovec){ inbox->memory + (size_t)i * UDP_BUFFER_STRIDE, UDP_DATAGRAM_MAX };
		inbox->messages[i].msg_hdr = (struct msghdr){ .msg_name = &inbox->names[i],
			.msg_iov = &inbox->vectors[i],
			.msg_iovlen = 1,
			.msg_control = &inbox->controls[i] };
		slot_reset(inbox, i);
	}
	return 0;
}

void udp_inbox_destroy(struct udp_inbox *inbox)
{
	if (inbox->memory)
		munmap(inbox->memory, (size_t)UDP_BATCH * UDP_BUFFER_STRIDE);
	inbox->memory = NULL;
}

/* Whether the message holds a value of this size; then copies it, for it need not be aligned. */
static bool control_value(const struct cmsghdr *control, void *ret, size_t size)
{
	if (control->cmsg_len < CMSG_LEN(size))
		return false;
	memcpy(ret, CMSG_DATA(control), size);
	return true;
}

static int parse_original(const struct cmsghdr *control, size_t size, struct udp_datagram *ret)
{
	struct sockaddr_storage sa = { 0 };

	if (!control_value(control, &sa, size))
		return -EBADMSG;
	return addr_from_sockaddr(&sa, &ret->original, &ret->original_port) < 0 ? -EBADMSG : 0;
}

static int parse_v4(const struct cmsghdr *control, struct udp_datagram *ret)
{
	struct in_pktinfo info;

	if (control->cmsg_type == IP_ORIGDSTADDR)
		return parse_original(control, sizeof(struct sockaddr_in), ret);
	if (control->cmsg_type != IP_PKTINFO)
		return 0;
	if (!control_value(control, &info, sizeof(info)))
		return -EBADMSG;
	ret->ifindex = info.ipi_ifindex;
	return 0;
}

static int parse_v6(const struct cmsghdr *control, struct udp_datagram *ret)
{
	struct in6_pktinfo info;

	if (control->cmsg_type == IPV6_ORIGDSTADDR)
		return parse_original(control, sizeof(struct sockaddr_in6), ret);
	if (control->cmsg_type != IPV6_PKTINFO)
		return 0;
	if (!control_value(control, &info, sizeof(info)))
		return -EBADMSG;
	ret->ifindex = (int)info.ipi6_ifindex;
	return 0;
}

static int parse_segment(const struct cmsghdr *control, struct udp_datagram *ret)
{
	int segment;

	if (control->cmsg_type != UDP_GRO)
		return 0;
	if (!control_value(control, &segment, sizeof(segment)) || segment <= 0 || segment > UDP_DATAGRAM_MAX)
		return -EBADMSG;
	ret->segment = (uint32_t)segment < ret->length ? (uint16_t)segment : 0;
	return 0;
}

/* Whether the message lies within the control messages as a whole: the macros check that of its header alone. */
static bool control_fits(const struct msghdr *header, const struct cmsghdr *control)
{
	size_t offset = (size_t)((const uint8_t *)control - (const uint8_t *)header->msg_control);

	return control->cmsg_len >= CMSG_LEN(0) && control->cmsg_len <= header->msg_controllen - offset;
}

int udp_datagram_parse(const struct msghdr *message, uint32_t length, struct udp_datagram *ret)
{
	/* CMSG_NXTHDR wants a header that it could change, but does not. */
	struct msghdr *header = (struct msghdr *)message;
	int r = 0;

	*ret = (struct udp_datagram){ .length = length };
	if (message->msg_flags & MSG_TRUNC)
		return -EMSGSIZE;
	if ((message->msg_flags & MSG_CTRUNC) || length > UDP_DATAGRAM_MAX ||
	        message->msg_namelen < sizeof(struct sockaddr_in) ||
	        addr_from_sockaddr(message->msg_name, &ret->source, &ret->source_port) < 0 ||
	        (ret->source.family == AF_INET6 && message->msg_namelen < sizeof(struct sockaddr_in6)))
		return -EBADMSG;
	for (struct cmsghdr *control = CMSG_FIRSTHDR(header); control && r == 0;
	        control = CMSG_NXTHDR(header, control)) {
		if (!control_fits(header, control))
			r = -EBADMSG;
		else if (control->cmsg_level == SOL_IP)
			r = parse_v4(control, ret);
		else if (control->cmsg_level == SOL_IPV6)
			r = parse_v6(control, ret);
		else if (control->cmsg_level == SOL_UDP)
			r = parse_segment(control, ret);
	}
	/* From port 0 there is nobody to answer to, and no socket could send on as it. */
	return r == 0 && ret->source_port == 0 ? -EBADMSG : r;
}

bool udp_datagram_is_addressed(const struct udp_datagram *datagram)
{
	return datagram->original.family == datagram->source.family && datagram->original_port != 0;
}

int udp_inbox_receive(struct udp_inbox *inbox, int fd, unsigned most)
{
	unsigned room = UDP_BATCH - inbox->n;
	int n = recvmmsg(fd, &inbox->messages[inbox->n], most < room ? most : room, MSG_DONTWAIT, NULL);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	for (unsigned i = inbox->n; i < inbox->n + (unsigned)n; i++) {
		struct udp_datagram *datagram = &inbox->datagrams[i];

		inbox->faults[i] =
		        udp_datagram_parse(&inbox->messages[i].msg_hdr, inbox->messages[i].msg_len, datagram);
		datagram->bytes = inbox->vectors[i].iov_base;
		slot_reset(inbox, i);
	}
	inbox->n += (unsigned)n;
	return n;
}

void udp_inbox_empty(struct udp_inbox *inbox)
{
	inbox->n = 0;
}
