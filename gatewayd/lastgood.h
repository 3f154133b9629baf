/*
 * The configuration in force, once more, as a text beside the database: what
 * the gateway can start from, and be told of by --check, when the database is
 * lost or refused. Written by the daemon when it has nothing better to do (at
 * most once a second while the configuration changes, a large one less often
 * and by a child, and when it stops: saver.h), never by a request. Tokens are not in it: their hashes stay in one
 * place.
 *
 * {"format": 1, "revision": N, "rows": [{"resource", "id", "revision", "children": [ids], "row": {...}}, ...],
 *  "config_hash": "..."}; the hash comes last and is computed again when it is read.
 */
#ifndef GW_GATEWAYD_LASTGOOD_H
#define GW_GATEWAYD_LASTGOOD_H

#include "rules/snapshot.h"

/* Replaces the file (mode 0600) as a whole: after a crash at any moment there is the old one or the new one. 0 or
 * negative errno; the old file stays then. */
int lastgood_write(const char *path, const struct snapshot *snapshot);
/* A new snapshot. -ENOENT if there is no file, -EUCLEAN if it is damaged, cut off, or of another version of the
 * program; -ENOMEM, or what the file system says. On failure *ret_reason is a new string with a sentence for people
 * (NULL only when memory is out). */
int lastgood_read(const char *path, char **ret_reason, struct snapshot **ret);

#endif
