/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Judges each packet of an interface before the network stack sees it; see
 * rules/prefilter.h for what it shares with its loader (rules/kernel_xdp.c)
 * and docs/prefilter.md for the order of the rules.
 *
 * It reads packets only, nothing of the kernel's own structures: it loads
 * without type information of the kernel. Loops are bounded, the newest helpers
 * are of Linux 6.0.
 */
#include <linux/bpf.h>

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gatewayd/base/bpf_stitch.h"
#include "rules/bpf/packet.h"
#include "rules/bpf/read.h"
#include "rules/bpf/seen.h"
#include "rules/bpf/syn_cookie.h"
#include "rules/prefilter.h"

const volatile struct prefilter_params params = { 0 };
/* Whether there is any ban to look for: of this program's own making; of the daemon's. */
__u32 bans_used = 0;
__u32 shut_used = 0;
/* When a cookie was last given, in nanoseconds since the boot; 0: never. */
__u64 cookie_at = 0;
/* The ticks in which that was, and in which a socket of each family (IPv4, IPv6) last said that its queue is full. */
__u64 cookie_tick = 0, full_tick[2] = { 0 };
/* Of the interface, as it was then. */
__u32 answer_mtu = 0;
/* For a copy: the limit that a packet was over last. */
__u32 limited = 0;
/* Destinations and ticks, hashed; see is_relayed_still. */
__u64 relayed_known[1 << PREFILTER_RELAYED_KNOWN_BITS] = { 0 };

struct list_v4 {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, PREFILTER_ENTRIES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefilter_key_v4);
	__type(value, __u8);
};

struct list_v6 {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, PREFILTER_ENTRIES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefilter_key_v6);
	__type(value, __u8);
};

/* The short cut's own (rules/bpf/stitch.h): flows that have no socket are known by it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * BPF_STITCH_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct bpf_shortcut_key);
	__type(value, struct bpf_stitch_way);
} ways SEC(".maps");

struct list_v4 deny_v4 SEC(".maps"), allow_v4 SEC(".maps");
struct list_v6 deny_v6 SEC(".maps"), allow_v6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PREFILTER_PORT_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} ports SEC(".maps");

/* Of each source the time until which it has used up its rate, << PREFILTER_TIME_SHIFT. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, PREFILTER_BUCKETS_MAX);
	__type(key, struct prefilter_source);
	__type(value, __u64);
} buckets SEC(".maps");

/* Until when, in nanoseconds since the boot. No LRU map: whoever can make new entries must not push out others. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PREFILTER_BANS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefilter_source);
	__type(value, __u64);
} bans SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, PREFILTER_BANS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefilter_key_v4);
	__type(value, struct prefilter_shut);
} shut_v4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, PREFILTER_BANS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefilter_key_v6);
	__type(value, struct prefilter_shut);
} shut_v6 SEC(".maps");

/* Where connection requests may be answered with cookies, and where not; whose datagrams are limited: see
 * prefilter_relayed_*. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, PREFILTER_RELAYED_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefilter_relayed_v4);
	__type(value, __u32);
} relayed_v4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, PREFILTER_RELAYED_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefilter_relayed_v6);
	__type(value, __u32);
} relayed_v6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PREFILTER_PAIRS_MAX);
	__type(key, __u32);
	__type(value, struct prefilter_pair);
} pairs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, PREFILTER_SHARES_MAX);
	__type(key, struct prefilter_share);
	__type(value, __u64);
} shares SEC(".maps");

/* What was over a limit and so was dropped. Entries are made with the pairs. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 2 * PREFILTER_PAIRS_MAX); /* those of the program before are there until it is settled */
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefilter_over);
	__type(value, struct prefilter_count);
} overs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PREFILTER_REASONS);
	__type(key, __u32);
	__type(value, struct prefilter_count);
} counters SEC(".maps");

struct told {
	__u64 second, number;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PREFILTER_REASONS);
	__type(key, __u32);
	__type(value, struct told);
} told SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, PREFILTER_RING_SIZE);
} events SEC(".maps");

/* --- the rules --- */

static __always_inline void source_of(const struct packet *packet, struct prefilter_source *ret)
{
	ret->family = packet->family;
	__builtin_memcpy(ret->addr, &packet->src, sizeof(ret->addr));
}

