/*
 * A set of changes to rows, resolved against the configuration in force:
 * sorted by resource and name, without those that change nothing, checked for
 * presence and preconditions, and the configuration that results from it
 * checked for references that lead nowhere. Made by core.c, run by apply.c.
 */
#ifndef GW_CHANGESET_H
#define GW_CHANGESET_H

#include "gatewayd/apply.h"
#include "webapi/core.h"

struct changeset {
	struct apply_change *items; /* sorted; new rows are copies of our own with the old row's id */
	const char **pointers;      /* of each item, for faults; borrowed */
	size_t n;
	struct snapshot *from, *to; /* references of our own; to has the next revision's number */
};

/* Resolves the changes. 0, or the errors of core_write with faults in errs; ret is empty then. */
int changeset_new(
        struct snapshot *from, const struct core_change *changes, size_t n, struct errs *errs, struct changeset *ret);
/* Faults of the plan name listeners ("/listeners/NAME/..."): makes pointers into the request of them. What is about a
 * listener that is not written is the fault of the first change. */
void changeset_point(const struct changeset *changeset, struct errs *errs);
void changeset_clear(struct changeset *changeset);

/* The changes as a new JSON array of {op, path, before, after}; NULL when memory is out. */
json_t *changeset_json(const struct changeset *changeset);
/* One element of such an array for a row that was and is (NULL: is not there); NULL when memory is out. */
json_t *changeset_json_rows(const struct row *before, const struct row *after);

#endif
