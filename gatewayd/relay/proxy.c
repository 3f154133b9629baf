/* PROXY headers on their way out and in; see proxy.h. */
#include "gatewayd/relay/proxy.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static_assert(PROXY_HEADER_WRITE_MAX <= UINT8_MAX, "flow_making.proxy_sent counts its bytes");
static_assert(PROXY_HEADER_READ_MAX <= FIRST_BYTES_MAX, "a header fits where first bytes do");

/* --- out --- */

/* ::ffff:a.b.c.d */
static struct addr mapped(const struct addr *addr)
{
	struct addr v6 = { .family = AF_INET6, .bytes[10] = 0xff, .bytes[11] = 0xff };

	if (addr->family != AF_INET)
		return *addr;
	memcpy(v6.bytes + 12, addr->bytes, 4);
	return v6;
}

size_t proxy_write(
        const struct flow_origin *origin, uint8_t version, uint8_t protocol, uint8_t ret[PROXY_HEADER_WRITE_MAX])
{
	struct proxy_header header = { .version = version,
		.known = true,
		.protocol = protocol,
		.source = origin->client,
		.destination = origin->original,
		.source_port = origin->client_port,
		.destination_port = origin->original_port };

	/* A proxy in front may tell of a client of the other family. A header has but one. */
	if (header.source.family != header.destination.family) {
		header.source = mapped(&header.source);
		header.destination = mapped(&header.destination);
	}
	return proxy_header_write(&header, ret);
}

int proxy_send(int fd, const struct flow_origin *origin, uint8_t version, uint8_t *sent_so_far)
{
	uint8_t bytes[PROXY_HEADER_WRITE_MAX];
	size_t length = proxy_write(origin, version, IPPROTO_TCP, bytes);

	while (*sent_so_far < length) {
		ssize_t sent =
		        send(fd, bytes + *sent_so_far, length - *sent_so_far, MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE);

		if (sent < 0)
			return errno == EAGAIN ? 0 : -errno;
		*sent_so_far = (uint8_t)(*sent_so_far + sent);
	}
	return 1;
}

/* --- in --- */

static bool is_mapped(const struct addr *addr)
{
	static const uint8_t head[12] = { [10] = 0xff, [11] = 0xff };

	return addr->family == AF_INET6 && memcmp(addr->bytes, head, sizeof(head)) == 0;
}

/* What a socket may be bound to in the client's name. All zero would be one of our own, and a group is nobody. */
static bool is_host(const struct addr *addr)
{
	static const struct addr any4 = { .family = AF_INET }, any6 = { .family = AF_INET6 };
	bool group = addr->family == AF_INET ? addr->bytes[0] >= 224 : addr->bytes[0] == 0xff;

	return !group && !addr_equal(addr, &any4) && !addr_equal(addr, &any6);
}

/* The client is whom the header names. False if nobody can be that. */
static bool adopt_client(const struct proxy_header *header, struct flow_origin *origin)
{
	struct addr client = header->source;

	/* LOCAL, UNKNOWN, or something else than a connection over IP: the peer speaks for itself. */
	if (!header->known || header->protocol != IPPROTO_TCP)
		return true;
	if (is_mapped(&client)) {
		client = (struct addr){ .family = AF_INET };
		memcpy(client.bytes, header->source.bytes + 12, 4);
	}
	if (!is_host(&client))
		return false;
	origin->client = client;
	origin->client_port = header->source_port;
	return true;
}

static enum stats_counter fault_of(enum first_state state)
{
	return state == FIRST_MORE    ? STATS_proxy_timeout
	       : state == FIRST_OTHER ? STATS_proxy_missing
	                              : STATS_proxy_malformed;
}

int proxy_take(struct peek *peek, int fd, bool final, struct flow_origin *origin, enum stats_counter *ret_counter)
{
	ssize_t n = recv(fd, peek->bytes, PROXY_HEADER_READ_MAX, MSG_PEEK | MSG_DONTWAIT);
	struct proxy_header header;
	enum first_state state;
	size_t length;

	*ret_counter = STATS_proxy_malformed;
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		return -errno;
	state = proxy_header_read(peek->bytes, n > 0 ? (size_t)n : 0, &header, &length);
	if (state == FIRST_MORE && !final && n != 0)
		return 0;
	if (state != FIRST_COMPLETE)
		*ret_counter = fault_of(state);
	if (state != FIRST_COMPLETE || !adopt_client(&header, origin))
		return -EBADMSG;
	/* It was looked at just now, so it is there as a whole. */
	if (recv(fd, peek->bytes, length, MSG_DONTWAIT) != (ssize_t)length)
		return -EIO;
	*ret_counter = STATS_proxy_accepted;
	return (int)length;
}