static __always_inline int is_in(const struct packet *packet, void *list_v4, void *list_v6, int has_v4, int has_v6)
{
	if (packet->family == AF_INET) {
		struct prefilter_key_v4 key = { .length = 32 };

		__builtin_memcpy(key.addr, &packet->src, sizeof(key.addr));
		return has_v4 && bpf_map_lookup_elem(list_v4, &key) != NULL;
	}
	if (has_v6) {
		struct prefilter_key_v6 key = { .length = 128 };

		__builtin_memcpy(key.addr, &packet->src, sizeof(key.addr));
		return bpf_map_lookup_elem(list_v6, &key) != NULL;
	}
	return 0;
}

static __always_inline int is_banned(const struct prefilter_source *source)
{
	__u64 *until = bpf_map_lookup_elem(&bans, source);

	if (!until)
		return 0;
	if (*until > bpf_ktime_get_boot_ns())
		return 1;
	bpf_map_delete_elem(&bans, source);
	return 0;
}

/* One that is over goes, so that a shorter prefix which holds on is found behind it. */
static __always_inline int is_shut(const struct packet *packet)
{
	struct prefilter_key_v4 v4 = { .length = 32 };
	struct prefilter_key_v6 v6 = { .length = 128 };
	int is_v4 = packet->family == AF_INET;
	struct prefilter_shut *shut;

	__builtin_memcpy(v4.addr, &packet->src, sizeof(v4.addr));
	__builtin_memcpy(v6.addr, &packet->src, sizeof(v6.addr));
	shut = is_v4 ? bpf_map_lookup_elem(&shut_v4, &v4) : bpf_map_lookup_elem(&shut_v6, &v6);
	if (!shut)
		return 0;
	if (shut->until > bpf_ktime_get_boot_ns())
		return 1;
	v4.length = v6.length = shut->length;
	if (is_v4)
		bpf_map_delete_elem(&shut_v4, &v4);
	else
		bpf_map_delete_elem(&shut_v6, &v6);
	return 0;
}

/* Whether the account under this key is used up; if not, a packet is taken from it. */
static __always_inline int is_over(void *accounts, const void *key, __u64 interval, __u64 depth)
{
	__u64 now = bpf_ktime_get_boot_ns() << PREFILTER_TIME_SHIFT, first = now + interval;
	__u64 *used = bpf_map_lookup_elem(accounts, key);

	if (params.dry)
		return used && *used > now && *used + interval - now > depth;
	if (!used) {
		bpf_map_update_elem(accounts, key, &first, BPF_ANY);
		return 0;
	}
	/* Another processor may take a share at the same time. */
#pragma unroll
	for (int i = 0; i < 4; i++) {
		__u64 before = *(volatile __u64 *)used, after = (before > now ? before : now) + interval;

		if (after - now > depth) {
			/* Left of a slower rate. */
			if (before - now > depth)
				__sync_val_compare_and_swap(used, before, now + depth);
			return 1;
		}
		if (__sync_val_compare_and_swap(used, before, after) == before)
			return 0;
	}
	return 0;
}

static __always_inline void ban(const struct prefilter_source *source)
{
	__u64 until = bpf_ktime_get_boot_ns() + params.ban_ns;

	if (bpf_map_update_elem(&bans, source, &until, BPF_ANY) == 0)
		bans_used = 1;
}

/* Errors that concern flows: without them a smaller path MTU hangs uploads. They may come from any router. */
static __always_inline int is_icmp_error(const struct packet *packet)
{
	if (!packet->has_icmp)
		return 0;
	if (packet->family == AF_INET)
		return packet->icmp_type == 3 || packet->icmp_type == 11 || packet->icmp_type == 12;
	return packet->icmp_type >= 1 && packet->icmp_type <= 4;
}

static __always_inline int is_bogon_v4(const struct packet *packet)
{
	__u32 address = bpf_ntohl(packet->src.words[0]);

	/* A host without an address yet: DHCP, and IGMP. */
	if (address == 0)
		return !(packet->protocol == IPPROTO_UDP && packet->dport == bpf_htons(67)) &&
		       packet->protocol != IPPROTO_IGMP;
	return address >> 24 == 0 || address >> 24 == 127 || address >> 28 >= 0xe ||
	       packet->src.words[0] == packet->dst.words[0];
}

