/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Interception at the ingress of interfaces: what begins a flow that a relay
 * listener matches is marked, and a connection gets the relay's listening
 * socket.
 *
 * Theory of operation: the rules of nft (rules/render_chains.c) stay in force
 * and decide about everything; the program only does beforehand what they
 * would do, from maps with the same elements, for the packets it is sure of.
 * All others it leaves as they are: whatever it does not read (fragments, IP
 * options, extension headers), listeners with limits, addresses of the
 * gateway's own, and everything while the control is not open, which is so
 * while a change of the configuration is under way. So it needs no transaction
 * with nft, and nothing is lost when it is taken off.
 *
 * What begins a flow gets the mark of intercepted packets here; the rules see
 * by it that it has been classified, and ask only whether its source is banned.
 * A connection gets the relay's listening socket, too. A datagram does not: which
 * thread's is tproxy's choice, for when it is handed over the kernel would
 * choose once more, by another hash than for those that nft sees to, and all
 * datagrams of a client's socket have to be one thread's.
 *
 * Packets of connections are left as they are: the kernel finds their sockets, and
 * with them the route that was looked up for the one before. One that is given
 * its socket here has to look it up anew, which cost more than it saved.
 *
 * A SYN whose addresses and ports have a socket already, one in TIME_WAIT say,
 * is left: the socket has to make room first, which tproxy sees to.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "rules/bpf/packet.h"
#include "rules/intercept.h"

#define FRAGMENT_BITS 0x3fff /* that more follow, and where it belongs */
#define V4_GROUPS     224    /* 224.0.0.0/4, and what is behind it */
#define HEADERS       (ETH_HLEN + sizeof(struct ipv6hdr) + sizeof(struct tcphdr))
#define TCP_FLAGS     13 /* the byte of a TCP header that has them */
#define TCP_SYN       0x02
#define TCP_ACK       0x10
#define PORT_BITS     16

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct intercept_control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, INTERCEPT_KINDS *INTERCEPT_SHAPES_MAX);
	__type(key, __u32);
	__type(value, struct intercept_shape);
} shapes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, INTERCEPT_ELEMENTS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct intercept_key);
	__type(value, __u32);
} elements SEC(".maps");

/* An element is at most thirty prefixes; there are as many in all as there are elements, or nft has to do it. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, INTERCEPT_ELEMENTS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct intercept_range_key);
	__type(value, __u32);
} ranges SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, INTERCEPT_INTERFACES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, char[INTERCEPT_NAME]);
} interfaces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, INTERCEPT_COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *value = bpf_map_lookup_elem(&counts, &which);

	if (value)
		++*value;
}

/* --- reading --- */

static __always_inline int v4_parse(const struct __sk_buff *skb, struct packet *packet)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const struct iphdr *ip = data + ETH_HLEN;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl != 5 || (ip->frag_off & bpf_htons(FRAGMENT_BITS)))
		return 0;
	packet->family = AF_INET;
	packet->protocol = ip->protocol;
	packet->src.words[0] = ip->saddr;
	packet->dst.words[0] = ip->daddr;
	packet->transport = ETH_HLEN + sizeof(*ip);
	return 1;
}

static __always_inline int v6_parse(const struct __sk_buff *skb, struct packet *packet)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const struct ipv6hdr *ip = data + ETH_HLEN;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return 0;
	packet->family = AF_INET6;
	packet->protocol = ip->nexthdr;
	__builtin_memcpy(&packet->src, &ip->saddr, sizeof(packet->src));
	__builtin_memcpy(&packet->dst, &ip->daddr, sizeof(packet->dst));
	packet->transport = ETH_HLEN + sizeof(*ip);
	return 1;
}

/* Of TCP and UDP; the flags of TCP. */
static __always_inline int transport_parse(const struct __sk_buff *skb, struct packet *packet)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const struct udphdr *ports = data + packet->transport;
	const __u8 *bytes = (const __u8 *)ports;

	if (packet->protocol == IPPROTO_TCP) {
		if ((void *)(bytes + sizeof(struct tcphdr)) > end)
			return 0;
		packet->flags = bytes[TCP_FLAGS];
	} else if (packet->protocol != IPPROTO_UDP || (void *)(ports + 1) > end) {
		return 0;
	}
	packet->sport = ports->source;
	packet->dport = ports->dest;
	return 1;
}

