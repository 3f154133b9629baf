/* Making UDP sockets; see udp_socket.h. */
#include "gatewayd/relay/udp_socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/relay/connect.h"

/* What may wait at a flow's socket, in bytes; cut to net.core.rmem_max, which is twice of what a socket has by itself:
 * a window of QUIC or a burst of answers is often more than that. */
#define TARGET_BUFFER (1 << 20)

static int set_int(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int make(uint8_t family)
{
	int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	return fd < 0 ? -errno : fd;
}

static int bind_as(int fd, const struct addr *addr, uint16_t port)
{
	struct sockaddr_storage sa;
	socklen_t length = addr_to_sockaddr(addr, port, &sa);
	int r = connect_set_transparent(fd, addr->family);

	if (r == 0)
		r = set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (r == 0 && bind(fd, (struct sockaddr *)&sa, length) < 0)
		r = -errno;
	return r;
}

static int connect_to(int fd, const struct addr *addr, uint16_t port)
{
	struct sockaddr_storage sa;
	socklen_t length = addr_to_sockaddr(addr, port, &sa);

	return connect(fd, (struct sockaddr *)&sa, length) < 0 ? -errno : 0;
}

/* Binds to the client's address, and to its port if that is wanted and can be had. Whether it can is found out by
 * trying; a port that the kernel chooses is shared with nobody. */
static int bind_as_client(int fd, const struct flow_origin *origin, bool keep, enum connect_port *ret_port)
{
	int r;

	if (keep) {
		r = bind_as(fd, &origin->client, origin->client_port);
		*ret_port = r == 0 ? CONNECT_PORT_KEPT : r == -EACCES ? CONNECT_PORT_PRIVILEGED : CONNECT_PORT_TAKEN;
		if (r != -EACCES && r != -EADDRINUSE)
			return r;
	}
	return bind_as(fd, &origin->client, 0);
}

int udp_socket_to_target(const struct flow_origin *origin, enum connect_source source, bool taken,
        const struct sockmark *mark, enum connect_port *ret_port)
{
	_cleanup_close_ int fd = make(origin->target.family);
	int r = fd < 0 ? fd : 0;
	uint32_t marks = mark->own;

	*ret_port = source == CONNECT_AS_CLIENT && taken ? CONNECT_PORT_TAKEN : CONNECT_PORT_ANY;
	if (r == 0 && source != CONNECT_AS_GATEWAY)
		r = bind_as_client(fd, origin, source == CONNECT_AS_CLIENT && !taken, ret_port);
	if (r == 0)
		r = set_int(fd, SOL_SOCKET, SO_RCVBUF, TARGET_BUFFER);
	if (r == 0)
		r = connect_to(fd, &origin->target, origin->target_port);
	/* The client then sees itself talk to this very target. */
	if (*ret_port == CONNECT_PORT_KEPT && origin->objects.upstream == 0)
		marks |= mark->errors;
	if (r == 0)
		r = set_int(fd, SOL_SOCKET, SO_MARK, (int)marks);
	return r < 0 ? r : TAKE_FD(fd);
}

int udp_socket_at(const struct addr *addr, uint16_t port, const struct sockmark *mark)
{
	_cleanup_close_ int fd = make(addr->family);
	int r = fd < 0 ? fd : 0;

	if (r == 0)
		r = set_int(fd, SOL_SOCKET, SO_MARK, (int)mark->errors);
	if (r == 0) /* nobody reads from it: what strays into it nonetheless must not take memory */
		r = set_int(fd, SOL_SOCKET, SO_RCVBUF, 0);
	if (r == 0)
		r = bind_as(fd, addr, port);
	return r < 0 ? r : TAKE_FD(fd);
}

void udp_socket_gather(int fd)
{
	(void)set_int(fd, SOL_UDP, UDP_GRO, 1);
}

static int get_int(int fd, int level, int option)
{
	int value = 0;
	socklen_t length = sizeof(value);

	return getsockopt(fd, level, option, &value, &length) < 0 ? -errno : value;
}

int udp_socket_check(int fd, struct sockmark *ret)
{
	int family = get_int(fd, SOL_SOCKET, SO_DOMAIN);
	bool v6 = family == AF_INET6;

	if ((family != AF_INET && !v6) || get_int(fd, SOL_SOCKET, SO_PROTOCOL) != IPPROTO_UDP)
		return -ENOTSOCK;
	if (get_int(fd, v6 ? SOL_IPV6 : SOL_IP, v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT) != 1 ||
	        get_int(fd, v6 ? SOL_IPV6 : SOL_IP, v6 ? IPV6_RECVORIGDSTADDR : IP_RECVORIGDSTADDR) != 1)
		return -EINVAL;
	*ret = sockmark_of((uint32_t)get_int(fd, SOL_SOCKET, SO_MARK));
	return 0;
}