static __always_inline int is_bogon_v6(const struct packet *packet)
{
	const __u32 *src = packet->src.words, *dst = packet->dst.words;

	if (src[0] == 0 && src[1] == 0 && src[2] == 0 && (src[3] == 0 || src[3] == bpf_htonl(1)))
		return src[3] != 0 || packet->protocol != IPPROTO_ICMPV6; /* duplicate address detection */
	if (src[0] == 0 && src[1] == 0 && src[2] == bpf_htonl(0xffff))
		return 1;
	return packet->src.bytes[0] == 0xff ||
	       (src[0] == dst[0] && src[1] == dst[1] && src[2] == dst[2] && src[3] == dst[3]);
}

/* Whether it is of a TCP flow that the kernel translates, which may have no socket here. */
static __noinline int has_way(const struct packet *packet)
{
	struct bpf_shortcut_key key = { 0 };

	if (!packet || packet->protocol != IPPROTO_TCP)
		return 0;
	key.family = packet->family == AF_INET ? 4 : 6;
	__builtin_memcpy(key.source, &packet->src, sizeof(key.source));
	__builtin_memcpy(key.destination, &packet->dst, sizeof(key.destination));
	key.source_port = packet->sport;
	key.destination_port = packet->dport;
	return bpf_map_lookup_elem(&ways, &key) != NULL;
}

/* A socket, or what stands for one. */
static __always_inline int has_socket(struct xdp_md *ctx, const struct packet *packet)
{
	struct bpf_sock *sk;

	if (packet->protocol == IPPROTO_TCP)
		sk = find_flow(ctx, packet);
	else
		sk = find_udp(ctx, packet);
	if (!sk)
		return has_way(packet);
	bpf_sk_release(sk);
	return 1;
}

static __always_inline int is_wanted_port(struct xdp_md *ctx, const struct packet *packet)
{
	__u32 port = bpf_ntohs(packet->dport), slot = port >> 6;
	__u64 *word;

	if (packet->protocol == IPPROTO_UDP)
		slot += PREFILTER_PORT_WORDS;
	word = bpf_map_lookup_elem(&ports, &slot);
	if (word && *word >> (port & 63) & 1)
		return 1;
	/* What the network itself lives on: routing protocols, name resolution on the link, addresses being given. */
	if (packet->protocol == IPPROTO_UDP && (packet->multicast || port == 68 || port == 546))
		return 1;
	return has_socket(ctx, packet);
}

static __always_inline enum prefilter_reason judge_source(const struct packet *packet)
{
	struct prefilter_source source = { 0 };

	if (is_in(packet, &deny_v4, &deny_v6, params.deny_v4, params.deny_v6))
		return PREFILTER_denied;
	if (*(volatile __u32 *)&shut_used && is_shut(packet))
		return PREFILTER_banned;
	if (!params.interval && !*(volatile __u32 *)&bans_used)
		return PREFILTER_passed;
	source_of(packet, &source);
	if (*(volatile __u32 *)&bans_used && is_banned(&source))
		return PREFILTER_banned;
	if (params.interval && is_over(&buckets, &source, params.interval, params.depth)) {
		if (params.ban_ns)
			ban(&source);
		return PREFILTER_rate;
	}
	return PREFILTER_passed;
}

static __always_inline enum prefilter_reason judge(struct xdp_md *ctx, struct packet *packet)
{
	enum read read = read_packet(ctx, packet);
	enum prefilter_reason reason;

	if (read == READ_BAD)
		return PREFILTER_malformed;
	if (packet->family == 0)
		return PREFILTER_passed;
	if (is_in(packet, &allow_v4, &allow_v6, params.allow_v4, params.allow_v6))
		return PREFILTER_allowed;
	reason = judge_source(packet);
	if (reason != PREFILTER_passed || is_icmp_error(packet))
		return reason;
	if (params.fragments && packet->fragment)
		return PREFILTER_fragment;
	if (params.bogons && (packet->family == AF_INET ? is_bogon_v4(packet) : is_bogon_v6(packet)))
		return PREFILTER_bogon;
	if (params.ports && packet->has_ports && !is_wanted_port(ctx, packet))
		return PREFILTER_port;
	return PREFILTER_passed;
}

/* --- SYN cookies --- */

