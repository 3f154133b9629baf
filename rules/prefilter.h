/*
 * What the XDP program and its loader share: parameters, keys and values of
 * maps, what is counted and told. Included by the program too, so it knows
 * neither libc nor the rest of the project.
 */
#ifndef GW_RULES_PREFILTER_H
#define GW_RULES_PREFILTER_H

#include <linux/types.h>
#include <stddef.h>

/* In the names of pinned maps: another layout makes new ones. */
#define PREFILTER_LAYOUT 3
/* Prefixes of one list (deny, allow) of one interface: an address set may have as many. Some 145 bytes of kernel
 * memory each. */
#define PREFILTER_ENTRIES_MAX 1000000
/* Sources whose rate is measured at a time, of one interface; the least recently seen one makes room. 14 MiB, and only
 * where there is a rate. */
#define PREFILTER_BUCKETS_MAX 131072
/* Sources that are shut out at a time, of one interface: by its own rate, and of each family by the daemon. While it
 * is full no more are taken; their excess is dropped all the same. */
#define PREFILTER_BANS_MAX 65536
/* Drops that are told each second, of each reason, on each processor; more are only counted. */
#define PREFILTER_EVENTS_PER_S 5
/* Bytes of the ring between program and daemon: some hundred events. */
#define PREFILTER_RING_SIZE 65536
/* IPv6 extension headers that are read; a packet with more is judged by its source only. */
#define PREFILTER_HEADERS_MAX 6
/* Parts of a nanosecond in which rates are measured: at a hundred million packets a second one is ten nanoseconds. */
#define PREFILTER_TIME_SHIFT 4
/* Words of 64 bits in the map of ports: TCP's, then UDP's. */
#define PREFILTER_PORT_WORDS 1024
#define PREFILTER_PORT_SLOTS (2 * PREFILTER_PORT_WORDS)

/* Elements of listeners that are known for the sake of SYN cookies, of one interface and family. */
#define PREFILTER_RELAYED_MAX 1000000
/* Combinations of prefix lengths among them, of TCP and as many of UDP; with more there are no cookies, and no limits
 * here. */
#define PREFILTER_WAYS_MAX 24
/* Pairs of a listener and a rate limit of its that are known, of one interface, and of one listener. What is beyond is
 * left to nft. */
#define PREFILTER_PAIRS_MAX    4096
#define PREFILTER_PAIRS_OF_ONE 4
/* Shares of sources in limits that are known at a time, of one interface; the least recently seen one makes room, and
 * is nft's alone until it is seen again. 16 MiB, and only where there are limits. */
#define PREFILTER_SHARES_MAX 131072
/* How long the kernel takes a cookie back, in nanoseconds: two minutes. */
#define PREFILTER_COOKIE_LIFE_NS 120000000000ULL
/* Flows that are told apart where it is remembered which have been heard of lately, for the sake of cookies, of one
 * interface: a byte each, 1 MiB, and only where cookies are given. Of 100,000 flows one in ten others looks as if it
 * were one of them, and costs a search. */
#define PREFILTER_SEEN_BITS  20
#define PREFILTER_SEEN_SLOTS (1U << PREFILTER_SEEN_BITS)
/* So many whole periods they are remembered, and up to one more: longer than a silent peer of the relay's is believed
 * to be there (gatewayd/base/keepalive.h), and than a socket is in TIME_WAIT. */
#define PREFILTER_SEEN_PERIODS  2
#define PREFILTER_SEEN_PERIOD_S 64
#define PREFILTER_SEEN_SHIFT_S  6 /* from periods to seconds, near enough */
/* In a flow's byte: it is not empty. The other bits are the period's last ones; what is older than all of them may look
 * new for a while, and costs a search. */
#define PREFILTER_SEEN_EVER 0x80
/* Destinations of which is remembered for a tick that requests for connections to them are led to the relay. */
#define PREFILTER_RELAYED_KNOWN_BITS 8
/* Words of which a flow's slot is made of, IPv6. */
#define PREFILTER_SEEN_KEYS 10
/* TCP's flags. */
#define PREFILTER_TCP_SYN 0x02
#define PREFILTER_TCP_RST 0x04
#define PREFILTER_TCP_ACK 0x10

enum prefilter_reason {
#define REASON(name, drops, doc) PREFILTER_##name,
#include "rules/prefilter_reason.def"
#undef REASON
	PREFILTER_REASONS
};

/* Whether a packet that meets this reason goes on to the network stack. */
#define REASON(name, drops, doc) | (__u32)(!(drops)) << PREFILTER_##name
enum prefilter_passes {
	PREFILTER_PASSING = 0
#include "rules/prefilter_reason.def"
};
#undef REASON
#define PREFILTER_PASSES(reason) ((__u32)PREFILTER_PASSING >> (reason)&1)

