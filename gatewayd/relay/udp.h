/*
 * UDP of one thread: from datagrams of clients to flows, to targets, and back.
 *
 * Theory of operation: tproxy delivers what clients send to the thread's own
 * listening sockets, many clients' at once. The kernel spreads clients among
 * the threads by address and port, so that all flows of one of their sockets
 * are in one thread. Each flow has a socket of its own that is connected to
 * the target, from the client's address and port, so that the kernel tells
 * whose answer it is. Answers go out of a socket at the original destination,
 * which flows share. Datagrams are taken and sent in batches, each once into
 * and once out of a buffer of the thread's.
 *
 * A flow is nothing but a memory of a choice: when it is lost (evicted, idle,
 * with a dead relay), the next datagram makes it again, with the same client,
 * port and destination, and neither side can tell.
 *
 * What is not a flow's, though its socket got it (see udp_socket.h for why that
 * can hardly be), is dealt with as if it had come by itself: as a client's, or,
 * where no listener wants it, sent on to where it was going.
 */
#ifndef GW_RELAY_UDP_H
#define GW_RELAY_UDP_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "gatewayd/base/sockmark.h"
#include "gatewayd/relay/udp_inbox.h"
#include "gatewayd/relay/udp_outbox.h"
#include "gatewayd/relay/udp_reply.h"
#include "gatewayd/relay/udp_table.h"

struct loop;

/* Most listening sockets of one thread: two families, and those of more threads than there are here. */
#define UDP_LISTEN_MAX 256
/* Batches taken from one socket before others have their turn. */
#define UDP_ROUNDS 4
/* From so many datagrams in one go on, a socket is asked to let the kernel put them together. */
#define UDP_GATHER_MIN 16
static_assert(UDP_BATCH + 1 <= UDP_HELD_MAX, "and the one whose answers are looked at");

struct udp {
	struct udp_table table;
	struct udp_replies replies;
	struct udp_inbox from_clients, from_targets;
	struct udp_outbox to_target, to_client;
	struct sockmark mark;
	int listen_fds[UDP_LISTEN_MAX];
	uint32_t n_listen;
	uint32_t config_version; /* grows with each change of the configuration */
	bool open;               /* a configuration is in force; until then datagrams wait in the sockets */
	bool draining;
};

/* For a thread whose flows, of connections and UDP together, are at most max_flows. 0 or -ENOMEM. */
int udp_new(uint32_t max_flows, struct udp **ret);
/* Legal for NULL. Closes no flow's sockets: they end with the process. */
void udp_free(struct udp *udp);
/* Reads from the socket, which stays the caller's, as soon as udp_config_changed was called. -ENOSPC or another
 * negative errno. */
int udp_listen(struct loop *loop, int fd);
/* There is a configuration, or another one. */
void udp_config_changed(struct loop *loop);
/* Ceases to read what clients send; another relay does. */
void udp_drain(struct loop *loop);
/* Whether the event is of a UDP socket; then it has been dealt with. */
bool udp_event(struct loop *loop, uint64_t cookie);
/* Whether the timer, which was handed out, is of a UDP flow; then it has been dealt with. */
bool udp_timer(struct loop *loop, struct wheel_entry *timer);
/* Sends the answers that were gathered. To be called at the end of each turn. */
void udp_flush(struct loop *loop);
/* Ends the flow of this number if it still has this id. */
bool udp_kill(struct loop *loop, uint32_t index, uint64_t id);
/* Gives the place of a flow to a connection that would find none. */
void udp_yield(struct loop *loop);

#endif
