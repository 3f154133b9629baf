/*
 * From two snapshots to what must change, in kernel and relay: pure, no
 * system calls. A model holds the compiled form of the configuration in force
 * (which match key belongs to which listener); a plan is the difference to
 * another snapshot. The model takes the plan's state with plan_commit, or
 * stays what it was with plan_abort.
 *
 * Compilation: a listener is the cross product of its destinations, sources
 * and interfaces, each combination a cell, the entries of address sets being
 * prefixes like any other (an empty set is none, not "any"); in a cell the ports of all
 * listeners that share it are cut into disjoint pieces, each owned by the
 * listener that wins there (exact before range before any, narrower range
 * first, then the lower priority number). Between cells the order of shapes
 * decides (base/match.h). Two listeners of equal width and priority that meet
 * on a port in one cell are a tie and refused.
 */
#ifndef GW_RULES_PLAN_H
#define GW_RULES_PLAN_H

#include "gatewayd/base/match.h"
#include "rules/limits.h"
#include "rules/snapshot.h"
#include "schema/errs.h"

/* Most elements one listener that names no address set may expand to: its destinations (ranges split into prefixes) x
 * sources x interfaces x ports. 16,384 load in a quarter of a second; lists of 64 each would be 16 million. A larger
 * product is refused with "too_complex". */
#define PLAN_LISTENER_MAX 16384

/* Most elements of all listeners together, which address sets can make many: each takes about 120 bytes here, as much
 * in the relay, and more in the kernel. Beyond it "too_complex". */
#define PLAN_TOTAL_MAX 1000000

/* From so many combinations of addresses and interfaces of each shape on, in the mean, each range of ports that a
 * listener has lies in a set of its own for each shape, whose rule compares the port and whose keys have none: the
 * kernel hashes them, where a set of many ranges is an interval set with each of them cut into blocks. Measured, the
 * write of a listener with 100,000 prefixes and 8000-8100: 1.6 s instead of 4.9 s. Small enough that what is left in
 * interval sets is quick, large enough that PLAN_TOTAL_MAX leaves room for 488 such sets, and so for 488 rules, at
 * most. */
#define PLAN_OWN_RANGE_MIN 2048

/* Most blocks of ports (2 to the n ports each, from a multiple of that on) in all interval sets: the kernel cuts each
 * range in them into such blocks, at most 30, and the time to load a set grows with the square of its own. Measured:
 * 300,000 take 1.0 s of a processor, 480,000 1.6 s, 600,000 6 s, 917,000 10 s. Beyond it "too_complex". */
#define PLAN_BLOCKS_MAX 524288

/* From this many removals on, an interval set is made anew: a deletion from one costs time in proportion to its size
 * (measured: 0.7 ms of 10,000 elements, which load in 110 ms), so about 150 deletions cost as much as a fresh set. */
#define PLAN_REBUILD_MIN 128

/* What nft does with a packet that matches an element: one action chain each, so their number is constant, and one
 * set for each shape and verdict in use. */
enum verdict {
	VERDICT_RELAY,        /* tproxy; without a socket drop */
	VERDICT_RELAY_DIRECT, /* tproxy; without a socket, or while the gate is open, forward */
	VERDICT_REJECT,
	VERDICT_DROP,
	VERDICT_BYPASS,
	VERDICT_LIMITED, /* of groups, and of what is found in the kernel: its listener's own chain (limits.h) decides
	                  */
	VERDICTS
};

/* What becomes of a listener's packets. */
enum verdict listener_verdict(const struct listener *listener);

/* The elements that lie in one nft set. */
struct group {
	struct match_shape shape;
	uint8_t verdict;           /* enum verdict */
	uint16_t port_lo, port_hi; /* the range that all of them have (PLAN_OWN_RANGE_MIN); else 0 */
};

struct element {
	struct match_key key;
	enum verdict verdict;
	uint32_t listener; /* row id */
	bool limited;      /* the listener has rate limits */
	bool own_range;    /* lies in the set of its range */
};

struct elements {
	struct element *items;
	size_t n;
};

/* A row that the relay must hear of; old or new is NULL for added or deleted ones. Borrowed from the snapshots. */
struct row_change {
	const struct row *old_row, *new_row;
};

