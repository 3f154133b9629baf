/*
 * Requests over HTTP, on kept-alive connections or one on each. Knows just
 * enough of HTTP to count answers and to read bodies of any size. One epoll
 * loop per thread.
 */
#include "gwload.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS_MAX  256
#define HEAD_MAX    4096
#define BODY_BUFFER (256 * 1024)
#define STUCK_NS    (20 * NS_PER_S) /* nothing at all has moved for so long: the run is over */

enum mode { MODE_HTTP, MODE_CONN, MODE_COUNT };

/* One connection; in a slot for good, its descriptor changes. */
struct connection {
	int fd;
	bool connected;
	size_t length;    /* of what is in head */
	size_t body_left; /* of the answer that is being read; its head is through */
	int64_t started_ns;
	bool resting; /* until due_ns, where there is a rate */
	int64_t due_ns;
	char head[HEAD_MAX];
};

struct worker {
	pthread_t thread;
	int epoll;
	unsigned n_connections;
	struct connection *connections;
	uint64_t done, refused, reset, broken, timed_out;
	int64_t lost_oldest_ns; /* of those that were reset or broken, the greatest age; of one kept alive, its
	                           request's */
	struct latencies latencies;
	char *body;
};

static struct {
	enum mode mode;
	struct peer peer;
	char request[1024];
	size_t request_length;
	int64_t deadline_ns;
	int64_t pause_ns; /* between the requests of one connection; 0: none */
	atomic_long left; /* connections still to be opened, MODE_COUNT */
} load;

/* Opens the slot's next connection, unless the run is over. */
static void connection_open(struct worker *worker, struct connection *connection)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = connection };

	connection->fd = -1;
	if (load.mode == MODE_COUNT ? atomic_fetch_sub(&load.left, 1) <= 0 : now_ns() >= load.deadline_ns)
		return;
	connection->connected = connection->resting = false;
	connection->due_ns = now_ns();
	connection->length = connection->body_left = 0;
	connection->started_ns = now_ns();
	connection->fd = peer_connect(&load.peer, SOCK_STREAM);
	if (epoll_ctl(worker->epoll, EPOLL_CTL_ADD, connection->fd, &event))
		die("epoll_ctl");
}

/* Closes it, for the given reason or none, and opens the next one in its place. */
static void connection_next(struct worker *worker, struct connection *connection, int error)
{
	if (error == ECONNREFUSED)
		worker->refused++;
	else if (error == ECONNRESET || error == EPIPE)
		worker->reset++;
	else if (error == ETIMEDOUT || error == EHOSTUNREACH || error == ENETUNREACH)
		worker->timed_out++;
	else if (error)
		worker->broken++;
	if (error && connection->connected && now_ns() - connection->started_ns > worker->lost_oldest_ns)
		worker->lost_oldest_ns = now_ns() - connection->started_ns;
	close(connection->fd);
	connection_open(worker, connection);
}

static int send_request(struct connection *connection)
{
	ssize_t n = send(connection->fd, load.request, load.request_length, MSG_NOSIGNAL);

	connection->length = 0;
	connection->started_ns = now_ns();
	return n == (ssize_t)load.request_length ? 0 : n < 0 ? errno : EMSGSIZE;
}

/* Length of the head and body that begin the buffer; 0: the head is not complete; -1: not an answer. */
static long answer_length(struct connection *connection)
{
	char *end, *field;

	connection->head[connection->length] = '\0';
	end = strstr(connection->head, "\r\n\r\n");
	if (!end)
		return 0;
	if (strncmp(connection->head, "HTTP/1.1 200", 12) != 0)
		return -1;
	field = strcasestr(connection->head, "\r\nContent-Length:");
	return field && field < end ? end + 4 - connection->head + atol(field + 17) : -1;
}

/* Reads the body's rest away. Returns 1 when it is through, 0 to go on later, else the error (negative). */
static int read_body(struct worker *worker, struct connection *connection)
{
	while (connection->body_left > 0) {
		size_t most = connection->body_left < BODY_BUFFER ? connection->body_left : BODY_BUFFER;
		ssize_t n = recv(connection->fd, worker->body, most, 0);

		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		if (n == 0)
			return -EPROTO;
		connection->body_left -= (size_t)n;
	}
	return 1;
}

/* Reads the head, and what of the body comes with it. Returns as read_body does. */
static int read_head(struct connection *connection)
{
	for (;;) {
		size_t room = sizeof(connection->head) - 1 - connection->length;
		ssize_t n = recv(connection->fd, connection->head + connection->length, room, 0);
		long whole;

		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		if (n == 0)
			return -EPROTO; /* the answer was not complete, or it would have ended below */
		connection->length += (size_t)n;
		whole = answer_length(connection);
		if (whole < 0 || (whole == 0 && connection->length == sizeof(connection->head) - 1) ||
		        (whole > 0 && connection->length > (size_t)whole))
			return -EPROTO;
		if (whole > 0) {
			connection->body_left = (size_t)whole - connection->length;
			return 1;
		}
	}
}

/* Takes what has come. Returns 0 to go on, else the error that ends the connection; -1 for an orderly end. */
static int connection_read(struct worker *worker, struct connection *connection)
{
	int r = connection->body_left ? 1 : read_head(connection);

	if (r > 0)
		r = read_body(worker, connection);
	if (r <= 0)
		return -r;
	worker->done++;
	latencies_add(&worker->latencies, connection->started_ns, now_ns());
	if (load.mode != MODE_HTTP || now_ns() >= load.deadline_ns)
		return -1;
	if (load.pause_ns > 0) {
		connection->resting = true;
		connection->due_ns += load.pause_ns;
		return 0;
	}
	return send_request(connection);
}

