/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The short cut of flows that the relay knows: at the ingress of each
 * interface, packets that belong to one get the addresses and ports of its
 * other side and leave, without having seen rules, sockets or the relay. What
 * is not simple goes the long way, as if this were not there: fragments, IP
 * options; of UDP also what the path does not take, and what comes in by
 * another interface. TCP is in stitch.h.
 *
 * See gatewayd/base/bpf_shortcut.h and bpf_stitch.h for the maps.
 */
#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gatewayd/base/bpf_shortcut.h"
#include "gatewayd/base/bpf_stitch.h"
#include "gatewayd/base/bpf_straight.h"
#include "rules/bpf/extension.h"

#define FAMILY_V4          2
#define FAMILY_V6          10
#define FRAGMENT_MORE      0x2000
#define FRAGMENT_OFFSET    0x1fff /* where it belongs */
#define FRAGMENT_OFFSET_V6 0xfff8
#define OPTION_JUMBO       0xc2 /* RFC 2675 */
/* So many headers are gone past. */
#define EXTENSIONS_MAX 4
/* Ports behind more headers than this would not be in a packet's first piece anyhow. */
#define TRANSPORT_MAX 1024
#define VLAN_MASK     0x0fff
#define UDP_CHECK     offsetof(struct udphdr, check)
#define ADDRESS_PARTS 4

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BPF_SHORTCUT_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct bpf_shortcut_key);
	__type(value, struct bpf_shortcut);
} shortcuts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bpf_shortcut_control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, BPF_SHORTCUT_TALLIES_MAX);
	__type(key, struct bpf_shortcut_tally_key);
	__type(value, struct bpf_shortcut_tally);
} tallies SEC(".maps");

/* A packet that may take the short cut. */
struct packet {
	struct bpf_shortcut_key key;
	__u32 network, transport; /* offsets */
	__u32 length;             /* of the IP packet */
	__u32 payload;            /* of the datagram, or of all that it was put together from; not of TCP */
	__u8 odd;    /* the first of fragments, or with IP options or headers between IP's and the transport's */
	__u8 big;    /* of IPv6, and put together from so much that it has a header more */
	__u8 copied; /* it goes the long way, too */
	__u8 protocol;
	__u8 hops;
	__u8 tos; /* of IPv4 */
};

/* What both protocols begin with; of others it means nothing. */
static __always_inline int ports_parse(const struct __sk_buff *skb, struct packet *packet)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const struct udphdr *udp = data + packet->transport;

	if ((void *)(udp + 1) > end)
		return 0;
	packet->key.source_port = udp->source;
	packet->key.destination_port = udp->dest;
	if (packet->length < packet->transport - packet->network + sizeof(*udp))
		return 0;
	packet->payload = packet->length - (packet->transport - packet->network) - sizeof(*udp);
	return 1;
}

static __always_inline int v4_parse(const struct __sk_buff *skb, struct packet *packet)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const struct iphdr *ip = data + packet->network;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5 || (ip->frag_off & bpf_htons(FRAGMENT_OFFSET)))
		return 0;
	packet->odd = ip->ihl != 5 || (ip->frag_off & bpf_htons(FRAGMENT_MORE));
	packet->key.family = 4;
	__builtin_memcpy(packet->key.source, &ip->saddr, sizeof(ip->saddr));
	__builtin_memcpy(packet->key.destination, &ip->daddr, sizeof(ip->daddr));
	packet->protocol = ip->protocol;
	packet->hops = ip->ttl;
	packet->tos = ip->tos;
	/* It has no room for more than 64 KiB that were put together. */
	packet->length = ip->tot_len ? bpf_ntohs(ip->tot_len) : skb->len - packet->network;
	packet->transport = packet->network + ip->ihl * 4;
	return ports_parse(skb, packet);
}

/* The only option of a hop-by-hop header that says how long a packet of more than 64 KiB is. */
struct jumbo {
	struct extension header;
	__u8 kind, size;
	__be32 length;
};

/* What the kernel makes of a stream's packets that it has put together (BIG TCP); its parts have no such header. */
static __always_inline int v6_is_big(const struct __sk_buff *skb, const struct packet *packet)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const struct ipv6hdr *ip = data + packet->network;
	const struct jumbo *jumbo = (const void *)(ip + 1);

	return (void *)(jumbo + 1) <= end && ip->payload_len == 0 && ip->nexthdr == IPPROTO_HOPOPTS && skb->gso_size &&
	       jumbo->header.next == IPPROTO_TCP && jumbo->header.length == 0 && jumbo->kind == OPTION_JUMBO &&
	       jumbo->size == sizeof(jumbo->length);
}

