/*
 * The listening sockets of one thread, and the admission of what they accept:
 * original destination, ingress interface, listener, target. Made by the
 * daemon and bound to a loopback address; tproxy delivers to them.
 */
#ifndef GW_RELAY_LISTEN_H
#define GW_RELAY_LISTEN_H

#include "gatewayd/base/addr.h"
#include "gatewayd/relay/wheel.h"

struct loop;

/* Connections accepted from one socket before other work has its turn. */
#define LISTEN_BATCH 64
/* Without memory or descriptors, accepting rests this long. */
#define LISTEN_REST_MS 100
/* Most sockets of one thread: two families, and the sockets of more threads than there are here. */
#define LISTEN_SOCKETS_MAX 256

struct listen_socket {
	int fd;
	struct addr addr; /* its own address and port: a destination equal to it is a loop */
	uint16_t port;
	bool polled;
};

struct listen_sockets {
	struct listen_socket socket[LISTEN_SOCKETS_MAX];
	uint32_t n;
	bool open; /* a configuration is in force; until then connections wait in the sockets' queues */
	bool draining;
	int reserve_fd;          /* given up for a moment to accept and reset a connection when descriptors run out */
	struct wheel_entry rest; /* set while accepting rests */
};

/* 0 or a negative errno. */
int listen_init(struct listen_sockets *sockets);
/* Accepts from the socket, which stays the caller's, as soon as listen_open was called. -ENOSPC or another negative
 * errno. */
int listen_add(struct loop *loop, int fd);
/* Begins to accept, if it has not begun: there is a configuration to classify connections by. */
void listen_open(struct loop *loop);
/* Stops accepting for good; the sockets stay open. */
void listen_drain(struct loop *loop);
/* Accepts what waits at the socket of this number, at most a batch. */
void listen_accept(struct loop *loop, uint32_t number);
/* The timer `rest` was handed out: accepts again. */
void listen_rested(struct loop *loop);

#endif
