/* Collects the facts that rules/doctor.h judges: from /proc/sys, the kernel, the relay, the database. For
 * core_status.c. */
#ifndef GW_DOCTOR_H
#define GW_DOCTOR_H

#include "rules/doctor.h"

struct core;

/* Looks now, and judges: how many checks there are. Takes some milliseconds, and more if others have many nat rules. */
size_t doctor_run(struct core *core, struct doctor_check ret[DOCTOR_CHECKS_MAX]);

#endif
