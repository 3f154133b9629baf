/*
 * The configuration in SQLite: one file, one connection, one writer. The core
 * loads it once at start and writes each change in a transaction that it
 * commits only after the kernel and the relay have taken it. Knows the
 * resources only through their descriptor tables, and neither HTTP nor plan.
 *
 * Faults are negative errno: -ENOSPC (disk full), -EROFS (not writable), -EAGAIN (locked by another program),
 * -EIO, -EUCLEAN (the file is damaged, or a row in it breaks a rule), -ENOMEM, -EBUSY (a row is still referred
 * to), -EINVAL (a row that the tables refuse, or that refers to none). store_error has the words.
 */
#ifndef GW_GATEWAYD_STORE_H
#define GW_GATEWAYD_STORE_H

#include <stdint.h>

#include "rules/snapshot.h"

struct store;

/* Opens the file, or makes it (mode 0600, empty configuration), and checks it: that it is ours, of a version this
 * program knows, undamaged, and that no reference in it dangles. Nothing in a file that is refused is changed.
 * On failure *ret_reason is a new string with a sentence for people (NULL only when memory is out), and the
 * result is one of the faults above, -EPROTONOSUPPORT (made by a newer version) or -EMEDIUMTYPE (another
 * program's file). */
int store_open(const char *path, char **ret_reason, struct store **ret);
/* Rolls back what is open, and closes. NULL is legal. */
void store_close(struct store *store);

/* The whole configuration, sorted by name, of the last revision committed (0 for a new file). Every row has passed
 * check_row, every name in it leads to a row, and the whole has the hash that the last revision was recorded with (if
 * it was); -EUCLEAN with table, id and field in store_error if not. */
int store_load(struct store *store, struct snapshot **ret);

/* Whether the file is still in its place; one that somebody has deleted is written anew from what can still be read of
 * it. store_begin does so first; called now and then, it keeps the time short in which a crash would lose everything.
 * -EIO, -ENOSPC, -EROFS if writes would be lost. */
int store_guard(struct store *store);

/* Begins a transaction that can write at once. -EALREADY if one is open. */
int store_begin(struct store *store);
/* Writes the row under its name, in place of the one that has it or as a new one, and sets row->id. Children are
 * matched by their key (a target's address and port): those that stay keep their id. Children take the revision
 * of the row, which is stored as given. Must be in a transaction (-EINVAL). */
int store_put(struct store *store, struct row *row);
/* The same where the caller has the row as it is stored now (NULL: it is not): of a large set of prefixes only the
 * difference is written, and the old ones need not be read. */
int store_put_over(struct store *store, struct row *row, const struct row *old);
/* Deletes the row of this name with its children. -ENOENT if there is none, -EBUSY if another row refers to it. */
int store_delete(struct store *store, const struct row *row);
/* Records the revision, which must be greater than all before it (-EINVAL), forgets those older than the setting
 * revisions_kept says, and commits. The transaction stays open
 * on failure: follow with store_rollback. */
int store_commit(struct store *store, int64_t revision, const char *actor, const char *summary);
/* Ends the transaction without a trace; legal at any time. */
void store_rollback(struct store *store);
/* Words of the last fault, borrowed until the next call; never NULL. */
const char *store_error(struct store *store);
/* The library's version, as text and as a number: 3040001 is 3.40.1. */
const char *store_library(int *ret_number);

CLEANUP_DEFINE(struct store *, store_close)

#endif
