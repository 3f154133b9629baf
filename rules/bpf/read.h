/*
 * Reads a frame: its tags, network header and, of TCP, UDP and ICMP, the
 * header behind it; and whether they contradict themselves. For programs of
 * rules/bpf that see whole frames (XDP).
 */
#ifndef GW_RULES_BPF_READ_H
#define GW_RULES_BPF_READ_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>

#include "rules/bpf/extension.h"
#include "rules/bpf/packet.h"
#include "rules/prefilter.h"

/* Frames of a gathered stream may be longer than a length field can say; it is zero then. */
#define LENGTH_FIELD_MAX 65535

enum read {
	READ_ALL,
	READ_BAD,
	READ_SOME, /* no further, for the rest lies where it cannot be read */
};

struct vlan {
	__be16 tag, protocol;
};

/* A header that ends behind the data: of a frame in pieces the first piece may be short, any other is cut off. */
static __always_inline enum read read_short(struct xdp_md *ctx, const struct packet *packet)
{
	return packet->length > ctx->data_end - ctx->data ? READ_SOME : READ_BAD;
}

static __always_inline enum read read_tcp(
        struct xdp_md *ctx, struct packet *packet, const struct tcphdr *tcp, __u32 rest)
{
	if ((const void *)(tcp + 1) > (const void *)(long)ctx->data_end)
		return read_short(ctx, packet);
	packet->sport = tcp->source;
	packet->dport = tcp->dest;
	packet->has_ports = 1;
	packet->flags = ((const __u8 *)tcp)[13];
	packet->header = (__u8)(tcp->doff * 4U);
	packet->transport = (__u16)((const void *)tcp - (const void *)(long)ctx->data);
	if (tcp->doff < 5 || tcp->doff * 4U > rest)
		return READ_BAD;
	/* No flag at all; a beginning that is an end. */
	if ((packet->flags & 0x3f) == 0 || (tcp->syn && (tcp->fin || tcp->rst)))
		return READ_BAD;
	return READ_ALL;
}

static __always_inline enum read read_udp(
        struct xdp_md *ctx, struct packet *packet, const struct udphdr *udp, __u32 rest)
{
	__u32 length;

	if ((const void *)(udp + 1) > (const void *)(long)ctx->data_end)
		return read_short(ctx, packet);
	packet->sport = udp->source;
	packet->dport = udp->dest;
	packet->has_ports = 1;
	length = bpf_ntohs(udp->len);
	/* Zero: a jumbogram. */
	if (length == 0 && packet->family == AF_INET6)
		return READ_ALL;
	return length < sizeof(*udp) || length > rest ? READ_BAD : READ_ALL;
}

/* rest: how many bytes the packet has from here on, by its own account. */
static __always_inline enum read read_transport(struct xdp_md *ctx, struct packet *packet, const void *at, __u32 rest)
{
	const __u8 *type = at;

	switch (packet->protocol) {
	case IPPROTO_TCP:
		return rest < sizeof(struct tcphdr) ? READ_BAD : read_tcp(ctx, packet, at, rest);
	case IPPROTO_UDP:
		return rest < sizeof(struct udphdr) ? READ_BAD : read_udp(ctx, packet, at, rest);
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (rest < 4)
			return READ_BAD;
		if ((const void *)(type + 4) > (const void *)(long)ctx->data_end)
			return read_short(ctx, packet);
		packet->icmp_type = *type;
		packet->has_icmp = packet->protocol == (packet->family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6);
		return READ_ALL;
	default:
		return READ_ALL;
	}
}

static __always_inline enum read read_v4(struct xdp_md *ctx, struct packet *packet, const void *at, __u32 room)
{
	const struct iphdr *ip = at;
	__u32 header, total;

	if ((const void *)(ip + 1) > (const void *)(long)ctx->data_end)
		return read_short(ctx, packet);
	packet->family = AF_INET;
	packet->network = (__u16)(at - (const void *)(long)ctx->data);
	packet->src.words[0] = ip->saddr;
	packet->dst.words[0] = ip->daddr;
	packet->protocol = ip->protocol;
	header = ip->ihl * 4U;
	total = bpf_ntohs(ip->tot_len);
	if (total == 0 && room > LENGTH_FIELD_MAX)
		total = room;
	if (ip->version != 4 || header < sizeof(*ip) || total < header || total > room)
		return READ_BAD;
	packet->size = total;
	if (ip->frag_off & bpf_htons(0x3fff)) {
		packet->fragment = 1;
		return READ_ALL;
	}
	return read_transport(ctx, packet, at + header, total - header);
}

