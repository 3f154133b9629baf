/*
 * --early: the rules of the last good configuration before there is a daemon,
 * so that nothing passes a gateway that is just booting. Called by main.c.
 */
#ifndef GW_EARLY_H
#define GW_EARLY_H

#include "gatewayd/options.h"

/* Puts rules and routes of the last good configuration into the kernel, as they are while no relay runs: what a
 * listener catches is dropped, or forwarded where it says so. The database is not opened, no process is started. Where
 * a daemon runs, or our table is there already, nothing is touched. EXIT_SUCCESS also if there is no such
 * configuration. */
int early_run(const struct options *options);

#endif
