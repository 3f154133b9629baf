/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * TCP flows whose two connections become one (part of shortcut.bpf.c): the
 * relay passes bytes on as they come, so between the sequence numbers of one
 * connection and those of the other there is a constant difference, and a
 * packet with that added is one of the other connection. Once nothing is under
 * way between the two sockets, the program takes over for good: it adds the
 * differences and sends packets on, and the peers acknowledge to each other.
 *
 * The moment is found here, at a packet, by the kernel's own numbers of both
 * sockets (may_activate): all that was received was given to the other side,
 * all that was given is acknowledged, at the latest by this packet, and no
 * packet is between this program and a socket.
 *
 * See gatewayd/base/bpf_stitch.h for the maps.
 */

#define TCP_ESTABLISHED_STATE 1
#define TCP_LISTEN_STATE      10
#define ICMP4_UNREACHABLE     3
#define ICMP4_TOO_BIG         4 /* its code */
#define ICMP6_UNREACHABLE     1
#define ICMP6_TOO_BIG         2
#define OPTION_WORDS          10
#define OPTION_TIMESTAMPS     0x0101080a /* two NOPs before it */
#define OPTION_SACK           0x01010500 /* the same, and its length */
#define OPTION_NOPS           0x01010101
/* A copy of a packet that brings its acknowledgement to the gateway's own socket. */
#define MARK_COPY 0x67777363
/* Of packets at which a flow could not be taken over, after so many only each such a one is tried. */
#define ATTEMPTS_MANY 256
#define ATTEMPTS_EACH 17 /* no even number: packets of both sides take turns */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * BPF_STITCH_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct bpf_shortcut_key);
	__type(value, struct bpf_stitch_way);
} ways SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BPF_STITCH_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct bpf_stitch);
} stitches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BPF_STITCH_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u8);
} held SEC(".maps");

/* Of a TCP packet, in host order. */
struct segment {
	__u32 seq, ack, end; /* end: behind the payload and the FIN */
	__u32 tsval;
	__u32 payload;
	__u16 window; /* not scaled */
	__u8 header;  /* bytes */
	__u8 fin, syn, rst, urgent, acks, stamped, strange;
};

/* What is added to a packet's numbers. */
struct change {
	__u32 seq, ack, tsval, tsecr;
	__u8 scale_in, scale_out;
	__u8 stamped;
	__u8 straight; /* the options stay as they are */
};

/* A socket's numbers. */
struct socket_numbers {
	__u32 rcv_nxt, snd_nxt, snd_una;
	__u64 received, acked;
};

/* --- reading --- */

/* The offset of the TCP header, in a way that the verifier can follow. */
static __always_inline __u32 transport_of(const struct packet *packet)
{
	__u32 offset = packet->transport;

	asm volatile("%0 &= 63" : "+r"(offset));
	return offset;
}

/* Looks at the options for a timestamp, and for what is not where everybody has it. */
static __always_inline void options_read(const __u32 *word, const void *end, struct segment *segment)
{
	__u32 skip = 0;

	for (__u32 i = 0; i < OPTION_WORDS; i++, word++) {
		__u32 value;

		if (i * 4 + sizeof(struct tcphdr) >= segment->header || (const void *)(word + 1) > end)
			return;
		value = bpf_ntohl(*word);
		if (skip == 2 && segment->stamped == 1) {
			segment->tsval = value;
			segment->stamped = 2;
		}
		if (skip > 0) {
			skip--;
		} else if (value == OPTION_TIMESTAMPS) {
			segment->stamped = 1;
			skip = 2;
		} else if ((value & 0xffffff00) == OPTION_SACK) {
			skip = ((value & 0xff) - 2) / 4;
		} else if (value != OPTION_NOPS) {
			segment->strange = 1;
		}
	}
}

