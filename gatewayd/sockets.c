/* The sockets that the daemon makes; see sockets.h. */
#include "gatewayd/sockets.h"

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

/* Connections that wait while no relay runs; the kernel cuts it to net.core.somaxconn. */
#define RELAY_BACKLOG 65535
#define API_BACKLOG   128
/* Tries for a port that is free in both families. */
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
static int set_relay_options(int fd, uint8_t family)
{
	struct linger reset = { .l_onoff = 1, .l_linger = 0 };
	int r;

	r = set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (r == 0)
		r = set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (r == 0)
		r = set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	if (r == 0 && setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) < 0)
		r = -errno;
	if (r == 0)
		r = family == AF_INET ? set_relay_options_v4(fd) : set_relay_options_v6(fd);
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
static int make_relay_socket(uint8_t family, uint16_t port, int *ret)
{
	struct sockaddr_storage sa;
	struct addr loopback;
	_cleanup_close_ int fd = -1;
	socklen_t length;
	int r;

	r = addr_parse(family == AF_INET ? "127.0.0.1" : "::1", &loopback);
	if (r < 0)
		return r;
	fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	r = set_relay_options(fd, family);
	if (r < 0)
		return r;
	length = addr_to_sockaddr(&loopback, port, &sa);
	if (bind(fd, (struct sockaddr *)&sa, length) < 0 || listen(fd, RELAY_BACKLOG) < 0)
		return -errno;
	*ret = TAKE_FD(fd);
	return 0;
}

static int make_relay_group(unsigned threads, uint16_t port, struct relay_socket *ret)
{
	static const uint8_t families[] = { AF_INET, AF_INET6 };
	unsigned n = 0;
	int r = 0;

	for (unsigned f = 0; f < ARRAY_SIZE(families) && r == 0; f++)
		for (unsigned t = 0; t < threads && r == 0; t++) {
			int fd = -1;

			r = make_relay_socket(families[f], port, &fd);
			if (r < 0)
				break;
			if (port == 0)
				port = bound_port(fd);
			ret[n++] = (struct relay_socket){ .fd = fd,
				.protocol = IPPROTO_TCP,
				.family = families[f],
				.thread = (uint16_t)t,
				.port = port };
		}
	if (r < 0)
		while (n > 0)
			close(ret[--n].fd);
	return r;
}

int sockets_make_relay(unsigned threads, uint16_t port, struct relay_socket *ret)
{
	int r = -EADDRINUSE;

	for (unsigned i = 0; i < PORT_TRIES && r == -EADDRINUSE; i++)
		r = make_relay_group(threads, port, ret);
	return r;
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