/* Of a listener that names no single address the gateway's own are not meant. Where the kernel has no way to, or does
 * not forward at all, it is not known: no. */
static __noinline int is_forwarded(struct xdp_md *ctx, const struct packet *packet)
{
	struct bpf_fib_lookup fib = { 0 };

	if (!ctx || !packet)
		return 0;
	/* fe80::/10 is for the link. */
	if (packet->family == AF_INET6 && packet->dst.bytes[0] == 0xfe && (packet->dst.bytes[1] & 0xc0) == 0x80)
		return 0;
	fib.family = (__u8)packet->family;
	fib.ifindex = ctx->ingress_ifindex;
	fib.l4_protocol = packet->protocol;
	fib.sport = packet->sport;
	fib.dport = packet->dport;
	if (packet->family == AF_INET) {
		fib.ipv4_src = packet->src.words[0];
		fib.ipv4_dst = packet->dst.words[0];
	} else {
		__builtin_memcpy(fib.ipv6_src, &packet->src, sizeof(fib.ipv6_src));
		__builtin_memcpy(fib.ipv6_dst, &packet->dst, sizeof(fib.ipv6_dst));
	}
	switch (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
	case BPF_FIB_LKUP_RET_NO_NEIGH:
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
	case BPF_FIB_LKUP_RET_UNSUPP_LWT:
		return 1;
	default:
		return 0;
	}
}

/* The first `length` bits of an address. */
static __always_inline void put_masked(__u8 *to, const union address *address, __u32 length, __u32 words)
{
#pragma unroll
	for (__u32 i = 0; i < words; i++) {
		__u32 bits = length > i * 32 ? length - i * 32 : 0;
		__u32 mask = bits >= 32 ? 0xffffffff : bits == 0 ? 0 : bpf_htonl(~(0xffffffffU >> bits));
		__u32 word = address->words[i] & mask;

		__builtin_memcpy(to + 4 * i, &word, sizeof(word));
	}
}

static __always_inline const __u32 *find_relayed(const struct packet *packet, __u32 way, __u32 dst, __u32 src)
{
	struct prefilter_relayed_v4 v4 = { .length = PREFILTER_RELAYED_BITS(v4), .way = (__u8)way };
	struct prefilter_relayed_v6 v6 = { .length = PREFILTER_RELAYED_BITS(v6), .way = (__u8)way };

	if (packet->family == AF_INET) {
		put_masked(v4.dst, &packet->dst, dst, 1);
		put_masked(v4.src, &packet->src, src, 1);
		__builtin_memcpy(v4.port, &packet->dport, sizeof(v4.port));
		return bpf_map_lookup_elem(&relayed_v4, &v4);
	}
	put_masked(v6.dst, &packet->dst, dst, 4);
	put_masked(v6.src, &packet->src, src, 4);
	__builtin_memcpy(v6.port, &packet->dport, sizeof(v6.port));
	return bpf_map_lookup_elem(&relayed_v6, &v6);
}

/* What is to be known of the packet, by the strongest element that matches it; 0 if none does. */
static __always_inline __u32 look_up(struct xdp_md *ctx, const struct packet *packet, int udp)
{
	int is_v4 = packet->family == AF_INET, forwarded = -1;
	__u32 n_v4 = udp ? params.n_udp_v4 : params.n_ways_v4, n_v6 = udp ? params.n_udp_v6 : params.n_ways_v6;

	for (__u32 i = 0; i < PREFILTER_WAYS_MAX; i++) {
		const volatile struct prefilter_way *v4 = udp ? &params.udp_v4[i] : &params.ways_v4[i],
		                                    *v6 = udp ? &params.udp_v6[i] : &params.ways_v6[i];
		__u32 dst = is_v4 ? v4->dst : v6->dst, src = is_v4 ? v4->src : v6->src;
		const __u32 *relayed;

		if (i >= (is_v4 ? n_v4 : n_v6))
			return 0;
		if (forwarded < 0 && dst < (is_v4 ? 32U : 128U))
			forwarded = is_forwarded(ctx, packet);
		if (forwarded == 0)
			return 0;
		relayed = find_relayed(packet, udp ? PREFILTER_WAYS_MAX + i : i, dst, src);
		if (relayed)
			return *relayed;
	}
	return 0;
}