struct plan {
	int64_t from_revision, to_revision;
	struct snapshot *from, *to; /* references of the plan's own */
	struct elements removed,
	        added; /* sorted by element_compare; an element whose verdict or listener changes is in both */
	struct group *groups_before, *groups_after; /* sorted by group_compare */
	size_t n_groups_before, n_groups_after;
	/* Interval sets that lose so many elements that a fresh set is cheaper: the set's whole new content. Such
	 * groups have no part in what the nft renderer makes of removed and added; both stay complete for everyone
	 * else. */
	struct group *groups_rebuilt;
	size_t n_groups_rebuilt;
	struct elements rebuilt;
	struct limits *limits_before, *limits_after; /* references; before may be NULL: there was nothing yet */
	struct row_change *changes;                  /* upstreams and listeners that differ */
	size_t n_changes;
	bool rewrite_chains; /* set by the core after a start: render_nft_plan rewrites every chain (the ports may
	                        differ) */
};

/* Order of precedence (match_shape_compare); the groups of one shape, which have no packet in common, by verdict and
 * range. */
int group_compare(const struct group *a, const struct group *b);
/* Whether keys of the group's set are intervals. */
bool group_is_interval(const struct group *group);
/* For qsort. */
int group_compare_items(const void *a, const void *b);
/* Whether the group is one of these. */
bool group_is_in(const struct group *groups, size_t n, const struct group *group);
/* The group that an element belongs to. */
struct group element_group(const struct element *element);
/* Total order: groups first, then keys, then the listeners of limited ones, whose chains they lead to. */
int element_compare(const struct element *a, const struct element *b);
/* Sorts by element_compare. */
void elements_sort(struct elements *elements);
/* How many elements from `at` on are of the same group. */
size_t elements_run(const struct elements *elements, size_t at);

struct model;

/* An empty model, the compiled form of a snapshot without listeners. -ENOMEM. */
int model_new(struct model **ret);
void model_free(struct model *model);
/* The compiled elements in force, sorted by element_compare, in a new array (free items). -ENOMEM. */
int model_elements(const struct model *model, struct elements *ret);
/* The groups in force, sorted by group_compare, in a new array. -ENOMEM. */
int model_groups(const struct model *model, struct group **ret, size_t *ret_n);

/* The rate limits in force, borrowed; NULL: nothing is in force yet. */
struct limits *model_limits(const struct model *model);
/* The element of this group, whose protocol and family are the packet's, that the packet matches: 1, or 0 if there is
 * none. A packet without an interface matches no group that looks at it. */
int model_find(
        const struct model *model, const struct group *group, const struct match_packet *packet, struct element *ret);

/* The element that decides about the packet: the first group's in order of precedence. 1, 0: there is none, 2: the
 * exemption of the gateway's own addresses, of which `own` says that the destination is one, comes before it. -ENOMEM.
 */
int model_decide(const struct model *model, const struct match_packet *packet, bool own, struct element *ret);

/* How many elements there are. */
size_t model_count(const struct model *model);

/* What must change from the model's state (snapshot `from`, rows shared with `to`) to snapshot `to`.
 * Pointers of faults are "/listeners/NAME/FIELD...": where NAME stands in a request only the caller knows. -EEXIST
 * with faults in errs for a tie (code "overlap", the detail names both listeners and what they share),
 * -EINVAL with faults ("too_complex", "unknown_reference", "invalid"), -ENOMEM. On failure the model is unchanged. At
 * most one plan at a time. */
int plan_new(struct model *model, struct snapshot *from, struct snapshot *to, struct errs *errs, struct plan **ret);
/* What is only refused to who writes it anew: ranges that grow beyond PLAN_BLOCKS_MAX. What is stored already has to
 * start, and whatever was in force can come back. 0; -EINVAL with a fault ("too_complex"). */
int plan_check_load(const struct model *model, const struct plan *plan, struct errs *errs);
/* For tests: another PLAN_OWN_RANGE_MIN, of models made from now on; 0: the usual one. */
void plan_own_range_min(size_t n);
/* Makes the plan's target the model's state; cannot fail. Frees the plan. */
void plan_commit(struct model *model, struct plan *plan);
/* Leaves the model as it was. Frees the plan. */
void plan_abort(struct model *model, struct plan *plan);

#endif
