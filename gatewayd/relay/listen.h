/*
 * The listening sockets of one thread, and the admission of what they accept:
 * original destination, ingress interface, listener, target. Made by the
 * daemon and bound to a loopback address; tproxy delivers to them.
 *
 * Theory of operation: each thread has sockets of its own, among which the
 * kernel spreads connections by a hash. Some other threads help with them: a
 * connection wakes one thread, the owner if it is idle, else an idle helper.
 * So flows are spread evenly while there is little to do, and none waits for
 * a busy thread, or for a processor taken by another program, while another
 * thread could serve it. The kernel asks the waiters in the order in which
 * they began to poll, therefore helpers begin later than owners.
 */
#ifndef GW_RELAY_LISTEN_H
#define GW_RELAY_LISTEN_H

#include "gatewayd/base/addr.h"
#include "gatewayd/relay/wheel.h"

struct loop;

/* Threads that help with a socket; bounds the waiters that the kernel looks at for each connection. */
#define LISTEN_HELPERS 3
/* How much later than the owners helpers begin. */
#define LISTEN_HELP_MS 100
/* Where a connection can neither be accepted nor refused, accepting rests this long. */
#define LISTEN_REST_MS 100
/* Most sockets of one thread: two families, and the sockets of more threads than there are here. */
#define LISTEN_SOCKETS_MAX 256

struct listen_socket {
	int fd;
	struct addr addr; /* its own address and port: a destination equal to it is a loop */
	uint16_t port;
	bool helped; /* another thread's */
	bool polled;
};

struct listen_sockets {
	struct listen_socket socket[LISTEN_SOCKETS_MAX];
	uint32_t n;
	bool open; /* a configuration is in force; until then connections wait in the sockets' queues */
	bool draining;
	int reserve_fd;          /* given up for a moment to accept and reset a connection when descriptors run out */
	struct wheel_entry rest; /* set while accepting, or helping, rests */
};

/* 0 or a negative errno. */
int listen_init(struct listen_sockets *sockets);
/* Accepts from the socket, which stays the caller's, as soon as listen_open was called. helped: it is another
 * thread's own. -ENOSPC or another negative errno. */
int listen_add(struct loop *loop, int fd, bool helped);
/* Begins to accept, if it has not begun: there is a configuration to classify connections by. */
void listen_open(struct loop *loop);
/* Stops accepting for good; the sockets stay open. */
void listen_drain(struct loop *loop);
/* Accepts a connection that waits at the socket of this number, if another thread has not. One at a time, so that
 * those behind it can go to an idle thread. */
void listen_accept(struct loop *loop, uint32_t number);
/* The timer `rest` was handed out: accepts again, or helps. */
void listen_rested(struct loop *loop);

#endif