static __always_inline int segment_read(struct __sk_buff *skb, const struct packet *packet, struct segment *segment)
{
	const __u32 transport = transport_of(packet);
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const struct tcphdr *tcp = data + transport;
	__u32 headers;

	if ((void *)(tcp + 1) > end)
		return 0;
	segment->header = tcp->doff * 4;
	if (segment->header < sizeof(*tcp))
		return 0;
	headers = transport + segment->header;
	if (data + headers > end) {
		if (bpf_skb_pull_data(skb, headers) < 0)
			return 0;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		tcp = data + transport;
		if ((void *)(tcp + 1) > end)
			return 0;
	}
	if (packet->length < transport - ETH_HLEN + segment->header)
		return 0;
	segment->payload = packet->length - (transport - ETH_HLEN) - segment->header;
	segment->seq = bpf_ntohl(tcp->seq);
	segment->ack = bpf_ntohl(tcp->ack_seq);
	segment->window = bpf_ntohs(tcp->window);
	segment->fin = tcp->fin;
	segment->syn = tcp->syn;
	segment->rst = tcp->rst;
	segment->urgent = tcp->urg;
	segment->acks = tcp->ack;
	segment->end = segment->seq + segment->payload + tcp->fin;
	options_read((const void *)(tcp + 1), end, segment);
	return 1;
}

/* --- taking over --- */

/* The socket that packets with this key are for, or NULL; to be released. */
static __always_inline struct bpf_sock *socket_find(struct __sk_buff *skb, const struct bpf_shortcut_key *key)
{
	struct bpf_sock_tuple tuple = { 0 };

	if (key->family == 4) {
		__builtin_memcpy(&tuple.ipv4.saddr, key->source, 4);
		__builtin_memcpy(&tuple.ipv4.daddr, key->destination, 4);
		tuple.ipv4.sport = key->source_port;
		tuple.ipv4.dport = key->destination_port;
		return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	__builtin_memcpy(tuple.ipv6.saddr, key->source, 16);
	__builtin_memcpy(tuple.ipv6.daddr, key->destination, 16);
	tuple.ipv6.sport = key->source_port;
	tuple.ipv6.dport = key->destination_port;
	return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
}

/* Whether a connection of the gateway's own has packets with this key. */
static __noinline int has_socket(struct __sk_buff *skb, const struct bpf_shortcut_key *key)
{
	struct bpf_sock *sk = socket_find(skb, key);
	int is_listener;

	if (!sk)
		return 0;
	is_listener = sk->state == TCP_LISTEN_STATE;
	bpf_sk_release(sk);
	return !is_listener;
}

/* Of the gateway's established socket that packets with this key are for. */
static __noinline int socket_read(
        struct __sk_buff *skb, const struct bpf_shortcut_key *key, struct socket_numbers *numbers)
{
	const struct bpf_tcp_sock *tcp;
	struct bpf_sock *sk = socket_find(skb, key);
	int found = 0;

	if (!sk)
		return 0;
	tcp = sk->state == TCP_ESTABLISHED_STATE ? bpf_tcp_sock(sk) : NULL;
	if (tcp) {
		/* In this order what changes meanwhile shows as a difference. */
		numbers->acked = tcp->bytes_acked;
		asm volatile("" ::: "memory");
		numbers->snd_una = tcp->snd_una;
		numbers->snd_nxt = tcp->snd_nxt;
		numbers->rcv_nxt = tcp->rcv_nxt;
		asm volatile("" ::: "memory");
		numbers->received = tcp->bytes_received;
		found = 1;
	}
	bpf_sk_release(sk);
	return found;
}

/* Whether nothing is under way between the sockets but this packet. */
static __always_inline int may_activate(const struct bpf_stitch *flow, __u32 side, const struct segment *segment,
        const struct socket_numbers *here, const struct socket_numbers *there)
{
	const struct bpf_stitch_side *from = &flow->side[side & 1], *to = &flow->side[!(side & 1)];

	return segment->seq == here->rcv_nxt && segment->ack == here->snd_nxt && there->snd_una == there->snd_nxt &&
	       here->received - there->acked == from->offset &&
	       there->received - (here->acked + (here->snd_nxt - here->snd_una)) == to->offset && to->seen &&
	       to->end == there->rcv_nxt && (!from->seen || from->end == here->rcv_nxt);
}

/* Makes the numbers that are to be added from here on. */
static __always_inline void activate(struct bpf_stitch *flow, __u32 side, const struct segment *segment,
        const struct socket_numbers *here, const struct socket_numbers *there, __u64 now)
{
	__u32 now_ms = (__u32)(now / 1000000);
	struct bpf_stitch_side *from = &flow->side[side & 1], *to = &flow->side[!(side & 1)];

	from->add_seq = there->snd_nxt - here->rcv_nxt;
	from->add_ack = there->rcv_nxt - here->snd_nxt;
	to->add_seq = -from->add_ack;
	to->add_ack = -from->add_seq;
	/* A peer's clock goes on where the gateway's socket would be now. */
	from->add_tsval = now_ms + to->clock - segment->tsval;
	to->add_tsval = now_ms + from->clock - to->tsval;
	from->add_tsecr = -to->add_tsval;
	to->add_tsecr = -from->add_tsval;
	from->end = segment->seq;
	from->ack = segment->ack;
	from->tsval = segment->tsval;
	from->active_ns = to->active_ns = now;
	flow->state = BPF_STITCH_ACTIVE;
}

/* --- rewriting --- */

static __always_inline void word_change(__u32 *word, __u32 value, __u64 *sum)
{
	*sum += (__u32) ~*word;
	*sum += value;
	*word = value;
}

static __always_inline __u32 sum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (__u32)sum + (__u32)(sum >> 32);
}

