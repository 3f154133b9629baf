/*
 * The sockets that answers are sent from: one for each original destination
 * (address and port) that flows of this thread have, shared by them. They are
 * only written to.
 *
 * One per destination and not one per flow: a thousand clients of one server
 * need one descriptor and one bind, where a socket connected to each client
 * would be a thousand at one address and port, which kernels before 6.13 look
 * through one by one for every packet.
 */
#ifndef GW_RELAY_UDP_REPLY_H
#define GW_RELAY_UDP_REPLY_H

#include <stdint.h>

#include "gatewayd/base/addr.h"
#include "gatewayd/base/sockmark.h"
#include "gatewayd/relay/udp_hash.h"

struct udp_reply {
	struct addr addr;
	uint16_t port;
	int fd;
	uint32_t users;
	uint32_t next; /* in its bucket: a number + 1, 0: the last; or in the free list */
};

struct udp_replies {
	struct udp_reply *replies;
	uint32_t *buckets; /* a number + 1, 0: empty */
	uint32_t size, mask;
	uint32_t touched; /* those behind were never used and have no memory yet */
	uint32_t free_head;
	struct udp_hash hash;
};

/* Room for `size` sockets. 0 or -ENOMEM. */
int udp_replies_init(struct udp_replies *replies, uint32_t size);
void udp_replies_destroy(struct udp_replies *replies);
/* The number of the socket that sends as addr and port, made if there is none; the caller is one more user of it.
 * 0 or negative errno (-ENOSPC: there are too many). */
int udp_reply_use(struct udp_replies *replies, const struct addr *addr, uint16_t port, const struct sockmark *mark,
        uint32_t *ret);
/* One user less; without any the socket is closed. */
void udp_reply_leave(struct udp_replies *replies, uint32_t number);

#endif
