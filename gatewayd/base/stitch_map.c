/* The maps of stitched flows; see stitch_map.h. */
#include "gatewayd/base/stitch_map.h"

#include "gatewayd/base/bpf_map.h"

bool stitch_map_way(int ways, const struct bpf_shortcut_key *key, uint64_t flow, struct bpf_stitch_way *ret)
{
	return bpf_map_get(ways, key, ret) == 0 && ret->flow == flow;
}

void stitch_map_close(int ways, uint64_t flow, const struct bpf_stitch *stitch)
{
	for (unsigned side = 0; side < 2; side++) {
		struct bpf_stitch_way way;

		if (stitch_map_way(ways, &stitch->side[side].in, flow, &way))
			(void)bpf_map_delete(ways, &stitch->side[side].in);
	}
}

void stitch_map_delete(int ways, int stitches, uint64_t flow, struct bpf_stitch *stitch)
{
	stitch_map_close(ways, flow, stitch);
	(void)bpf_map_get(stitches, &flow, stitch);
	(void)bpf_map_delete(stitches, &flow);
}
