/*
 * Opening the database, and the ways out when it is lost or refused: the last
 * good configuration beside it (lastgood.h). Used by daemon.c and early.c.
 */
#ifndef GW_OPEN_H
#define GW_OPEN_H

#include "gatewayd/options.h"
#include "gatewayd/store.h"

/* Opens DIR/gateway.db and loads the configuration. A database that is gone while a last good configuration is there is
 * made anew from that; with options->restore so is one that is refused, which is kept under another name. What happens
 * is logged, a refusal with what can be done about it. 0 or the errors of store_open and store_load. */
int open_store(const struct options *options, struct store **ret_store, struct snapshot **ret_snapshot);

/* The last good configuration alone, as lastgood_read. */
int open_last_good(const struct options *options, char **ret_reason, struct snapshot **ret);
/* Writes the last good configuration. Failures are logged: they are no reason to stop. As lastgood_write. */
int open_save_last_good(const struct options *options, const struct snapshot *snapshot);

#endif
