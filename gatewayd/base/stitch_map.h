/*
 * Taking TCP flows out of the maps of stitched flows (bpf_stitch.h), for the
 * relay that put them there (relay/tcp_stitch.c) and for the daemon, which
 * takes out those that are nobody's any more (rules/kernel_shortcut.c).
 */
#ifndef GW_BASE_STITCH_MAP_H
#define GW_BASE_STITCH_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "gatewayd/base/bpf_stitch.h"

/* The way of packets with this key, if there is one and it is this flow's: the peers may have begun another connection
 * with the same addresses and ports. */
bool stitch_map_way(int ways, const struct bpf_shortcut_key *key, uint64_t flow, struct bpf_stitch_way *ret);
/* Takes out both ways: packets of the flow are not found any more, but by whoever has found its ways already. */
void stitch_map_close(int ways, uint64_t flow, const struct bpf_stitch *stitch);
/* Takes the flow out of both maps. *stitch: as it was found before; as it was last afterwards, for until its packets
 * are not found any more it may become ACTIVE. */
void stitch_map_delete(int ways, int stitches, uint64_t flow, struct bpf_stitch *stitch);

#endif
