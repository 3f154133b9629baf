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

/* The socket that has this packet's source for its peer and this address and port for its own, or else listens there;
 * with a reference. */
static __always_inline struct bpf_sock *find_tcp(
        void *ctx, const struct packet *packet, const union address *own, __be16 port)
{
	struct bpf_sock_tuple tuple = { 0 };

	if (packet->family == AF_INET) {
		tuple.ipv4.saddr = packet->src.words[0];
		tuple.ipv4.daddr = own->words[0];
		tuple.ipv4.sport = packet->sport;
		tuple.ipv4.dport = port;
		return bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	__builtin_memcpy(tuple.ipv6.saddr, &packet->src, sizeof(tuple.ipv6.saddr));
	__builtin_memcpy(tuple.ipv6.daddr, own, sizeof(tuple.ipv6.daddr));
	tuple.ipv6.sport = packet->sport;
	tuple.ipv6.dport = port;
	return bpf_skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
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
