/* Checks under way; see health_check.h. */
#include "gatewayd/relay/health_check.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/relay/connect.h"

/* Bytes of an answer taken at once. */
#define READ_SIZE 16384

int health_pool_init(struct health_pool *pool, int epoll_fd, uint32_t size)
{
	*pool = (struct health_pool){ .epoll_fd = epoll_fd, .size = size };
	pool->checks = calloc(size, sizeof(*pool->checks));
	return pool->checks ? 0 : -ENOMEM;
}

void health_pool_destroy(struct health_pool *pool)
{
	for (uint32_t i = 0; i < pool->made; i++)
		cleanup_close(&pool->checks[i].fd);
	free(pool->checks);
	*pool = (struct health_pool){ .epoll_fd = -1 };
}

bool health_pool_has_room(const struct health_pool *pool)
{
	return pool->busy < pool->size;
}

/* --- sockets --- */

static unsigned list_of(uint8_t family)
{
	return family == AF_INET6;
}

static struct health_check *idle_pop(struct health_pool *pool, unsigned list)
{
	struct health_check *check = pool->idle[list];

	if (check)
		pool->idle[list] = check->next;
	return check;
}

static void idle_push(struct health_pool *pool, struct health_check *check)
{
	struct health_check **list = &pool->idle[list_of(check->family)];

	check->next = *list;
	*list = check;
}

static void socket_close(struct health_check *check)
{
	cleanup_close(&check->fd);
	check->fd = -1;
}

/* A TCP check knows all with the target's answer to the first packet. The handshake's last one is held back, as with
 * flows (connect.c), and the reset overtakes it: the target's kernel has no socket to make, and its program nothing to
 * accept. An HTTP check's request takes it along. Said by an option that, unlike TCP_QUICKACK, the socket keeps over
 * its disconnects: a call less for each check. */
static void handshake_hold(int fd)
{
	static const int seconds = 1; /* that it is not 0 is all that counts for one who connects */

	setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof(seconds));
}

static int socket_open(struct health_pool *pool, struct health_check *check, uint8_t family)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = check };

	check->family = family;
	check->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (check->fd < 0)
		return -errno;
	handshake_hold(check->fd);
	/* Without it a check is a sixth dearer, and works. */
	(void)connect_set_transparent(check->fd, family);
	if (epoll_ctl(pool->epoll_fd, EPOLL_CTL_ADD, check->fd, &event) < 0) {
		int r = -errno;

		socket_close(check);
		return r;
	}
	return 0;
}

/* One with a socket of the family if there is one, else a new one, else one of the other family. There is room. */
static int take(struct health_pool *pool, uint8_t family, struct health_check **ret)
{
	struct health_check *check = idle_pop(pool, list_of(family));
	int r = 0;

	if (!check && pool->made < pool->size) {
		check = &pool->checks[pool->made++];
		check->fd = -1;
	}
	if (!check)
		check = idle_pop(pool, !list_of(family));
	if (check->fd >= 0 && check->family != family)
		socket_close(check);
	if (check->fd < 0)
		r = socket_open(pool, check, family);
	if (r < 0) {
		idle_push(pool, check);
		return r;
	}
	pool->busy++;
	*ret = check;
	return 0;
}

void health_check_end(struct health_pool *pool, struct health_check *check, bool good)
{
	static const struct sockaddr nowhere = { .sa_family = AF_UNSPEC };

	/* Of a failed one too, so that a peer that is there learns of the end at once, whatever waits to be read. */
	if (connect(check->fd, &nowhere, sizeof(nowhere)) < 0 || !good)
		socket_close(check);
	check->target->check = NULL;
	check->target = NULL;
	pool->busy--;
	idle_push(pool, check);
}

/* --- verdicts --- */

/* What says something of the gateway and nothing of the target. */
static bool is_local(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM || error == EADDRNOTAVAIL ||
	       error == EPERM || error == EACCES;
}

static struct health_verdict failed(int error)
{
	return (struct health_verdict){ .cause = is_local(error) ? TARGET_CAUSE_LOCAL : TARGET_CAUSE_CONNECT,
		.detail = (uint32_t)error };
}

static struct health_verdict well(const struct health_check *check, uint64_t now_us)
{
	uint64_t latency_us = now_us - check->started_us;

	return (struct health_verdict){ .cause = TARGET_CAUSE_OK,
		.detail = check->http.status,
		.latency_us = latency_us < UINT32_MAX ? (uint32_t)latency_us : UINT32_MAX };
}

