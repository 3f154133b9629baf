/*
 * The bench's load generator: one epoll loop per thread, so that the client
 * side is never what is measured. Knows just enough of HTTP to count answers.
 *
 *   gwload http  ADDRESS PORT PATH CONNECTIONS SECONDS THREADS   requests on kept-alive connections
 *   gwload conn  ADDRESS PORT PATH CONNECTIONS SECONDS THREADS   one request on each connection; the server closes
 *   gwload count ADDRESS PORT PATH CONNECTIONS TOTAL   THREADS   the same, until TOTAL connections are done
 *   gwload bulk  ADDRESS PORT STREAMS SECONDS                    sends; the peer is gwload sink
 *   gwload sink  PORT                                            accepts, reads, throws away
 *
 * In the environment: GWLOAD_RATE, requests a second of all connections of
 * "http" together instead of as many as go; GWLOAD_HEADER, a line for the head
 * of each request.
 *
 * Prints one line of JSON: done, failed (by kind), seconds, per second, and
 * latency in microseconds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
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

#define THREADS_MAX   16
#define EVENTS_MAX    256
#define LATENCIES_MAX (1 << 20)
#define BULK_BUFFER   (256 * 1024)
#define ANSWER_MAX    4096

enum mode { MODE_HTTP, MODE_CONN, MODE_COUNT };

/* One connection; in a slot for good, its descriptor changes. */
struct connection {
	int fd;
	bool connected;
	size_t length; /* of what is in answer */
	int64_t started_ns;
	bool resting; /* until due_ns, where there is a rate */
	int64_t due_ns;
	char answer[ANSWER_MAX];
};

struct worker {
	pthread_t thread;
	int epoll;
	unsigned n_connections;
	struct connection *connections;
	uint64_t done, refused, reset, broken, timed_out;
	uint32_t *latencies; /* microseconds */
	size_t n_latencies;
};

static struct {
	enum mode mode;
	struct sockaddr_storage peer;
	socklen_t peer_length;
	char request[1024];
	size_t request_length;
	int64_t deadline_ns;
	int64_t pause_ns; /* between the requests of one connection; 0: none */
	atomic_long left; /* connections still to be opened, MODE_COUNT */
} load;

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void set_peer(const char *address, const char *port)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&load.peer;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&load.peer;
	uint16_t number = htons((uint16_t)atoi(port));

	if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = number;
		load.peer_length = sizeof(*v4);
	} else if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = number;
		load.peer_length = sizeof(*v6);
	} else {
		fprintf(stderr, "gwload: %s is no address\n", address);
		exit(2);
	}
}

/* Opens the slot's next connection, unless the run is over. */
static void connection_open(struct worker *worker, struct connection *connection)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = connection };
	int one = 1;

	connection->fd = -1;
	if (load.mode == MODE_COUNT ? atomic_fetch_sub(&load.left, 1) <= 0 : now_ns() >= load.deadline_ns)
		return;
	connection->fd = socket(load.peer.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (connection->fd < 0)
		die("socket");
	connection->connected = connection->resting = false;
	connection->length = 0;
	connection->due_ns = now_ns();
	connection->started_ns = now_ns();
	setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(connection->fd, (struct sockaddr *)&load.peer, load.peer_length) && errno != EINPROGRESS)
		die("connect");
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

/* Length of the whole answer that begins the buffer; 0: its head is not complete; -1: not an answer. */
static long answer_length(struct connection *connection)
{
	char *end, *field;

	connection->answer[connection->length] = '\0';
	end = strstr(connection->answer, "\r\n\r\n");
	if (!end)
		return 0;
	if (strncmp(connection->answer, "HTTP/1.1 200", 12) != 0)
		return -1;
	field = strcasestr(connection->answer, "\r\nContent-Length:");
	return field && field < end ? end + 4 - connection->answer + atol(field + 17) : -1;
}

static void note_latency(struct worker *worker, const struct connection *connection)
{
	worker->done++;
	if (worker->n_latencies < LATENCIES_MAX)
		worker->latencies[worker->n_latencies++] = (uint32_t)((now_ns() - connection->started_ns) / 1000);
}

/* Takes what has come. Returns 0 to go on, else the error that ends the connection; -1 for an orderly end. */
static int connection_read(struct worker *worker, struct connection *connection)
{
	for (;;) {
		size_t room = sizeof(connection->answer) - 1 - connection->length;
		ssize_t n = recv(connection->fd, connection->answer + connection->length, room, 0);
		long whole;

		if (n < 0)
			return errno == EAGAIN ? 0 : errno;
		if (n == 0)
			return EPROTO; /* the answer was not complete, or it would have ended below */
		connection->length += (size_t)n;
		whole = answer_length(connection);
		if (whole < 0)
			return EPROTO;
		if (whole == 0 || connection->length < (size_t)whole)
			continue;
		note_latency(worker, connection);
		if (load.mode != MODE_HTTP || now_ns() >= load.deadline_ns)
			return -1;
		if (load.pause_ns > 0) {
			connection->resting = true;
			connection->due_ns += load.pause_ns;
			return 0;
		}
		return send_request(connection);
	}
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
		if (now_ns() - idle_since > 20 * 1000000000LL) {
			for (unsigned i = 0; i < worker->n_connections; i++)
				worker->timed_out += worker->connections[i].fd >= 0;
			break; /* nothing has moved for 20 seconds */
		}
	}
	return NULL;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

