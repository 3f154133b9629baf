/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is told to the relay's threads of TCP flows in the maps (part of
 * shortcut.bpf.c): by rings, one for each thread that has them.
 *
 * See gatewayd/base/bpf_straight.h.
 */

#define RING(name)                                                                                                     \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_RINGBUF);                                                                    \
		__uint(max_entries, BPF_STRAIGHT_RING_BYTES);                                                          \
	} name SEC(".maps")
RING(ring_0);
RING(ring_1);
RING(ring_2);
RING(ring_3);
#undef RING

/* Room for one, which is to be submitted or discarded. */
static __always_inline struct bpf_straight_event *ring_take(__u32 ring)
{
	switch (ring) {
	case 0:
		return bpf_ringbuf_reserve(&ring_0, sizeof(struct bpf_straight_event), 0);
	case 1:
		return bpf_ringbuf_reserve(&ring_1, sizeof(struct bpf_straight_event), 0);
	case 2:
		return bpf_ringbuf_reserve(&ring_2, sizeof(struct bpf_straight_event), 0);
	case 3:
		return bpf_ringbuf_reserve(&ring_3, sizeof(struct bpf_straight_event), 0);
	default:
		return NULL;
	}
}

static __always_inline void tell(const struct bpf_stitch_way *way, __u32 kind)
{
	struct bpf_straight_event *event = ring_take(way->ring);

	if (!event)
		return; /* the relay looks from time to time, too */
	event->kind = kind;
	event->flow = way->flow;
	event->owner = way->owner;
	bpf_ringbuf_submit(event, 0);
}

/* The flow with this id has ended: with all that there is to be known, so that nobody has to ask. By now its way may be
 * another's: then nobody has it by that owner and this id. */
static __always_inline void tell_end(const struct bpf_stitch *flow, __u64 id, const struct bpf_stitch_way *way)
{
	struct bpf_straight_event *event = ring_take(way->ring);

	if (!event)
		return;
	event->kind = BPF_STRAIGHT_ENDED;
	event->flow = id;
	event->owner = way->owner;
	bpf_straight_show(flow, &event->shown);
	bpf_ringbuf_submit(event, 0);
}

/* Whether this flow has not been told of so. */
static __always_inline int is_first(struct bpf_stitch *flow, __u32 kind)
{
	return !(__sync_fetch_and_or(&flow->straight.told, 1U << kind) & 1U << kind);
}

/* Whether nothing more is to come of it. */
static __always_inline int is_ended(const struct bpf_stitch *flow)
{
	return flow->closed_ns || flow->reset_ns || flow->state == BPF_STITCH_GONE;
}
