/*
 * When the configuration is saved beside the database (lastgood.h): soon after
 * a change, never as part of it. A small one is written at once; a large one by
 * a child process, for a million entries take half a second, and 10,000
 * listeners 60 ms, in which the daemon's only thread would answer nobody.
 * Used by daemon.c.
 */
#ifndef GW_SAVER_H
#define GW_SAVER_H

#include <systemd/sd-event.h>

#include "gatewayd/options.h"
#include "rules/snapshot.h"

/* Entries of address sets from which on a child writes: fewer take some milliseconds. A row takes as
 * long as so many of them. */
#define SAVER_LARGE 2000U
#define SAVER_ROW   10U
/* A large one is written again only when that takes no more than one part in so many of the time, but after so long
 * anyhow. */
#define SAVER_SHARE    30U
#define SAVER_LATEST_S 10U

struct saver;

/* Saves nothing yet. -ENOMEM. */
int saver_new(sd_event *event, const struct options *options, struct saver **ret);
/* Saves the configuration if it is not saved yet and it is time; called about once a second. Failures are logged, and
 * tried again with the next revision. */
void saver_look(struct saver *saver, const struct snapshot *snapshot);
/* Saves it now, before this returns; what a child is writing is given up. */
void saver_finish(struct saver *saver, const struct snapshot *snapshot);
/* Ends the child, if there is one: the file is what it was. */
void saver_free(struct saver *saver);

#endif
