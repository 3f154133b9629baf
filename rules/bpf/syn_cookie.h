/*
 * SYN cookies made and checked by the kernel in the name of a listening
 * socket, and the answer to a SYN that has one. For programs of rules/bpf.
 *
 * The helpers that take the socket, not the "raw" ones: they tell whether the
 * socket's queue is full, and note at the socket that a cookie was given,
 * without which it refuses to take one back (tests/platform). Timestamps are
 * not answered: their offset is a secret of the kernel, so the options that a
 * cookie has no room for cannot travel in them. Such a connection has no
 * window scaling and no SACK, as any that a cookie without timestamps began.
 */
#ifndef GW_RULES_BPF_SYN_COOKIE_H
#define GW_RULES_BPF_SYN_COOKIE_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>

#include "rules/bpf/packet.h"

#define SYN_COOKIE_TCP_MAX 60U
/* How far a network header can be from the frame's beginning: two tags. */
#define SYN_COOKIE_NETWORK_MAX 22
/* What may be sent before the listener's own first window is heard: less than any socket begins with. */
#define SYN_COOKIE_WINDOW 16384
/* The shortest frame of an Ethernet. */
#define SYN_COOKIE_FRAME_MIN 60
#define SYN_COOKIE_MTU_MIN   576
#define SYN_COOKIE_MTU_MAX   65535

/* Keeps the compiler from checking another copy of the value than the one that is used. */
#define SYN_COOKIE_KEEP(value) asm volatile("" : "+r"(value))

/* Headers as the kernel's helpers want them. */
struct syn_cookie_headers {
	union {
		struct iphdr v4;
		struct ipv6hdr v6;
	} ip;
	union {
		struct tcphdr header;
		__u8 bytes[SYN_COOKIE_TCP_MAX];
	} tcp;
	__u32 ip_length, tcp_length;
};

/* An answer's TCP header with the one option that it has. */
struct syn_cookie_tcp {
	struct tcphdr header;
	__u8 kind, length;
	__be16 mss;
};

/* 0 or negative errno. */
static __always_inline int syn_cookie_headers(
        struct xdp_md *ctx, const struct packet *packet, struct syn_cookie_headers *ret)
{
	__u64 length = packet->header;

	ret->ip_length = packet->family == AF_INET ? sizeof(ret->ip.v4) : sizeof(ret->ip.v6);
	if (packet->family == AF_INET) {
		ret->ip.v4.version = 4;
		ret->ip.v4.saddr = packet->src.words[0];
		ret->ip.v4.daddr = packet->dst.words[0];
	} else {
		ret->ip.v6.version = 6;
		__builtin_memcpy(&ret->ip.v6.saddr, &packet->src, sizeof(ret->ip.v6.saddr));
		__builtin_memcpy(&ret->ip.v6.daddr, &packet->dst, sizeof(ret->ip.v6.daddr));
	}
	SYN_COOKIE_KEEP(length);
	if (length < sizeof(struct tcphdr) || length > SYN_COOKIE_TCP_MAX)
		return -1;
	ret->tcp_length = (__u32)length;
	return (int)bpf_xdp_load_bytes(ctx, packet->transport, ret->tcp.bytes, (__u32)length);
}

/* A cookie for the SYN, in the name of the socket; negative: none is due, for its queue is not full. */
static __always_inline __s64 syn_cookie_make(struct bpf_sock *listener, struct syn_cookie_headers *headers)
{
	__u64 length = headers->tcp_length;

	/* Said again, for the verifier. */
	SYN_COOKIE_KEEP(length);
	if (length < sizeof(struct tcphdr) || length > SYN_COOKIE_TCP_MAX)
		return -1;
	return bpf_tcp_gen_syncookie(listener, &headers->ip, sizeof(headers->ip), &headers->tcp.header, (__u32)length);
}

/* The same without asking a socket: for who knows that one has given a cookie just now. */
static __always_inline __s64 syn_cookie_make_more(const struct packet *packet, struct syn_cookie_headers *headers)
{
	__u64 length = headers->tcp_length;

	SYN_COOKIE_KEEP(length);
	if (length < sizeof(struct tcphdr) || length > SYN_COOKIE_TCP_MAX)
		return -1;
	if (packet->family == AF_INET)
		return bpf_tcp_raw_gen_syncookie_ipv4(&headers->ip.v4, &headers->tcp.header, (__u32)length);
	return bpf_tcp_raw_gen_syncookie_ipv6(&headers->ip.v6, &headers->tcp.header, (__u32)length);
}

/* Whether the ACK brings back a cookie that the socket would take. */
static __always_inline int syn_cookie_is_good(struct bpf_sock *listener, struct syn_cookie_headers *headers)
{
	return bpf_tcp_check_syncookie(listener, &headers->ip, sizeof(headers->ip), &headers->tcp.header,
	               sizeof(headers->tcp.header)) == 0;
}

/* Adds words to a sum in ones' complement; n is a multiple of four. */
static __always_inline __u64 syn_cookie_sum(__u64 sum, const void *words, __u32 n)
{
	const __u32 *word = words;

#pragma unroll
	for (__u32 i = 0; i < n / 4; i++)
		sum += word[i];
	return sum;
}

static __always_inline __u16 syn_cookie_fold(__u64 sum)
{
#pragma unroll
	for (int i = 0; i < 3; i++)
		sum = (sum & 0xffffffff) + (sum >> 32);
#pragma unroll
	for (int i = 0; i < 3; i++)
		sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum;
}

/* Of the interface at which the packet has come in: what syn_cookie_answer wants to know. */
static __always_inline __u32 syn_cookie_mtu(struct xdp_md *ctx)
{
	__u32 mtu = 0;

	(void)bpf_check_mtu(ctx, 0, &mtu, 0, 0);
	return mtu < SYN_COOKIE_MTU_MIN ? SYN_COOKIE_MTU_MIN : mtu > SYN_COOKIE_MTU_MAX ? SYN_COOKIE_MTU_MAX : mtu;
}

