/*
 * An immutable state of the whole configuration: for each resource the rows,
 * sorted by name, shared by reference with other snapshots. An edit makes a
 * new snapshot that shares every row it does not change, so plan can tell by
 * pointer what differs. Built by the store at start and by the core's writes.
 */
#ifndef GW_RULES_SNAPSHOT_H
#define GW_RULES_SNAPSHOT_H

#include "schema/types.h"

struct snapshot {
	unsigned references;
	int64_t revision;
	struct rows rows[RESOURCES]; /* children live in their parents: rows[RESOURCE_TARGET] stays empty */
};

/* An empty one of revision 0; NULL when memory is out. */
struct snapshot *snapshot_new(void);
struct snapshot *snapshot_ref(struct snapshot *snapshot);
void snapshot_unref(struct snapshot *snapshot);
CLEANUP_DEFINE(struct snapshot *, snapshot_unref)

/* A copy with the same rows and the given revision, for editing. */
struct snapshot *snapshot_edit(const struct snapshot *from, int64_t revision);
/* Adds the row or puts it in the place of the one of its name; takes a reference of its own. 0 or -ENOMEM. */
int snapshot_put(struct snapshot *snapshot, struct row *row);
/* -ENOENT if there is none of that name. */
int snapshot_remove(struct snapshot *snapshot, enum resource_id resource, const char *name);
/* The row, borrowed, or NULL. */
struct row *snapshot_find(const struct snapshot *snapshot, enum resource_id resource, const char *name);
/* The settings in force: the one row, or the defaults if the snapshot has none. Borrowed; NULL when memory is out. */
const struct settings *snapshot_settings(const struct snapshot *snapshot);
/* Index of the first row whose name is greater than `after` (NULL: 0); may equal rows[resource].n. */
size_t snapshot_after(const struct snapshot *snapshot, enum resource_id resource, const char *after);

#endif