static void print_result(struct worker *workers, unsigned n, double seconds)
{
	struct worker sum = { 0 };

	for (unsigned i = 0; i < n; i++)
		sum.n_latencies += workers[i].n_latencies;
	sum.latencies = calloc(sum.n_latencies + 1, sizeof(*sum.latencies));
	if (!sum.latencies)
		die("calloc");
	sum.n_latencies = 0;
	for (unsigned i = 0; i < n; i++) {
		sum.done += workers[i].done;
		sum.refused += workers[i].refused;
		sum.reset += workers[i].reset;
		sum.broken += workers[i].broken;
		sum.timed_out += workers[i].timed_out;
		memcpy(sum.latencies + sum.n_latencies, workers[i].latencies,
		        workers[i].n_latencies * sizeof(*sum.latencies));
		sum.n_latencies += workers[i].n_latencies;
	}
	qsort(sum.latencies, sum.n_latencies, sizeof(*sum.latencies), compare_u32);
	printf("{\"done\": %llu, \"refused\": %llu, \"reset\": %llu, \"broken\": %llu, \"timed_out\": %llu, "
	       "\"seconds\": %.3f, \"per_second\": %.1f, \"p50_us\": %u, \"p99_us\": %u, \"max_us\": %u}\n",
	        (unsigned long long)sum.done, (unsigned long long)sum.refused, (unsigned long long)sum.reset,
	        (unsigned long long)sum.broken, (unsigned long long)sum.timed_out, seconds, (double)sum.done / seconds,
	        sum.latencies[sum.n_latencies / 2], sum.latencies[sum.n_latencies * 99 / 100],
	        sum.latencies[sum.n_latencies ? sum.n_latencies - 1 : 0]);
	free(sum.latencies);
}

static void worker_init(struct worker *worker, unsigned n_connections)
{
	worker->epoll = epoll_create1(EPOLL_CLOEXEC);
	worker->n_connections = n_connections;
	worker->connections = calloc(n_connections, sizeof(*worker->connections));
	worker->latencies = calloc(LATENCIES_MAX, sizeof(*worker->latencies));
	if (worker->epoll < 0 || !worker->connections || !worker->latencies)
		die("worker");
}

static int run_requests(char **argument)
{
	static struct worker workers[THREADS_MAX];
	unsigned n_connections = (unsigned)atoi(argument[3]), n = (unsigned)atoi(argument[5]);
	const char *header = getenv("GWLOAD_HEADER"), *rate = getenv("GWLOAD_RATE");
	int64_t started;

	set_peer(argument[0], argument[1]);
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

static void *bulk_stream(void *argument)
{
	uint64_t *moved = argument;
	char *buffer = calloc(1, BULK_BUFFER);
	int fd = socket(load.peer.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (!buffer || fd < 0 || connect(fd, (struct sockaddr *)&load.peer, load.peer_length))
		die("connect");
	while (now_ns() < load.deadline_ns) {
		ssize_t n = send(fd, buffer, BULK_BUFFER, MSG_NOSIGNAL);
		if (n <= 0)
			die("send");
		*moved += (uint64_t)n;
	}
	close(fd);
	free(buffer);
	return NULL;
}

static int run_bulk(char **argument)
{
	pthread_t threads[THREADS_MAX];
	uint64_t moved[THREADS_MAX] = { 0 }, sum = 0;
	unsigned n = (unsigned)atoi(argument[2]);
	int64_t started = now_ns();
	double seconds;

	set_peer(argument[0], argument[1]);
	load.deadline_ns = started + (int64_t)(atof(argument[3]) * 1e9);
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

_Noreturn static void run_sink(char **argument)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(argument[0])) };
	int listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, zero = 0;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(listener, (struct sockaddr *)&any, sizeof(any)) || listen(listener, 1024))
		die("listen");
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

int main(int argc, char **argv)
{
	struct rlimit descriptors = { 65536, 65536 };
	const char *mode = argc > 1 ? argv[1] : "";

	setrlimit(RLIMIT_NOFILE, &descriptors);
	load.mode = strcmp(mode, "http") == 0 ? MODE_HTTP : strcmp(mode, "conn") == 0 ? MODE_CONN : MODE_COUNT;
	if (argc == 8 && (load.mode != MODE_COUNT || strcmp(mode, "count") == 0))
		return run_requests(argv + 2);
	if (argc == 6 && strcmp(mode, "bulk") == 0)
		return run_bulk(argv + 2);
	if (argc == 3 && strcmp(mode, "sink") == 0)
		run_sink(argv + 2);
	fprintf(stderr, "usage: gwload http|conn ADDRESS PORT PATH CONNECTIONS SECONDS THREADS\n"
	                "       gwload count ADDRESS PORT PATH CONNECTIONS TOTAL THREADS\n"
	                "       gwload bulk ADDRESS PORT STREAMS SECONDS\n       gwload sink PORT\n");
	return 2;
}
