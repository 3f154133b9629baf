/* The sockets that the daemon makes; see sockets.h. */
#include "gatewayd/sockets.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <netinet/tcp.h>

#include "gatewayd/base/addr.h"
#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/keepalive.h"
#include "gatewayd/base/sockmark.h"

/* Connections that wait while no relay runs; the kernel cuts it to net.core.somaxconn. */
#define RELAY_BACKLOG 65535
#define API_BACKLOG   128
/* What may wait in a UDP socket, in bytes: some tenths of a second of a busy server's datagrams, which is longer than
 * the next relay takes to start. */
#define RELAY_UDP_BUFFER (4 << 20)
/* What the socket is called that claims the network namespace. Nobody accepts its connections: so many may ask whose it
 * is. */
#define CLAIM       "gatewayd/network"
#define CLAIM_QUEUE 4096
/* Tries for a port that is free in both families and protocols. */
#define PORT_TRIES 16

static int set_int(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int set_relay_options_v4(int fd)
{
	int r = set_int(fd, IPPROTO_IP, IP_TRANSPARENT, 1);

	if (r == 0)
		r = set_int(fd, IPPROTO_IP, IP_PKTINFO, 1);
	return r;
}

static int set_relay_options_v6(int fd)
{
	int r = set_int(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, 1);

	if (r == 0)
		r = set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	if (r == 0)
		r = set_int(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
	return r;
}

/* What accepted sockets inherit is set here once, so that a new connection needs no system call for it. */
static int set_relay_options(int fd, uint8_t family, uint32_t mark)
{
	struct linger reset = { .l_onoff = 1, .l_linger = 0 };
	int r;

	r = set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (r == 0)
		r = set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (r == 0)
		r = set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	if (r == 0)
		r = keepalive_set(fd);
	if (r == 0 && setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) < 0)
		r = -errno;
	if (r == 0)
		r = set_int(fd, SOL_SOCKET, SO_MARK, (int)mark);
	if (r == 0)
		r = family == AF_INET ? set_relay_options_v4(fd) : set_relay_options_v6(fd);
	return r;
}

/* Of each datagram the original destination and the interface are wanted. Without SO_REUSEADDR, nobody else can join
 * and take datagrams away. */
static int set_udp_options(int fd, uint8_t family, uint32_t mark)
{
	int r = set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);

	if (r == 0)
		r = family == AF_INET ? set_relay_options_v4(fd) : set_relay_options_v6(fd);
	if (r == 0)
		r = family == AF_INET ? set_int(fd, IPPROTO_IP, IP_RECVORIGDSTADDR, 1)
		                      : set_int(fd, IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, 1);
	if (r == 0)
		r = set_int(fd, SOL_SOCKET, SO_MARK, (int)mark);
	if (r == 0 && set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, RELAY_UDP_BUFFER) < 0)
		r = set_int(fd, SOL_SOCKET, SO_RCVBUF, RELAY_UDP_BUFFER); /* as much as the machine's limit allows */
	return r;
}

static uint16_t bound_port(int fd)
{
	struct sockaddr_storage sa = { 0 };
	socklen_t length = sizeof(sa);
	struct addr addr;
	uint16_t port = 0;

	if (getsockname(fd, (struct sockaddr *)&sa, &length) < 0 || addr_from_sockaddr(&sa, &addr, &port) < 0)
		return 0;
	return port;
}

