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
 * `straight_ports`: a bit for each destination port: behind BPF_STRAIGHT_MAY those whose listeners all allow it, behind
 * BPF_STRAIGHT_ALWAYS those where one wants it.
 * `straight_choices`: what the relay makes of a port that may.
 * `straight_interfaces`: those where packets are translated, by number.
 * `ring_0` and so on: what is told to the relay's threads of these numbers.
 */
#ifndef GW_BASE_BPF_STRAIGHT_H
#define GW_BASE_BPF_STRAIGHT_H

#include <linux/types.h>

#include "gatewayd/base/bpf_shortcut.h"
#include "gatewayd/base/bpf_stitch.h"

/* Threads of the relay that have straight flows, at most. */
#define BPF_STRAIGHT_RINGS      4
#define BPF_STRAIGHT_RING_BYTES (256 * 1024)
#define BPF_STRAIGHT_PORT_WORDS 1024
#define BPF_STRAIGHT_MAY        0
#define BPF_STRAIGHT_ALWAYS     BPF_STRAIGHT_PORT_WORDS
#define BPF_STRAIGHT_WORDS      (2 * BPF_STRAIGHT_PORT_WORDS)
#define BPF_STRAIGHT_PORTS      65536
#define BPF_STRAIGHT_INTERFACES 16384
#define BPF_STRAIGHT_HEADER_MAX 60

struct bpf_straight_control {
	__u32 rings; /* that are read: by the relay, when it serves; 0 by the daemon, when none does */
	__u32 full;  /* by the relay: it cannot have another flow at present */
	__u32 run;   /* of the relay, as in its choices */
	__u32 spare; /* by the relay: readers that have many flows, a bit each */
};

/* What a relay has chosen for a port, in the lower bits; the upper ones are the relay's number. */
enum bpf_straight_choice { BPF_STRAIGHT_NEITHER, BPF_STRAIGHT_OFTEN, BPF_STRAIGHT_PASS };

static inline __u32 bpf_straight_choice(__u32 run, enum bpf_straight_choice what)
{
	return run << 2 | what;
}

enum bpf_straight_kind {
	BPF_STRAIGHT_SYN,     /* of a client: header, key and ifindex */
	BPF_STRAIGHT_OPENED,  /* never told, only noted: the client has said something to the target's answer */
	BPF_STRAIGHT_REFUSED, /* the target, or a router, has answered the SYN with a refusal */
	BPF_STRAIGHT_TAKEN,   /* a socket here has the four numbers that the target sees */
	BPF_STRAIGHT_ENDED,   /* of a stitched one, too: both ends of stream are acknowledged, or there was a reset */
	BPF_STRAIGHT_NARROW   /* packets with this key, one of them with this number, are larger than this MTU */
};

/* What a flow's packets have shown of it, times of CLOCK_MONOTONIC; each as in the element, sides in one. */
struct bpf_straight_shown {
	__u64 opened_ns, answered_ns, first_ns, closed_ns, reset_ns;
	__u64 bytes[2], active_ns[2];
	__u32 state, told, too_big, unused;
};

static inline void bpf_straight_show(const struct bpf_stitch *flow, struct bpf_straight_shown *ret)
{
	const struct bpf_stitch_side *client = &flow->side[0], *target = &flow->side[1];

	ret->opened_ns = flow->straight.opened_ns;
	ret->answered_ns = flow->straight.answered_ns;
	ret->first_ns = flow->straight.first_ns;
	ret->closed_ns = flow->closed_ns;
	ret->reset_ns = flow->reset_ns;
	ret->bytes[0] = client->bytes;
	ret->bytes[1] = target->bytes;
	ret->active_ns[0] = client->active_ns;
	ret->active_ns[1] = target->active_ns;
	ret->state = flow->state;
	ret->told = flow->straight.told;
	ret->too_big = client->too_big + target->too_big;
	ret->unused = 0;
}

/* A SYN, or of what packets that are too large are. */
struct bpf_straight_packet {
	__u64 at_ns; /* of a SYN: CLOCK_MONOTONIC */
	__u32 ifindex;
	__u32 mtu;
	struct bpf_shortcut_key key;
	__u32 seq;
	__u32 length; /* of the TCP header */
	__u8 header[BPF_STRAIGHT_HEADER_MAX];
	__u32 unused;
};

struct bpf_straight_event {
	__u64 flow;  /* id; 0: SYN */
	__u64 owner; /* of its ways, of a relay that may have gone */
	__u32 kind;
	__u32 unused;
	union {
		struct bpf_straight_packet packet; /* SYN, NARROW */
		struct bpf_straight_shown shown;   /* ENDED */
	};
};

/* --- what the relay runs (rules/bpf/straight_calls.h) --- */

/* `straight_begin`: a flow is to be in the maps. */
struct bpf_straight_begin {
	__u64 flow;
	struct bpf_stitch_way way[2];
	struct bpf_stitch stitch;
};

/* What they return is no verdict about a packet: a call can be made with real ones (BPF_F_TEST_XDP_LIVE_FRAMES), which
 * are dropped by that. Of `straight_settle` it is this, and how many were there. */
#define BPF_STRAIGHT_RESULT 16

enum bpf_straight_begun {
	BPF_STRAIGHT_BEGUN = BPF_STRAIGHT_RESULT,
	BPF_STRAIGHT_IN_USE, /* packets with one of its keys are of another flow, which is not over */
	BPF_STRAIGHT_FULL,   /* the maps are */
	BPF_STRAIGHT_UNREAD  /* it is not whole */
};

enum bpf_straight_settled {
	BPF_STRAIGHT_COUNTED, /* the flow is over, and that is about to be counted */
	BPF_STRAIGHT_DONE     /* nothing more comes of it: it is to be in the maps no more */
};

/* `straight_settle`: up to BPF_STRAIGHT_SETTLE_MAX of these. */
struct bpf_straight_settle {
	__u64 flow;
	__u32 what;
	__u32 unused;
};

#define BPF_STRAIGHT_SETTLE_MAX 64

#endif
