/* The management daemon as a whole: owns every part, starts them in order, runs the one event loop. Called by main.c.
 */
#ifndef GW_DAEMON_H
#define GW_DAEMON_H

#include "gatewayd/options.h"

/* Each returns the process's exit status, after saying on standard error what went wrong. */
int daemon_run(const struct options *options);
int daemon_check(const struct options *options);
int daemon_cleanup(const struct options *options);

#endif
