/*
 * Datagrams as they come out of a socket, many at once, with what the kernel
 * says about each: from whom, where to it was sent, by which interface it
 * came, and whether it is several in a row that the kernel has put together.
 * Knows nothing of flows.
 */
#ifndef GW_RELAY_UDP_INBOX_H
#define GW_RELAY_UDP_INBOX_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "gatewayd/base/addr.h"

/* Datagrams taken by one system call: enough that the call's own cost is small beside theirs, few enough that what
 * they hold stays in the cache. */
#define UDP_BATCH 64
/* The largest datagram, or sum of datagrams put together, that the kernel hands over. */
#define UDP_DATAGRAM_MAX 65535
/* From one buffer to the next: not a power of two, or the beginnings of all would share a few lines of the cache. */
#define UDP_BUFFER_STRIDE (UDP_DATAGRAM_MAX + 1 + 21 * 64)
/* Control messages of one datagram, in bytes: original destination, interface and segment size, with room to spare. */
#define UDP_CONTROL_MAX 256

struct udp_datagram {
	struct addr source, original; /* original: of family AF_UNSPEC if the kernel did not say */
	uint16_t source_port, original_port;
	uint16_t segment; /* several datagrams of so many bytes, the last one maybe shorter; 0: a single one */
	int ifindex;      /* 0: the kernel did not say */
	const uint8_t *bytes;
	uint32_t length;
};

struct udp_inbox {
	unsigned n; /* datagrams held, from the first slot on */
	uint8_t *memory;
	struct mmsghdr messages[UDP_BATCH];
	struct iovec vectors[UDP_BATCH];
	struct sockaddr_storage names[UDP_BATCH];
	union {
		struct cmsghdr header;
		uint8_t space[UDP_CONTROL_MAX];
	} controls[UDP_BATCH];
	struct udp_datagram datagrams[UDP_BATCH];
	int faults[UDP_BATCH]; /* 0, or why the datagram of the slot is to be dropped */
};

/* 0 or -ENOMEM. */
int udp_inbox_init(struct udp_inbox *inbox);
void udp_inbox_destroy(struct udp_inbox *inbox);
/* Takes up to `most` datagrams into free slots, behind those that are held. How many came, 0 if none waits, or the
 * error that the socket reports (a negative errno; nothing was taken then). */
int udp_inbox_receive(struct udp_inbox *inbox, int fd, unsigned most);
/* Frees all slots. */
void udp_inbox_empty(struct udp_inbox *inbox);

/* What a received message says, but its bytes. -EMSGSIZE: bytes were cut off; -EBADMSG: control messages were cut off,
 * one is shorter than its kind, or the source is no IPv4 or IPv6 address with a port. */
int udp_datagram_parse(const struct msghdr *message, uint32_t length, struct udp_datagram *ret);
/* Whether original destination and source can belong to one datagram. */
bool udp_datagram_is_addressed(const struct udp_datagram *datagram);

#endif
