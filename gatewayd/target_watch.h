/*
 * Looks at the targets' states for what has changed, and tells: an event and a
 * line of the log for each change of a target's health, for each ejection, and
 * for each upstream that becomes degraded or down, or is well again. Looks once
 * a second, and at once when the relay says so. Started by daemon.c.
 */
#ifndef GW_TARGET_WATCH_H
#define GW_TARGET_WATCH_H

#include "gatewayd/core.h"

struct target_watch;

/* What is so at the start is no news. 0 or negative errno. */
int target_watch_new(struct core *core, struct target_watch **ret);
void target_watch_free(struct target_watch *watch);
/* Looks again as soon as control is back in the event loop. */
void target_watch_soon(struct target_watch *watch);

#endif
