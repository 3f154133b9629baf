/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Verdict on each packet that arrives at a relayed socket: into the peer's
 * queue (redirect), or to the relay (pass). Runs in the kernel; see
 * gatewayd/base/bpf_flow.h for the maps and gatewayd/relay/tcp_sockmap.c for
 * the other half.
 *
 * The kernel bounds nothing here: what is redirected is acknowledged to the
 * sender, waits in a queue that is charged to nobody, and a work item writes
 * it to the peer. So the program does: a packet is redirected only if it still
 * fits into the peer's send buffer, beside all that waits, and below the
 * direction's limit. Else it and all behind it are passed: they stay in the
 * source's receive buffer, whose window closes, until the relay has written
 * them (`consumed` has reached `passed`).
 *
 * Verdicts of one socket are serialised by its lock.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "gatewayd/base/bpf_flow.h"

/* Of the kernel's own structures only what is read here; the loader finds where it lies (CO-RE). */
#define KERNEL __attribute__((preserve_access_index))

struct sock {
	int sk_wmem_queued;
	int sk_sndbuf;
} KERNEL;

struct inet_sock {
	struct sock sk;
} KERNEL;

struct inet_connection_sock {
	struct inet_sock icsk_inet;
} KERNEL;

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 copied_seq;
	__u32 write_seq;
} KERNEL;

/* Most that bpf_skb_adjust_room takes off at once, and times that it is asked: a packet that waited for one before it
 * may have been joined with those behind it, up to 17 fragments of 32 KiB. */
#define CUT_MAX  4095
#define CUTS_MAX 256

/* Sources: a socket in here has its packets judged. Every one is in tx as well, before it is in here: with one map
 * for both, packets of the first of two sockets would be judged while the second cannot be redirected to yet. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, BPF_FLOW_SOCKETS_MAX);
	__type(key, __u64);
	__type(value, __u64);
} rx SEC(".maps");

/* Where to: no program. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, BPF_FLOW_SOCKETS_MAX);
	__type(key, __u64);
	__type(value, __u64);
} tx SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BPF_FLOW_SOCKETS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct bpf_flow_direction);
} directions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BPF_FLOW_SOCKETS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct bpf_flow_control);
} controls SEC(".maps");

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, BPF_FLOW_RING_SIZE);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, BPF_FLOW_RINGS);
	__type(key, __u32);
	__array(values, struct ring);
} rings SEC(".maps");

/* What a socket says about itself. */
struct look {
	__u32 copied_seq; /* behind the last byte that was taken from it */
	__u32 write_seq;
	__s32 room; /* of its send buffer */
	__s32 used;
};

static __always_inline int socket_look(const __u64 *cookie, struct look *ret)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&tx, cookie);
	struct tcp_sock *tcp;
	int found = 0;

	if (!sk)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (tcp) {
		ret->copied_seq = tcp->copied_seq;
		ret->write_seq = tcp->write_seq;
		ret->used = tcp->inet_conn.icsk_inet.sk.sk_wmem_queued;
		ret->room = tcp->inet_conn.icsk_inet.sk.sk_sndbuf - ret->used;
		found = 1;
	}
	bpf_sk_release(sk);
	return found;
}

static __always_inline void notice_send(const struct bpf_flow_control *control)
{
	struct bpf_flow_notice notice = { .tag = control->tag };
	void *ring = bpf_map_lookup_elem(&rings, &control->ring);

	if (ring)
		bpf_ringbuf_output(ring, &notice, sizeof(notice), 0);
}

/* Takes `size` bytes off the packet's front. */
static __always_inline int front_cut(struct __sk_buff *skb, __u32 size)
{
	for (int i = 0; i < CUTS_MAX && size > 0; i++) {
		__u32 part = size < CUT_MAX ? size : CUT_MAX;

		if (bpf_skb_adjust_room(skb, -(__s32)part, 0, 0) < 0)
			return 0;
		size -= part;
	}
	return size == 0;
}

/* A segment may begin with bytes that the source's socket has had before: TCP puts together anew what it sends again.
 * Whoever reads from a socket is spared them; here the kernel hands over whole packets. So they are cut off. 0: that
 * was not possible, and the stream is broken: its bytes are acknowledged, and would now come twice or not at all. */
