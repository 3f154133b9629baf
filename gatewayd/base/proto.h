/*
 * The messages between gatewayd and gateway-relay: types and their codec, all
 * derived from proto.def. A record of the SOCK_SEQPACKET socket (base/msg.h)
 * holds one or more messages back to back, each with a header. Decoding
 * trusts nothing: every field is bounds-checked, and unknown types, wrong
 * directions and left-over bytes are errors.
 */
#ifndef GW_BASE_PROTO_H
#define GW_BASE_PROTO_H

#include <stdint.h>

#include "gatewayd/base/match.h"
#include "gatewayd/base/wire.h"

/* Raised with every change of proto.def. Sides that do not name the same only use the messages up to the last stable
 * one, and those only if both name the same KEEP_VERSION. */
#define PROTO_VERSION     15
#define PROTO_STABLE_LAST PROTO_HANDED_OVER
/* A record's most bytes. */
#define PROTO_RECORD_MAX 16384
/* Header on the wire: u16 type, u16 zero, u32 length of the payload. */
#define PROTO_HEADER_SIZE 8

/* How the bytes of a listener's flows are moved. The numbers are on the wire. */
enum proto_mover {
	PROTO_MOVER_AUTO,
	PROTO_MOVER_COPY,
	PROTO_MOVER_SPLICE,
	PROTO_MOVER_SOCKMAP,
	PROTO_MOVER_KERNEL,
	PROTO_MOVERS
};
/* How an upstream chooses a target (relay/balance.h). The numbers are on the wire. */
enum proto_algorithm {
	PROTO_ALGORITHM_ROUND_ROBIN,
	PROTO_ALGORITHM_LEAST_CONN,
	PROTO_ALGORITHM_RANDOM_TWO,
	PROTO_ALGORITHM_SOURCE_HASH,
	PROTO_ALGORITHMS
};
/* What a SOCKMAP message brings. The numbers are on the wire. */
enum proto_sockmap_kind {
	PROTO_SOCKMAP_RX,
	PROTO_SOCKMAP_TX,
	PROTO_SOCKMAP_DIRECTIONS,
	PROTO_SOCKMAP_CONTROLS,
	PROTO_SOCKMAP_RING,
	PROTO_SOCKMAP_KINDS
};

/* What a SHORTCUT message brings. The numbers are on the wire. */
enum proto_shortcut_kind {
	PROTO_SHORTCUT_FLOWS,
	PROTO_SHORTCUT_CONTROL,
	PROTO_SHORTCUT_WAYS,
	PROTO_SHORTCUT_STITCHES,
	PROTO_SHORTCUT_STRAIGHT,
	/* Programs: the filter of listening sockets, and two that are called. */
	PROTO_SHORTCUT_SYNS,
	PROTO_SHORTCUT_BEGIN,
	PROTO_SHORTCUT_SETTLE,
	PROTO_SHORTCUT_RING_0,
	PROTO_SHORTCUT_RING_1,
	PROTO_SHORTCUT_RING_2,
	PROTO_SHORTCUT_RING_3,
	PROTO_SHORTCUT_CHOICE,
	PROTO_SHORTCUT_INTERFACES,
	PROTO_SHORTCUT_KINDS
};

/* How targets are checked. The numbers are on the wire. */
enum proto_health_type { PROTO_HEALTH_NONE, PROTO_HEALTH_TCP, PROTO_HEALTH_HTTP, PROTO_HEALTH_TYPES };

/* What became of one connect of a probe. The numbers are on the wire. */
enum proto_probe_answer {
	PROTO_PROBE_NONE,        /* not made */
	PROTO_PROBE_ANSWERED,    /* accepted or refused: the answer has come back */
	PROTO_PROBE_SILENT,      /* nothing came back in time */
	PROTO_PROBE_UNREACHABLE, /* a router on the way says so */
	PROTO_PROBE_LOCAL,       /* it could not be made here, which says nothing of the way */
	PROTO_PROBE_ANSWERS
};

enum proto_direction { PROTO_DOWN = 1, PROTO_UP = 2, PROTO_BOTH = 3 };

enum proto_type {
	PROTO_NONE, /* never sent: 0 on the wire is an error */
#define MSG(upper, lower, direction, descriptors, fields) PROTO_##upper,
#include "gatewayd/base/proto.def"
#undef MSG
	PROTO_TYPES
};

#define U8(member)         uint8_t member;
#define U16(member)        uint16_t member;
#define U32(member)        uint32_t member;
#define U64(member)        uint64_t member;
#define STR(member, max)   char member[(max) + 1];
#define RAW(member, bytes) uint8_t member[bytes];
#define MSG(upper, lower, direction, descriptors, fields)                                                              \
	struct proto_##lower {                                                                                         \
		fields                                                                                                 \
	};
#include "gatewayd/base/proto.def"
#undef MSG
#undef U8
#undef U16
#undef U32
#undef U64
#undef STR
#undef RAW

/* One decoded message. */
struct proto_message {
	enum proto_type type;
	union {
#define MSG(upper, lower, direction, descriptors, fields) struct proto_##lower lower;
#include "gatewayd/base/proto.def"
#undef MSG
	};
};

/* "config_begin"; "unknown" for a type out of range. */
const char *proto_name(unsigned type);
/* Number of descriptors that travel with a message of this type. */
unsigned proto_descriptors(enum proto_type type);

/* Appends header and payload. 0 or -ENOBUFS; on failure the cursor stands where it was, without an error. */
int proto_encode(struct wire *wire, const struct proto_message *message);
/* Reads the next message that may travel in `direction`. 0, or -EBADMSG. Call until wire->offset == wire->size. */
int proto_decode(struct wire *wire, enum proto_direction direction, struct proto_message *ret);

/* Between a match key and its two messages. proto_to_key checks the key: 0 or -EBADMSG. */
void proto_from_key(const struct match_key *key, struct proto_match_del *ret);
int proto_to_key(const struct proto_match_del *message, struct match_key *ret);

#endif
