/* The relay's own half of a connection, from socket() to connect(); see connect.h. */
#include "gatewayd/relay/connect.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

static int set_flag(int fd, int level, int option)
{
	static const int on = 1;

	return setsockopt(fd, level, option, &on, sizeof(on)) < 0 ? -errno : 0;
}

/* Binds to the client's address with a port that connect() will choose, by the whole 4-tuple. */
static int bind_as_client(int fd, const struct addr *client)
{
	bool v6 = client->family == AF_INET6;
	struct sockaddr_storage sa;
	socklen_t length = addr_to_sockaddr(client, 0, &sa);
	int r = v6 ? set_flag(fd, SOL_IPV6, IPV6_TRANSPARENT) : set_flag(fd, SOL_IP, IP_TRANSPARENT);

	if (r == 0)
		r = set_flag(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT);
	if (r == 0 && bind(fd, (struct sockaddr *)&sa, length) < 0)
		r = -errno;
	return r;
}

/* The kernel leaves the handshake's last packet to the first bytes, which most clients have sent by the time that the
 * target answers: a packet saved, and the server finds the bytes as it accepts. The kernel waits 200 ms at most;
 * connect_finish sends the packet if there are no bytes, for the server may be the one that speaks first. */
static void handshake_hold(int fd)
{
	static const int off = 0;

	setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &off, sizeof(off));
}

int connect_start(const struct flow_origin *origin, bool as_client)
{
	static const struct linger reset = { 1, 0 };
	struct sockaddr_storage sa;
	socklen_t length = addr_to_sockaddr(&origin->target, origin->target_port, &sa);
	int fd = socket(origin->target.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int r = 0;

	if (fd < 0)
		return -errno;
	if (as_client)
		r = bind_as_client(fd, &origin->client);
	if (r == 0 && setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) < 0)
		r = -errno;
	if (r == 0)
		r = set_flag(fd, IPPROTO_TCP, TCP_NODELAY);
	if (r == 0)
		handshake_hold(fd);
	if (r == 0 && connect(fd, (struct sockaddr *)&sa, length) < 0 && errno != EINPROGRESS)
		r = -errno;
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

void connect_finish(const struct flow *flow)
{
	if (!flow->direction[FLOW_CLIENT].moved)
		set_flag(flow->end[FLOW_TARGET].fd, IPPROTO_TCP, TCP_QUICKACK);
}