/* Goes past extension headers: where the transport header is if it is in this packet, else 0. */
static __noinline __u32 v6_walk(const struct __sk_buff *skb, struct packet *packet)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 offset = packet->network + sizeof(struct ipv6hdr);

#pragma unroll
	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		const struct extension *header = data + offset;
		const struct fragment *fragment = data + offset;

		switch (packet->protocol) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
			if ((void *)(header + 1) > end)
				return 0;
			packet->protocol = header->next;
			offset += (header->length + 1U) * 8;
			break;
		case IPPROTO_FRAGMENT:
			if ((void *)(fragment + 1) > end || (fragment->offset & bpf_htons(FRAGMENT_OFFSET_V6)))
				return 0;
			packet->protocol = fragment->next;
			offset += sizeof(*fragment);
			break;
		default:
			return offset;
		}
		packet->odd = 1;
	}
	return 0;
}

static __always_inline int v6_parse(const struct __sk_buff *skb, struct packet *packet)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const struct ipv6hdr *ip = data + packet->network;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return 0;
	packet->key.family = 6;
	__builtin_memcpy(packet->key.source, &ip->saddr, sizeof(ip->saddr));
	__builtin_memcpy(packet->key.destination, &ip->daddr, sizeof(ip->daddr));
	packet->protocol = ip->nexthdr;
	packet->hops = ip->hop_limit;
	if (v6_is_big(skb, packet)) {
		packet->big = 1;
		packet->protocol = IPPROTO_TCP;
		packet->length = skb->len - packet->network;
		packet->transport = packet->network + sizeof(*ip) + sizeof(struct jumbo);
	} else {
		packet->length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
		packet->transport = v6_walk(skb, packet);
		if (packet->transport == 0 || packet->transport > TRANSPORT_MAX)
			return 0;
	}
	return ports_parse(skb, packet);
}

static __always_inline int parse(const struct __sk_buff *skb, struct packet *packet)
{
	packet->network = ETH_HLEN;
	if (skb->pkt_type != 0 || skb->vlan_present) /* not for us, or for the VLAN's interface */
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return v4_parse(skb, packet);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return v6_parse(skb, packet);
	return 0;
}

/* Of a packet that was put together, what each part will be. */
static __always_inline __u32 part_size(const struct __sk_buff *skb, const struct packet *packet, __u32 payload)
{
	__u32 headers = packet->length - payload - (packet->big ? sizeof(struct jumbo) : 0);

	return skb->gso_size ? skb->gso_size + headers : packet->length;
}

/* Where a packet of this size with these addresses would be forwarded to, had it come in by this interface, and if it
 * may be as large as it is; else 0, and if it is only too large, how large it may be, negative. */
static __always_inline int find_way(struct __sk_buff *skb, const struct bpf_shortcut_key *out, __u32 ifindex,
        __u8 protocol, __u8 tos, __u32 size, struct bpf_redir_neigh *neighbour)
{
	struct bpf_fib_lookup way = { .l4_protocol = protocol,
		.sport = out->source_port,
		.dport = out->destination_port,
		.tot_len = (__u16)size,
		.ifindex = ifindex };
	long r;

	if (out->family == 4) {
		way.family = FAMILY_V4;
		way.tos = tos;
		__builtin_memcpy(&way.ipv4_src, out->source, sizeof(way.ipv4_src));
		__builtin_memcpy(&way.ipv4_dst, out->destination, sizeof(way.ipv4_dst));
	} else {
		way.family = FAMILY_V6;
		__builtin_memcpy(way.ipv6_src, out->source, sizeof(way.ipv6_src));
		__builtin_memcpy(way.ipv6_dst, out->destination, sizeof(way.ipv6_dst));
	}
	r = bpf_fib_lookup(skb, &way, sizeof(way), 0);
	if (r != BPF_FIB_LKUP_RET_SUCCESS && r != BPF_FIB_LKUP_RET_NO_NEIGH)
		return r == BPF_FIB_LKUP_RET_FRAG_NEEDED ? -(int)way.mtu_result : 0;
	/* As the look-up left it: the next hop, or the destination itself. */
	neighbour->nh_family = way.family;
	if (way.family == FAMILY_V4)
		neighbour->ipv4_nh = way.ipv4_dst;
	else
		__builtin_memcpy(neighbour->ipv6_nh, way.ipv6_dst, sizeof(neighbour->ipv6_nh));
	return (int)way.ifindex;
}

static __always_inline int v4_rewrite(
        struct __sk_buff *skb, const struct packet *packet, const struct bpf_shortcut_key *out)
{
	__u32 from_source, from_destination, source, destination;
	__u32 check = packet->network + offsetof(struct iphdr, check), udp_check = packet->transport + UDP_CHECK;
	__u16 hops = bpf_htons((__u16)(packet->hops << 8 | IPPROTO_UDP)),
	      fewer = bpf_htons((__u16)((packet->hops - 1) << 8 | IPPROTO_UDP));

