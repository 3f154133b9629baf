/* Datagrams with headers; see udp_proxy.h. */
#include "gatewayd/relay/udp_proxy.h"

#include <errno.h>

#include "gatewayd/relay/proxy.h"

/* Datagrams that are sent by one system call. */
#define AT_ONCE 16

struct outgoing {
	struct mmsghdr messages[AT_ONCE];
	struct iovec vectors[AT_ONCE][2]; /* header, payload */
	unsigned n;
};

static void add(struct outgoing *outgoing, const struct iovec *header, const uint8_t *bytes, size_t length)
{
	struct iovec *vector = outgoing->vectors[outgoing->n];

	vector[0] = *header;
	vector[1] = (struct iovec){ (void *)bytes, length };
	outgoing->messages[outgoing->n++] = (struct mmsghdr){ .msg_hdr = { .msg_iov = vector, .msg_iovlen = 2 } };
}

/* Sends what was added. An error may be about an earlier datagram: then the one that met it is tried once more. */
static void flush(struct outgoing *outgoing, int fd, struct udp_sent *sent)
{
	bool again = true;

	for (unsigned done = 0; done < outgoing->n;) {
		int n = sendmmsg(fd, outgoing->messages + done, outgoing->n - done, MSG_DONTWAIT | MSG_NOSIGNAL);

		for (int i = 0; i < n; i++)
			sent->bytes += outgoing->vectors[done++][1].iov_len;
		if (n > 0) {
			sent->datagrams += (unsigned)n;
			again = true;
			continue;
		}
		sent->refused |= errno == ECONNREFUSED;
		if (errno == EINTR)
			continue;
		if (again && udp_outbox_is_told_late(errno)) {
			again = false;
			continue;
		}
		sent->dropped++;
		sent->error = -errno;
		done++;
		again = true;
	}
	outgoing->n = 0;
}

void udp_proxy_send(const struct udp_flow *flow, const struct udp_datagram *datagram, struct udp_sent *sent)
{
	size_t size = datagram->segment ? datagram->segment : datagram->length, offset = 0;
	uint8_t bytes[PROXY_HEADER_WRITE_MAX];
	struct iovec header = { bytes, proxy_write(&flow->origin, flow->proxy, IPPROTO_UDP, bytes) };
	struct outgoing outgoing;

	outgoing.n = 0;
	do { /* an empty datagram is one too */
		size_t left = datagram->length - offset;

		add(&outgoing, &header, datagram->bytes + offset, left < size ? left : size);
		offset += size;
		if (outgoing.n == AT_ONCE)
			flush(&outgoing, flow->fd, sent);
	} while (offset < datagram->length);
	flush(&outgoing, flow->fd, sent);
}
