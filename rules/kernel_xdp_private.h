/* What kernel_xdp.c (programs, links, pins), kernel_xdp_maps.c (their content) and kernel_xdp_foreign.c (others')
 * share. */
#ifndef GW_RULES_KERNEL_XDP_PRIVATE_H
#define GW_RULES_KERNEL_XDP_PRIVATE_H

#include <limits.h>

#include "rules/kernel_xdp.h"

/* Maps that outlive a program. */
enum xdp_kept {
	XDP_KEPT_COUNTERS,
	XDP_KEPT_BANS,
	XDP_KEPT_EVENTS,
	XDP_KEPT_BUCKETS,
	XDP_KEPT_SHUT_V4,
	XDP_KEPT_SHUT_V6,
	XDP_KEPT_SHARES,
	XDP_KEPT_OVERS,
	XDP_KEPT
};

struct prefilter_bpf;
struct ring_buffer;

/* What the last walk over the program's own bans has found. */
struct xdp_bans {
	bool known;
	size_t n;
	uint64_t over;     /* packets over the rate until then */
	uint64_t next_end; /* nanoseconds since the boot: when one of them is over */
};

struct kernel_xdp {
	char interface[NAME_MAX_BYTES + 1];
	char directory[PATH_MAX]; /* of the interface; "": nothing is pinned */
	char ways[PATH_MAX];      /* the pin of the short cut's map; "": none */
	int kept[XDP_KEPT];       /* -1: not there yet */
	int link;                 /* -1: not attached by us */
	struct prefilter_bpf *loaded, *now, *before;
	struct prefilter_bpf *trial;          /* a copy for kernel_xdp_judge; NULL: none yet */
	const struct prefilter_bpf *trial_of; /* what it is a copy of */
	int before_fd;    /* the program that an earlier daemon had attached, if switch replaced it; -1: none */
	bool is_switched; /* and not settled */
	bool was_attached;
	char why[XDP_WHY_MAX];
	struct ring_buffer *ring;
	struct xdp_bans bans;
	void (*visit)(void *userdata, const struct prefilter_event *event);
	void *userdata;
};

/* Of an interface. */
#define XDP_HARDWARE_BYTES 6
struct xdp_place {
	uint8_t hardware[XDP_HARDWARE_BYTES]; /* its address */
	/* It is known, and all frames that come to the address are the interface's own: no VLAN lies on it, for a
	 * driver may take the tags off before the program sees the frame. */
	bool known;
};
/* Asks the kernel. */
void kernel_xdp_place(const char *interface, struct xdp_place *ret);

/* Puts the configuration's lists and ports into a program's new maps. 0 or negative errno. */
int kernel_xdp_fill(struct prefilter_bpf *program, const struct xdp_config *config);
/* Before a load: the program's memory of flows, that of `from` if it is not NULL, else an empty one of its own; none
 * where it gives no cookies. 0 or negative errno. */
int kernel_xdp_seen(struct prefilter_bpf *program, const struct prefilter_bpf *from);
/* A source as the program's maps have it. */
struct prefilter_source kernel_xdp_source(const struct addr *addr);
/* Lets go of the copy. */
void kernel_xdp_trial_end(struct kernel_xdp *xdp);
/* Opens the ring for reading, if it is not. */
void kernel_xdp_open_ring(struct kernel_xdp *xdp);
/* Makes counters for the configuration's pairs, if there are none. 0 or negative errno. */
int kernel_xdp_make_overs(struct kernel_xdp *xdp, const struct xdp_config *config);
/* Lets programs look for bans, if there are any. */
void kernel_xdp_note_bans(struct kernel_xdp *xdp, struct prefilter_bpf *program);

#endif
