/*
 * The bench's load generator: epoll loops and nothing to wait for, so that the
 * client side is not what is measured.
 *
 *   gwload http  ADDRESS PORT PATH CONNECTIONS SECONDS THREADS   requests on kept-alive connections
 *   gwload conn  ADDRESS PORT PATH CONNECTIONS SECONDS THREADS   one request on each connection; the server closes
 *   gwload count ADDRESS PORT PATH CONNECTIONS TOTAL   THREADS   the same, until TOTAL connections are done
 *   gwload bulk  ADDRESS PORT STREAMS SECONDS                    sends; the peer is gwload sink
 *   gwload sink  PORT                                            accepts, reads, throws away
 *   gwload idle  ADDRESS PORT PATH CONNECTIONS                   one request on each, says "ready", holds them until a
 *                                                                line comes on stdin
 *   gwload udp   ADDRESS PORT SIZE FLOWS SECONDS                 round trips with a fixed number in flight
 *   gwload udp-echo PORT                                         sends back; answers "who" with whom it sees
 *   gwload events ADDRESS PORT CONNECTIONS SECONDS               reads server-sent events, measures their delay
 *   gwload events-server PORT RATE                               sends RATE events a second on each connection
 *
 * In the environment: GWLOAD_RATE, requests a second of all connections of
 * "http" together instead of as many as go; GWLOAD_HEADER, a line for the head
 * of each request.
 *
 * Loads print one line of JSON: what was done, what failed (by kind), seconds,
 * per second, and latency in microseconds.
 */
#include "gwload.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define DESCRIPTORS 65536

static int usage(void)
{
	fprintf(stderr,
	        "usage: gwload http|conn ADDRESS PORT PATH CONNECTIONS SECONDS THREADS\n"
	        "       gwload count ADDRESS PORT PATH CONNECTIONS TOTAL THREADS\n"
	        "       gwload bulk ADDRESS PORT STREAMS SECONDS\n       gwload sink PORT\n"
	        "       gwload idle ADDRESS PORT PATH CONNECTIONS\n"
	        "       gwload udp ADDRESS PORT SIZE FLOWS SECONDS\n       gwload udp-echo PORT\n"
	        "       gwload events ADDRESS PORT CONNECTIONS SECONDS\n       gwload events-server PORT RATE\n");
	return 2;
}

static int load_http(char **argument)
{
	return load_requests(argument, "http");
}

static int load_conn(char **argument)
{
	return load_requests(argument, "conn");
}

static int load_count(char **argument)
{
	return load_requests(argument, "count");
}

static const struct {
	const char *name;
	int n_arguments;
	int (*run)(char **argument);
} modes[] = {
	{ "http", 6, load_http },
	{ "conn", 6, load_conn },
	{ "count", 6, load_count },
	{ "bulk", 4, load_bulk },
	{ "sink", 1, load_sink },
	{ "idle", 4, load_idle },
	{ "udp", 5, load_udp },
	{ "udp-echo", 1, load_udp_echo },
	{ "events", 4, load_events },
	{ "events-server", 2, load_events_server },
};

int main(int argc, char **argv)
{
	struct rlimit descriptors = { DESCRIPTORS, DESCRIPTORS };

	if (setrlimit(RLIMIT_NOFILE, &descriptors) && !getrlimit(RLIMIT_NOFILE, &descriptors)) {
		descriptors.rlim_cur = descriptors.rlim_max; /* no right to more than the limit that we were given */
		setrlimit(RLIMIT_NOFILE, &descriptors);
	}
	for (size_t i = 0; argc > 1 && i < sizeof(modes) / sizeof(*modes); i++) {
		if (strcmp(argv[1], modes[i].name) == 0 && argc == modes[i].n_arguments + 2)
			return modes[i].run(argv + 2);
	}
	return usage();
}
