/*
 * The maps of the short cut that UDP flows take through the kernel: shared by
 * its program (rules/bpf/shortcut.bpf.c), the daemon that loads it
 * (rules/kernel_shortcut.c) and the relay that fills it
 * (gatewayd/relay/udp_shortcut.c). Those of TCP are in bpf_stitch.h. Also
 * compiled for the BPF target: nothing but fixed-size types here.
 *
 * Each direction of a flow is one element. Its key is how datagrams come in,
 * its value how they go out.
 */
#ifndef GW_BASE_BPF_SHORTCUT_H
#define GW_BASE_BPF_SHORTCUT_H

#include <linux/types.h>

/* Part of the path under which the maps are pinned: raised with every change of a key, a value or a map. */
#define BPF_SHORTCUT_LAYOUT 5
/* Directions at once: those of 65536 flows. */
#define BPF_SHORTCUT_MAX 131072

/* Addresses and ports of a datagram, as they are in the packet; of IPv4 the first 4 bytes, the rest is 0. */
struct bpf_shortcut_key {
	__u8 source[16], destination[16];
	__u16 source_port, destination_port;
	__u32 family; /* 4 or 6 */
};

/* Made by the relay, and replaced by it only while the epoch is another than the one in force: then the program does
 * not touch it. */
struct bpf_shortcut {
	struct bpf_shortcut_key out; /* what the packet is to have */
	__u32 epoch;                 /* it counts while this is the control's */
	__u32 ifindex;               /* where it must come in; 0: not known yet, the program writes it */
	__u64 datagrams, bytes;      /* by the program: that took the short cut, and their payload */
	__u64 active_ns;             /* by the program: CLOCK_MONOTONIC (coarse) of the last one */
};

/* Of the one element of the control map, written by the daemon. */
struct bpf_shortcut_control {
	__u32 epoch; /* raised whenever the rules or those who are banned change: each flow has to pass them anew */
	__u32 open;  /* 0: all of UDP goes the long way, and no TCP flow begins to be stitched */
	__u32 held;  /* elements in `held` (bpf_stitch.h) */
	__u32 unused;
};

/* What the program does with packets that it does not leave to the rules, of both protocols. */
enum bpf_shortcut_kind { BPF_SHORTCUT_UDP, BPF_SHORTCUT_TCP, BPF_SHORTCUT_DROPPED, BPF_SHORTCUT_KINDS };
/* Interfaces that packets take the short cut from, with each kind. */
#define BPF_SHORTCUT_TALLIES_MAX 1024

struct bpf_shortcut_tally_key {
	__u32 ifindex, kind;
};

/* Of each processor; bytes without the frame's header. */
struct bpf_shortcut_tally {
	__u64 packets, bytes;
};

#endif