/* Whether nft leads the packet to the relay's listening socket, and nothing between here and there must see its SYN. */
static __noinline int is_relayed(struct xdp_md *ctx, const struct packet *packet)
{
	return ctx && packet ? (int)look_up(ctx, packet, 0) : 0;
}

/* The same, remembered for a tick where the source does not matter. That is what it costs most of the time in a flood,
 * which is of one destination or a few, of sources of which each is another. (It matters to `ip rule ... from`, but
 * hardly to whether the destination is one of the gateway's own, which is what the kernel is asked for.) */
static __always_inline int is_relayed_still(struct xdp_md *ctx, const struct packet *packet, __u64 tick)
{
	const __u32 *dst = packet->dst.words;
	__u64 hash = seen_product((__u32)packet->dport << 16 | packet->family, (__u32)tick, 0), *known;

	if (packet->family == AF_INET ? params.by_source_v4 : params.by_source_v6)
		return is_relayed(ctx, packet);
	hash += seen_product(dst[0], dst[1], 2);
	if (packet->family != AF_INET)
		hash += seen_product(dst[2], dst[3], 4);
	known = &relayed_known[hash * seen_params.factor >> (64 - PREFILTER_RELAYED_KNOWN_BITS)];
	if (*(volatile __u64 *)known == hash)
		return 1;
	if (!is_relayed(ctx, packet))
		return 0;
	*(volatile __u64 *)known = hash;
	return 1;
}

/* Of the packet's flow: there already, or half, or ending. A socket that listens is none, be it for the same port: nft
 * leads what is relayed past it. */
static __always_inline int has_connection(struct xdp_md *ctx, const struct packet *packet)
{
	struct bpf_sock *sk = find_flow(ctx, packet);
	__u32 state = BPF_TCP_LISTEN;

	if (sk) {
		state = sk->state;
		bpf_sk_release(sk);
	}
	return state != BPF_TCP_LISTEN || has_way(packet);
}

/* No cookie, and no error of the kernel's: the relay does not listen. */
#define NOBODY (-4096)

/* A cookie if one is due, or negative. Only the sockets know whether one is; what one has said holds for all requests
 * of a tick, of which there may be thousands. */
static __always_inline __s64 cookie_due(
        struct xdp_md *ctx, const struct packet *packet, struct syn_cookie_headers *headers, __u64 tick)
{
	__u64 *full = &full_tick[packet->family == AF_INET6];
	struct bpf_sock *listener;
	__s64 cookie;

	if (*(volatile __u64 *)full == tick)
		return syn_cookie_make_more(packet, headers);
	listener = find_listener(ctx, packet, bpf_htons(params.listener_port));
	if (!listener)
		return NOBODY;
	cookie = syn_cookie_make(listener, headers);
	bpf_sk_release(listener);
	if (cookie >= 0) {
		answer_mtu = syn_cookie_mtu(ctx);
		*(volatile __u64 *)full = tick;
	}
	return cookie;
}

/* A SYN: the cookie that it is answered with, or -1. */
static __always_inline __s64 cookie_for(
        struct xdp_md *ctx, const struct packet *packet, struct syn_cookie_headers *headers, __u64 tick)
{
	__s64 cookie = cookie_due(ctx, packet, headers, tick);

	/* The stack knows better about a connection that is there. */
	if (cookie >= 0 && seen_lately(packet) && has_connection(ctx, packet))
		return -1;
	if (cookie == NOBODY || !is_relayed_still(ctx, packet, tick))
		return -1;
	/* It begins one in the stack, of which there is room for few: if it is sent again, the same goes on. */
	if (cookie < 0)
		seen_note(packet);
	return cookie < 0 ? -1 : cookie & 0xffffffff;
}

static __always_inline void note_cookie(__u64 tick)
{
	if (*(volatile __u64 *)&cookie_tick == tick)
		return;
	cookie_tick = tick;
	cookie_at = bpf_ktime_get_boot_ns();
}

static __always_inline enum prefilter_reason judge_syn(
        struct xdp_md *ctx, const struct packet *packet, struct syn_cookie_headers *headers)
{
	__u64 tick = bpf_jiffies64();
	__s64 cookie;