/* A checksum of this sum. */
static __always_inline __u16 check_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum;
}

static __always_inline __u32 window_change(__u32 window, const struct change *change)
{
	__u32 scaled = (window << (change->scale_in & 15)) >> (change->scale_out & 15);

	if (scaled > 0xffff)
		return 0xffff;
	/* A window that is open is not to look closed. */
	return scaled == 0 && window > 0 ? 1 : scaled;
}

/* Adds to what the options carry; what is not understood becomes nothing. */
static __always_inline void options_change(
        __u32 *word, const void *end, const struct segment *segment, const struct change *change, __u64 *sum)
{
	__u32 add = 0, second = 0, skip = 0;

	for (__u32 i = 0; i < OPTION_WORDS; i++, word++) {
		__u32 value;

		if (i * 4 + sizeof(struct tcphdr) >= segment->header || (const void *)(word + 1) > end)
			return;
		value = bpf_ntohl(*word);
		if (skip > 0) {
			word_change(word, bpf_htonl(value + add), sum);
			add = second;
			skip--;
		} else if (value == OPTION_TIMESTAMPS && change->stamped) {
			add = change->tsval;
			second = change->tsecr;
			skip = 2;
		} else if ((value & 0xffffff00) == OPTION_SACK) {
			add = second = change->ack;
			skip = ((value & 0xff) - 2) / 4;
		} else if (value != OPTION_NOPS) {
			word_change(word, bpf_htonl(OPTION_NOPS), sum);
		}
	}
}

/* The sum of what has changed in the TCP header; in *ret_done whether it was. */
static __always_inline __u32 tcp_change(struct __sk_buff *skb, __u32 transport, const struct bpf_shortcut_key *out,
        const struct segment *segment, const struct change *change, int *ret_done)
{
	void *end = (void *)(long)skb->data_end;
	__u32 *word = (void *)(long)skb->data + transport;
	__u64 sum = 0;
	__u32 window;

	if ((void *)(word + sizeof(struct tcphdr) / 4) > end)
		return 0;
	word_change(&word[0], (__u32)out->destination_port << 16 | out->source_port, &sum);
	word_change(&word[1], bpf_htonl(segment->seq + change->seq), &sum);
	if (segment->acks)
		word_change(&word[2], bpf_htonl(segment->ack + change->ack), &sum);
	window = bpf_ntohl(word[3]);
	word_change(&word[3], bpf_htonl((window & 0xffff0000) | window_change(window & 0xffff, change)), &sum);
	if (!change->straight)
		options_change(&word[sizeof(struct tcphdr) / 4], end, segment, change, &sum);
	*ret_done = 1;
	return sum_fold(sum);
}

static __always_inline __u32 v4_change(
        struct __sk_buff *skb, const struct packet *packet, const struct bpf_shortcut_key *out, int *ret_done)
{
	void *end = (void *)(long)skb->data_end;
	struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;
	__u64 sum = 0, addresses = 0;
	__u32 *word = (void *)ip, source, destination;

	if ((void *)(ip + 1) > end)
		return 0;
	__builtin_memcpy(&source, out->source, 4);
	__builtin_memcpy(&destination, out->destination, 4);
	word_change(&word[3], source, &addresses);
	word_change(&word[4], destination, &addresses);
	ip->ttl = packet->hops - 1;
	ip->check = 0;
	for (int i = 0; i < 5; i++)
		sum += word[i];
	ip->check = check_fold(sum);
	*ret_done = 1;
	return sum_fold(addresses);
}