static __always_inline int parse(struct __sk_buff *skb, struct packet *packet)
{
	if (skb->pkt_type != 0 || skb->vlan_present) /* not for us, or for the VLAN's interface */
		return 0;
	/* Some drivers leave headers in the packet's pages. */
	if (skb->data + HEADERS > skb->data_end)
		bpf_skb_pull_data(skb, skb->len < HEADERS ? skb->len : HEADERS);
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return v4_parse(skb, packet) && transport_parse(skb, packet);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return v6_parse(skb, packet) && transport_parse(skb, packet);
	return 0;
}

/* --- classification --- */

static __always_inline __u32 kind_of(const struct packet *packet)
{
	if (packet->protocol == IPPROTO_TCP)
		return packet->family == AF_INET ? INTERCEPT_TCP4 : INTERCEPT_TCP6;
	return packet->family == AF_INET ? INTERCEPT_UDP4 : INTERCEPT_UDP6;
}

/* One look-up after the other. */
struct search {
	struct intercept_range_key range; /* the key, with room for what a range needs before it */
	union address src, dst;
	char name[INTERCEPT_NAME]; /* of the interface */
	__be16 dport;
	__u16 first; /* of its shapes */
	__u32 verdict;
	__u32 dst_len; /* of the shape that matched */
};

static __always_inline void make_key(struct search *search, const struct intercept_shape *shape)
{
	struct intercept_key *key = &search->range.key;

	key->dst_len = shape->dst_len;
	key->src_len = shape->src_len;
	key->interface = shape->interface;
	key->port = shape->port;
	for (int word = 0; word < 4; word++) {
		__u32 dst = search->dst.words[word] & shape->dst_mask[word],
		      src = search->src.words[word] & shape->src_mask[word];

		__builtin_memcpy(key->dst + 4 * word, &dst, sizeof(dst));
		__builtin_memcpy(key->src + 4 * word, &src, sizeof(src));
	}
	if (shape->interface)
		__builtin_memcpy(key->name, search->name, sizeof(key->name));
	else
		__builtin_memset(key->name, 0, sizeof(key->name));
	key->dport = shape->port == INTERCEPT_PORT_ANY ? 0 : search->dport;
}

/* Of the shape of this number; 1 ends the search. */
static long try_shape(__u32 number, void *userdata)
{
	struct search *search = userdata;
	__u32 at = search->first + number;
	const struct intercept_shape *shape = bpf_map_lookup_elem(&shapes, &at);
	const __u32 *verdict;

	if (!shape)
		return 1;
	make_key(search, shape);
	if (shape->port == INTERCEPT_PORT_RANGE)
		verdict = bpf_map_lookup_elem(&ranges, &search->range);
	else
		verdict = bpf_map_lookup_elem(&elements, &search->range.key);
	if (!verdict)
		return 0;
	search->verdict = *verdict;
	search->dst_len = shape->dst_len;
	return 1;
}

/* What the strongest element that matches says. ret_spares: addresses of the gateway's own do not get so far. */
static __noinline int classify(struct __sk_buff *skb, const struct packet *packet, __u32 *ret_spares)
{
	struct search search = { .range.prefix = INTERCEPT_RANGE_BITS + PORT_BITS };
	__u32 zero = 0, ifindex = skb->ifindex, kind;
	const struct intercept_control *now = bpf_map_lookup_elem(&control, &zero);
	const char *name = bpf_map_lookup_elem(&interfaces, &ifindex);

	if (!packet || !ret_spares || !now || !name)
		return INTERCEPT_LEAVE;
	kind = kind_of(packet);
	search.range.key.kind = (__u8)kind;
	search.src = packet->src;
	search.dst = packet->dst;
	search.dport = packet->dport;
	search.first = (__u16)(kind * INTERCEPT_SHAPES_MAX);
	__builtin_memcpy(search.name, name, sizeof(search.name));
	bpf_loop(now->n_shapes[kind & 3], try_shape, &search, 0);
	*ret_spares = search.dst_len < (packet->family == AF_INET ? 32 : 128);
	if (search.verdict == INTERCEPT_RELAY_DIRECT && !now->direct)
		return INTERCEPT_RELAY;
	return (int)search.verdict;
}

/* Whether the packet would be forwarded if there were no gateway: it is to no address of ours, nor to a group. One that
 * has no route is not, either; nft knows how to tell. */
