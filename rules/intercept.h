/*
 * What the interception program (rules/bpf/intercept.bpf.c) and its loader
 * share: keys and values of maps, and what is counted. Included by the program
 * too, so it knows neither libc nor the rest of the project.
 */
#ifndef GW_RULES_INTERCEPT_H
#define GW_RULES_INTERCEPT_H

#include <linux/types.h>

/* Elements of each kind of map: as many as all listeners together may have (PLAN_TOTAL_MAX). */
#define INTERCEPT_ELEMENTS_MAX 1000000
/* Shapes of one protocol and family. A configuration with more is left to nft: each is a look-up. */
#define INTERCEPT_SHAPES_MAX 64
/* Interfaces whose names are known. */
#define INTERCEPT_INTERFACES_MAX 16384
#define INTERCEPT_NAME           16

/* Which of the four lists of shapes a packet's is. */
enum intercept_kind { INTERCEPT_TCP4, INTERCEPT_TCP6, INTERCEPT_UDP4, INTERCEPT_UDP6, INTERCEPT_KINDS };

/* Byte for byte what an element matches, its port last, so that the same serves as the key of a prefix tree in which
 * a range of ports is a few prefixes. */
struct intercept_key {
	__u8 kind; /* enum intercept_kind */
	__u8 dst_len, src_len;
	__u8 interface; /* 1: it counts */
	__u8 port;      /* enum intercept_port */
	__u8 zero;
	__u8 dst[16], src[16]; /* masked; of IPv4 the first four bytes */
	char name[INTERCEPT_NAME];
	__be16 dport; /* 0 if none counts */
};

enum intercept_port { INTERCEPT_PORT_EXACT, INTERCEPT_PORT_RANGE, INTERCEPT_PORT_ANY };

struct intercept_range_key {
	__u32 prefix; /* bits of what follows that count */
	struct intercept_key key;
};
/* Bits before the port. */
#define INTERCEPT_RANGE_BITS (8 * (__u32)(sizeof(struct intercept_key) - sizeof(__be16)))

/* What becomes of a packet that an element matches. */
enum intercept_verdict {
	INTERCEPT_LEAVE,        /* nft decides */
	INTERCEPT_RELAY,        /* to the relay's listening socket */
	INTERCEPT_RELAY_DIRECT, /* likewise, unless the way past the relay is open */
};

struct intercept_shape {
	__u32 dst_mask[4], src_mask[4];
	__u8 dst_len, src_len, interface, port;
};

struct intercept_control {
	__u32 open;                      /* 0: everything is left to nft */
	__u32 direct;                    /* the way past the relay is open */
	__u32 mark, mark_mask;           /* of packets that go to the relay, and the bits that are ours */
	__u32 own;                       /* the mark of the relay's connected UDP sockets */
	__be16 listener_v4, listener_v6; /* the relay's ports on 127.0.0.1 and ::1 */
	__u32 n_shapes[INTERCEPT_KINDS];
};

/* What is counted, in packets. */
enum intercept_count {
#define COUNT(name, doc) INTERCEPT_COUNT_##name,
#include "rules/intercept_count.def"
#undef COUNT
	INTERCEPT_COUNTS
};

#endif