	seen_begin();
	/* Nobody to answer to. */
	if (packet->multicast || (packet->family == AF_INET ? is_bogon_v4(packet) : is_bogon_v6(packet)))
		return PREFILTER_passed;
	cookie = cookie_for(ctx, packet, headers, tick);
	if (cookie < 0 || syn_cookie_answer(ctx, packet, headers->tcp.header.seq, (__u32)cookie,
	                          *(volatile __u32 *)&answer_mtu) < 0)
		return PREFILTER_passed;
	note_cookie(tick);
	return PREFILTER_syn_cookie_sent;
}

/* An ACK while cookies are out: does it bring one back? The stack decides about it all the same. */
static __always_inline enum prefilter_reason judge_ack(
        struct xdp_md *ctx, const struct packet *packet, struct syn_cookie_headers *headers)
{
	struct bpf_sock *listener;
	int good;

	if (has_connection(ctx, packet))
		return PREFILTER_passed;
	listener = find_listener(ctx, packet, bpf_htons(params.listener_port));
	if (!listener)
		return PREFILTER_passed;
	good = syn_cookie_is_good(listener, headers);
	bpf_sk_release(listener);
	if (good)
		return PREFILTER_syn_cookie_ok;
	return is_relayed(ctx, packet) ? PREFILTER_syn_cookie_bad : PREFILTER_passed;
}

/* Each packet of a flow that is let through, but a SYN: anybody can send many of those. */
static __always_inline void note_flow(const struct packet *packet)
{
	if (params.listener_port && packet->transport && !(packet->flags & PREFILTER_TCP_SYN))
		seen_note(packet);
}

/* What nothing stands against. */
static __always_inline enum prefilter_reason judge_handshake(struct xdp_md *ctx, const struct packet *packet)
{
	__u32 kind = packet->flags & (PREFILTER_TCP_SYN | PREFILTER_TCP_RST | PREFILTER_TCP_ACK);
	struct syn_cookie_headers headers = { 0 };
	__u64 last;

	if (!params.listener_port || packet->transport == 0 || (params.untagged_only && packet->tagged) ||
	        packet->length != ctx->data_end - ctx->data)
		return PREFILTER_passed;
	last = *(volatile __u64 *)&cookie_at;
	if (kind != PREFILTER_TCP_SYN &&
	        (kind != PREFILTER_TCP_ACK || last == 0 || bpf_ktime_get_boot_ns() - last > PREFILTER_COOKIE_LIFE_NS))
		return PREFILTER_passed;
	if (syn_cookie_headers(ctx, packet, &headers) < 0)
		return PREFILTER_passed;
	return kind == PREFILTER_TCP_SYN ? judge_syn(ctx, packet, &headers) : judge_ack(ctx, packet, &headers);
}

/* --- rate limits of listeners --- */

/*
 * What is over is dropped here, before the stack; what is not, nft judges once more, by a share of the same size. So
 * nothing depends on this program being there, nor on what it cannot read: fragments, frames of a VLAN, another
 * interface's packets of the same source are left to nft. It must only never be stricter, and so counts nothing that
 * nft would not count: frames to others, what is for this host, what targets answer.
 */

/* Ports of UDP, a bit each. */
__u64 limited_ports[PREFILTER_PORT_WORDS] = { 0 };
/* The interface's own address; of the two bytes behind it the first says whether it is known. */
__u8 hardware[8] = { 0 };

static __always_inline int may_be_limited(const struct packet *packet)
{
	__u32 port = bpf_ntohs(packet->dport);

	if (packet->protocol != IPPROTO_UDP || !packet->has_ports || packet->multicast || packet->tagged)
		return 0;
	/* The verifier of Linux 6.1 does not know that it has sixteen bits, and the compiler does. */
	SYN_COOKIE_KEEP(port);
	return limited_ports[port >> 6 & (PREFILTER_PORT_WORDS - 1)] >> (port & 63) & 1;
}

static __always_inline int is_for_us(struct xdp_md *ctx)
{
	const __u8 *to = (const __u8 *)(long)ctx->data;
	const volatile __u8 *own = hardware;
	__u8 differs = 0;

	if (params.dry)
		return own[ETH_ALEN];
	if (to + ETH_ALEN > (const __u8 *)(long)ctx->data_end || !own[ETH_ALEN])
		return 0;
#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++)
		differs |= to[i] ^ own[i];
	return !differs;
}

