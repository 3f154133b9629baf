/*
 * The maps that the verdict program (rules/bpf/relay.bpf.c), the daemon that
 * loads it (rules/kernel_bpf.c) and the relay (gatewayd/relay/tcp_sockmap.c)
 * share: who writes what, and the layout of the values. Also compiled for the
 * BPF target: nothing but fixed-size types here.
 *
 * A direction is named by the socket cookie of the end it reads from. Each
 * value has one writer, so none is locked.
 */
#ifndef GW_BASE_BPF_FLOW_H
#define GW_BASE_BPF_FLOW_H

#include <linux/types.h>

/* Part of the path under which the maps are pinned: raised with every change of a value or of a map's kind or size,
 * so that programs of different ages never meet in one map. */
#define BPF_FLOW_LAYOUT 2

/* Sockets in the maps at once: two per flow, for the relay's default of 65536 flows. A map that is full refuses the
 * socket and its flow stays with another mover. */
#define BPF_FLOW_SOCKETS_MAX 131072
/* Ring buffers for notices: one per thread of two relays, of which one takes over from the other. */
#define BPF_FLOW_RINGS 128
/* Bytes of one ring: 4096 notices. One that is lost is made good by the relay's periodic look at the flow. */
#define BPF_FLOW_RING_SIZE 65536

/* What a redirected packet is thought to cost beside its payload: its header, and the part of its memory that the
 * payload does not fill. Makes the limit hold for one-byte packets too. */
#define BPF_FLOW_PACKET_COST 2048

/* Written by the program; made by the relay before the socket goes into the maps, deleted just before its close. */
struct bpf_flow_direction {
	__u64 peer;                     /* cookie of the socket that is written to */
	__u64 redirected;               /* bytes handed to the peer's queue */
	__u64 passed;                   /* bytes left to the relay, to be read and written by it */
	__u64 active_ns;                /* CLOCK_MONOTONIC (coarse) of the last packet */
	__u32 passing;                  /* mode: 1 while passed bytes may still be ahead of the next ones */
	__u32 based;                    /* whether `base` is known */
	__u32 base;                     /* the peer's write_seq when nothing had been redirected or passed */
	__u32 packets;                  /* redirected so far */
	__u32 settled;                  /* of these, known to have left the queue */
	__u32 mark_bytes, mark_packets; /* once the peer has written mark_bytes, mark_packets have left the queue */
	__u32 sequenced;                /* whether `next` is known */
	__u32 next;                     /* the source's sequence number behind the last byte that was judged */
	__u32 broken;                   /* 1: the stream cannot go on, and the relay has to reset it */
};

/* Written by the relay only, as a whole; an adopting relay finds here what it must know beside the sockets. */
struct bpf_flow_control {
	__u64 consumed; /* of the passed bytes: written to the peer by the relay */
	__u64 tag;      /* comes back in each notice */
	__u64 counted;  /* of all bytes that moved: in the relay's counters */
	__u64 in_base;  /* bytes read from the source, and written to the peer, before it went into the maps */
	__u64 out_base; /* written to the peer at that time as tcpi_bytes_acked + SIOCOUTQ count it */
	__u32 ring;     /* where notices go */
	__u32 limit;    /* most that may wait in the peer's queue: bytes plus BPF_FLOW_PACKET_COST each */
};

/* What lies in a ring: the tag of a direction that has passed bytes. */
struct bpf_flow_notice {
	__u64 tag;
};

#endif