/* Those whose time has come ask again, or end with the run. */
static void wake(struct worker *worker)
{
	int64_t now = now_ns();

	for (unsigned i = 0; i < worker->n_connections; i++) {
		struct connection *connection = &worker->connections[i];
		int error;

		if (connection->fd < 0 || !connection->resting || (now < connection->due_ns && now < load.deadline_ns))
			continue;
		connection->resting = false;
		error = now < load.deadline_ns ? send_request(connection) : -1;
		if (error)
			connection_next(worker, connection, error < 0 ? 0 : error);
	}
}

static void connection_event(struct worker *worker, struct connection *connection, uint32_t events)
{
	int error = 0;

	if (!connection->connected) {
		socklen_t length = sizeof(error);
		if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
			return;
		getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &length);
		if (!error) {
			int64_t started = connection->started_ns;
			connection->connected = true;
			error = send_request(connection);
			if (load.mode != MODE_HTTP)
				connection->started_ns = started; /* the time of a connection includes its making */
		}
	}
	if (!error)
		error = connection_read(worker, connection);
	if (error)
		connection_next(worker, connection, error < 0 ? 0 : error);
}

static bool worker_busy(const struct worker *worker)
{
	for (unsigned i = 0; i < worker->n_connections; i++) {
		if (worker->connections[i].fd >= 0)
			return true;
	}
	return false;
}

static void *worker_main(void *argument)
{
	struct worker *worker = argument;
	struct epoll_event events[EVENTS_MAX];
	int64_t idle_since = now_ns();

	for (unsigned i = 0; i < worker->n_connections; i++)
		connection_open(worker, &worker->connections[i]);
	while (worker_busy(worker)) {
		int n = epoll_wait(worker->epoll, events, EVENTS_MAX, load.pause_ns > 0 ? 1 : 100);

		if (n > 0)
			idle_since = now_ns();
		for (int i = 0; i < n; i++)
			connection_event(worker, events[i].data.ptr, events[i].events);
		if (load.pause_ns > 0)
			wake(worker);
		if (now_ns() - idle_since > STUCK_NS) {
			for (unsigned i = 0; i < worker->n_connections; i++)
				worker->timed_out += worker->connections[i].fd >= 0;
			break;
		}
	}
	return NULL;
}

static void print_result(struct worker *workers, unsigned n, double seconds)
{
	struct worker sum = { 0 };

	for (unsigned i = 0; i < n; i++) {
		sum.done += workers[i].done;
		sum.refused += workers[i].refused;
		sum.reset += workers[i].reset;
		sum.broken += workers[i].broken;
		sum.timed_out += workers[i].timed_out;
		if (workers[i].lost_oldest_ns > sum.lost_oldest_ns)
			sum.lost_oldest_ns = workers[i].lost_oldest_ns;
		latencies_merge(&sum.latencies, &workers[i].latencies);
	}
	printf("{\"done\": %llu, \"refused\": %llu, \"reset\": %llu, \"broken\": %llu, \"timed_out\": %llu, "
	       "\"lost_oldest_ms\": %.1f, \"seconds\": %.3f, \"per_second\": %.1f, ",
	        (unsigned long long)sum.done, (unsigned long long)sum.refused, (unsigned long long)sum.reset,
	        (unsigned long long)sum.broken, (unsigned long long)sum.timed_out, (double)sum.lost_oldest_ns / 1e6,
	        seconds, (double)sum.done / seconds);
	latencies_print(&sum.latencies);
	printf("}\n");
	free(sum.latencies.values);
}

static void worker_init(struct worker *worker, unsigned n_connections)
{
	worker->epoll = epoll_create1(EPOLL_CLOEXEC);
	worker->n_connections = n_connections;
	worker->connections = calloc(n_connections, sizeof(*worker->connections));
	worker->body = malloc(BODY_BUFFER);
	latencies_init(&worker->latencies);
	if (worker->epoll < 0 || !worker->connections || !worker->body)
		die("worker");
}

int load_requests(char **argument, const char *mode)
{
	static struct worker workers[THREADS_MAX];
	unsigned n_connections = (unsigned)atoi(argument[3]), n = (unsigned)atoi(argument[5]);
	const char *header = getenv("GWLOAD_HEADER"), *rate = getenv("GWLOAD_RATE");
	int64_t started;

	load.mode = strcmp(mode, "http") == 0 ? MODE_HTTP : strcmp(mode, "conn") == 0 ? MODE_CONN : MODE_COUNT;
	peer_set(&load.peer, argument[0], argument[1]);
	load.request_length = (size_t)snprintf(load.request, sizeof(load.request),
	        "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s%s%s\r\n", argument[2],
	        load.mode == MODE_HTTP ? "" : "Connection: close\r\n", header ? header : "", header ? "\r\n" : "");
	if (rate && atof(rate) > 0 && load.mode == MODE_HTTP)
		load.pause_ns = (int64_t)(1e9 * n_connections / atof(rate));
	if (n < 1 || n > THREADS_MAX || n_connections < n || load.request_length >= sizeof(load.request)) {
		fprintf(stderr, "gwload: arguments out of range\n");
		return 2;
	}
	atomic_store(&load.left, atol(argument[4]));
	started = now_ns();
	load.deadline_ns = started + (int64_t)(atof(argument[4]) * 1e9);
	for (unsigned i = 0; i < n; i++)
		worker_init(&workers[i], n_connections / n + (i < n_connections % n));
	for (unsigned i = 0; i < n; i++) {
		if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]))
			die("pthread_create");
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(workers[i].thread, NULL);
	print_result(workers, n, (double)(now_ns() - started) / 1e9);
	return 0;
}
