/*
 * The load generator's shared parts: time, the peer's address, latencies and
 * their percentiles. gwload.c has the command line; one file for each kind of load.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define THREADS_MAX   16
#define LATENCIES_MAX (1 << 20)
#define NS_PER_S      1000000000LL

/* Where the load goes. */
struct peer {
	struct sockaddr_storage address;
	socklen_t length;
};

/* Latencies in microseconds; of more than LATENCIES_MAX the first are kept. */
struct latencies {
	uint32_t *values;
	size_t n;
};

/* Nanoseconds of the monotonic clock, the same in every network namespace. */
int64_t now_ns(void);

/* Ends the program with the reason in errno. */
_Noreturn void die(const char *what);

/* A numeric address of either family and a port; ends the program if it is none. */
void peer_set(struct peer *ret_peer, const char *address, const char *port);

/* A connected, non-blocking socket or one that is about to be; ends the program on failure. */
int peer_connect(const struct peer *peer, int kind);

/* A socket bound to a port of every address of both families, listening if it is a stream. */
int listen_on(const char *port, int kind);

/* Room for the latencies of one thread. */
void latencies_init(struct latencies *latencies);

/* Notes the time from since_ns to until_ns. */
void latencies_add(struct latencies *latencies, int64_t since_ns, int64_t until_ns);

/* Puts those of `more` behind the others; sum grows as it must. */
void latencies_merge(struct latencies *sum, const struct latencies *more);

/* Prints `"p50_us": N, "p99_us": N, "max_us": N`; sorts. */
void latencies_print(struct latencies *latencies);

/* One for each mode; they take the arguments after the mode and return the exit code. */
int load_requests(char **argument, const char *mode);
int load_bulk(char **argument);
int load_sink(char **argument);
int load_idle(char **argument);
int load_udp(char **argument);
int load_udp_echo(char **argument);
int load_events(char **argument);
int load_events_server(char **argument);
