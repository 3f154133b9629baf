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

static int bind_to(int fd, const struct addr *client, uint16_t port)
{
	struct sockaddr_storage sa;
	socklen_t length = addr_to_sockaddr(client, port, &sa);

	return bind(fd, (struct sockaddr *)&sa, length) < 0 ? -errno : 0;
}

int connect_set_transparent(int fd, uint8_t family)
{
	return family == AF_INET6 ? set_flag(fd, SOL_IPV6, IPV6_TRANSPARENT) : set_flag(fd, SOL_IP, IP_TRANSPARENT);
}

/* Binds to the client's address. Its own port is one that others of its flows may have too (SO_REUSEADDR: the kernel
 * then keeps apart whole 4-tuples only); without one, connect() will choose it, by the whole 4-tuple as well. */
static int bind_as_client(int fd, const struct addr *client, uint16_t port)
{
	int r = port ? set_flag(fd, SOL_SOCKET, SO_REUSEADDR) : set_flag(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT);

	return r < 0 ? r : bind_to(fd, client, port);
}

/* The kernel leaves the handshake's last packet to the first bytes, which most clients have sent by the time that the
 * target answers: a packet saved, and the server finds the bytes as it accepts. The kernel waits 200 ms at most;
 * connect_finish sends the packet if there are no bytes, for the server may be the one that speaks first. */
static void handshake_hold(int fd)
{
	static const int off = 0;

	setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &off, sizeof(off));
}

/* What every socket towards a target has; see flow.h for the linger. */
static int set_options(int fd)
{
	static const struct linger reset = { 1, 0 };
	int r = set_flag(fd, IPPROTO_TCP, TCP_NODELAY);

	if (r == 0 && setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) < 0)
		r = -errno;
	if (r == 0)
		handshake_hold(fd);
	return r;
}

/* One attempt. client NULL: from the gateway's address; port 0: one that the kernel chooses. */
static int attempt(const struct flow_origin *origin, const struct addr *client, uint16_t port)
{
	struct sockaddr_storage sa;
	socklen_t length = addr_to_sockaddr(&origin->target, origin->target_port, &sa);
	int fd = socket(origin->target.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return -errno;
	r = connect_set_transparent(fd, origin->target.family);
	if (r == 0 && client)
		r = bind_as_client(fd, client, port);
	if (r == 0)
		r = set_options(fd);
	if (r == 0 && connect(fd, (struct sockaddr *)&sa, length) < 0 && errno != EINPROGRESS)
		r = -errno;
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

/* Whether both legs of the flow have the same four addresses and ports if the client's port is kept. */
static bool tuple_is_same(const struct flow_origin *origin)
{
	return origin->target_port == origin->original_port && addr_equal(&origin->target, &origin->original);
}

int connect_start(const struct flow_origin *origin, enum connect_source source, bool tracked, enum connect_port *ret)
{
	enum connect_port why = CONNECT_PORT_ANY;
	int r;

	if (source == CONNECT_AS_GATEWAY) {
		*ret = CONNECT_PORT_ANY;
		return attempt(origin, NULL, 0);
	}
	if (source == CONNECT_AS_CLIENT && tracked && tuple_is_same(origin)) {
		why = CONNECT_PORT_TRACKED;
	} else if (source == CONNECT_AS_CLIENT) {
		r = attempt(origin, &origin->client, origin->client_port);
		if (r != -EADDRINUSE && r != -EADDRNOTAVAIL && r != -EACCES) {
			*ret = CONNECT_PORT_KEPT;
			return r;
		}
		why = r == -EACCES ? CONNECT_PORT_PRIVILEGED : CONNECT_PORT_TAKEN;
	}
	*ret = why;
	return attempt(origin, &origin->client, 0);
}

void connect_finish(const struct flow *flow)
{
	/* TCP_NODELAY is set already; to set it again sends what waits. */
	if (!flow->direction[FLOW_CLIENT].moved)
		set_flag(flow->end[FLOW_TARGET].fd, IPPROTO_TCP, flow->proxy ? TCP_NODELAY : TCP_QUICKACK);
}
