/*
 * What a program has read of a packet, and how it asks the kernel for the
 * packet's socket. For programs of rules/bpf only.
 */
#ifndef GW_RULES_BPF_PACKET_H
#define GW_RULES_BPF_PACKET_H

#include <linux/bpf.h>

#include <linux/in.h>

#include <bpf/bpf_helpers.h>

#define AF_INET  2
#define AF_INET6 10

union address {
	__u8 bytes[16];
	__u32 words[4];
};

struct packet {
	union address src, dst;
	__u32 length;    /* of the frame */
	__u32 size;      /* of the packet in it, with its headers */
	__u16 family;    /* 0: neither IPv4 nor IPv6 */
	__u16 network;   /* where the network header begins */
	__u16 transport; /* where TCP's begins; 0: there is none to be read */
	__be16 sport, dport;
	__u8 protocol;
	__u8 fragment, has_ports;
	__u8 flags;     /* TCP's */
	__u8 header;    /* length of TCP's, in bytes */
	__u8 icmp_type; /* if protocol is one of the ICMPs */
	__u8 has_icmp;
	__u8 multicast; /* as the frame's destination says */
	__u8 tagged;    /* of a VLAN */
};

static __always_inline struct bpf_sock *find_tcp(
        void *ctx, __u16 family, const union address *peer, __be16 peer_port, const union address *own, __be16 port)
{
	struct bpf_sock_tuple tuple = { 0 };

	if (family == AF_INET) {
		tuple.ipv4.saddr = peer->words[0];
		tuple.ipv4.daddr = own->words[0];
		tuple.ipv4.sport = peer_port;
		tuple.ipv4.dport = port;
		return bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	__builtin_memcpy(tuple.ipv6.saddr, peer, sizeof(tuple.ipv6.saddr));
	__builtin_memcpy(tuple.ipv6.daddr, own, sizeof(tuple.ipv6.daddr));
	tuple.ipv6.sport = peer_port;
	tuple.ipv6.dport = port;
	return bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
}

/* The socket of the packet's flow, or else one that listens where the packet goes; with a reference. */
static __always_inline struct bpf_sock *find_flow(void *ctx, const struct packet *packet)
{
	return find_tcp(ctx, packet->family, &packet->src, packet->sport, &packet->dst, packet->dport);
}

/* One of the sockets that listen at the loopback address and `port`, with a reference; which one of several does not
 * depend on the packet's flow. They are looked for as if by one of eight peers: of each that asks the kernel first
 * looks for a connection, and of the packets' own peers, of whom there may be millions, each look would miss the cache.
 */
static __always_inline struct bpf_sock *find_listener(void *ctx, const struct packet *packet, __be16 port)
{
	union address loopback = { 0 };

	if (packet->family == AF_INET)
		loopback.words[0] = bpf_htonl(0x7f000001);
	else
		loopback.words[3] = bpf_htonl(1);
	return find_tcp(ctx, packet->family, &loopback, packet->sport & bpf_htons(7), &loopback, port);
}

static __always_inline struct bpf_sock *find_udp(void *ctx, const struct packet *packet)
{
	struct bpf_sock_tuple tuple = { 0 };

	if (packet->family == AF_INET) {
		tuple.ipv4.saddr = packet->src.words[0];
		tuple.ipv4.daddr = packet->dst.words[0];
		tuple.ipv4.sport = packet->sport;
		tuple.ipv4.dport = packet->dport;
		return bpf_sk_lookup_udp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	__builtin_memcpy(tuple.ipv6.saddr, &packet->src, sizeof(tuple.ipv6.saddr));
	__builtin_memcpy(tuple.ipv6.daddr, &packet->dst, sizeof(tuple.ipv6.daddr));
	tuple.ipv6.sport = packet->sport;
	tuple.ipv6.dport = packet->dport;
	return bpf_sk_lookup_udp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
}

#endif
