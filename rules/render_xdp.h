/*
 * From a snapshot to what the XDP program of one interface is to hold: pure,
 * no system calls. Used by gatewayd/shield.c, which gives it to kernel_xdp.c.
 */
#ifndef GW_RULES_RENDER_XDP_H
#define GW_RULES_RENDER_XDP_H

#include <net/if.h>

#include "rules/prefilter.h"
#include "rules/relayed.h"
#include "rules/snapshot.h"
#include "rules/xdp_limits.h"
#include "schema/errs.h"

struct xdp_config {
	char interface[NAME_MAX_BYTES + 1];
	enum prefilter_mode mode;
	struct prefilter_params params;
	struct prefixes deny, allow;          /* shared with the address set where a list is nothing but one */
	uint64_t ports[PREFILTER_PORT_SLOTS]; /* a bit each; all zero unless params.ports */
	enum syn_cookies syn_cookies;         /* what is asked for */
	struct relayed relayed;               /* empty unless params.listener_port or params.limits */
	struct xdp_limits limits;             /* of listeners, that are enforced here too */
	const char *no_cookies;               /* words: why there are none although they are asked for; NULL */
};

/* What must be known of the relay. */
struct render_xdp_relay {
	uint16_t listener_port; /* of its listening sockets; 0: not known, so there are no SYN cookies */
	uint32_t own_mark;      /* of its sockets to targets (base/sockmark.h); 0: not known, so there are no limits */
};

/* What the prefilter (enabled or not) means in this snapshot, new. Pointers of faults are "/prefilters/NAME/FIELD".
 * -EINVAL with a fault ("unknown_reference", "too_complex"), -ENOMEM. */
int render_xdp(const struct prefilter *prefilter, const struct snapshot *snapshot, const struct render_xdp_relay *relay,
        struct errs *errs, struct xdp_config **ret);
void xdp_config_free(struct xdp_config *config);
CLEANUP_DEFINE(struct xdp_config *, xdp_config_free)

/* So many packets in so many seconds, and so many at once, as a program measures them. */
void render_xdp_rate(int64_t rate, unsigned seconds, int64_t burst, __u64 *ret_interval, __u64 *ret_depth);

/* How the program in force becomes another one. */
enum xdp_difference {
	XDP_SAME,
	XDP_ENTRIES, /* only entries of lists and ports, and few of them: changed one by one */
	XDP_PROGRAM, /* anything else: a program with maps of its own takes the place of this one */
};
/* Most entries that are changed one by one: each takes about a microsecond, and they take effect one by one. */
#define XDP_ENTRIES_FEW 4096
enum xdp_difference xdp_config_differ(const struct xdp_config *old, const struct xdp_config *new);

#endif
