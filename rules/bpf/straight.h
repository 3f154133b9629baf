/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Straight flows (part of shortcut.bpf.c, behind stitch.h): the filter that
 * takes SYNs from the relay's listening sockets, and what is done at TC ingress
 * with packets of flows that have no sockets here. Whatever the filter lets
 * pass becomes a connection as ever.
 *
 * See gatewayd/base/bpf_straight.h.
 */

#define OPTION_END    0
#define OPTION_NOP    1
#define OPTION_MSS    2
#define OPTION_SCALE  3
#define OPTIONS_BYTES 40
#define SCALE_MAX     14
#define TCP_HEADER    20
/* A sender is told so often that its packets are too large. */
#define NARROW_EACH_NS 20000000
/* A target that has not said a word so long after a SYN of an open flow has gone. */
#define UNANSWERED_NS 2500000000ULL

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bpf_straight_control);
} straight SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BPF_STRAIGHT_WORDS);
	__type(key, __u32);
	__type(value, __u64);
} straight_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BPF_STRAIGHT_PORTS);
	__type(key, __u32);
	__type(value, __u32);
} straight_choices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BPF_STRAIGHT_INTERFACES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} straight_interfaces SEC(".maps");

/* --- the filter of listening sockets --- */

/* Addresses; the packet begins for the filter with the TCP header. False: not a plain one. */
static __always_inline int syn_addresses(struct __sk_buff *skb, struct bpf_shortcut_key *key)
{
	struct iphdr v4;
	struct ipv6hdr v6;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes_relative(skb, 0, &v4, sizeof(v4), BPF_HDR_START_NET) < 0 || v4.ihl != 5 ||
		        v4.protocol != IPPROTO_TCP)
			return 0;
		key->family = 4;
		__builtin_memcpy(key->source, &v4.saddr, sizeof(v4.saddr));
		__builtin_memcpy(key->destination, &v4.daddr, sizeof(v4.daddr));
		return 1;
	}
	if (skb->protocol != bpf_htons(ETH_P_IPV6) ||
	        bpf_skb_load_bytes_relative(skb, 0, &v6, sizeof(v6), BPF_HDR_START_NET) < 0 ||
	        v6.nexthdr != IPPROTO_TCP)
		return 0;
	key->family = 6;
	__builtin_memcpy(key->source, &v6.saddr, sizeof(v6.saddr));
	__builtin_memcpy(key->destination, &v6.daddr, sizeof(v6.daddr));
	return 1;
}

/* The bit of a port. */
static __always_inline int has_port(__u32 which, __u32 number)
{
	__u32 slot = which + (number >> 6);
	const __u64 *word = bpf_map_lookup_elem(&straight_ports, &slot);

	return word && *word >> (number & 63) & 1;
}

/* Whether SYNs for this port are taken, as far as daemon and relay have chosen. */
static __always_inline int is_straight_port(const struct bpf_straight_control *now, __u32 number)
{
	const __u32 *choice;

	if (!has_port(BPF_STRAIGHT_MAY, number))
		return 0;
	choice = bpf_map_lookup_elem(&straight_choices, &number);
	if (!choice || *choice == bpf_straight_choice(now->run, BPF_STRAIGHT_PASS))
		return 0;
	return *choice == bpf_straight_choice(now->run, BPF_STRAIGHT_OFTEN) || has_port(BPF_STRAIGHT_ALWAYS, number);
}

/* Whether the client's other packets will come by an interface where they are translated. */
static __always_inline int is_straight_interface(__u32 ifindex)
{
	return bpf_map_lookup_elem(&straight_interfaces, &ifindex) != NULL;
}

/* What a listening socket has accepted has the filter, too. */
static __always_inline int is_for_listener(struct __sk_buff *skb)
{
	const struct bpf_sock *sk = skb->sk;

	return sk && sk->state == TCP_LISTEN_STATE;
}

/* Anyone of several, always the same for a connection. */
static __always_inline __u32 ring_anyhow(const struct bpf_shortcut_key *key, __u32 rings)
{
	__u32 words[8], sum = (__u32)key->source_port << 16 | key->destination_port;

	__builtin_memcpy(words, key->source, sizeof(words)); /* and the destination behind it */
	for (int i = 0; i < 8; i++)
		sum = (sum ^ words[i]) * 0x9e3779b1;
	return (sum >> 16) % rings;
}

/* The ring of this processor, for what is told there is read while it is at hand; of another one if that has many flows
 * more than it. */
