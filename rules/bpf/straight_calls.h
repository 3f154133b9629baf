/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the relay does to the maps of straight flows, each in one system call
 * (part of shortcut.bpf.c, behind straight.h): it runs these programs with
 * BPF_PROG_RUN, and what is to be done is the packet. They are attached
 * nowhere. Of a type that takes packets, for those made for being called
 * (syscall) may have to do with no map with a lock before Linux 6.6.
 *
 * See gatewayd/base/bpf_straight.h.
 */

/* The way of this side, if it is the flow's own: the peers may have begun another connection with the same addresses
 * and ports. */
static __always_inline struct bpf_stitch_way *way_own(const struct bpf_stitch *flow, __u64 id, __u32 side)
{
	struct bpf_stitch_way *way = bpf_map_lookup_elem(&ways, &flow->side[side & 1].in);

	return way && way->flow == id ? way : NULL;
}

static __noinline int settle(struct bpf_stitch *flow, __u64 id, __u32 what)
{
	struct bpf_stitch_way *way;

	if (!flow)
		return 0;
	if (what == BPF_STRAIGHT_COUNTED) {
		way = way_own(flow, id, 0);
		if (way) {
			way->counted = flow->side[0].bytes;
			way->ring = BPF_STITCH_COUNTED;
		}
		return 0;
	}
	if (way_own(flow, id, 1))
		bpf_map_delete_elem(&ways, &flow->side[1].in);
	if (way_own(flow, id, 0))
		bpf_map_delete_elem(&ways, &flow->side[0].in);
	return (int)bpf_map_delete_elem(&stitches, &id);
}

/* Packets with this key are of the way's flow from here on, unless they are another's, which is not over. */
static __noinline int way_begin(const struct bpf_shortcut_key *key, const struct bpf_stitch_way *way)
{
	const struct bpf_stitch_way *other;
	struct bpf_stitch *flow;
	__u64 id;

	if (bpf_map_update_elem(&ways, key, way, BPF_NOEXIST) == 0)
		return BPF_STRAIGHT_BEGUN;
	other = bpf_map_lookup_elem(&ways, key);
	if (!other)
		return BPF_STRAIGHT_FULL;
	id = other->flow;
	if (id != way->flow) {
		flow = bpf_map_lookup_elem(&stitches, &id);
		if (flow && !is_ended(flow))
			return BPF_STRAIGHT_IN_USE;
		settle(flow, id, BPF_STRAIGHT_DONE);
	}
	return bpf_map_update_elem(&ways, key, way, BPF_ANY) == 0 ? BPF_STRAIGHT_BEGUN : BPF_STRAIGHT_FULL;
}

/* Puts a flow into the maps, whole or not at all: enum bpf_straight_begun. */
SEC("xdp")
int straight_begin(struct xdp_md *xdp)
{
	struct bpf_straight_begin *begin = (void *)(long)xdp->data;
	__u64 id;
	int r;

	if ((void *)(begin + 1) > (void *)(long)xdp->data_end)
		return BPF_STRAIGHT_FULL;
	id = begin->flow;
	if (bpf_map_update_elem(&stitches, &id, &begin->stitch, BPF_ANY) < 0)
		return BPF_STRAIGHT_FULL;
	/* The target's first: what the client sends goes nowhere before. */
	r = way_begin(&begin->stitch.side[1].in, &begin->way[1]);
	if (r == BPF_STRAIGHT_BEGUN)
		r = way_begin(&begin->stitch.side[0].in, &begin->way[0]);
	if (r != BPF_STRAIGHT_BEGUN)
		settle(bpf_map_lookup_elem(&stitches, &id), id, BPF_STRAIGHT_DONE);
	return r;
}

/* One after the other; what is not there any more is left out. */
SEC("xdp")
int straight_settle(struct xdp_md *xdp)
{
	const void *end = (void *)(long)xdp->data_end;
	const struct bpf_straight_settle *entry = (void *)(long)xdp->data;

	for (int i = 0; i < BPF_STRAIGHT_SETTLE_MAX; i++, entry++) {
		__u64 id;

		if ((const void *)(entry + 1) > end)
			return i;
		id = entry->flow;
		settle(bpf_map_lookup_elem(&stitches, &id), id, entry->what);
	}
	return BPF_STRAIGHT_SETTLE_MAX;
}