/* Loopback, so that nobody reaches the socket but through tproxy. */
static int make_relay_socket(const struct relay_socket *wanted, uint32_t marks, int *ret)
{
	bool tcp = wanted->protocol == IPPROTO_TCP;
	struct sockaddr_storage sa;
	struct addr loopback;
	_cleanup_close_ int fd = -1;
	socklen_t length;
	int r;

	r = addr_parse(wanted->family == AF_INET ? "127.0.0.1" : "::1", &loopback);
	if (r < 0)
		return r;
	fd = socket(wanted->family, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	r = tcp ? set_relay_options(fd, wanted->family, sockmark_of(marks).own)
	        : set_udp_options(fd, wanted->family, marks);
	if (r < 0)
		return r;
	length = addr_to_sockaddr(&loopback, wanted->port, &sa);
	if (bind(fd, (struct sockaddr *)&sa, length) < 0 || (tcp && listen(fd, RELAY_BACKLOG) < 0))
		return -errno;
	*ret = TAKE_FD(fd);
	return 0;
}

static int make_relay_group(unsigned threads, uint16_t port, uint32_t marks, struct relay_socket *ret)
{
	static const struct {
		uint8_t protocol, family;
	} kinds[] = { { IPPROTO_TCP, AF_INET }, { IPPROTO_TCP, AF_INET6 }, { IPPROTO_UDP, AF_INET },
		{ IPPROTO_UDP, AF_INET6 } };
	unsigned n = 0;
	int r = 0;

	static_assert(ARRAY_SIZE(kinds) == SOCKETS_PER_THREAD, "as the header says");
	for (unsigned i = 0; i < SOCKETS_PER_THREAD * threads && r == 0; i++) {
		struct relay_socket made = { .protocol = kinds[i / threads].protocol,
			.family = kinds[i / threads].family,
			.thread = (uint16_t)(i % threads),
			.port = port };

		r = make_relay_socket(&made, marks, &made.fd);
		if (r < 0)
			break;
		if (port == 0)
			port = made.port = bound_port(made.fd);
		ret[n++] = made;
	}
	if (r < 0)
		while (n > 0)
			close(ret[--n].fd);
	return r;
}

int sockets_make_relay(unsigned threads, uint16_t port, uint32_t marks, struct relay_socket *ret)
{
	int r = -EADDRINUSE;

	for (unsigned i = 0; i < PORT_TRIES && r == -EADDRINUSE; i++)
		r = make_relay_group(threads, port, marks, ret);
	return r;
}

int sockets_mark_relay(const struct relay_socket *socket, uint32_t marks)
{
	return set_int(socket->fd, SOL_SOCKET, SO_MARK,
	        (int)(socket->protocol == IPPROTO_UDP ? marks : sockmark_of(marks).own));
}

static int unix_address(const char *path, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	snprintf(ret->sun_path, sizeof(ret->sun_path), "%s", path);
	return 0;
}

static int make_unix(const char *path, int type, mode_t mode, int64_t gid)
{
	struct sockaddr_un address;
	_cleanup_close_ int fd = -1;
	mode_t old_mask;
	int r;

	r = unix_address(path, &address);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	old_mask = umask(0777 & ~mode);
	r = bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	umask(old_mask);
	if (r < 0)
		return r;
	if (gid >= 0 && chown(path, (uid_t)-1, (gid_t)gid) < 0)
		return -errno;
	if (listen(fd, API_BACKLOG) < 0)
		return -errno;
	return TAKE_FD(fd);
}

int sockets_make_api_unix(const char *path, int64_t gid)
{
	return make_unix(path, SOCK_STREAM, 0660, gid);
}

int sockets_make_relay_control(const char *path)
{
	return make_unix(path, SOCK_SEQPACKET, 0600, -1);
}

int sockets_connect_relay_control(const char *path)
{
	struct sockaddr_un address;
	_cleanup_close_ int fd = -1;
	int r;

	r = unix_address(path, &address);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/* Who listens there; the kernel remembers it of the moment in which it began to. */
static void ask_holder(const struct sockaddr_un *address, socklen_t size, int *ret_holder, int64_t *ret_uid)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct ucred peer;
	socklen_t length = sizeof(peer);

	*ret_holder = 0;
	*ret_uid = -1;
	if (fd < 0 || connect(fd, (const struct sockaddr *)address, size) < 0 ||
	        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
		return;
	*ret_holder = peer.pid;
	*ret_uid = peer.uid;
}

int sockets_claim_network(int *ret_holder, int64_t *ret_uid)
{
	/* An abstract name: of the network namespace, and gone with its socket. */
	static const struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "\0" CLAIM };
	const socklen_t size = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(CLAIM);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)&address, size) < 0) {
		int r = -errno;

		if (r == -EADDRINUSE)
			ask_holder(&address, size, ret_holder, ret_uid);
		return r;
	}
	if (listen(fd, CLAIM_QUEUE) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static bool is_loopback(const struct addr *addr)
{
	static const struct addr v6 = { .family = AF_INET6, .bytes = { [15] = 1 } };

	return addr->family == AF_INET ? addr->bytes[0] == 127 : addr_equal(addr, &v6);
}

static int parse_url(
        const char *url, bool *ret_secure, struct addr *ret_addr, uint16_t *ret_port, const char **ret_reason)
{
	char host[ADDR_TEXT_MAX];
	struct port_range port;
	const char *start, *colon;
	size_t length;

	*ret_reason = "want https://ADDRESS:PORT, or http://ADDRESS:PORT on loopback; the address numeric";
	*ret_secure = strncmp(url, "https://", 8) == 0;
	if (!*ret_secure && strncmp(url, "http://", 7) != 0)
		return -EINVAL;
	start = url + (*ret_secure ? 8 : 7);
	colon = strrchr(start, ':');
	if (!colon || port_range_parse(colon + 1, &port) < 0 || port.lo != port.hi)
		return -EINVAL;
	length = (size_t)(colon - start);
	if (length > 2 && start[0] == '[' && start[length - 1] == ']') {
		start++;
		length -= 2;
	}
	if (length >= sizeof(host))
		return -EINVAL;
	memcpy(host, start, length);
	host[length] = '\0';
	if (addr_parse(host, ret_addr) < 0)
		return -EINVAL;
	if (!*ret_secure && !is_loopback(ret_addr)) {
		*ret_reason = "plain http is served on loopback only";
		return -EPERM;
	}
	*ret_port = port.lo;
	return 0;
}

int sockets_check_api_tcp(const char *url, const char **ret_reason)
{
	struct addr addr;
	uint16_t port;
	bool secure;

	return parse_url(url, &secure, &addr, &port, ret_reason);
}

int sockets_make_api_tcp(const char *url, bool *ret_secure, const char **ret_reason)
{
	struct sockaddr_storage sa;
	_cleanup_close_ int fd = -1;
	struct addr addr;
	socklen_t length;
	uint16_t port;
	int r;

	r = parse_url(url, ret_secure, &addr, &port, ret_reason);
	if (r < 0)
		return r;
	*ret_reason = "the socket could not be opened";
	fd = socket(addr.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	r = set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (r < 0)
		return r;
	length = addr_to_sockaddr(&addr, port, &sa);
	if (bind(fd, (struct sockaddr *)&sa, length) < 0 || listen(fd, API_BACKLOG) < 0)
		return -errno;
	return TAKE_FD(fd);
}