static __always_inline __u32 v6_change(
        struct __sk_buff *skb, const struct packet *packet, const struct bpf_shortcut_key *out, int *ret_done)
{
	void *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = (void *)(long)skb->data + ETH_HLEN;
	__u32 to[2 * ADDRESS_PARTS], *word = (void *)ip;
	__u64 sum = 0;

	if ((void *)(ip + 1) > end)
		return 0;
	__builtin_memcpy(to, out->source, sizeof(to));
	for (int i = 0; i < 2 * ADDRESS_PARTS; i++)
		word_change(&word[2 + i], to[i], &sum);
	ip->hop_limit = packet->hops - 1;
	*ret_done = 1;
	return sum_fold(sum);
}

static __always_inline void change_of(const struct bpf_stitch *flow, __u32 side, struct change *change)
{
	const struct bpf_stitch_side *from = &flow->side[side & 1], *to = &flow->side[!(side & 1)];

	change->seq = from->add_seq;
	change->ack = from->add_ack;
	change->tsval = from->add_tsval;
	change->tsecr = from->add_tsecr;
	change->scale_in = from->scale_in;
	change->scale_out = to->scale_own;
	change->stamped = (flow->options & BPF_STITCH_TIMESTAMPS) != 0;
	change->straight = (flow->options & BPF_STITCH_STRAIGHT) != 0;
}

/* The numbers that are added do not change any more: this can be without the lock. */
static __noinline int stitch_rewrite(struct __sk_buff *skb, const struct packet *packet, const struct bpf_stitch *flow,
        __u32 side, const struct segment *segment)
{
	__u32 check = packet->transport + offsetof(struct tcphdr, check), addresses, header;
	const struct bpf_shortcut_key *out = &flow->side[side & 1].out;
	struct change change = { 0 };
	int done = 0, done_tcp = 0;

	change_of(flow, side, &change);
	addresses = packet->key.family == 4 ? v4_change(skb, packet, out, &done) : v6_change(skb, packet, out, &done);
	header = tcp_change(skb, transport_of(packet), out, segment, &change, &done_tcp);
	return done && done_tcp && bpf_l4_csum_replace(skb, check, 0, addresses, BPF_F_PSEUDO_HDR) == 0 &&
	       bpf_l4_csum_replace(skb, check, 0, header, 0) == 0;
}

/* --- the acknowledgement for the gateway's own socket --- */

static __always_inline __u64 words_sum(const void *bytes, __u32 size)
{
	const __u32 *word = bytes;
	__u64 sum = 0;

	for (__u32 i = 0; i < size / 4; i++)
		sum += word[i];
	return sum;
}

/* A header without options, nothing behind it. sum: of both addresses. */
static __always_inline void tcp_strip(struct tcphdr *tcp, __u64 sum)
{
	tcp->doff = sizeof(*tcp) / 4;
	tcp->psh = 0;
	tcp->check = 0;
	tcp->check = check_fold(sum + words_sum(tcp, sizeof(*tcp)) + bpf_htons(IPPROTO_TCP) + bpf_htons(sizeof(*tcp)));
}

static __always_inline int v4_strip(struct __sk_buff *skb)
{
	struct {
		struct iphdr ip;
		struct tcphdr tcp;
	} packet;

	if (bpf_skb_change_tail(skb, ETH_HLEN + sizeof(packet), 0) < 0 ||
	        bpf_skb_load_bytes(skb, ETH_HLEN, &packet, sizeof(packet)) < 0)
		return 0;
	packet.ip.tot_len = bpf_htons(sizeof(packet));
	packet.ip.check = 0;
	packet.ip.check = check_fold(words_sum(&packet.ip, sizeof(packet.ip)));
	tcp_strip(&packet.tcp, (__u64)packet.ip.saddr + packet.ip.daddr);
	return bpf_skb_store_bytes(skb, ETH_HLEN, &packet, sizeof(packet), BPF_F_RECOMPUTE_CSUM) == 0;
}

