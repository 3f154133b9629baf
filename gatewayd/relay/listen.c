/* Accepting and admission; see listen.h. */
#include "gatewayd/relay/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ipv6.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "gatewayd/relay/account.h"
#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/route.h"
#include "gatewayd/relay/tcp.h"

int listen_init(struct listen_sockets *sockets)
{
	memset(sockets, 0, sizeof(*sockets));
	sockets->reserve_fd = eventfd(0, EFD_CLOEXEC);
	return sockets->reserve_fd < 0 ? -errno : 0;
}

static int socket_poll(struct loop *loop, uint32_t number, int operation)
{
	struct listen_socket *socket = &loop->listen.socket[number];
	struct epoll_event event = { .events = EPOLLIN | EPOLLEXCLUSIVE, .data.u64 = flow_cookie_other(number) };

	if (epoll_ctl(loop->epoll_fd, operation, socket->fd, &event) < 0)
		return -errno;
	socket->polled = operation == EPOLL_CTL_ADD;
	return 0;
}

/* Begins or ceases to poll all sockets of one kind. Whether any was changed. */
static bool poll_kind(struct loop *loop, int operation, bool helped)
{
	bool changed = false;

	for (uint32_t i = 0; i < loop->listen.n; i++) {
		const struct listen_socket *socket = &loop->listen.socket[i];

		if (socket->helped == helped && socket->polled != (operation == EPOLL_CTL_ADD))
			changed = socket_poll(loop, i, operation) == 0 || changed;
	}
	return changed;
}

/* Own sockets at once, helped ones later. */
static void poll_begin(struct loop *loop)
{
	bool changed = poll_kind(loop, EPOLL_CTL_ADD, false);

	if (!changed)
		poll_kind(loop, EPOLL_CTL_ADD, true);
	else
		wheel_set(&loop->wheel, &loop->listen.rest, loop->now_ms + LISTEN_HELP_MS);
}

static void poll_end(struct loop *loop)
{
	poll_kind(loop, EPOLL_CTL_DEL, false);
	poll_kind(loop, EPOLL_CTL_DEL, true);
}

int listen_add(struct loop *loop, int fd, bool helped)
{
	struct listen_sockets *sockets = &loop->listen;
	struct listen_socket *socket = &sockets->socket[sockets->n];
	struct sockaddr_storage sa;
	socklen_t length = sizeof(sa);
	int r;

	if (sockets->n == LISTEN_SOCKETS_MAX)
		return -ENOSPC;
	if (getsockname(fd, (struct sockaddr *)&sa, &length) < 0)
		return -errno;
	r = addr_from_sockaddr(&sa, &socket->addr, &socket->port);
	if (r < 0)
		return r;
	socket->fd = fd;
	socket->helped = helped;
	socket->polled = false;
	if (sockets->open && !sockets->draining && !wheel_is_set(&sockets->rest))
		r = socket_poll(loop, sockets->n, EPOLL_CTL_ADD);
	if (r == 0)
		sockets->n++;
	return r;
}

void listen_open(struct loop *loop)
{
	if (loop->listen.open)
		return;
	loop->listen.open = true;
	if (!loop->listen.draining)
		poll_begin(loop);
}

void listen_drain(struct loop *loop)
{
	loop->listen.draining = true;
	wheel_clear(&loop->wheel, &loop->listen.rest);
	poll_end(loop);
}

void listen_rested(struct loop *loop)
{
	poll_begin(loop);
}

/* Accepts one connection by means of the reserve and answers it with a reset. Whether that was possible. */
static bool refuse_one(struct loop *loop, const struct listen_socket *socket)
{
	int *reserve = &loop->listen.reserve_fd, fd;

	if (*reserve < 0)
		*reserve = eventfd(0, EFD_CLOEXEC);
	if (*reserve < 0)
		return false;
	close(*reserve);
	fd = accept4(socket->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0)
		close(fd);
	*reserve = eventfd(0, EFD_CLOEXEC);
	return fd >= 0;
}

/* No descriptor or memory for an accepted socket: it is refused at once. Where not even that is possible accepting
 * rests, since the socket would only say again and again that it is ready. */
static void starved(struct loop *loop, const struct listen_socket *socket, int error)
{
	stats_add(loop->stats, STATS_refused_no_descriptor, 1);
	loop_warn(loop, STATS_refused_no_descriptor, error);
	overload_starved(&loop->overload, loop->now_ms);
	if (refuse_one(loop, socket))
		return;
	poll_end(loop);
	wheel_set(&loop->wheel, &loop->listen.rest, loop->now_ms + LISTEN_REST_MS);
}