static struct health_verdict answered(const struct health_check *check, enum health_http_result result, uint64_t now_us)
{
	if (result == HEALTH_HTTP_GOOD)
		return well(check, now_us);
	return (struct health_verdict){ .cause = result == HEALTH_HTTP_STATUS ? TARGET_CAUSE_STATUS
		                                 : result == HEALTH_HTTP_BODY ? TARGET_CAUSE_BODY
		                                                              : TARGET_CAUSE_PROTOCOL,
		.detail = check->http.status };
}

/* --- a check --- */

int health_check_begin(
        struct health_pool *pool, struct health_target *target, uint64_t now_us, struct health_verdict *ret)
{
	struct sockaddr_storage sa;
	socklen_t length = addr_to_sockaddr(&target->addr, health_table_port(target), &sa);
	struct health_check *check;
	int r = take(pool, target->addr.family, &check);

	if (r < 0) {
		*ret = failed(-r);
		return 1;
	}
	check->target = target;
	target->check = check;
	check->asked = false;
	check->started_us = now_us;
	health_http_begin(&check->http);
	if (connect(check->fd, (struct sockaddr *)&sa, length) == 0 || errno == EINPROGRESS)
		return 0;
	*ret = failed(errno);
	health_check_end(pool, check, false);
	return 1;
}

/* Addresses of IPv6 stand in brackets, as in a URL. */
size_t health_check_request(const struct health_target *target, char request[HEALTH_REQUEST_MAX])
{
	const struct proto_health_put *rules = &target->upstream->rules;
	bool v6 = target->addr.family == AF_INET6;
	char address[ADDR_TEXT_MAX], host[ADDR_TEXT_MAX + 16];
	int n;

	addr_format(&target->addr, address);
	snprintf(host, sizeof(host), "%s%s%s:%u", v6 ? "[" : "", address, v6 ? "]" : "",
	        (unsigned)health_table_port(target));
	n = snprintf(request, HEALTH_REQUEST_MAX,
	        "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: gatewayd\r\nAccept: */*\r\nConnection: close\r\n\r\n",
	        rules->head ? "HEAD" : "GET", rules->path, *rules->host ? rules->host : host);
	return (size_t)n;
}

/* Made once, and anew after a change. False: no memory. */
static bool has_request(struct health_target *target)
{
	char request[HEALTH_REQUEST_MAX];

	if (target->request)
		return true;
	target->n_request = health_check_request(target, request);
	target->request = malloc(target->n_request);
	if (!target->request)
		return false;
	memcpy(target->request, request, target->n_request);
	return true;
}

/* The connection is there. True: with that the check is over. */
static bool connected(struct health_check *check, uint64_t now_us, struct health_verdict *ret)
{
	struct health_target *target = check->target;

	if (target->upstream->rules.type != PROTO_HEALTH_HTTP) {
		*ret = well(check, now_us);
		return true;
	}
	check->asked = true;
	if (!has_request(target)) {
		*ret = failed(ENOMEM);
		return true;
	}
	/* The first bytes of a connection always find room. */
	if (send(check->fd, target->request, target->n_request, MSG_NOSIGNAL) == (ssize_t)target->n_request)
		return false;
	*ret = failed(errno);
	return true;
}

static bool read_answer(struct health_check *check, uint64_t now_us, struct health_verdict *ret)
{
	const struct health_http_want *want = &check->target->upstream->want;
	enum health_http_result result = HEALTH_HTTP_MORE;
	static _Thread_local char bytes[READ_SIZE];

	while (result == HEALTH_HTTP_MORE) {
		ssize_t n = recv(check->fd, bytes, sizeof(bytes), 0);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return false;
		if (n > 0)
			result = health_http_feed(&check->http, want, bytes, (size_t)n);
		else
			result = health_http_end(&check->http);
	}
	*ret = answered(check, result, now_us);
	return true;
}

/* Whether the connection could not be made. */
static bool has_failed(const struct health_check *check, uint32_t events, struct health_verdict *ret)
{
	int error = 0;
	socklen_t length = sizeof(error);

	if (!(events & (EPOLLERR | EPOLLHUP)))
		return false;
	getsockopt(check->fd, SOL_SOCKET, SO_ERROR, &error, &length);
	if (error == 0 && !(events & EPOLLHUP))
		return false;
	*ret = failed(error ? error : ECONNRESET);
	return true;
}

bool health_check_event(struct health_check *check, uint32_t events, uint64_t now_us, struct health_verdict *ret)
{
	if (!check->asked) {
		if (has_failed(check, events, ret))
			return true;
		if (!(events & EPOLLOUT))
			return false;
		if (connected(check, now_us, ret))
			return true;
	}
	return events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR) && read_answer(check, now_us, ret);
}