static __always_inline int v6_strip(struct __sk_buff *skb)
{
	struct {
		struct ipv6hdr ip;
		struct tcphdr tcp;
	} packet;

	if (bpf_skb_change_tail(skb, ETH_HLEN + sizeof(packet), 0) < 0 ||
	        bpf_skb_load_bytes(skb, ETH_HLEN, &packet, sizeof(packet)) < 0)
		return 0;
	packet.ip.payload_len = bpf_htons(sizeof(packet.tcp));
	tcp_strip(&packet.tcp, words_sum(&packet.ip.saddr, 2 * sizeof(packet.ip.saddr)));
	return bpf_skb_store_bytes(skb, ETH_HLEN, &packet, sizeof(packet), BPF_F_RECOMPUTE_CSUM) == 0;
}

/* Makes of a copy a bare acknowledgement with the same numbers. */
static __noinline int copy_strip(struct __sk_buff *skb, __u32 family)
{
	skb->mark = 0;
	return family == 4 ? v4_strip(skb) : v6_strip(skb);
}

/* --- packets --- */

/* Notes what a packet of a flow that waits has shown. */
static __always_inline void waiting_note(
        struct bpf_stitch *flow, __u32 side, const struct segment *segment, __u32 ifindex)
{
	struct bpf_stitch_side *from = &flow->side[side & 1];

	if (segment->fin || segment->syn || segment->rst || segment->strange || !segment->acks) {
		flow->state = BPF_STITCH_SPOILT;
		return;
	}
	/* What is behind the newest packet may be anybody's. If this is not real either, the flow does not become
	 * ACTIVE: its socket has another end. */
	if (from->seen && (__s32)(segment->end - from->end) < 0)
		return;
	from->end = segment->end;
	from->ack = segment->ack;
	from->tsval = segment->tsval;
	from->window = (__u32)segment->window << (from->scale_in & 15);
	from->ifindex = ifindex;
	from->seen = 1;
}

/* The least window that a peer is thought to have: the last one that was seen may be old. */
#define WINDOW_LEAST 65536

/* Whether the other peer takes a reset with this number, or has given it itself as the answer to a SYN. */
static __always_inline int is_true_reset(
        const struct bpf_stitch_side *from, const struct bpf_stitch_side *to, const struct segment *segment, __u32 next)
{
	if (to->syn && segment->acks && segment->ack + from->add_ack == to->syn)
		return 1;
	return (__s32)(segment->seq - next) >= 0 && (__s32)(segment->seq - (from->end + from->fin)) <= 0;
}

/* Notes what a packet of a stitched flow has shown, but only what the other peer would believe. */
static __always_inline void active_note(
        struct bpf_stitch *flow, __u32 side, const struct segment *segment, __u32 ifindex, __u64 now)
{
	struct bpf_stitch_side *from = &flow->side[side & 1], *to = &flow->side[!(side & 1)];
	__u32 next = to->ack + to->add_ack; /* what the other peer expects, in the numbers of this one */
	__u32 more = segment->seq + segment->payload - from->end;
	__u32 window = to->window > WINDOW_LEAST ? to->window : WINDOW_LEAST;

	if (segment->syn) {
		from->syn = segment->end + 1;
		return;
	}
	if (segment->rst) {
		if (is_true_reset(from, to, segment, next))
			flow->reset_ns = now;
		return;
	}
	if (!segment->acks || (__s32)(segment->end - next) < 0 || (__s32)(segment->seq - (next + window)) > 0 ||
	        (__s32)(segment->ack + from->add_ack - (to->end + to->fin)) > 0)
		return;
	if ((__s32)more > 0 && !from->fin) {
		from->bytes += more;
		from->end += more;
	}
	if ((__s32)(segment->ack - from->ack) >= 0) {
		from->ack = segment->ack;
		from->window = (__u32)segment->window << (from->scale_in & 15);
	}
	from->ifindex = ifindex;
	if (segment->payload > 0)
		from->active_ns = now;
	/* Its number counts only right behind the last byte. */
	if (segment->fin && !from->fin && segment->end == from->end + 1) {
		from->fin = 1;
		from->fin_end = segment->end;
	}
	if (to->fin && segment->ack + from->add_ack == to->fin_end)
		to->fin_acked = 1;
	if (from->fin_acked && to->fin_acked && flow->state == BPF_STITCH_ACTIVE) {
		flow->closed_ns = now;
		flow->state = BPF_STITCH_CLOSED;
	}
}

