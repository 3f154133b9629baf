/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the relay does to the maps of straight flows, each in one system call
 * (part of shortcut.bpf.c, behind straight.h): it runs these programs with
 * BPF_PROG_TEST_RUN, and what is to be done is the packet. They are attached
 * nowhere. Of a type that takes packets, for those made for being called
 * (syscall) may have to do with no map with a lock before Linux 6.6.
 *
 * See gatewayd/base/bpf_straight.h.
 */

/* Takes a flow out of both maps; not its ways, if they are another's by now: the peers may have begun another
 * connection with the same addresses and ports. */
static __noinline int take_out(const struct bpf_stitch *flow, __u64 id)
{
	struct bpf_shortcut_key keys[2] = { flow->side[0].in, flow->side[1].in };
	const struct bpf_stitch_way *way;

	/* From here on the element may be another flow's. */
	if (bpf_map_delete_elem(&stitches, &id) < 0)
		return 0;
	for (int side = 1; side >= 0; side--) {
		way = bpf_map_lookup_elem(&ways, &keys[side]);
		if (way && way->flow == id)
			bpf_map_delete_elem(&ways, &keys[side]);
	}
	return 1;
}

static __noinline int settle(__u64 id, __u32 what)
{
	struct bpf_stitch *flow = bpf_map_lookup_elem(&stitches, &id);
	struct bpf_stitch_way *way;

	if (!flow)
		return 0;
	if (what == BPF_STRAIGHT_DONE)
		return take_out(flow, id);
	if (what != BPF_STRAIGHT_COUNTED)
		return 0;
	/* If another flow gets this very element in between, its end is seen later: nothing is told of it. */
	way = bpf_map_lookup_elem(&ways, &flow->side[0].in);
	if (way && way->flow == id)
		way->ring = BPF_STITCH_COUNTED;
	return 1;
}

/* Packets with this key are of the way's flow from here on, unless they are another's, which is not over. */
static __noinline int way_begin(const struct bpf_shortcut_key *key, const struct bpf_stitch_way *way)
{
	const struct bpf_stitch_way *other;
	const struct bpf_stitch *flow;
	__u64 id;
	long r;

	if (bpf_map_update_elem(&ways, key, way, BPF_NOEXIST) == 0)
		return BPF_STRAIGHT_BEGUN;
	other = bpf_map_lookup_elem(&ways, key);
	if (other && other->flow != way->flow) {
		id = other->flow;
		flow = bpf_map_lookup_elem(&stitches, &id);
		if (flow && !is_ended(flow))
			return BPF_STRAIGHT_IN_USE;
		if (flow) {
			take_out(flow, id);
			other = NULL;
		}
	}
	r = bpf_map_update_elem(&ways, key, way, other ? BPF_ANY : BPF_NOEXIST);
	return r == 0 ? BPF_STRAIGHT_BEGUN : r == -EEXIST ? BPF_STRAIGHT_IN_USE : BPF_STRAIGHT_FULL;
}

/* Puts a flow into the maps, whole or not at all: enum bpf_straight_begun. */
SEC("xdp")
int straight_begin(struct xdp_md *xdp)
{
	struct bpf_straight_begin *begin = (void *)(long)xdp->data;
	__u64 id;
	int r;

	if ((void *)(begin + 1) > (void *)(long)xdp->data_end)
		return BPF_STRAIGHT_UNREAD;
	id = begin->flow;
	if (bpf_map_update_elem(&stitches, &id, &begin->stitch, BPF_ANY) < 0)
		return BPF_STRAIGHT_FULL;
	/* The target's first: what the client sends goes nowhere before. */
	r = way_begin(&begin->stitch.side[1].in, &begin->way[1]);
	if (r == BPF_STRAIGHT_BEGUN)
		r = way_begin(&begin->stitch.side[0].in, &begin->way[0]);
	if (r != BPF_STRAIGHT_BEGUN)
		settle(id, BPF_STRAIGHT_DONE);
	return r;
}

/* One after the other; what is not there any more is left out. */
SEC("xdp")
int straight_settle(struct xdp_md *xdp)
{
	const void *end = (void *)(long)xdp->data_end;
	const struct bpf_straight_settle *entry = (void *)(long)xdp->data;
	int i;

	for (i = 0; i < BPF_STRAIGHT_SETTLE_MAX; i++, entry++) {
		if ((const void *)(entry + 1) > end)
			break;
		settle(entry->flow, entry->what);
	}
	return BPF_STRAIGHT_RESULT + i;
}
