/*
 * Idle connections: each does one request and is then held, so that whoever
 * relays them can be weighed.
 */
#include "gwload.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANSWER_MS 20000

static int wait_for(int fd, short events)
{
	struct pollfd wait = { .fd = fd, .events = events };

	return poll(&wait, 1, ANSWER_MS) == 1 ? 0 : -ETIMEDOUT;
}

/* One connection that has had an answer; the program ends if there is none. */
static int open_one(const struct peer *peer, const char *request)
{
	char answer[4096];
	int fd = peer_connect(peer, SOCK_STREAM);
	ssize_t n;

	if (wait_for(fd, POLLOUT) || send(fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request))
		die("gwload: idle: connect");
	if (wait_for(fd, POLLIN) || (n = recv(fd, answer, sizeof(answer), 0)) <= 0)
		die("gwload: idle: answer");
	if (strncmp(answer, "HTTP/1.1 200", 12) != 0) {
		fprintf(stderr, "gwload: idle: not the answer that was expected\n");
		exit(1);
	}
	return fd;
}

/* How many of them have ended or got something that nobody asked for. */
static int count_ended(const int *fds, int n)
{
	int ended = 0;

	for (int i = 0; i < n; i++) {
		struct pollfd state = { .fd = fds[i], .events = POLLIN };

		ended += poll(&state, 1, 0) != 0;
	}
	return ended;
}

int load_idle(char **argument)
{
	int n = atoi(argument[3]), *fds = n > 0 ? calloc((size_t)n, sizeof(*fds)) : NULL;
	struct peer peer;
	char request[1024];

	if (!fds)
		return 2;
	peer_set(&peer, argument[0], argument[1]);
	snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: lab\r\n\r\n", argument[2]);
	for (int i = 0; i < n; i++)
		fds[i] = open_one(&peer, request);
	puts("ready");
	fflush(stdout);
	(void)getchar();
	printf("{\"connections\": %d, \"ended\": %d}\n", n, count_ended(fds, n));
	free(fds);
	return 0;
}
