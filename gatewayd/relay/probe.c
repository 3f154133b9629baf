/* Probes of the way back; see probe.h. */
#include "gatewayd/relay/probe.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/relay/connect.h"

void probes_init(struct probes *probes)
{
	*probes = (struct probes){ .epoll_fd = -1 };
}

/* What an error of the connect says. A reset is an answer like any other. */
static enum proto_probe_answer answer_of(int error)
{
	switch (error) {
	case 0:
	case ECONNREFUSED:
	case ECONNRESET:
		return PROTO_PROBE_ANSWERED;
	case ETIMEDOUT:
		return PROTO_PROBE_SILENT;
	case EHOSTUNREACH:
	case ENETUNREACH:
	case EHOSTDOWN:
	case ENOPROTOOPT:
	case EPROTO:
		return PROTO_PROBE_UNREACHABLE;
	default:
		return PROTO_PROBE_LOCAL;
	}
}

/* What the target has to send its answers to, which is one of the addresses of this machine. */
static void note_own_address(struct probe *probe)
{
	struct sockaddr_storage sa;
	socklen_t length = sizeof(sa);
	struct addr own;
	uint16_t port;

	if (getsockname(probe->fd, (struct sockaddr *)&sa, &length) == 0 && addr_from_sockaddr(&sa, &own, &port) == 0)
		memcpy(probe->answer.own, own.bytes, sizeof(own.bytes));
}

static int watch(const struct probes *probes, int fd)
{
	struct epoll_event event = { .events = EPOLLOUT };

	return epoll_ctl(probes->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static void step(struct probes *probes, struct probe *probe, uint64_t now_ms);

/* The connect of this step has ended so. */
static void conclude(struct probes *probes, struct probe *probe, enum proto_probe_answer answer, uint64_t now_ms)
{
	uint8_t *told = probe->as_gateway ? &probe->answer.as_gateway : &probe->answer.as_client;

	if (probe->as_gateway && probe->fd >= 0)
		note_own_address(probe);
	cleanup_close(&probe->fd); /* SO_LINGER: a reset, if there is anybody to send it to */
	probe->fd = -1;
	*told = (uint8_t)answer;
	if (probe->as_gateway || answer == PROTO_PROBE_ANSWERED || answer == PROTO_PROBE_LOCAL)
		return;
	probe->as_gateway = true;
	step(probes, probe, now_ms);
}

/* Begins a connect: the first as the client, the second as the gateway. */
static void step(struct probes *probes, struct probe *probe, uint64_t now_ms)
{
	enum connect_source source = probe->as_gateway ? CONNECT_AS_GATEWAY : CONNECT_AS_CLIENT_ANY_PORT;
	enum connect_port port;
	int r = connect_start(&probe->origin, source, false, &port);

	probe->fd = r < 0 ? -1 : r;
	probe->deadline_ms = now_ms + PROBE_ANSWER_MS;
	if (r >= 0)
		r = watch(probes, probe->fd);
	if (r < 0)
		conclude(probes, probe, answer_of(-r), now_ms);
}

int probes_begin(struct probes *probes, const struct proto_probe *message, uint64_t now_ms)
{
	struct probe *probe = &probes->probe[probes->n];

	if (message->family != AF_INET && message->family != AF_INET6)
		return -EBADMSG;
	if (probes->n == PROBES_MAX)
		return -EBUSY;
	if (probes->epoll_fd < 0)
		probes->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (probes->epoll_fd < 0)
		return -errno;
	*probe = (struct probe){ .answer.cookie = message->cookie,
		.origin = { .client.family = message->family,
		        .target.family = message->family,
		        .target_port = message->port },
		.fd = -1 };
	memcpy(probe->origin.client.bytes, message->source, sizeof(message->source));
	memcpy(probe->origin.target.bytes, message->target, sizeof(message->target));
	probes->n++;
	step(probes, probe, now_ms);
	return 0;
}

int probes_timeout(const struct probes *probes, uint64_t now_ms, int longest)
{
	int least = longest;

	for (unsigned i = 0; i < probes->n; i++) {
		const struct probe *probe = &probes->probe[i];
		uint64_t left = probe->fd < 0 || probe->deadline_ms <= now_ms ? 0 : probe->deadline_ms - now_ms;

		if (least < 0 || left < (uint64_t)least)
			least = (int)left;
	}
	return least;
}

/* Whether its connect has ended, one way or another. */
static void look(struct probes *probes, struct probe *probe, uint64_t now_ms)
{
	int error = 0;
	socklen_t length = sizeof(error);
	struct sockaddr_storage sa;
	socklen_t sa_length = sizeof(sa);

	if (probe->fd < 0)
		return;
	if (getsockopt(probe->fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
		error = errno;
	/* Without an error it has either a peer or no end yet. */
	if (error != 0)
		conclude(probes, probe, answer_of(error), now_ms);
	else if (getpeername(probe->fd, (struct sockaddr *)&sa, &sa_length) == 0)
		conclude(probes, probe, PROTO_PROBE_ANSWERED, now_ms);
	else if (now_ms >= probe->deadline_ms)
		conclude(probes, probe, PROTO_PROBE_SILENT, now_ms);
}

bool probes_next(struct probes *probes, uint64_t now_ms, struct proto_probed *ret)
{
	for (unsigned i = 0; i < probes->n; i++) {
		struct probe *probe = &probes->probe[i];

		look(probes, probe, now_ms);
		if (probe->fd >= 0)
			continue;
		*ret = probe->answer;
		*probe = probes->probe[--probes->n];
		return true;
	}
	return false;
}