/* Of a flow that the relay has made: it is no client's. */
static __always_inline int is_answer(struct xdp_md *ctx, const struct packet *packet)
{
	struct bpf_sock *sk = find_udp(ctx, packet);
	__u32 mark;

	if (!sk)
		return 0;
	mark = sk->mark;
	bpf_sk_release(sk);
	return (mark & params.own_mark) == params.own_mark;
}

static __always_inline int is_over_pair(const struct prefilter_pair *pair, const struct packet *packet)
{
	struct prefilter_share share = { .limit = pair->limit, .number = pair->number };

	share.source.family = packet->family;
	if (packet->family == AF_INET)
		put_masked(share.source.addr, &packet->src, pair->length_v4, 1);
	else
		put_masked(share.source.addr, &packet->src, pair->length_v6, 4);
	return is_over(&shares, &share, pair->interval, pair->depth);
}

static __always_inline void count_over(const struct prefilter_pair *pair, const struct packet *packet)
{
	struct prefilter_over key = { pair->listener, pair->limit };
	struct prefilter_count *count = params.dry ? NULL : bpf_map_lookup_elem(&overs, &key);

	if (count) {
		count->packets++;
		count->bytes += packet->size;
	}
}

/* The limit that the packet is over, 0 if none. Those before it have been taken from, as in nft. */
static __noinline __u32 limit_over(struct xdp_md *ctx, const struct packet *packet)
{
	__u32 at;

	if (!ctx || !packet || !is_for_us(ctx))
		return 0;
	at = look_up(ctx, packet, 1);
	if (at == 0 || is_answer(ctx, packet))
		return 0;
	at--;
	for (__u32 i = 0; i < PREFILTER_PAIRS_OF_ONE; i++, at++) {
		const struct prefilter_pair *pair = bpf_map_lookup_elem(&pairs, &at);

		if (!pair)
			return 0;
		if (is_over_pair(pair, packet)) {
			count_over(pair, packet);
			return pair->limit;
		}
		if (!pair->more)
			return 0;
	}
	return 0;
}

/* --- what is told --- */

static __always_inline int may_tell(__u32 reason)
{
	struct told *last = bpf_map_lookup_elem(&told, &reason);
	__u64 second = bpf_jiffies64() >> (seen_params.shift - PREFILTER_SEEN_SHIFT_S); /* near enough */

	if (!last)
		return 0;
	if (last->second != second) {
		last->second = second;
		last->number = 0;
	}
	return last->number++ < PREFILTER_EVENTS_PER_S;
}

static __always_inline void tell(const struct packet *packet, __u32 reason, __u32 limit)
{
	struct prefilter_event *event;

	if (!may_tell(reason))
		return;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return;
	__builtin_memset(event, 0, sizeof(*event));
	source_of(packet, &event->source);
	__builtin_memcpy(event->destination, &packet->dst, sizeof(event->destination));
	event->length = packet->length;
	event->source_port = bpf_ntohs(packet->sport);
	event->destination_port = bpf_ntohs(packet->dport);
	event->protocol = packet->protocol;
	event->reason = reason;
	event->limit = limit;
	bpf_ringbuf_submit(event, 0);
}

SEC("xdp.frags")
int prefilter(struct xdp_md *ctx)
{
	struct packet packet = { 0 };
	struct prefilter_count *count;
	__u32 reason, limit = 0;

	packet.length = bpf_xdp_get_buff_len(ctx);
	reason = judge(ctx, &packet);
	if (reason == PREFILTER_passed || reason == PREFILTER_allowed)
		note_flow(&packet);
	if (reason == PREFILTER_passed)
		reason = judge_handshake(ctx, &packet);
	if (params.limits && reason == PREFILTER_passed && may_be_limited(&packet))
		limit = limit_over(ctx, &packet);
	if (limit)
		reason = PREFILTER_limited;
	if (params.dry)
		limited = limit;
	count = bpf_map_lookup_elem(&counters, &reason);
	if (count) {
		count->packets++;
		count->bytes += packet.length;
	}
	if (PREFILTER_PASSES(reason))
		return XDP_PASS;
	tell(&packet, reason, limit);
	return reason == PREFILTER_syn_cookie_sent ? XDP_TX : XDP_DROP;
}

char prefilter_license[] SEC("license") = "GPL";