/* Whether the other peer would have a look at a segment with this number. */
static __always_inline int is_expected(const struct bpf_stitch *flow, __u32 side, __u32 seq)
{
	const struct bpf_stitch_side *to = &flow->side[!(side & 1)];
	__u32 window = to->window > WINDOW_LEAST ? to->window : WINDOW_LEAST;
	__s32 ahead = (__s32)(seq - (to->ack + to->add_ack));

	return ahead >= -(__s32)window && ahead <= (__s32)window;
}

/* A packet in fragments, or with IP options: the flow cannot be stitched, or go on like this. One that somebody else
 * has made does not count. */
static __always_inline int odd_note(
        struct __sk_buff *skb, const struct packet *packet, struct bpf_stitch *flow, __u32 side)
{
	__be32 seq = 0;
	int lost, expected;

	if (bpf_skb_load_bytes(skb, packet->transport + offsetof(struct tcphdr, seq), &seq, sizeof(seq)) < 0)
		return TC_ACT_UNSPEC;
	bpf_spin_lock(&flow->lock);
	expected = is_expected(flow, side, bpf_ntohl(seq));
	if (flow->state == BPF_STITCH_WAITING)
		flow->state = BPF_STITCH_SPOILT;
	lost = flow->state == BPF_STITCH_ACTIVE || flow->state == BPF_STITCH_CLOSED;
	flow->side[side & 1].too_big += lost && expected;
	bpf_spin_unlock(&flow->lock);
	return lost ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

/* Whether packets of the other side, too, would find their way. */
static __noinline int both_ways(struct __sk_buff *skb, const struct bpf_stitch *flow, __u32 side)
{
	const struct bpf_stitch_side *from = &flow->side[side & 1], *to = &flow->side[!(side & 1)];
	struct bpf_redir_neigh neighbour = { 0 };

	return to->ifindex && find_way(skb, &from->out, skb->ifindex, IPPROTO_TCP, 0, from->size_max, &neighbour) > 0 &&
	       find_way(skb, &to->out, to->ifindex, IPPROTO_TCP, 0, to->size_max, &neighbour) > 0;
}

/* Whether the flow could be taken over with a packet like this one. */
static __always_inline int may_try(
        const struct bpf_shortcut_control *rules, const struct bpf_stitch *flow, const struct segment *segment)
{
	return rules && rules->open && !segment->fin && !segment->syn && !segment->rst && !segment->urgent &&
	       !segment->strange && segment->acks &&
	       (!(flow->options & BPF_STITCH_TIMESTAMPS) || segment->stamped == 2) &&
	       (flow->attempts < ATTEMPTS_MANY || flow->attempts % ATTEMPTS_EACH == 0);
}

/* Takes the flow over with this packet, if it can be. 1: it is, and the gateway's own socket has yet to hear of what
 * the packet acknowledges. */
static __noinline int stitch_try(
        struct __sk_buff *skb, struct bpf_stitch *flow, __u32 side, const struct segment *segment)
{
	struct socket_numbers here = { 0 }, there = { 0 };
	__u64 now = bpf_ktime_get_ns();
	int taken = 0;