static __always_inline int overlap_cut(struct __sk_buff *skb, struct bpf_flow_direction *direction, const __u64 *cookie)
{
	__u32 seq = skb->cb[0]; /* where the kernel's TCP keeps it; --bpf-check sees whether that is so */
	__s32 overlap;

	if (!direction->sequenced) {
		struct look own = { 0 };

		if (!socket_look(cookie, &own))
			return 0;
		direction->sequenced = 1;
		direction->next = own.copied_seq;
	}
	overlap = (__s32)(direction->next - seq);
	if (overlap < 0 || (__u32)overlap > skb->len)
		return 0;
	direction->next = seq + skb->len;
	return overlap == 0 || front_cut(skb, (__u32)overlap);
}

/* Leaves the packet to the relay. Each time with a notice: were only the first told, one that comes between the
 * relay's last look and its way back to sleep would be forgotten. */
static __always_inline int pass(
        struct __sk_buff *skb, struct bpf_flow_direction *direction, const struct bpf_flow_control *control)
{
	direction->passing = 1;
	direction->passed += skb->len;
	notice_send(control);
	return SK_PASS;
}

/* What waits in the peer's queue, at most: bytes, plus the packets' own cost. */
static __always_inline __u32 waiting(
        struct bpf_flow_direction *direction, const struct bpf_flow_control *control, __u32 write_seq)
{
	__u32 given = (__u32)(direction->redirected + control->consumed), written;
	__s32 bytes;

	if (!direction->based) {
		direction->based = 1;
		direction->base = write_seq - given;
	}
	written = write_seq - direction->base;
	bytes = (__s32)(given - written);
	if (bytes <= 0) { /* below zero while the relay has written what it has not published yet */
		direction->settled = direction->packets;
		direction->mark_packets = direction->packets;
		direction->mark_bytes = given;
		return 0;
	}
	if ((__s32)(written - direction->mark_bytes) >= 0) {
		direction->settled = direction->mark_packets;
		direction->mark_packets = direction->packets;
		direction->mark_bytes = given;
	}
	return (__u32)bytes + (direction->packets - direction->settled) * BPF_FLOW_PACKET_COST;
}

static __always_inline int fits(
        const struct __sk_buff *skb, const struct bpf_flow_control *control, const struct look *peer, __u32 queued)
{
	__u64 wanted = (__u64)queued + skb->len + BPF_FLOW_PACKET_COST;

	/* Something always fits where nothing waits at all, however small the limits. Otherwise what does not fit
	 * into the send buffer is not queued before it: the kernel would try to write it 250 times a second. */
	if (queued == 0 && peer->used <= 0)
		return 1;
	return wanted <= control->limit && peer->room > 0 && wanted <= (__u32)peer->room;
}

SEC("sk_skb/stream_verdict")
int relay_verdict(struct __sk_buff *skb)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	struct bpf_flow_direction *direction;
	struct bpf_flow_control *control;
	struct look peer = { 0 };
	__u64 to;

	/* The end of stream by itself. Redirected it would be an error on the peer; the relay learns of it anyway. */
	if (skb->len == 0)
		return SK_DROP;
	direction = bpf_map_lookup_elem(&directions, &cookie);
	control = bpf_map_lookup_elem(&controls, &cookie);
	if (!direction || !control)
		return SK_PASS;
	direction->active_ns = bpf_ktime_get_coarse_ns();
	if (direction->broken || !overlap_cut(skb, direction, &cookie)) {
		direction->broken = 1;
		notice_send(control);
		return SK_DROP;
	}
	if (skb->len == 0) /* nothing of it but its end of stream was new */
		return SK_DROP;
	to = direction->peer;
	if (!socket_look(&to, &peer))
		return pass(skb, direction, control);
	if (direction->passing) {
		if (*(volatile __u64 *)&control->consumed != direction->passed)
			return pass(skb, direction, control);
		direction->passing = 0;
	}
	if (!fits(skb, control, &peer, waiting(direction, control, peer.write_seq)))
		return pass(skb, direction, control);
	if (bpf_sk_redirect_hash(skb, &tx, &to, 0) != SK_PASS)
		return pass(skb, direction, control);
	direction->redirected += skb->len;
	direction->packets++;
	return SK_PASS;
}

char relay_license[] SEC("license") = "GPL";