/* How a listener's elements are looked up: by so many bits of destination and source. */
struct prefilter_way {
	__u8 dst, src;
};

/* Constants of one load: the verifier removes what they rule out. */
struct prefilter_params {
	__u64 interval; /* between two packets of a source, << PREFILTER_TIME_SHIFT; 0: no limit */
	__u64 depth;    /* how far a source may be ahead, in the same unit */
	__u64 ban_ns;   /* of who exceeds it; 0: the excess is dropped */
	__u8 deny_v4, deny_v6, allow_v4, allow_v6; /* whether the list has entries */
	__u8 fragments, bogons, ports;
	__u8 untagged_only;              /* cookies not for frames of a VLAN: some listener looks at the interface */
	__u16 listener_port;             /* of the relay's listening sockets, in both families; 0: no cookies */
	__u8 n_ways_v4, n_ways_v6;       /* in order of precedence: */
	__u8 by_source_v4, by_source_v6; /* whether any of them looks at the source */
	__u8 n_udp_v4, n_udp_v6;         /* the same of UDP, for the sake of limits */
	struct prefilter_way ways_v4[PREFILTER_WAYS_MAX], ways_v6[PREFILTER_WAYS_MAX];
	struct prefilter_way udp_v4[PREFILTER_WAYS_MAX], udp_v6[PREFILTER_WAYS_MAX];
	__u32 own_mark; /* sockets that have this mark are the relay's, to targets */
	__u8 limits;    /* whether limits of listeners are enforced here */
	__u8 dry;       /* a copy, that only says what would be */
	__u8 unused[2];
};

/* Chance, for the slots of flows; and how many bits of the kernel's count of ticks are less than a period. */
struct prefilter_seen {
	__u64 factor; /* odd */
	__u32 keys[PREFILTER_SEEN_KEYS], shift;
};

/* Keys to what is to be known of the packets that an element of a listener matches, each with the number of its way
 * (those of UDP from PREFILTER_WAYS_MAX on). Of TCP 1 where a connection request is led to the relay's listening socket
 * and may be answered in its name, 0 where it is not. Of UDP which of the pairs is the listener's first, from 1 on; 0
 * if it has none. A range of ports is several prefixes of them; "any" is none of their bits, so that the longest match
 * is what nft's order of shapes says. */
struct prefilter_relayed_v4 {
	__u32 length; /* 0 bits of the port or up to 16, and all before it */
	__u8 way, dst[4], src[4], port[2];
	__u8 unused; /* behind the bits that count */
};

struct prefilter_relayed_v6 {
	__u32 length;
	__u8 way, dst[16], src[16], port[2];
	__u8 unused;
};
/* Bits of a whole key. */
#define PREFILTER_RELAYED_BITS(family)                                                                                 \
	((__u32)(8 * (offsetof(struct prefilter_relayed_##family, unused) - sizeof(__u32))))

struct prefilter_key_v4 {
	__u32 length;
	__u8 addr[4];
};

struct prefilter_key_v6 {
	__u32 length;
	__u8 addr[16];
};

struct prefilter_source {
	__u32 family;  /* AF_INET, AF_INET6 */
	__u8 addr[16]; /* IPv4: the first four */
};

/* Who is shut out by the daemon: the value to a prefilter_key_*. */
struct prefilter_shut {
	__u64 until;  /* nanoseconds since the boot */
	__u32 length; /* of its key */
	__u32 unused;
};

struct prefilter_count {
	__u64 packets, bytes;
};

/* A listener, and a rate limit that its packets must pass: the value in the array of pairs. */
struct prefilter_pair {
	__u64 interval, depth;     /* as in prefilter_params */
	__u32 limit, listener;     /* row ids */
	__u32 number;              /* made of what decides about a share: with another one it is another share */
	__u8 length_v4, length_v6; /* of the prefixes that have a share each */
	__u8 more;                 /* the next one is the same listener's */
	__u8 unused;
};

/* Whose share: the key to the time until which it is used up, << PREFILTER_TIME_SHIFT. */
struct prefilter_share {
	__u32 limit, number;
	struct prefilter_source source; /* masked */
};

/* The key to what was over, of one pair. */
struct prefilter_over {
	__u32 listener, limit;
};

/* A drop that is told. */
struct prefilter_event {
	struct prefilter_source source;
	__u8 destination[16];
	__u32 length;                        /* of the frame */
	__u16 source_port, destination_port; /* host's byte order; 0: not known */
	__u8 reason, protocol;
	__u16 unused;
	__u32 limit; /* row id of the limit that it is over, with reason `limited`; else 0 */
};

#endif
