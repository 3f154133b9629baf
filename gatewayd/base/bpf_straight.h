/*
 * Straight flows of TCP: connections that have no socket on the gateway. A
 * filter on the relay's listening sockets takes the SYN (rules/bpf/straight.h),
 * behind all rules that a connection has to pass; the relay chooses the target,
 * puts the flow into the maps of stitched flows (bpf_stitch.h), and sends the
 * same SYN there. From then on packets are translated, from the target's answer
 * to the last acknowledgement. Shared by the program, the daemon that loads it
 * and the relay. Also compiled for the BPF target: nothing but fixed-size types
 * here.
 *
 * `straight`: whether SYNs are taken, and for how many readers.
 * `straight_ports`: destination ports whose listeners all want it, one bit each.
 * `ring_0` and so on: what is told to the relay's threads of these numbers.
 */
#ifndef GW_BASE_BPF_STRAIGHT_H
#define GW_BASE_BPF_STRAIGHT_H

#include <linux/types.h>

#include "gatewayd/base/bpf_shortcut.h"

/* Threads of the relay that have straight flows, at most. */
#define BPF_STRAIGHT_RINGS      4
#define BPF_STRAIGHT_RING_BYTES (256 * 1024)
#define BPF_STRAIGHT_PORT_WORDS 1024
#define BPF_STRAIGHT_HEADER_MAX 60

struct bpf_straight_control {
	__u32 rings; /* that are read: by the relay, when it serves; 0 by the daemon, when none does */
	__u32 full;  /* by the relay: it cannot have another flow at present */
};

enum bpf_straight_kind {
	BPF_STRAIGHT_SYN,     /* of a client: header, key and ifindex */
	BPF_STRAIGHT_OPENED,  /* never told, only noted: the client has said something to the target's answer */
	BPF_STRAIGHT_REFUSED, /* the target, or a router, has answered the SYN with a refusal */
	BPF_STRAIGHT_TAKEN,   /* a socket here has the four numbers that the target sees */
	BPF_STRAIGHT_ENDED,   /* both ends of stream are acknowledged, or there was a reset */
	BPF_STRAIGHT_NARROW   /* packets with this key, one of them with this number, are larger than this MTU */
};

struct bpf_straight_event {
	__u64 owner; /* of the flow's ways; 0: SYN */
	__u32 kind;
	__u32 ifindex;
	struct bpf_shortcut_key key;
	__u32 length; /* of the TCP header */
	__u32 mtu;
	__u8 header[BPF_STRAIGHT_HEADER_MAX];
	__u32 seq;
};

#endif