	if (!socket_read(skb, &flow->side[side & 1].in, &here) ||
	        !socket_read(skb, &flow->side[!(side & 1)].in, &there))
		return 0;
	bpf_spin_lock(&flow->lock);
	if (flow->state == BPF_STITCH_WAITING && may_activate(flow, side, segment, &here, &there)) {
		activate(flow, side, segment, &here, &there, now);
		taken = 1;
	}
	bpf_spin_unlock(&flow->lock);
	return taken && here.snd_una != here.snd_nxt;
}

/* --- packets of a flow --- */

/* A frame of its own on the stack. */
static __noinline int way_out(struct __sk_buff *skb, const struct bpf_shortcut_key *out, const struct packet *packet,
        __u32 payload, struct bpf_redir_neigh *neighbour)
{
	return find_way(skb, out, skb->ifindex, IPPROTO_TCP, packet->tos, part_size(skb, packet, payload), neighbour);
}

/* The verdict about a packet of a flow that has sockets. */
static __noinline int stitch_packet(struct __sk_buff *skb, struct packet *packet, struct bpf_stitch *flow, __u64 id,
        const struct bpf_stitch_way *way)
{
	struct bpf_redir_neigh neighbour = { 0 };
	struct segment segment = { 0 };
	const struct bpf_shortcut_control *rules;
	int ifindex, behind = 0, active, over;
	__u32 zero = 0, side = way->side;
	__u64 now;

	if (!segment_read(skb, packet, &segment))
		return TC_ACT_UNSPEC;
	if (skb->mark == MARK_COPY)
		return copy_strip(skb, packet->key.family) ? TC_ACT_UNSPEC : TC_ACT_SHOT;
	if (flow->state == BPF_STITCH_WAITING) {
		flow->attempts++;
		rules = bpf_map_lookup_elem(&control, &zero);
		/* What the relay's socket may have to hear is told by a packet without headers between. */
		if (!packet->big && may_try(rules, flow, &segment) && both_ways(skb, flow, side))
			behind = stitch_try(skb, flow, side, &segment);
	}
	now = bpf_ktime_get_coarse_ns();
	bpf_spin_lock(&flow->lock);
	if (flow->state == BPF_STITCH_WAITING)
		waiting_note(flow, side, &segment, skb->ifindex);
	else if (segment.syn && (flow->state == BPF_STITCH_CLOSED || flow->reset_ns))
		flow->state = BPF_STITCH_GONE;
	active = flow->state == BPF_STITCH_ACTIVE || flow->state == BPF_STITCH_CLOSED;
	if (active)
		active_note(flow, side, &segment, skb->ifindex, now);
	over = is_ended(flow);
	bpf_spin_unlock(&flow->lock);
	if (over && is_first(flow, BPF_STRAIGHT_ENDED))
		tell_end(flow, id, way);
	if (!active)
		return TC_ACT_UNSPEC;
	if (behind) {
		__u32 mark = skb->mark;

		skb->mark = MARK_COPY;
		packet->copied = bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS) == 0;
		skb->mark = mark;
	}
	if (packet->hops <= 1)
		return TC_ACT_SHOT;
	ifindex = way_out(skb, &flow->side[side & 1].out, packet, segment.payload, &neighbour);
	if (ifindex < 0)
		__sync_fetch_and_add(&flow->side[side & 1].too_big, 1);
	if (ifindex <= 0 || !stitch_rewrite(skb, packet, flow, side, &segment))
		return TC_ACT_SHOT;
	return (int)bpf_redirect_neigh((__u32)ifindex, &neighbour, sizeof(neighbour), 0);
}

#include "rules/bpf/straight.h"

#include "rules/bpf/straight_calls.h"

/* --- what routers say --- */

/* The TCP header's first words, as far as an error quotes them at least. */
struct quoted {
	__u16 source, destination;
	__u32 seq;
};

/* An error says that packets of a flow are too large for their path. The sender of a stitched flow's cannot make them
 * smaller, for it does not know the numbers that the error quotes: noted for the relay, which ends the flow. */
static __always_inline void too_big_note(const struct bpf_shortcut_key *answers, __u32 quoted_seq, __u32 mtu)
{
	const struct bpf_stitch_way *way = bpf_map_lookup_elem(&ways, answers);
	struct bpf_stitch *flow;
	struct bpf_stitch_side *from, *to;
	__u32 seq;
	__u64 id;

	if (!way)
		return;
	id = way->flow;
	flow = bpf_map_lookup_elem(&stitches, &id);
	if (!flow || flow->state != BPF_STITCH_ACTIVE)
		return;
	to = &flow->side[way->side & 1];
	from = &flow->side[!(way->side & 1)];
	seq = quoted_seq - from->add_seq;
	/* As TCP does: only about what is under way. */
	if (mtu >= from->size_max || (__s32)(seq - (to->ack + to->add_ack)) < 0 || (__s32)(from->end - seq) <= 0)
		return;
	if (flow->options & BPF_STITCH_STRAIGHT)
		straight_narrow(flow, way, !way->side, mtu, quoted_seq);
	else
		__sync_fetch_and_add(&from->too_big, 1);
}

