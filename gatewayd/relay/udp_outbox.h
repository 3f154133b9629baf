/*
 * Datagrams on their way out of one socket: gathered, and sent by one system
 * call. Those in a row that have one size and one receiver go as one message
 * that the kernel cuts into datagrams again at the end of its way (UDP_SEGMENT):
 * the way through the stack is then paid for once. Knows nothing of flows.
 */
#ifndef GW_RELAY_UDP_OUTBOX_H
#define GW_RELAY_UDP_OUTBOX_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "gatewayd/relay/udp_inbox.h"

/* Datagrams of one message: what kernels before 6.9 take at most. */
#define UDP_SEGMENTS_MAX 64
/* Bytes of one message: what fits into an IP packet with all headers. */
#define UDP_MESSAGE_MAX 65000

/* What became of the datagrams that were sent together. */
struct udp_sent {
	uint64_t datagrams, bytes; /* that went out */
	uint64_t dropped;          /* datagrams that did not */
	bool refused;              /* the socket reported that the other side has nobody at the port */
	int error;                 /* of the last one dropped */
};

struct udp_outbox {
	int fd; /* where all go; -1: nothing is held */
	unsigned n, n_vectors;
	struct mmsghdr messages[UDP_BATCH];
	struct iovec vectors[UDP_BATCH];
	struct sockaddr_storage names[UDP_BATCH];
	union {
		struct cmsghdr header;
		uint8_t space[CMSG_SPACE(sizeof(uint16_t))];
	} controls[UDP_BATCH];
	struct udp_run {
		const void *receiver;  /* only compared */
		uint16_t *segment_max; /* lowered if the kernel will not cut what is so large */
		uint32_t bytes;
		uint16_t segment; /* size of all but the last */
		uint16_t segments;
		bool closed; /* the last one is shorter */
	} runs[UDP_BATCH];
};

/* To whom datagrams go. */
struct udp_receiver {
	int fd;
	const struct addr *addr; /* NULL: to whom the socket is connected */
	uint16_t port;
	const void *identity;  /* the same for the same receiver only */
	uint16_t *segment_max; /* how large datagrams may be to be sent many at once; stays valid until they are sent */
};

/* An empty one. */
void udp_outbox_init(struct udp_outbox *outbox);
/* Whether the datagram can be added now; else the outbox must be sent before. */
bool udp_outbox_takes(const struct udp_outbox *outbox, const struct udp_receiver *receiver);
/* Adds it; its bytes must stay until they are sent. Legal only if the outbox takes it. */
void udp_outbox_add(
        struct udp_outbox *outbox, const struct udp_receiver *receiver, const struct udp_datagram *datagram);
/* Whether the error of a send may be about an earlier datagram: what ICMP tells of one is reported instead of sending
 * another. */
bool udp_outbox_is_told_late(int error);
/* Sends all that is held, in order; what the kernel does not take is dropped. Adds to *sent. */
void udp_outbox_send(struct udp_outbox *outbox, struct udp_sent *sent);

#endif
