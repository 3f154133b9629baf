/*
 * Streams that check themselves, many at once and for long: both ways, paced,
 * every byte compared. The lab's tool for tests in which connections have to
 * survive something.
 *
 *   gwstream serve PORT                        on IPv4 and IPv6, until killed
 *   gwstream run ADDRESS PORT STREAMS RATE SECONDS NEW
 *       STREAMS connections, each sending and receiving RATE bytes a second for SECONDS or until SIGTERM; besides, NEW
 *       short ones are opened each second. Prints one line of JSON.
 *
 * A stream is a row of records of 1024 bytes: kind, number, and bytes that
 * follow from the connection's seed and the number. The last one says END, the
 * server's also how many records it has got and found good. An end of stream
 * without END is a false one.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define RECORD   1024
#define WORDS    (RECORD / 8)
#define TICK_MS  10
#define SHORT    4     /* records of a short connection */
#define STALL_MS 30000 /* a stream in which nothing moves for so long has timed out */
#define OPEN_MAX 20000

enum kind { KIND_DATA = 0x44415441, KIND_END = 0x454e4421 };

enum outcome { GOOD, REFUSED, RESET, FALSE_EOF, CORRUPT, TIMED_OUT, OUTCOMES };
static const char *const outcome_names[] = { "good", "refused", "reset", "false_eof", "corrupt", "timed_out" };

struct stream {
	int fd;
	bool server, is_short, connected, want_write;
	bool sent_end, got_end, got_eof;
	uint64_t seed;
	uint32_t sent, got;       /* whole records */
	uint32_t limit;           /* records to be sent before END; UINT32_MAX: until told */
	uint32_t allowance;       /* records that may be sent now */
	uint32_t rate;            /* records a second */
	uint32_t out_at, out_end; /* in out: bytes to be written */
	uint32_t in_at;
	uint32_t peer_got;
	int64_t moved_ms;
	uint64_t out[WORDS], in[WORDS];
	struct stream *next, *prev;
};

static struct stream streams; /* head of the ring of all */
static int epoll_fd;
static unsigned n_open;
static uint64_t outcomes[2][OUTCOMES], bytes_checked;

static volatile sig_atomic_t told_to_end;

static void on_term(int number)
{
	(void)number;
	told_to_end = 1;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

/* Word i of the record of this number, in one direction. The first is kind and number, the second free to use. */
static uint64_t word(const struct stream *stream, bool from_server, uint32_t number, unsigned i)
{
	return mix(stream->seed * 2 + from_server + ((uint64_t)number << 8 | i) * 0x100000001b3);
}

static struct stream *stream_new(int fd)
{
	struct stream *stream = calloc(1, sizeof(*stream));
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP, .data.ptr = stream };

	stream->fd = fd;
	stream->limit = UINT32_MAX;
	stream->moved_ms = now_ms();
	stream->next = &streams;
	stream->prev = streams.prev;
	streams.prev->next = stream;
	streams.prev = stream;
	n_open++;
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
	return stream;
}

static void stream_end(struct stream *stream, enum outcome outcome)
{
	if (!stream->server)
		outcomes[stream->is_short][outcome]++;
	stream->prev->next = stream->next;
	stream->next->prev = stream->prev;
	close(stream->fd);
	stream->fd = -1;
	n_open--;
	free(stream);
}

static void fill(struct stream *stream)
{
	bool end = stream->sent >= stream->limit;

	stream->out[0] = (uint64_t)(end ? KIND_END : KIND_DATA) << 32 | stream->sent;
	stream->out[1] = stream->server ? stream->got : stream->seed;
	for (unsigned i = 2; i < WORDS; i++)
		stream->out[i] = word(stream, stream->server, stream->sent, i);
	stream->out_at = 0;
	stream->out_end = RECORD;
	stream->sent_end = end;
	stream->sent++;
}

