/* The load generator's shared parts; see gwload.h. */
#include "gwload.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BACKLOG 8192

int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

void die(const char *what)
{
	perror(what);
	exit(1);
}

void peer_set(struct peer *ret_peer, const char *address, const char *port)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&ret_peer->address;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&ret_peer->address;
	uint16_t number = htons((uint16_t)atoi(port));

	memset(ret_peer, 0, sizeof(*ret_peer));
	if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = number;
		ret_peer->length = sizeof(*v4);
	} else if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = number;
		ret_peer->length = sizeof(*v6);
	} else {
		fprintf(stderr, "gwload: %s is no address\n", address);
		exit(2);
	}
}

int peer_connect(const struct peer *peer, int kind)
{
	int fd = socket(peer->address.ss_family, kind | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;

	if (fd < 0)
		die("socket");
	if (kind == SOCK_STREAM)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (const struct sockaddr *)&peer->address, peer->length) && errno != EINPROGRESS)
		die("connect");
	return fd;
}

int listen_on(const char *port, int kind)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port)) };
	int fd = socket(AF_INET6, kind | SOCK_CLOEXEC, 0), one = 1, zero = 0;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)) || ((kind & SOCK_STREAM) && listen(fd, BACKLOG)))
		die("listen");
	return fd;
}

void latencies_init(struct latencies *latencies)
{
	latencies->n = 0;
	latencies->values = calloc(LATENCIES_MAX, sizeof(*latencies->values));
	if (!latencies->values)
		die("calloc");
}

void latencies_add(struct latencies *latencies, int64_t since_ns, int64_t until_ns)
{
	if (latencies->n < LATENCIES_MAX)
		latencies->values[latencies->n++] = (uint32_t)((until_ns - since_ns) / 1000);
}

void latencies_merge(struct latencies *sum, const struct latencies *more)
{
	uint32_t *values = realloc(sum->values, (sum->n + more->n + 1) * sizeof(*values));

	if (!values)
		die("realloc");
	memcpy(values + sum->n, more->values, more->n * sizeof(*values));
	sum->values = values;
	sum->n += more->n;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

void latencies_print(struct latencies *latencies)
{
	const uint32_t *v = latencies->values;
	size_t n = latencies->n;

	qsort(latencies->values, n, sizeof(*v), compare_u32);
	printf("\"p50_us\": %u, \"p99_us\": %u, \"max_us\": %u", n ? v[n / 2] : 0, n ? v[n * 99 / 100] : 0,
	        n ? v[n - 1] : 0);
}
