/*
 * Which rate limits the prefilters enforce as well, and what their programs
 * must know for it. Pure; used by render_xdp.c, and by gatewayd/core_limits.c,
 * which says where a limit is enforced and why.
 *
 * nft enforces each of them in any case. A program drops what is over before
 * the stack has spent anything on it, and lets the rest come to nft, whose share
 * of the same size it fits into. So it may leave to nft whatever it is not sure
 * of, and can come and go at any time; but what nft must see of a packet that
 * is over (a ban, an answer, a figure) it must not keep from it. That is what
 * the conditions are about.
 */
#ifndef GW_RULES_XDP_LIMITS_H
#define GW_RULES_XDP_LIMITS_H

#include <stddef.h>
#include <stdint.h>

#include "rules/prefilter.h"
#include "rules/relayed.h"
#include "rules/snapshot.h"

/* For each rate limit of the snapshot, by its place: NULL, or why prefilters cannot enforce it, in words (of metrics
 * other than packets "": there is nothing to say). A new array of borrowed texts; NULL: no memory. */
const char **xdp_limits_plan(const struct snapshot *snapshot);

struct xdp_limits {
	struct prefilter_pair *pairs; /* those of one listener behind each other, in the order in which it names them */
	size_t n;
	const char *why_none;                 /* words: why there are none although there could be; NULL */
	uint64_t ports[PREFILTER_PORT_WORDS]; /* of UDP: a bit for each that a pair is about */
};

/* Those of an interface, new (xdp_limits_clear), into params what the program must know of them, and into relayed whose
 * packets are whose. own_mark: of the relay's sockets to targets (0: not known, then there are none). 0, -ENOMEM. */
int xdp_limits_of(const struct snapshot *snapshot, const char *interface, uint32_t own_mark,
        struct prefilter_params *params, struct relayed *relayed, struct xdp_limits *ret);
void xdp_limits_clear(struct xdp_limits *limits);

#endif
