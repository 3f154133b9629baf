/*
 * What the database remembers besides the configuration in force: the changes
 * of each revision (so that any of them can be shown, compared and taken
 * back), single values that must outlive the process, and the audit log.
 * Faults as in store.h.
 */
#ifndef GW_GATEWAYD_STORE_HISTORY_H
#define GW_GATEWAYD_STORE_HISTORY_H

#include "gatewayd/store.h"

/* Lines of the audit log that are kept; the oldest go first. */
#define STORE_AUDIT_MAX 100000

/* A row that a revision changed. Strings are borrowed. */
struct store_change {
	int64_t revision;
	const char *resource; /* "listener" */
	const char *name;
	const char *before, *after; /* JSON; NULL: was not, or is not there */
};

struct store_revision {
	int64_t n, created_at; /* seconds since 1970 */
	const char *actor, *summary, *config_hash;
};

struct store_audit {
	int64_t id, at; /* at: seconds since 1970; both are set by the store when appending */
	const char *actor, *method, *path, *detail;
	int64_t status, revision;
};

/* Each visits one entry; a negative result ends the walk and is passed on. */
typedef int (*store_change_visitor)(void *userdata, const struct store_change *change);
typedef int (*store_revision_visitor)(void *userdata, const struct store_revision *revision);
typedef int (*store_audit_visitor)(void *userdata, const struct store_audit *entry);

/* Within a transaction, before store_commit of that revision; position counts from 0. */
int store_history_add(struct store *store, const struct store_change *change, unsigned position);
/* Sets the hash of the revision that the open transaction commits; call it before store_commit. */
void store_history_hash(struct store *store, const char *config_hash);
/* The changes of the revisions above `from` up to and with `to`, the newest first and each revision's last first:
 * walking them and putting back `before` leads from `to` to `from`. -ENOENT if a revision between is not kept any more.
 */
int store_history_changes(struct store *store, int64_t from, int64_t to, store_change_visitor visitor, void *userdata);
/* Up to max revisions below `before` (0: from the newest), newest first. */
int store_history_revisions(
        struct store *store, int64_t before, size_t max, store_revision_visitor visitor, void *userdata);

/* A single value; NULL deletes it. Within the open transaction, or at once where none is open. */
int store_meta_set(struct store *store, const char *key, const char *value);
/* *ret is a new string, or NULL if there is none. */
int store_meta_get(struct store *store, const char *key, char **ret);

/* One line more; at once, outside of the transactions of the configuration. */
int store_audit_append(struct store *store, const struct store_audit *entry);
/* Up to max lines with ids below `before` (0: from the newest), newest first. */
int store_audit_list(struct store *store, int64_t before, size_t max, store_audit_visitor visitor, void *userdata);

/* Writes a consistent copy, without free pages, to a file that must not exist (-EEXIST). Synced. */
int store_backup(struct store *store, const char *path);

#endif
