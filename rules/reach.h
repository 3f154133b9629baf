/*
 * Where a listener reaches: its destinations and sources as sorted lists of
 * prefixes, with address sets put in, and their product with its interfaces,
 * one match key for each combination. Private to the model (cells.h).
 *
 * Nothing of it is kept: the keys follow from the listener's row and the
 * snapshot it stands in, so they are made again when the listener goes.
 */
#ifndef GW_RULES_REACH_H
#define GW_RULES_REACH_H

#include "gatewayd/base/match.h"
#include "rules/snapshot.h"
#include "schema/prefixes.h"

struct reach {
	struct prefixes dst, src; /* an empty list of the listener is "any" of both families here */
};

/* Called with a key without ports. A negative result ends the walk and is passed on. */
typedef int (*reach_visitor)(void *userdata, const struct match_key *key, bool added);

/* A disabled listener reaches nothing. -EINVAL with a fault in errs ("unknown_reference", "invalid"), -ENOMEM. */
int reach_of(const struct listener *listener, const struct snapshot *snapshot, struct errs *errs, struct reach *ret);
void reach_clear(struct reach *reach);
/* How many keys there are. */
size_t reach_count(const struct reach *reach, const struct listener *listener);
/* How many shapes (match.h) those keys have; walks along the lists. */
size_t reach_shapes(const struct reach *reach);
/* Every key, with `added` as given. */
int reach_visit(
        const struct reach *reach, const struct listener *listener, bool added, reach_visitor visitor, void *userdata);
/* Every key that only one of the two has; costs a walk along the lists and what differs. */
int reach_differences(const struct reach *old, const struct reach *new, const struct listener *listener,
        reach_visitor visitor, void *userdata);

/* Whether the listener names an address set, and whether one of those it names differs between the snapshots. */
bool reach_has_sets(const struct listener *listener);
bool reach_sets_differ(const struct listener *listener, const struct snapshot *from, const struct snapshot *to);

/* The addresses, prefixes, ranges and @address-sets of any list, put together; an empty list has none. -ENOENT: there
 * is no such set; -EINVAL, -ENOMEM. */
int reach_entries(const struct strings *texts, const struct snapshot *snapshot, struct prefixes *ret);

#define _cleanup_reach_ _cleanup_(reach_clear)

#endif