/* --- admission --- */

/* The interface index in the control messages of an accepted socket, 0 if there is none. */
static int ingress_index(int fd, uint8_t family)
{
	union {
		struct cmsghdr header;
		uint8_t space[512];
	} control;
	socklen_t length = sizeof(control);
	struct msghdr message = { .msg_control = &control };
	bool v6 = family == AF_INET6;

	if (getsockopt(fd, v6 ? SOL_IPV6 : SOL_IP, v6 ? IPV6_2292PKTOPTIONS : IP_PKTOPTIONS, &control, &length) < 0)
		return 0;
	message.msg_controllen = length;
	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message); cmsg; cmsg = CMSG_NXTHDR(&message, cmsg)) {
		if (!v6 && cmsg->cmsg_level == SOL_IP && cmsg->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo info;

			memcpy(&info, CMSG_DATA(cmsg), sizeof(info));
			return info.ipi_ifindex;
		}
		if (v6 && cmsg->cmsg_level == SOL_IPV6 && cmsg->cmsg_type == IPV6_PKTINFO) {
			struct in6_pktinfo info;

			memcpy(&info, CMSG_DATA(cmsg), sizeof(info));
			return (int)info.ipi6_ifindex;
		}
	}
	return 0;
}

/* 0 and the route, or the counter of the refusal. */
static int admit(struct loop *loop, const struct listen_socket *socket, int fd, const struct sockaddr_storage *source,
        struct tcp_route *ret)
{
	struct match_packet packet = { .protocol = IPPROTO_TCP };
	struct sockaddr_storage sa;
	socklen_t length = sizeof(sa);
	uint16_t client_port;
	int ifindex = 0;

	if (getsockname(fd, (struct sockaddr *)&sa, &length) < 0 ||
	        addr_from_sockaddr(&sa, &packet.dst, &packet.dst_port) < 0 ||
	        addr_from_sockaddr(source, &packet.src, &client_port) < 0)
		return STATS_refused_no_listener;
	ret->origin = (struct flow_origin){ .client = packet.src,
		.client_port = client_port,
		.original = packet.dst,
		.original_port = packet.dst_port };
	if (route_is_loopback(&packet.dst) ||
	        (packet.dst_port == socket->port && addr_equal(&packet.dst, &socket->addr)))
		return STATS_refused_loop;
	if (match_table_uses_interface(loop->config->match))
		ifindex = ingress_index(fd, packet.dst.family);
	ret->listener = route_classify(loop->config, &packet, ifindex, fd);
	if (!ret->listener)
		return STATS_refused_no_listener;
	ret->origin.objects.listener = ret->listener->id;
	ret->origin.ifindex = ifindex > 0 ? (uint32_t)ifindex : 0;
	ret->proxied = trust_has(&ret->listener->trust, &packet.src);
	if (ret->listener->routes.n > 0 || ret->proxied) /* the target is found once the client has spoken */
		return 0;
	return route_find(loop, ret->listener, &ret->origin, &ret->hold);
}

static void accepted(
        struct loop *loop, const struct listen_socket *socket, int fd, const struct sockaddr_storage *source)
{
	struct tcp_route route = { 0 };
	int refusal = admit(loop, socket, fd, source, &route);

	if (refusal == 0) {
		tcp_start(loop, fd, &route);
		return;
	}
	stats_add(loop->stats, (enum stats_counter)refusal, 1);
	loop_warn_of(loop, (enum stats_counter)refusal, 0, &route.origin);
	if (refusal == STATS_refused_no_target || refusal == STATS_refused_target_full)
		account_refused(loop, &route.origin.objects);
	close(fd); /* a reset: accepted sockets inherit the listening socket's linger {1, 0} */
}

void listen_accept(struct loop *loop, uint32_t number)
{
	const struct listen_socket *socket = &loop->listen.socket[number];
	struct sockaddr_storage source;
	socklen_t length = sizeof(source);
	int fd;

	if (!socket->polled) /* any more: the event is from before */
		return;
	fd = accept4(socket->fd, (struct sockaddr *)&source, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0)
		accepted(loop, socket, fd, &source);
	else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
		starved(loop, socket, -errno);
	/* All others mean that the connection is gone, or another thread's. */
}