static __noinline int is_passing(struct __sk_buff *skb, const struct packet *packet)
{
	struct bpf_fib_lookup way = { 0 };
	long r;

	if (!packet)
		return 0;
	way.family = (__u8)packet->family;
	way.l4_protocol = packet->protocol;
	way.sport = packet->sport;
	way.dport = packet->dport;
	way.ifindex = skb->ifindex;
	if (packet->family == AF_INET) {
		__u8 network = packet->dst.bytes[0];

		/* The kernel would look for a route to groups and all hosts, too. */
		if (network == 0 || network >= V4_GROUPS)
			return 0;
		way.ipv4_src = packet->src.words[0];
		way.ipv4_dst = packet->dst.words[0];
	} else {
		/* Of a link, or a group's. */
		if (packet->dst.bytes[0] == 0xff ||
		        (packet->dst.bytes[0] == 0xfe && (packet->dst.bytes[1] & 0xc0) == 0x80))
			return 0;
		__builtin_memcpy(way.ipv6_src, &packet->src, sizeof(way.ipv6_src));
		__builtin_memcpy(way.ipv6_dst, &packet->dst, sizeof(way.ipv6_dst));
	}
	r = bpf_fib_lookup(skb, &way, sizeof(way), 0);
	return r == BPF_FIB_LKUP_RET_SUCCESS || r == BPF_FIB_LKUP_RET_NO_NEIGH;
}

/* --- handing over --- */

/* Whether the relay takes the connection, by any of its listening sockets: the kernel chooses among them. Whoever else
 * listens on their port has not their mark. */
static __noinline int hand_over(struct __sk_buff *skb, const struct packet *packet)
{
	__u32 zero = 0;
	const struct intercept_control *now = bpf_map_lookup_elem(&control, &zero);
	struct bpf_sock *listener, *full;
	int ours = 0;
	long r = -1;

	if (!packet || !now)
		return 0;
	listener = find_listener(skb, packet, packet->family == AF_INET ? now->listener_v4 : now->listener_v6);
	if (listener) {
		full = bpf_sk_fullsock(listener);
		ours = full && full->state == BPF_TCP_LISTEN && (full->mark & now->mark_mask & now->own);
		if (ours)
			r = bpf_sk_assign(skb, listener, 0);
		bpf_sk_release(listener);
	}
	count(r == 0 ? INTERCEPT_COUNT_tcp : ours ? INTERCEPT_COUNT_refused : INTERCEPT_COUNT_no_socket);
	return r == 0;
}

/* What begins a flow, if a listener matches it. */
static __noinline int begin(struct __sk_buff *skb, const struct packet *packet)
{
	__u32 zero = 0, spares = 0;
	const struct intercept_control *now = bpf_map_lookup_elem(&control, &zero);

	if (!packet || !now)
		return TC_ACT_UNSPEC;
	if (classify(skb, packet, &spares) != INTERCEPT_RELAY)
		return TC_ACT_UNSPEC;
	if (spares && !is_passing(skb, packet)) {
		count(INTERCEPT_COUNT_left);
		return TC_ACT_UNSPEC;
	}
	if (packet->protocol == IPPROTO_UDP)
		count(INTERCEPT_COUNT_udp);
	else if (!hand_over(skb, packet))
		return TC_ACT_UNSPEC;
	skb->mark = (skb->mark & ~now->mark_mask) | now->mark;
	return TC_ACT_UNSPEC;
}

static __always_inline int is_request(const struct packet *packet)
{
	return (packet->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* Whether a request for a connection finds its addresses and ports free. */
static __noinline int is_free(struct __sk_buff *skb, const struct packet *packet)
{
	struct bpf_sock *sk;
	__u32 state;

	if (!packet)
		return 0;
	sk = find_flow(skb, packet);
	if (!sk)
		return 1;
	state = sk->state;
	bpf_sk_release(sk);
	if (state != BPF_TCP_LISTEN)
		count(INTERCEPT_COUNT_in_use);
	return state == BPF_TCP_LISTEN;
}

SEC("tc")
int intercept(struct __sk_buff *skb)
{
	struct packet packet = { 0 };
	__u32 zero = 0;
	const struct intercept_control *now = bpf_map_lookup_elem(&control, &zero);

	if (!now || !now->open || !parse(skb, &packet))
		return TC_ACT_UNSPEC;
	if (packet.protocol == IPPROTO_TCP && (!is_request(&packet) || !is_free(skb, &packet)))
		return TC_ACT_UNSPEC;
	return begin(skb, &packet);
}

char intercept_license[] SEC("license") = "GPL";