/* A router, or the target's host, says that the SYN of a straight flow does not arrive. */
static __always_inline void refused_note(const struct bpf_shortcut_key *answers, __u32 quoted_seq)
{
	const struct bpf_stitch_way *way = bpf_map_lookup_elem(&ways, answers);
	struct bpf_stitch *flow;
	__u64 id;

	if (!way || way->side != 1)
		return;
	id = way->flow;
	flow = bpf_map_lookup_elem(&stitches, &id);
	if (flow && flow->state == BPF_STITCH_OPENING && quoted_seq + 1 == flow->side[0].end &&
	        is_first(flow, BPF_STRAIGHT_REFUSED))
		tell(way, BPF_STRAIGHT_REFUSED);
}

static __always_inline void icmp4(struct __sk_buff *skb)
{
	struct bpf_shortcut_key key = { .family = 4 };
	struct {
		struct {
			__u8 type, code;
			__u16 check, unused, mtu;
		} icmp;
		struct iphdr ip;
		struct quoted tcp;
	} error;

	if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(struct iphdr), &error, sizeof(error)) < 0 ||
	        error.icmp.type != ICMP4_UNREACHABLE || error.ip.ihl != 5 || error.ip.protocol != IPPROTO_TCP)
		return;
	__builtin_memcpy(key.source, &error.ip.daddr, 4);
	__builtin_memcpy(key.destination, &error.ip.saddr, 4);
	key.source_port = error.tcp.destination;
	key.destination_port = error.tcp.source;
	if (error.icmp.code == ICMP4_TOO_BIG)
		too_big_note(&key, bpf_ntohl(error.tcp.seq), bpf_ntohs(error.icmp.mtu));
	else
		refused_note(&key, bpf_ntohl(error.tcp.seq));
}

static __always_inline void icmp6(struct __sk_buff *skb)
{
	struct bpf_shortcut_key key = { .family = 6 };
	struct {
		struct {
			__u8 type, code;
			__u16 check;
			__u32 mtu;
		} icmp;
		struct ipv6hdr ip;
		struct quoted tcp;
	} error;

	if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(struct ipv6hdr), &error, sizeof(error)) < 0 ||
	        (error.icmp.type != ICMP6_TOO_BIG && error.icmp.type != ICMP6_UNREACHABLE) ||
	        error.ip.nexthdr != IPPROTO_TCP)
		return;
	__builtin_memcpy(key.source, &error.ip.daddr, 16);
	__builtin_memcpy(key.destination, &error.ip.saddr, 16);
	key.source_port = error.tcp.destination;
	key.destination_port = error.tcp.source;
	if (error.icmp.type == ICMP6_TOO_BIG)
		too_big_note(&key, bpf_ntohl(error.tcp.seq), bpf_ntohl(error.icmp.mtu));
	else
		refused_note(&key, bpf_ntohl(error.tcp.seq));
}

static __noinline int icmp(struct __sk_buff *skb, __u32 family)
{
	if (family == 4)
		icmp4(skb);
	else
		icmp6(skb);
	return TC_ACT_UNSPEC;
}

/* --- the verdict --- */

/* The verdict about a TCP packet. */
static __noinline int stitch(struct __sk_buff *skb, struct packet *packet)
{
	const struct bpf_shortcut_control *rules;
	const struct bpf_stitch_way *way;
	struct bpf_stitch *flow;
	__u32 side, zero = 0;
	__u64 id;

	way = bpf_map_lookup_elem(&ways, &packet->key);
	if (!way)
		return TC_ACT_UNSPEC;
	id = way->flow;
	side = way->side;
	flow = bpf_map_lookup_elem(&stitches, &id);
	if (!flow)
		return TC_ACT_UNSPEC;
	rules = bpf_map_lookup_elem(&control, &zero);
	/* The rules know the client, not its target. Without a socket, what they let pass would be answered with a
	 * reset. */
	if (rules && rules->held > 0 && bpf_map_lookup_elem(&held, &id))
		return (side == 1 && flow->state != BPF_STITCH_WAITING) || flow->options & BPF_STITCH_STRAIGHT
		               ? TC_ACT_SHOT
		               : TC_ACT_UNSPEC;
	if (packet->odd)
		return odd_note(skb, packet, flow, side);
	return flow->options & BPF_STITCH_STRAIGHT ? straight_packet(skb, packet, flow, id, way)
	                                           : stitch_packet(skb, packet, flow, id, way);
}
