/*
 * The maps of TCP flows that are stitched: their packets go from one peer to
 * the other through the kernel alone, each with the other connection's numbers.
 * Shared by the program (rules/bpf/stitch.h), the daemon that loads it
 * (rules/kernel_shortcut.c) and the relay that fills the maps
 * (gatewayd/relay/tcp_stitch.c). Also compiled for the BPF target: nothing but
 * fixed-size types here.
 *
 * `ways`: how packets come in -> which side of which flow they are of.
 * `stitches`: flow id -> what is known of it.
 * `held`: flow ids whose packets are to pass the rules, for their client is banned.
 *
 * A straight flow (bpf_straight.h) is one from its SYN on: it has no sockets here, and nothing is added.
 */
#ifndef GW_BASE_BPF_STITCH_H
#define GW_BASE_BPF_STITCH_H

#include <linux/bpf.h>
#include <linux/types.h>

#include "gatewayd/base/bpf_shortcut.h"

/* Flows at once. */
#define BPF_STITCH_MAX 65536

/* In place of a ring's number, in the client's way: the flow is over, and that was counted, or was about to be. */
#define BPF_STITCH_COUNTED 0xffffffffU

struct bpf_stitch_way {
	__u64 flow;    /* id */
	__u32 side;    /* 0: from the client, 1: from the target */
	__u32 ring;    /* where the flow is told of (bpf_straight.h), or BPF_STITCH_COUNTED */
	__u64 owner;   /* it is told of with this cookie of the relay's */
	__u64 counted; /* by the relay, for the next one: bytes of this side that are in its counters; of none that is
	                  BPF_STITCH_COUNTED */
};

/* Of an element in `stitches`. */
enum bpf_stitch_state {
	/* Packets go to the sockets; the program waits for a moment in which nothing is under way. Legal: -> ACTIVE,
	 * -> SPOILT */
	BPF_STITCH_WAITING,
	/* The connections are one: the sockets see nothing any more. Legal: -> CLOSED, -> GONE */
	BPF_STITCH_ACTIVE,
	/* Both ends of stream are acknowledged; packets are still translated. Legal: -> GONE */
	BPF_STITCH_CLOSED,
	/* One peer has forgotten the connection and begins another: nothing is translated any more. */
	BPF_STITCH_GONE,
	/* It has ended, or carries what cannot be translated: it is not stitched. */
	BPF_STITCH_SPOILT,
	/* A straight flow whose target has not answered the SYN. Legal: -> ACTIVE, -> GONE */
	BPF_STITCH_OPENING
};

/* What the peers have agreed upon, in both connections the same. */
#define BPF_STITCH_TIMESTAMPS 1
/* It has no sockets. */
#define BPF_STITCH_STRAIGHT 2

/* Of a straight flow: all that a relay needs to know of it. By the relay, but for what is said. */
struct bpf_stitch_straight {
	__u64 started_us; /* CLOCK_MONOTONIC, as the next one */
	__u64 routed_us;
	__u64 opened_ns;           /* by the program: of the target's answer */
	__u64 answered_ns;         /* by the program: of what the client said to that */
	__u64 first_ns;            /* by the program: of the target's first byte */
	__u64 syn_ns;              /* by the program: of a SYN of the client's that the target has said nothing to */
	__u64 narrow_ns;           /* by the program: when it last told of packets that are too large */
	__u32 objects[3], ifindex; /* ids of listener, upstream and target; where the client's packets come in */
	__u32 idle_timeout_ms;
	__u32 told; /* by the program: what it has told, bits of enum bpf_straight_kind */
};

/* The packets that come from one side. */
struct bpf_stitch_side {
	/* By the relay. */
	struct bpf_shortcut_key in, out; /* what they have, and are to have */
	__u64 offset;             /* received here - given to the other side, while nothing is in hand (ledger.h) */
	__u32 clock;              /* of the gateway's socket on this side: its timestamps less CLOCK_MONOTONIC's ms */
	__u32 size_max;           /* of the IP packet, or of each part of one that was put together */
	__u8 scale_in, scale_own; /* of windows: the peer's, and what the gateway's socket has told it */
	__u8 unused[2];
	/* By the program. */
	__u32 ifindex; /* where they came in last */
	__u32 seen;    /* 1: end, ack and tsval are known */
	__u32 end, ack, tsval;
	__u32 window; /* its own, in bytes */
	__u32 syn;    /* the end of a SYN that the other peer was shown, to find out whether it knows the connection; 0:
	                 none */
	__u32 add_seq, add_ack, add_tsval, add_tsecr; /* what makes the other connection's numbers of theirs */
	__u32 fin, fin_end, fin_acked;
	__u32 too_big; /* packets that the way to the other side does not take, or that cannot be translated */
	__u64 bytes;
	__u64 active_ns; /* CLOCK_MONOTONIC (coarse) of the last one with a payload, at first when it became ACTIVE */
};

struct bpf_stitch {
	struct bpf_spin_lock lock;
	__u32 state;
	__u32 options;   /* BPF_STITCH_TIMESTAMPS */
	__u32 attempts;  /* by the program: packets at which it was not possible */
	__u64 closed_ns; /* by the program: when it became CLOSED; 0: not yet */
	__u64 reset_ns;  /* by the program: of a reset that the other peer takes; 0: none */
	struct bpf_stitch_side side[2];
	struct bpf_stitch_straight straight;
};

#endif