/* -1: broken. */
static int push(struct stream *stream)
{
	for (;;) {
		ssize_t n;

		if (stream->out_at == stream->out_end) {
			if (stream->sent_end)
				return 0;
			if (stream->allowance == 0 && stream->sent < stream->limit)
				return 0;
			if (stream->server && stream->seed == 0)
				return 0;
			stream->allowance -= stream->allowance > 0;
			fill(stream);
		}
		n = send(stream->fd, (char *)stream->out + stream->out_at, stream->out_end - stream->out_at,
		        MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN ? 0 : -1;
		stream->moved_ms = now_ms();
		stream->out_at += (uint32_t)n;
		if (stream->out_at == stream->out_end && stream->sent_end)
			shutdown(stream->fd, SHUT_WR);
	}
}

/* A whole record has come. False: not what was sent. */
static bool check(struct stream *stream)
{
	uint32_t number = (uint32_t)stream->in[0];

	if (stream->server && stream->got == 0)
		stream->seed = stream->in[1];
	if (number != stream->got || stream->got_end)
		return false;
	for (unsigned i = 2; i < WORDS; i++)
		if (stream->in[i] != word(stream, !stream->server, number, i))
			return false;
	stream->got_end = stream->in[0] >> 32 == KIND_END;
	stream->peer_got = (uint32_t)stream->in[1];
	stream->got++;
	bytes_checked += RECORD;
	return true;
}

/* GOOD: goes on. */
static enum outcome pull(struct stream *stream)
{
	while (!stream->got_eof) {
		ssize_t n = recv(stream->fd, (char *)stream->in + stream->in_at, RECORD - stream->in_at, 0);

		if (n < 0)
			return errno == EAGAIN ? GOOD : stream->connected ? RESET : REFUSED;
		stream->moved_ms = now_ms();
		if (n == 0) {
			stream->got_eof = true;
			if (!stream->got_end)
				return FALSE_EOF;
			break;
		}
		stream->in_at += (uint32_t)n;
		if (stream->in_at == RECORD) {
			stream->in_at = 0;
			if (!check(stream))
				return CORRUPT;
		}
	}
	return GOOD;
}

/* Whatever can be done now. */
static void work(struct stream *stream)
{
	enum outcome outcome = pull(stream);

	if (outcome != GOOD) {
		stream_end(stream, outcome);
		return;
	}
	if (stream->server && stream->got_eof)
		stream->limit = stream->sent_end ? stream->limit : stream->sent;
	if (push(stream) < 0) {
		stream_end(stream, stream->connected ? RESET : REFUSED);
		return;
	}
	if (!stream->got_eof || !stream->sent_end || stream->out_at != stream->out_end)
		return;
	stream_end(stream, stream->server || stream->peer_got == stream->sent ? GOOD : CORRUPT);
}

static void handle(struct stream *stream, uint32_t events)
{
	if (!stream->server && !stream->connected && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
		int error = 0;
		socklen_t length = sizeof(error);

		if (events & (EPOLLERR | EPOLLHUP))
			getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &error, &length);
		if (error) {
			stream_end(stream, error == ECONNREFUSED ? REFUSED : error == ETIMEDOUT ? TIMED_OUT : RESET);
			return;
		}
		stream->connected = true;
	}
	work(stream);
}

/* More allowance for each, by its rate; those that stall are given up. */
static void tick(uint64_t number)
{
	int64_t now = now_ms();

	for (struct stream *stream = streams.next, *next; stream != &streams; stream = next) {
		next = stream->next;
		if (!stream->server && now - stream->moved_ms > STALL_MS) {
			stream_end(stream, TIMED_OUT);
			continue;
		}
		if (stream->is_short || stream->rate == 0 || (number + stream->seed) % (1000 / TICK_MS / 4) != 0)
			continue;
		if (stream->allowance < stream->rate)
			stream->allowance += stream->rate / 4;
		work(stream);
	}
}