	__builtin_memcpy(&from_source, packet->key.source, sizeof(from_source));
	__builtin_memcpy(&from_destination, packet->key.destination, sizeof(from_destination));
	__builtin_memcpy(&source, out->source, sizeof(source));
	__builtin_memcpy(&destination, out->destination, sizeof(destination));
	if (bpf_l3_csum_replace(skb, check, hops, fewer, sizeof(hops)) < 0 ||
	        bpf_skb_store_bytes(skb, packet->network + offsetof(struct iphdr, ttl), &fewer, sizeof(fewer), 0) < 0)
		return 0;
	if (from_source != source &&
	        (bpf_l3_csum_replace(skb, check, from_source, source, 4) < 0 ||
	                bpf_l4_csum_replace(
	                        skb, udp_check, from_source, source, 4 | BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0) < 0 ||
	                bpf_skb_store_bytes(skb, packet->network + offsetof(struct iphdr, saddr), &source, 4, 0) < 0))
		return 0;
	if (from_destination != destination &&
	        (bpf_l3_csum_replace(skb, check, from_destination, destination, 4) < 0 ||
	                bpf_l4_csum_replace(skb, udp_check, from_destination, destination,
	                        4 | BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0) < 0 ||
	                bpf_skb_store_bytes(skb, packet->network + offsetof(struct iphdr, daddr), &destination, 4, 0) <
	                        0))
		return 0;
	return 1;
}

static __always_inline int v6_rewrite(
        struct __sk_buff *skb, const struct packet *packet, const struct bpf_shortcut_key *out)
{
	__u32 from[2 * ADDRESS_PARTS], to[2 * ADDRESS_PARTS], differ = 0;
	__u8 fewer = packet->hops - 1;
	__s64 difference;

	/* Source and destination lie side by side, in the key as in the header. */
	__builtin_memcpy(from, packet->key.source, sizeof(from));
	__builtin_memcpy(to, out->source, sizeof(to));
	if (bpf_skb_store_bytes(skb, packet->network + offsetof(struct ipv6hdr, hop_limit), &fewer, 1, 0) < 0)
		return 0;
	for (int i = 0; i < 2 * ADDRESS_PARTS; i++)
		differ |= from[i] ^ to[i];
	if (!differ)
		return 1;
	difference = bpf_csum_diff(from, sizeof(from), to, sizeof(to), 0);
	return difference >= 0 &&
	       bpf_l4_csum_replace(skb, packet->transport + UDP_CHECK, 0, (__u64)difference,
	               BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0) == 0 &&
	       bpf_skb_store_bytes(skb, packet->network + offsetof(struct ipv6hdr, saddr), to, sizeof(to), 0) == 0;
}

static __always_inline int port_rewrite(
        struct __sk_buff *skb, const struct packet *packet, __u32 offset, __u16 from, __u16 to)
{
	if (from == to)
		return 1;
	return bpf_l4_csum_replace(skb, packet->transport + UDP_CHECK, from, to, 2 | BPF_F_MARK_MANGLED_0) == 0 &&
	       bpf_skb_store_bytes(skb, packet->transport + offset, &to, sizeof(to), 0) == 0;
}

static __always_inline int rewrite(
        struct __sk_buff *skb, const struct packet *packet, const struct bpf_shortcut_key *out)
{
	if (packet->key.family == 4 ? !v4_rewrite(skb, packet, out) : !v6_rewrite(skb, packet, out))
		return 0;
	return port_rewrite(skb, packet, offsetof(struct udphdr, source), packet->key.source_port, out->source_port) &&
	       port_rewrite(
	               skb, packet, offsetof(struct udphdr, dest), packet->key.destination_port, out->destination_port);
}

static __always_inline void count(const struct __sk_buff *skb, const struct packet *packet, struct bpf_shortcut *way)
{
	__u32 datagrams = skb->gso_segs > 1 ? skb->gso_segs : 1;

	/* Of what was put together, the headers but one are not in the packet. */
	__sync_fetch_and_add(&way->datagrams, datagrams);
	__sync_fetch_and_add(&way->bytes, packet->payload);
	way->active_ns = bpf_ktime_get_coarse_ns();
}

