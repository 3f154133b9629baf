/* Bulk streams: one blocking thread each, and the sink that reads them. */
#include "gwload.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BULK_BUFFER (256 * 1024)

static struct {
	struct peer peer;
	int64_t deadline_ns;
} bulk;

static void *bulk_stream(void *argument)
{
	uint64_t *moved = argument;
	char *buffer = calloc(1, BULK_BUFFER);
	int fd = socket(bulk.peer.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (!buffer || fd < 0 || connect(fd, (struct sockaddr *)&bulk.peer.address, bulk.peer.length))
		die("connect");
	while (now_ns() < bulk.deadline_ns) {
		ssize_t n = send(fd, buffer, BULK_BUFFER, MSG_NOSIGNAL);
		if (n <= 0)
			die("send");
		*moved += (uint64_t)n;
	}
	close(fd);
	free(buffer);
	return NULL;
}

int load_bulk(char **argument)
{
	pthread_t threads[THREADS_MAX];
	uint64_t moved[THREADS_MAX] = { 0 }, sum = 0;
	unsigned n = (unsigned)atoi(argument[2]);
	int64_t started = now_ns();
	double seconds;

	peer_set(&bulk.peer, argument[0], argument[1]);
	bulk.deadline_ns = started + (int64_t)(atof(argument[3]) * 1e9);
	if (n < 1 || n > THREADS_MAX)
		return 2;
	for (unsigned i = 0; i < n; i++) {
		if (pthread_create(&threads[i], NULL, bulk_stream, &moved[i]))
			die("pthread_create");
	}
	for (unsigned i = 0; i < n; i++) {
		pthread_join(threads[i], NULL);
		sum += moved[i];
	}
	seconds = (double)(now_ns() - started) / 1e9;
	printf("{\"bytes\": %llu, \"seconds\": %.3f, \"gbit_per_second\": %.3f}\n", (unsigned long long)sum, seconds,
	        (double)sum * 8 / seconds / 1e9);
	return 0;
}

static void *sink_stream(void *argument)
{
	int fd = (int)(intptr_t)argument;
	char *buffer = malloc(BULK_BUFFER);

	while (buffer && recv(fd, buffer, BULK_BUFFER, 0) > 0)
		;
	free(buffer);
	close(fd);
	return NULL;
}

int load_sink(char **argument)
{
	int listener = listen_on(argument[0], SOCK_STREAM);

	for (;;) {
		pthread_t thread;
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			continue;
		if (pthread_create(&thread, NULL, sink_stream, (void *)(intptr_t)fd))
			die("pthread_create");
		pthread_detach(thread);
	}
}
