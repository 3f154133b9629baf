/*
 * Long streams: server-sent events at a steady rate, and the client that
 * measures how late each comes. An event carries its connection's number of it
 * and the time it was sent at; client and server share the machine's clock.
 */
#include "gwload.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define CONNECTIONS_MAX 16384
#define LINE_MAX_B      256
#define BATCH           256
#define TICKS_PER_S     1000
#define WARM_UP_NS      NS_PER_S        /* after the last connection has been opened */
#define DRAIN_NS        (15 * NS_PER_S) /* what was sent in time may come so much later */
#define HEAD            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\n"

/* ---- server ---- */

/* Connections wait in the slot of the tick at which they get their events, so the load is even. */
struct stream {
	int fd;
	uint64_t number;
	struct stream *next;
};

static struct {
	struct stream *slots[TICKS_PER_S];
	unsigned n_slots, next_slot;
} server;

static void event_send(struct stream *stream)
{
	char event[LINE_MAX_B];
	int n = snprintf(
	        event, sizeof(event), "data: %llu %lld\n\n", (unsigned long long)++stream->number, (long long)now_ns());

	if (send(stream->fd, event, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) != n) {
		close(stream->fd); /* the client has gone, or it does not read: its streams are long over */
		stream->fd = -1;
	}
}

static void tick(unsigned slot)
{
	for (struct stream **at = &server.slots[slot], *stream; (stream = *at) != NULL;) {
		event_send(stream);
		if (stream->fd >= 0) {
			at = &stream->next;
			continue;
		}
		*at = stream->next;
		free(stream);
	}
}

/* The request is not read further than its first packet; whoever connects gets events. */
static void accept_all(int listener)
{
	int fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
		struct stream *stream = calloc(1, sizeof(*stream));

		if (!stream || send(fd, HEAD, strlen(HEAD), MSG_NOSIGNAL) < 0) {
			free(stream);
			close(fd);
			continue;
		}
		stream->fd = fd;
		stream->next = server.slots[server.next_slot];
		server.slots[server.next_slot] = stream;
		server.next_slot = (server.next_slot + 1) % server.n_slots;
	}
}

int load_events_server(char **argument)
{
	int rate = atoi(argument[1]), listener = listen_on(argument[0], SOCK_STREAM | SOCK_NONBLOCK);
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	struct itimerspec every = { { 0, NS_PER_S / TICKS_PER_S }, { 0, NS_PER_S / TICKS_PER_S } };
	uint64_t now = 0, ticks;

	if (rate < 1 || rate > TICKS_PER_S || timer < 0 || timerfd_settime(timer, 0, &every, NULL))
		return 2;
	server.n_slots = (unsigned)(TICKS_PER_S / rate);
	while (read(timer, &ticks, sizeof(ticks)) == sizeof(ticks)) {
		accept_all(listener);
		for (; ticks > 0; ticks--)
			tick((unsigned)(now++ % server.n_slots));
	}
	return 1;
}

/* ---- client ---- */

struct reader {
	int fd;
	bool in_body, past; /* past: has had an event that was sent after the time that counts */
	uint64_t last;
	size_t length;
	char buffer[4096];
};

static struct {
	struct reader *readers;
	int epoll, n_past;
	int64_t from_ns, until_ns; /* what was sent in between counts */
	uint64_t done, missed, ended;
	struct latencies latencies;
} client;

static void line_take(struct reader *reader, const char *line)
{
	unsigned long long number;
	long long sent;
	int64_t now;

	if (!reader->in_body) {
		reader->in_body = line[0] == '\0';
		return;
	}
	if (sscanf(line, "data: %llu %lld", &number, &sent) != 2)
		return;
	client.missed += number != reader->last + 1;
	reader->last = number;
	now = now_ns();
	if (client.from_ns == 0 || sent < client.from_ns)
		return;
	if (sent >= client.until_ns) {
		client.n_past += !reader->past;
		reader->past = true;
		return;
	}
	client.done++;
	latencies_add(&client.latencies, sent, now);
}

static void reader_lines(struct reader *reader)
{
	char *start = reader->buffer, *end;

	while ((end = memchr(start, '\n', reader->length - (size_t)(start - reader->buffer))) != NULL) {
		*end = '\0';
		if (end > start && end[-1] == '\r')
			end[-1] = '\0';
		line_take(reader, start);
		start = end + 1;
	}
	reader->length -= (size_t)(start - reader->buffer);
	memmove(reader->buffer, start, reader->length);
}

static void reader_read(struct reader *reader)
{
	ssize_t n;

	if (reader->length == sizeof(reader->buffer))
		reader->length = 0; /* no line is so long; the numbers will show the gap */
	n = recv(reader->fd, reader->buffer + reader->length, sizeof(reader->buffer) - reader->length, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		client.ended++;
		epoll_ctl(client.epoll, EPOLL_CTL_DEL, reader->fd, NULL);
		return;
	}
	reader->length += (size_t)n;
	reader_lines(reader);
}

static void serve(int timeout_ms)
{
	struct epoll_event events[BATCH];
	int n = epoll_wait(client.epoll, events, BATCH, timeout_ms);

	for (int i = 0; i < n; i++)
		reader_read(events[i].data.ptr);
}

/* Opens one after the other, reading meanwhile what comes on those that are there. */
static void open_all(const struct peer *peer, int n)
{
	static const char request[] = "GET /events HTTP/1.1\r\nHost: lab\r\nAccept: text/event-stream\r\n\r\n";

	for (int i = 0; i < n; i++) {
		struct reader *reader = &client.readers[i];
		struct epoll_event event = { .events = EPOLLIN, .data.ptr = reader };
		int64_t give_up = now_ns() + 5 * NS_PER_S;

		reader->fd = peer_connect(peer, SOCK_STREAM);
		while (send(reader->fd, request, strlen(request), MSG_NOSIGNAL) < 0) {
			if ((errno != EAGAIN && errno != ENOTCONN) || now_ns() > give_up)
				die("gwload: events: connect");
			serve(1);
		}
		if (epoll_ctl(client.epoll, EPOLL_CTL_ADD, reader->fd, &event))
			die("epoll_ctl");
	}
}

int load_events(char **argument)
{
	int n = atoi(argument[2]);
	struct peer peer;
	double seconds = atof(argument[3]);

	if (n < 1 || n > CONNECTIONS_MAX)
		return 2;
	peer_set(&peer, argument[0], argument[1]);
	client.epoll = epoll_create1(EPOLL_CLOEXEC);
	client.readers = calloc((size_t)n, sizeof(*client.readers));
	latencies_init(&client.latencies);
	if (client.epoll < 0 || !client.readers)
		die("events");
	open_all(&peer, n);
	client.from_ns = now_ns() + WARM_UP_NS;
	client.until_ns = client.from_ns + (int64_t)(seconds * 1e9);
	while (client.n_past + (int)client.ended < n && now_ns() < client.until_ns + DRAIN_NS)
		serve(10);
	printf("{\"connections\": %d, \"done\": %llu, \"missed\": %llu, \"ended\": %llu, \"seconds\": %.3f, "
	       "\"per_second\": %.1f, ",
	        n, (unsigned long long)client.done, (unsigned long long)client.missed, (unsigned long long)client.ended,
	        seconds, (double)client.done / seconds);
	latencies_print(&client.latencies);
	printf("}\n");
	return 0;
}
