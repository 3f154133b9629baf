/*
 * The channel of kept flows between gatewayd and one thread of
 * gateway-relay: messages (keep.def) in records of a SOCK_SEQPACKET socket,
 * each record with up to as many descriptors as the kernel carries at once.
 * Upward a thread tells which flows the daemon shall hold, downward the daemon
 * hands those of a dead relay to the next one. Nothing here waits.
 */
#ifndef GW_BASE_KEEP_H
#define GW_BASE_KEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "gatewayd/base/wire.h"

/* Raised with every change of keep.def. */
#define KEEP_VERSION 2
/* A record's most bytes: what fits into a socket buffer many times. */
#define KEEP_RECORD_MAX 16384
/* SCM_MAX_FD: the kernel takes no more in one record. */
#define KEEP_DESCRIPTORS_MAX 253
/* Descriptors of one message. */
#define KEEP_DESCRIPTORS_EACH 2

enum keep_mover { KEEP_MOVER_COPY, KEEP_MOVER_SPLICE, KEEP_MOVERS };

enum keep_type {
	KEEP_NONE, /* never sent: 0 on the wire is an error */
#define MSG(upper, lower, descriptors, fields) KEEP_##upper,
#include "gatewayd/base/keep.def"
#undef MSG
	KEEP_TYPES
};

#define U8(member)         uint8_t member;
#define U16(member)        uint16_t member;
#define U32(member)        uint32_t member;
#define U64(member)        uint64_t member;
#define RAW(member, bytes) uint8_t member[bytes];
#define MSG(upper, lower, descriptors, fields)                                                                         \
	struct keep_##lower {                                                                                          \
		fields                                                                                                 \
	};
#include "gatewayd/base/keep.def"
#undef MSG
#undef U8
#undef U16
#undef U32
#undef U64
#undef RAW

/* One decoded message. */
struct keep_message {
	enum keep_type type;
	union {
#define MSG(upper, lower, descriptors, fields) struct keep_##lower lower;
#include "gatewayd/base/keep.def"
#undef MSG
	};
};

/* "flow"; "unknown" for a type out of range. */
const char *keep_name(unsigned type);
/* Number of descriptors that travel with a message of this type. */
unsigned keep_descriptors(enum keep_type type);
/* Appends a message. 0 or -ENOBUFS; on failure the cursor stands where it was, without an error. */
int keep_encode(struct wire *wire, const struct keep_message *message);
/* Reads the next message. 0, or -EBADMSG. Call until wire->offset == wire->size. */
int keep_decode(struct wire *wire, struct keep_message *ret);

/* One record, being filled or being read. */
struct keep_record {
	struct wire wire;
	unsigned n_fds;
	unsigned next_fd; /* of a record that is read: the next one to be handed out */
	bool cut;         /* of a record that is read: the kernel could not give us all descriptors */
	int fds[KEEP_DESCRIPTORS_MAX];
	uint8_t data[KEEP_RECORD_MAX];
};

/* An empty record to be filled. */
void keep_record_init(struct keep_record *record);
/* Appends a message with as many descriptors as its type wants; they stay the caller's and must stay open until the
 * record is sent. 0, or -ENOBUFS: the record is full and unchanged. */
int keep_record_put(struct keep_record *record, const struct keep_message *message, const int *fds);
/* Sends it, whole or not at all. 0, -EAGAIN (no room; the record is as it was), -EPIPE (peer gone), other errno. */
int keep_record_send(const struct keep_record *record, int socket);
/* The next record. 0, -EAGAIN, -EPIPE (peer gone and all is read), -EBADMSG, other errno. */
int keep_record_receive(struct keep_record *record, int socket);
/* The next message of a received record; its descriptors (-1 each if we could not get them) are the caller's.
 * 1, 0 (no more), or -EBADMSG: nothing of it can be trusted any more. */
int keep_record_next(struct keep_record *record, struct keep_message *ret, int ret_fds[KEEP_DESCRIPTORS_EACH]);
/* Closes the descriptors of a received record that were not handed out. */
void keep_record_close(struct keep_record *record);

#endif