static __noinline int datagram(struct __sk_buff *skb, struct packet *packet)
{
	const struct bpf_shortcut_control *now;
	struct bpf_redir_neigh neighbour = { 0 };
	struct bpf_shortcut_key out;
	struct bpf_shortcut *way;
	__u32 zero = 0;
	int ifindex;

	if (packet->hops <= 1)
		return TC_ACT_UNSPEC;
	way = bpf_map_lookup_elem(&shortcuts, &packet->key);
	if (!way)
		return TC_ACT_UNSPEC;
	now = bpf_map_lookup_elem(&control, &zero);
	if (!now || !now->open || way->epoch != now->epoch)
		return TC_ACT_UNSPEC;
	if (way->ifindex == 0)
		way->ifindex = skb->ifindex;
	if (way->ifindex != skb->ifindex)
		return TC_ACT_UNSPEC;
	out = way->out;
	ifindex = find_way(
	        skb, &out, skb->ifindex, IPPROTO_UDP, packet->tos, part_size(skb, packet, packet->payload), &neighbour);
	if (ifindex <= 0)
		return TC_ACT_UNSPEC;
	/* From here on the packet is another one: what fails is lost. */
	if (!rewrite(skb, packet, &out))
		return TC_ACT_SHOT;
	count(skb, packet, way);
	return (int)bpf_redirect_neigh((__u32)ifindex, &neighbour, sizeof(neighbour), 0);
}

#include "rules/bpf/tell.h"

#include "rules/bpf/stitch.h"

/* For the ledger: rules that would count the packet do not see it. */
static __noinline int tally(__u32 ifindex, __u32 kind, __u32 bytes)
{
	struct bpf_shortcut_tally_key key = { .ifindex = ifindex, .kind = kind };
	struct bpf_shortcut_tally *found = bpf_map_lookup_elem(&tallies, &key), none = { 0 };

	if (!found) {
		bpf_map_update_elem(&tallies, &key, &none, BPF_NOEXIST);
		found = bpf_map_lookup_elem(&tallies, &key);
	}
	if (found) {
		found->packets++;
		found->bytes += bytes;
	}
	return 0;
}

/* Where a generic XDP program has seen the packet, newer kernels show it without its Ethernet header, which is there
 * all the same (they copy it, and forget how long that is). Puts it back in view, for all that comes after this, too.
 * False: it is not to be had. */
static __noinline int frame_restore(struct __sk_buff *skb)
{
	struct {
		__u32 words[3];
		__be16 protocol;
	} seen = { 0 }, header = { 0 };

	if (bpf_skb_load_bytes(skb, 0, &seen, ETH_HLEN) < 0 ||
	        bpf_skb_load_bytes_relative(skb, 0, &header, ETH_HLEN, BPF_HDR_START_MAC) < 0)
		return 0;
	if (seen.words[0] == header.words[0] && seen.words[1] == header.words[1] && seen.words[2] == header.words[2] &&
	        seen.protocol == header.protocol)
		return 1; /* an address that only looks so */
	return header.protocol == skb->protocol && bpf_skb_change_head(skb, ETH_HLEN, 0) == 0 &&
	       bpf_skb_store_bytes(skb, 0, &header, ETH_HLEN, 0) == 0;
}

/* Whether it may begin with the IP header. */
static __always_inline int is_without_frame(const struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const __u8 *first = data;

	if ((void *)(first + 1) > end)
		return 0;
	return *first >> 4 == (skb->protocol == bpf_htons(ETH_P_IP) ? 4 : 6);
}

SEC("tc")
int shortcut(struct __sk_buff *skb)
{
	struct packet packet = { 0 };
	__u32 ifindex = skb->ifindex, kind;
	int action;

	if (is_without_frame(skb) && !frame_restore(skb))
		return TC_ACT_UNSPEC;
	/* A tag that has a priority and no VLAN: the stack does not mind it, either. */
	if (skb->vlan_present && !(skb->vlan_tci & VLAN_MASK) && bpf_skb_vlan_pop(skb) < 0)
		return TC_ACT_UNSPEC;
	if (!parse(skb, &packet))
		return TC_ACT_UNSPEC;
	switch (packet.protocol) {
	case IPPROTO_UDP:
		kind = BPF_SHORTCUT_UDP;
		action = packet.odd ? TC_ACT_UNSPEC : datagram(skb, &packet);
		break;
	case IPPROTO_TCP:
		kind = BPF_SHORTCUT_TCP;
		action = stitch(skb, &packet);
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return packet.odd ? TC_ACT_UNSPEC : icmp(skb, packet.key.family);
	default:
		return TC_ACT_UNSPEC;
	}
	/* Of one that was copied the copy is counted, by the rules. */
	if (action != TC_ACT_UNSPEC && !packet.copied)
		tally(ifindex, action == TC_ACT_SHOT ? BPF_SHORTCUT_DROPPED : kind, packet.length);
	return action;
}

char shortcut_license[] SEC("license") = "GPL";