/* The answer's TCP header; length: with the option, or without. */
static __always_inline void syn_cookie_fill_tcp(
        const struct packet *packet, __be32 sequence, __u32 cookie, __u32 mtu, __u32 length, struct syn_cookie_tcp *ret)
{
	__u32 ip = packet->family == AF_INET ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	__u64 sum;

	__builtin_memset(ret, 0, sizeof(*ret));
	ret->header.source = packet->dport;
	ret->header.dest = packet->sport;
	ret->header.seq = bpf_htonl(cookie);
	ret->header.ack_seq = bpf_htonl(bpf_ntohl(sequence) + 1);
	ret->header.doff = length / 4;
	ret->header.syn = 1;
	ret->header.ack = 1;
	ret->header.window = bpf_htons(SYN_COOKIE_WINDOW);
	if (length == sizeof(*ret)) {
		ret->kind = 2;
		ret->length = 4;
		ret->mss = bpf_htons((__u16)(mtu - ip - sizeof(struct tcphdr)));
	}
	/* Of the pseudo header both addresses, in whatever order. Those of IPv4 are zero behind the first word. */
	sum = syn_cookie_sum(bpf_htonl(IPPROTO_TCP) + (__u64)bpf_htonl(length), ret, sizeof(*ret));
	sum = syn_cookie_sum(syn_cookie_sum(sum, &packet->src, 16), &packet->dst, 16);
	ret->header.check = syn_cookie_fold(sum);
}

static __always_inline void syn_cookie_fill_v4(const struct packet *packet, __u32 length, struct iphdr *ret)
{
	__builtin_memset(ret, 0, sizeof(*ret));
	ret->version = 4;
	ret->ihl = sizeof(*ret) / 4;
	ret->tot_len = bpf_htons((__u16)(sizeof(*ret) + length));
	ret->frag_off = bpf_htons(0x4000);
	ret->ttl = 64;
	ret->protocol = IPPROTO_TCP;
	ret->saddr = packet->dst.words[0];
	ret->daddr = packet->src.words[0];
	ret->check = syn_cookie_fold(syn_cookie_sum(0, ret, sizeof(*ret)));
}

static __always_inline void syn_cookie_fill_v6(const struct packet *packet, __u32 length, struct ipv6hdr *ret)
{
	__builtin_memset(ret, 0, sizeof(*ret));
	ret->version = 6;
	ret->payload_len = bpf_htons((__u16)length);
	ret->nexthdr = IPPROTO_TCP;
	ret->hop_limit = 64;
	__builtin_memcpy(&ret->saddr, &packet->dst, sizeof(ret->saddr));
	__builtin_memcpy(&ret->daddr, &packet->src, sizeof(ret->daddr));
}

/* The addresses of the frame change places. */
static __always_inline void syn_cookie_turn(struct ethhdr *ethernet)
{
	__u8 address[ETH_ALEN];

	__builtin_memcpy(address, ethernet->h_dest, ETH_ALEN);
	__builtin_memcpy(ethernet->h_dest, ethernet->h_source, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, address, ETH_ALEN);
}

/* Writes the answer over the frame, whose length is right already. */
static __always_inline int syn_cookie_write(
        struct xdp_md *ctx, const struct packet *packet, __u32 length, const struct syn_cookie_tcp *tcp)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u64 network = packet->network;
	struct tcphdr *to;

	SYN_COOKIE_KEEP(network);
	if (network > SYN_COOKIE_NETWORK_MAX || data + sizeof(struct ethhdr) > end)
		return -1;
	if (packet->family == AF_INET) {
		struct iphdr *ip = data + network;

		to = (struct tcphdr *)(ip + 1);
		if ((void *)(to + 1) > end)
			return -1;
		syn_cookie_fill_v4(packet, length, ip);
	} else {
		struct ipv6hdr *ip = data + network;

		to = (struct tcphdr *)(ip + 1);
		if ((void *)(to + 1) > end)
			return -1;
		syn_cookie_fill_v6(packet, length, ip);
	}
	*to = tcp->header;
	syn_cookie_turn(data);
	if (length != sizeof(*tcp))
		return 0;
	if ((void *)to + sizeof(*tcp) > end)
		return -1;
	*(struct syn_cookie_tcp *)to = *tcp;
	return 0;
}

/* Turns the frame with the SYN into the answer to it; negative: it cannot be sent, and may be spoilt. A SYN without
 * options may leave no room for one. sequence: the SYN's, as it is there. */
static __noinline int syn_cookie_answer(
        struct xdp_md *ctx, const struct packet *packet, __be32 sequence, __u32 cookie, __u32 mtu)
{
	__u32 ip_length = packet->family == AF_INET ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	__u32 before = packet->length, length = sizeof(struct syn_cookie_tcp), after;
	struct syn_cookie_tcp tcp;

	if (!ctx || !packet || packet->network > SYN_COOKIE_NETWORK_MAX)
		return -1;
	if (packet->network + ip_length + length > before)
		length = sizeof(struct tcphdr);
	after = packet->network + ip_length + length;
	if (after < SYN_COOKIE_FRAME_MIN)
		after = before < SYN_COOKIE_FRAME_MIN ? before : SYN_COOKIE_FRAME_MIN;
	syn_cookie_fill_tcp(packet, sequence, cookie, mtu, length, &tcp);
	if (after < before && bpf_xdp_adjust_tail(ctx, (int)(after - before)) < 0)
		return -1;
	return syn_cookie_write(ctx, packet, length, &tcp);
}

#endif