/* From the header that `protocol` names at `offset` on. */
static __always_inline enum read read_v6_rest(
        struct xdp_md *ctx, struct packet *packet, const void *at, __u32 offset, __u32 total)
{
	const void *end = (const void *)(long)ctx->data_end;

#pragma unroll
	for (int i = 0; i < PREFILTER_HEADERS_MAX; i++) {
		const void *here = at + offset;
		const struct extension *extension = here;
		const struct fragment *fragment = here;

		switch (packet->protocol) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
			if ((const void *)(extension + 1) > end)
				return read_short(ctx, packet);
			packet->protocol = extension->next;
			offset += (extension->length + 1U) * 8;
			break;
		case IPPROTO_AH:
			if ((const void *)(extension + 1) > end)
				return read_short(ctx, packet);
			packet->protocol = extension->next;
			offset += (extension->length + 2U) * 4;
			break;
		case IPPROTO_FRAGMENT:
			if ((const void *)(fragment + 1) > end)
				return read_short(ctx, packet);
			packet->protocol = fragment->next;
			offset += sizeof(*fragment);
			/* One that is the whole packet is none. */
			if (fragment->offset & bpf_htons(0xfff9)) {
				packet->fragment = 1;
				return offset > total ? READ_BAD : READ_ALL;
			}
			break;
		default:
			return offset > total ? READ_BAD : read_transport(ctx, packet, here, total - offset);
		}
		if (offset > total)
			return READ_BAD;
	}
	return READ_SOME;
}

static __always_inline enum read read_v6(struct xdp_md *ctx, struct packet *packet, const void *at, __u32 room)
{
	const struct ipv6hdr *ip = at;
	__u32 total;

	if ((const void *)(ip + 1) > (const void *)(long)ctx->data_end)
		return read_short(ctx, packet);
	packet->family = AF_INET6;
	packet->network = (__u16)(at - (const void *)(long)ctx->data);
	__builtin_memcpy(&packet->src, &ip->saddr, sizeof(packet->src));
	__builtin_memcpy(&packet->dst, &ip->daddr, sizeof(packet->dst));
	packet->protocol = ip->nexthdr;
	total = bpf_ntohs(ip->payload_len);
	if (total == 0 && (room > LENGTH_FIELD_MAX || ip->nexthdr == IPPROTO_HOPOPTS))
		total = room;
	else
		total += sizeof(*ip);
	if (ip->version != 6 || total > room)
		return READ_BAD;
	packet->size = total;
	return read_v6_rest(ctx, packet, at, sizeof(*ip), total);
}

static __always_inline enum read read_packet(struct xdp_md *ctx, struct packet *packet)
{
	const void *data = (const void *)(long)ctx->data, *end = (const void *)(long)ctx->data_end;
	const struct ethhdr *ethernet = data;
	const struct vlan *vlan = (const void *)(ethernet + 1);
	__be16 protocol;

	if ((const void *)(ethernet + 1) > end)
		return read_short(ctx, packet);
	packet->multicast = ethernet->h_dest[0] & 1;
	protocol = ethernet->h_proto;
	/* A tag and one in it, whichever of the two protocols each has. */
#pragma unroll
	for (int i = 0; i < 2; i++) {
		if (protocol != bpf_htons(ETH_P_8021Q) && protocol != bpf_htons(ETH_P_8021AD))
			break;
		if ((const void *)(vlan + 1) > end)
			return read_short(ctx, packet);
		protocol = vlan->protocol;
		packet->tagged = 1;
		vlan++;
	}
	if (protocol == bpf_htons(ETH_P_IP))
		return read_v4(ctx, packet, vlan, packet->length - (__u32)((const void *)vlan - data));
	if (protocol == bpf_htons(ETH_P_IPV6))
		return read_v6(ctx, packet, vlan, packet->length - (__u32)((const void *)vlan - data));
	return READ_ALL;
}

#endif
