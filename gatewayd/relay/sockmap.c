/* Collecting the maps of the sockmap mover; see sockmap.h. */
#include "gatewayd/relay/sockmap.h"

#include <errno.h>

#include "gatewayd/base/bpf_flow.h"
#include "gatewayd/base/cleanup.h"

void sockmap_set_init(struct sockmap_set *set)
{
	*set = (struct sockmap_set){ .rx = -1, .tx = -1, .directions = -1, .controls = -1 };
	for (unsigned i = 0; i < STATS_THREADS_MAX; i++)
		set->ring[i].fd = -1;
}

static int *map_of(struct sockmap_set *set, unsigned kind)
{
	switch (kind) {
	case PROTO_SOCKMAP_RX:
		return &set->rx;
	case PROTO_SOCKMAP_TX:
		return &set->tx;
	case PROTO_SOCKMAP_DIRECTIONS:
		return &set->directions;
	case PROTO_SOCKMAP_CONTROLS:
		return &set->controls;
	default:
		return NULL;
	}
}

static int ring_add(struct sockmap_set *set, const struct proto_sockmap *message, unsigned n_threads, int *fd)
{
	int r;

	if (message->ring >= BPF_FLOW_RINGS)
		return -EBADMSG;
	if (message->thread >= n_threads || set->ring[message->thread].fd >= 0)
		return 0;
	r = ring_open(*fd, BPF_FLOW_RING_SIZE, &set->ring[message->thread].ring);
	if (r < 0)
		return r;
	set->ring[message->thread].number = message->ring;
	set->ring[message->thread].fd = TAKE_FD(*fd);
	return 0;
}

static bool is_complete(const struct sockmap_set *set, unsigned n_threads)
{
	if (set->rx < 0 || set->tx < 0 || set->directions < 0 || set->controls < 0)
		return false;
	for (unsigned i = 0; i < n_threads; i++)
		if (set->ring[i].fd < 0)
			return false;
	return true;
}

int sockmap_set_add(struct sockmap_set *set, const struct proto_sockmap *message, unsigned n_threads, int *fd)
{
	int *map = map_of(set, message->kind), r = 0;

	if (message->layout != BPF_FLOW_LAYOUT || message->kind >= PROTO_SOCKMAP_KINDS)
		return -EBADMSG;
	if (set->complete)
		return 0; /* a later daemon's: what flows are in must not change under them */
	if (!map)
		r = ring_add(set, message, n_threads, fd);
	else if (*map < 0)
		*map = TAKE_FD(*fd);
	if (r < 0)
		return r;
	set->complete = is_complete(set, n_threads);
	return set->complete;
}
