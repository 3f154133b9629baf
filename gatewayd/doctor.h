/* Collects the facts that rules/doctor.h judges: from /proc/sys, the kernel, the relay, the database. For
 * core_status.c. */
#ifndef GW_DOCTOR_H
#define GW_DOCTOR_H

#include "rules/doctor.h"

struct core;

/* How long what was found is good enough for GET /status, in milliseconds: a UI, scripts and scrapers may ask for it
 * many times a second, and a look makes the daemon's one thread read /proc, routes and others' rules. */
#define DOCTOR_RECENT_MS 1000

/* What was found last. Zeroed: nothing yet. */
struct doctor_memory {
	uint64_t at_us; /* CLOCK_MONOTONIC; 0: not looked yet */
	uint64_t state; /* of what the gateway itself can change, as a number: another one ends what is remembered */
	size_t n;
	struct doctor_check checks[DOCTOR_CHECKS_MAX];
};

/* Looks now, and judges; the findings are valid until the next call. Takes some milliseconds, and more if others have
 * many nat rules. */
const struct doctor_memory *doctor_run(struct core *core);
/* What was found within DOCTOR_RECENT_MS, unless configuration, kernel planes or relay have changed since; else looks.
 */
const struct doctor_memory *doctor_recent(struct core *core);

#endif