static __always_inline __u32 ring_choose(const struct bpf_straight_control *now, const struct bpf_shortcut_key *key)
{
	__u32 rings = now->rings, ring;

	if (!rings)
		return BPF_STRAIGHT_RINGS;
	ring = bpf_get_smp_processor_id() % rings;
	for (int i = 0; i < BPF_STRAIGHT_RINGS; i++, ring++) {
		ring = ring < rings ? ring : 0;
		if (!(now->spare >> (ring & 31) & 1))
			return ring;
	}
	return ring_anyhow(key, rings);
}

/* How many bytes of the packet the socket gets: all, or none. */
SEC("socket")
int take_syn(struct __sk_buff *skb)
{
	const struct bpf_shortcut_control *rules;
	const struct bpf_straight_control *now;
	struct bpf_straight_event *event;
	struct bpf_shortcut_key key = { 0 };
	struct tcphdr tcp;
	__u32 zero = 0, length;

	if (!is_for_listener(skb) || bpf_skb_load_bytes(skb, 0, &tcp, sizeof(tcp)) < 0 || !tcp.syn || tcp.ack ||
	        tcp.rst || tcp.fin)
		return -1;
	rules = bpf_map_lookup_elem(&control, &zero);
	now = bpf_map_lookup_elem(&straight, &zero);
	if (!rules || !now || !rules->open || now->full || !now->rings || !is_straight_port(now, bpf_ntohs(tcp.dest)) ||
	        !is_straight_interface(skb->ifindex))
		return -1;
	length = tcp.doff * 4;
	if (length < TCP_HEADER || length > BPF_STRAIGHT_HEADER_MAX || !syn_addresses(skb, &key))
		return -1;
	key.source_port = tcp.source;
	key.destination_port = tcp.dest;
	event = ring_take(ring_choose(now, &key));
	if (!event)
		return -1;
	event->flow = event->owner = 0;
	event->kind = BPF_STRAIGHT_SYN;
	event->packet.at_ns = bpf_ktime_get_ns();
	event->packet.ifindex = skb->ifindex;
	event->packet.key = key;
	event->packet.length = length;
	if (bpf_skb_load_bytes(skb, 0, event->packet.header, length) < 0) {
		bpf_ringbuf_discard(event, 0);
		return -1;
	}
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* --- packets --- */

/* Packets of this side are larger than their way takes. Their sender does not know the addresses that a router would
 * tell it of: it is told by the relay, and again if it goes on. */
static __noinline int straight_narrow(
        struct bpf_stitch *flow, const struct bpf_stitch_way *way, __u32 side, __u32 mtu, __u32 seq)
{
	__u64 now = bpf_ktime_get_ns();
	struct bpf_straight_event *event;

	if (now - flow->straight.narrow_ns < NARROW_EACH_NS)
		return 0;
	event = ring_take(way->ring);
	if (!event)
		return 0;
	flow->straight.narrow_ns = now;
	event->kind = BPF_STRAIGHT_NARROW;
	event->flow = way->flow;
	event->owner = way->owner;
	event->packet.key = flow->side[side & 1].in;
	event->packet.mtu = mtu;
	event->packet.seq = seq;
	bpf_ringbuf_submit(event, 0);
	return 1;
}

/* A SYN's options, one after the other. */
struct options {
	__u8 bytes[64];
	__u32 length, at;
	__u32 scale, mss, mss_at; /* 0: none */
};

/* One option, for bpf_loop: 1 ends it. */
static long option_read(__u32 number, struct options *options)
{
	__u32 at = options->at & 63, kind, size, value;

	(void)number;
	if (options->at + 1 >= options->length)
		return 1;
	kind = options->bytes[at];
	size = options->bytes[(at + 1) & 63];
	value = options->bytes[(at + 2) & 63];
	if (kind == OPTION_NOP) {
		options->at++;
		return 0;
	}
	if (kind == OPTION_END || size < 2)
		return 1;
	if (kind == OPTION_SCALE && size == 3)
		options->scale = value < SCALE_MAX ? value : SCALE_MAX;
	if (kind == OPTION_MSS && size == 4) {
		options->mss = value << 8 | options->bytes[(at + 3) & 63];
		options->mss_at = at + 2;
	}
	options->at += size;
	return 0;
}

/* The largest segment that the sender of a SYN is to be sent; a checksum adds words that begin at even places. */
static __always_inline void mss_write(struct __sk_buff *skb, __u32 transport, const struct options *options, __u32 mss)
{
	__u16 from = bpf_htons((__u16)options->mss), to = bpf_htons((__u16)mss), value = to;

	if (options->mss_at & 1) {
		from = (__u16)(from << 8 | from >> 8);
		to = (__u16)(to << 8 | to >> 8);
	}
	bpf_l4_csum_replace(skb, transport + offsetof(struct tcphdr, check), from, to, sizeof(to));
	bpf_skb_store_bytes(skb, transport + TCP_HEADER + (options->mss_at & 63), &value, sizeof(value), 0);
}

/* What a SYN says: the scale of its sender's window, which is returned, and a segment that is not larger than the way
 * to it takes. */
static __noinline int syn_read(struct __sk_buff *skb, __u32 transport, __u32 header, __u32 mss_max)
{
	struct options options = { 0 };
	__u32 length = header - TCP_HEADER;

	if (length < sizeof(__u32)) /* "not 0" tells the verifier of Linux 6.1 nothing */
		return 0;
	asm volatile("" : "+r"(length));
	if (length > OPTIONS_BYTES || bpf_skb_load_bytes(skb, transport + TCP_HEADER, options.bytes, length) < 0)
		return 0;
	options.length = length;
	bpf_loop(OPTIONS_BYTES, option_read, &options, 0);
	if (options.mss > mss_max)
		mss_write(skb, transport, &options, mss_max);
	return (int)options.scale;
}

/* What the way by which this packet has come takes in one segment. */
static __always_inline __u32 mss_of_way(struct __sk_buff *skb, __u32 family)
{
	__u32 mtu = 0;

	if (bpf_check_mtu(skb, 0, &mtu, 0, 0) < 0 || mtu < 576)
		return 0xffff;
	return mtu - (family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) - TCP_HEADER;
}

/* The target's SYN: from here on the flow is one. */
static __always_inline void straight_open(
        struct bpf_stitch *flow, const struct segment *segment, __u32 scale, __u32 ifindex, __u64 now)
{
	struct bpf_stitch_side *client = &flow->side[0], *target = &flow->side[1];

	target->scale_in = client->scale_own = (__u8)scale;
	target->end = segment->seq + 1;
	target->ack = segment->ack;
	target->window = segment->window;
	target->ifindex = ifindex;
	target->active_ns = now;
	target->seen = 1;
	client->end = segment->ack;
	client->ack = segment->seq + 1;
	client->fin = client->fin_acked = target->fin = target->fin_acked = 0;
	client->syn = target->syn = 0;
	flow->state = BPF_STITCH_ACTIVE;
}

enum answer { ANSWER_PASS, ANSWER_DROP, ANSWER_TRANSLATE, ANSWER_OPENS };

/* What is to be done with a packet of the target's as long as it has not answered. */
static __noinline int straight_answer(struct __sk_buff *skb, const struct bpf_shortcut_key *key,
        struct bpf_stitch *flow, const struct bpf_stitch_way *way, const struct segment *segment)
{
	if (has_socket(skb, key)) {
		if (is_first(flow, BPF_STRAIGHT_TAKEN))
			tell(way, BPF_STRAIGHT_TAKEN);
		return ANSWER_PASS;
	}
	if (segment->rst) {
		if (segment->acks && segment->ack == flow->side[0].end && is_first(flow, BPF_STRAIGHT_REFUSED))
			tell(way, BPF_STRAIGHT_REFUSED);
		return ANSWER_DROP;
	}
	/* Others are of a connection from before, maybe: the client knows what to say to that. */
	return segment->syn && segment->acks && segment->ack == flow->side[0].end ? ANSWER_OPENS : ANSWER_TRANSLATE;
}

/* A client that has had no answer gives up. */
static __always_inline int is_given_up(const struct bpf_stitch *flow, __u32 side, const struct segment *segment)
{
	return flow->state == BPF_STITCH_OPENING && side == 0 && segment->rst && segment->seq == flow->side[0].end;
}

/* The client acknowledges the target's SYN, or more: it is there, and knows of the connection. */
static __always_inline int is_answered(
        const struct bpf_stitch *flow, __u32 side, const struct segment *segment, __u32 first)
{
	const struct bpf_stitch_side *target = &flow->side[1];

	return side == 0 && segment->acks && !segment->rst && flow->state == BPF_STITCH_ACTIVE &&
	       (__s32)(segment->ack - first) >= 0 && (__s32)(segment->ack - (target->end + target->fin)) <= 0;
}

/* Whether the exact time of this packet may be of interest. */
static __always_inline int is_moment(const struct bpf_stitch *flow, __u32 side, const struct segment *segment)
{
	return side == 0 ? !flow->straight.answered_ns && segment->acks
	                 : !flow->straight.first_ns && (segment->payload > 0 || segment->syn);
}

/* Somebody begins a connection that is open as far as we know. A target that lives says what it thinks of that, and the
 * client with it; with one that says nothing to several SYNs there is nothing to go on with. */
static __always_inline void syn_note(struct bpf_stitch *flow, __u32 side, const struct segment *segment, __u64 now)
{
	if (side == 1) {
		flow->straight.syn_ns = 0;
		return;
	}
	if (!segment->syn || segment->acks)
		return;
	if (!flow->straight.syn_ns)
		flow->straight.syn_ns = now;
	else if (now - flow->straight.syn_ns > UNANSWERED_NS)
		flow->state = BPF_STITCH_GONE;
}

/* Whether the target has forgotten the connection, and takes the client's new SYN for another one. */
static __always_inline int is_begun_anew(const struct bpf_stitch *flow, __u32 side, const struct segment *segment)
{
	const struct bpf_stitch_side *client = &flow->side[0], *target = &flow->side[1];

	return side == 1 && segment->syn && segment->acks && client->syn && segment->ack == client->syn &&
	       segment->seq + 1 != target->end && segment->ack != target->ack;
}

/* What a packet says of an open flow. */
static __always_inline void straight_note(
        struct bpf_stitch *flow, __u32 side, const struct segment *segment, __u32 ifindex, __u64 now, __u64 exact)
{
	__u64 bytes = flow->side[1].bytes;

	syn_note(flow, side, segment, now);
	if (!flow->straight.answered_ns && is_answered(flow, side, segment, flow->side[0].ack)) {
		flow->straight.answered_ns = exact;
		__sync_fetch_and_or(&flow->straight.told, 1U << BPF_STRAIGHT_OPENED);
	}
	active_note(flow, side, segment, ifindex, now);
	if (side == 1 && bytes == 0 && flow->side[1].bytes > 0)
		flow->straight.first_ns = exact;
}

/* The verdict about a packet of a straight flow. */
static __noinline int straight_packet(struct __sk_buff *skb, struct packet *packet, struct bpf_stitch *flow, __u64 id,
        const struct bpf_stitch_way *way)
{
	struct bpf_redir_neigh neighbour = { 0 };
	struct segment segment = { 0 };
	__u64 now = bpf_ktime_get_coarse_ns(), exact = 0;
	int ifindex, answer = ANSWER_TRANSLATE, over;
	__u32 scale = 0, side = way->side;

	if (!segment_read(skb, packet, &segment))
		return TC_ACT_UNSPEC;
	if (is_moment(flow, side, &segment))
		exact = bpf_ktime_get_ns();
	if (flow->state == BPF_STITCH_OPENING && side == 1)
		answer = straight_answer(skb, &packet->key, flow, way, &segment);
	if (answer == ANSWER_PASS || answer == ANSWER_DROP)
		return answer == ANSWER_PASS ? TC_ACT_UNSPEC : TC_ACT_SHOT;
	if (segment.syn) /* also one that is sent again, of either side */
		scale = (__u32)syn_read(skb, transport_of(packet), segment.header, mss_of_way(skb, packet->key.family));
	bpf_spin_lock(&flow->lock);
	if (answer == ANSWER_OPENS && flow->state == BPF_STITCH_OPENING) {
		straight_open(flow, &segment, scale, skb->ifindex, exact);
		flow->straight.opened_ns = exact;
	} else if (flow->state == BPF_STITCH_ACTIVE && is_begun_anew(flow, side, &segment))
		straight_open(flow, &segment, scale, skb->ifindex, now);
	else if (segment.syn && !segment.acks && is_ended(flow))
		flow->state = BPF_STITCH_GONE;
	else if (is_given_up(flow, side, &segment))
		flow->reset_ns = now;
	else if (flow->state == BPF_STITCH_ACTIVE || flow->state == BPF_STITCH_CLOSED)
		straight_note(flow, side, &segment, skb->ifindex, now, exact);
	over = is_ended(flow);
	bpf_spin_unlock(&flow->lock);
	if (over && is_first(flow, BPF_STRAIGHT_ENDED))
		tell_end(flow, id, way);
	if (flow->state == BPF_STITCH_GONE)
		return TC_ACT_UNSPEC;
	if (packet->hops <= 1)
		return TC_ACT_SHOT;
	ifindex = way_out(skb, &flow->side[side & 1].out, packet, segment.payload, &neighbour);
	if (ifindex < 0)
		straight_narrow(flow, way, side, (__u32)-ifindex, segment.seq);
	if (ifindex <= 0 || !stitch_rewrite(skb, packet, flow, side, &segment))
		return TC_ACT_SHOT;
	return (int)bpf_redirect_neigh((__u32)ifindex, &neighbour, sizeof(neighbour), 0);
}
