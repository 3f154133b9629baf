/* What shield.c (changes) and shield_view.c (what is told) share. */
#ifndef GW_SHIELD_PRIVATE_H
#define GW_SHIELD_PRIVATE_H

#include "gatewayd/shield.h"

enum shield_todo { SHIELD_NOTHING, SHIELD_ADJUST, SHIELD_REPLACE, SHIELD_REMOVE };

struct shield_item {
	struct shield *shield;
	char interface[NAME_MAX_BYTES + 1];
	struct kernel_xdp *xdp;
	struct xdp_config *now, *next;
	enum shield_todo todo;
	bool strict;                /* the change in hand writes this prefilter */
	bool begun;                 /* todo was begun */
	char why[XDP_WHY_MAX];      /* it is not in force; "" if it is */
	char told_why[XDP_WHY_MAX]; /* what was told last of why; "": that it is in force */
	bool gave_cookies;          /* when it was last looked at */
	bool limits_work;           /* the program knows what it must of the interface to enforce limits of listeners */
	sd_event_source *ring;
	uint64_t told_second;
	unsigned told;
};

/* What was over, of one pair, at prefilters that do not enforce it any more. */
struct shield_over {
	struct prefilter_over pair;
	struct prefilter_count count;
};

struct shield {
	sd_event *event;
	char *directory;
	struct events *events;
	struct shield_item **items; /* by interface */
	size_t n;
	sd_event_source *timer;
	int64_t generation;
	uint64_t epoch;          /* see shield_epoch */
	struct shield_ban *bans; /* of the programs' own, by prefix; when they were read: 0: they must be */
	size_t n_bans, bans_size;
	uint64_t bans_read_us;
	struct render_xdp_relay relay;
	const struct snapshot *next; /* of the change in hand, borrowed; NULL: it is not about us */
	struct shield_over *overs;   /* kept, for counters only grow */
	size_t n_overs, overs_size;
	void (*dropped)(void *userdata, const char *interface, const struct prefilter_event *event);
	void *dropped_userdata;
};

/* Before the item's configuration becomes another one (NULL: none): what was over those of its pairs that are not in
 * that goes to the shield's overs. */
void shield_keep_overs(struct shield_item *item, const struct xdp_config *next);
/* Forgets what is kept of pairs that are none any more. */
void shield_forget_overs(struct shield *shield, const struct snapshot *snapshot);
/* NULL: the interface has no prefilter. */
struct shield_item *shield_find(const struct shield *shield, const char *interface);
/* Begins to read the item's drops, if there is anybody to tell. */
void shield_listen(struct shield_item *item);
/* Tells when the item begins to give SYN cookies, and when it no longer does. */
void shield_watch_cookies(struct shield_item *item);
/* Tells whether the item's program is in force; that it is not, and why, once. */
void shield_tell(struct shield_item *item);

#endif