static void loop_once(uint64_t *ticks, int64_t *next_tick, int listen_fd, uint32_t server_rate)
{
	struct epoll_event events[256];
	int64_t left = *next_tick - now_ms();
	int n = epoll_wait(epoll_fd, events, 256, left > 0 ? (int)left : 0);

	for (int i = 0; i < n; i++) {
		if (events[i].data.ptr) {
			handle(events[i].data.ptr, events[i].events);
			continue;
		}
		for (int fd; (fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
			struct stream *stream = stream_new(fd);

			stream->server = stream->connected = true;
			stream->rate = server_rate;
			work(stream);
		}
	}
	/* Ticks that a loaded machine has missed are not made up for: they would be all that is ever done. */
	if (now_ms() >= *next_tick) {
		tick((*ticks)++);
		*next_tick = now_ms() + TICK_MS;
	}
}

static int serve(uint16_t port)
{
	struct sockaddr_in6 address = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct epoll_event event = { .events = EPOLLIN };
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
	int64_t next_tick = now_ms();
	uint64_t ticks = 0;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 4096) < 0) {
		perror("gwstream");
		return 1;
	}
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
	for (;;)
		loop_once(&ticks, &next_tick, fd, 20);
}

static struct stream *dial(const struct sockaddr_storage *address, socklen_t length, uint64_t seed)
{
	int fd = socket(address->ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct stream *stream;

	if (fd < 0 || (connect(fd, (const struct sockaddr *)address, length) < 0 && errno != EINPROGRESS)) {
		perror("gwstream");
		exit(1);
	}
	stream = stream_new(fd);
	stream->seed = seed;
	return stream;
}

static void print_outcomes(const char *name, const uint64_t *counts)
{
	printf("\"%s\": {", name);
	for (unsigned i = 0; i < OUTCOMES; i++)
		printf("%s\"%s\": %llu", i ? ", " : "", outcome_names[i], (unsigned long long)counts[i]);
	printf("}");
}

static int run(char **argv)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(argv[1])) };
	bool is_v4 = inet_pton(AF_INET, argv[0], &v4.sin_addr) == 1;
	unsigned n = (unsigned)atoi(argv[2]), rate = (unsigned)atoi(argv[3]) / RECORD, per_s = (unsigned)atoi(argv[5]);
	struct sockaddr_storage address = { 0 };
	int64_t start = now_ms(), end = start + atoi(argv[4]) * 1000, next_tick = start, opened = 0;
	uint64_t ticks = 0, seed = (uint64_t)start << 20;
	bool ending = false;

	if (!is_v4 && inet_pton(AF_INET6, argv[0], &v6.sin6_addr) != 1)
		return 2;
	signal(SIGTERM, on_term);
	memcpy(&address, is_v4 ? (void *)&v4 : (void *)&v6, is_v4 ? sizeof(v4) : sizeof(v6));
	for (unsigned i = 0; i < n; i++)
		dial(&address, is_v4 ? sizeof(v4) : sizeof(v6), ++seed)->rate = rate;
	while (n_open > 0 || !ending) {
		int64_t now = now_ms();

		if (!ending && (told_to_end || now >= end)) {
			ending = true;
			for (struct stream *stream = streams.next; stream != &streams; stream = stream->next)
				if (!stream->is_short)
					stream->limit = stream->sent;
		}
		for (; !ending && opened * 1000 < (now - start) * per_s && n_open < OPEN_MAX; opened++) {
			struct stream *stream = dial(&address, is_v4 ? sizeof(v4) : sizeof(v6), ++seed);

			stream->is_short = true;
			stream->limit = stream->allowance = SHORT;
		}
		loop_once(&ticks, &next_tick, -1, 0);
	}
	printf("{");
	print_outcomes("streams", outcomes[0]);
	printf(", ");
	print_outcomes("short", outcomes[1]);
	printf(", \"bytes_checked\": %llu}\n", (unsigned long long)bytes_checked);
	return 0;
}

int main(int argc, char **argv)
{
	struct rlimit limit;

	signal(SIGPIPE, SIG_IGN);
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	streams.next = streams.prev = &streams;
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (argc == 3 && strcmp(argv[1], "serve") == 0)
		return serve((uint16_t)atoi(argv[2]));
	if (argc == 8 && strcmp(argv[1], "run") == 0)
		return run(argv + 2);
	fprintf(stderr, "usage: gwstream serve PORT | run ADDRESS PORT STREAMS RATE SECONDS NEW_PER_SECOND\n");
	return 2;
}
