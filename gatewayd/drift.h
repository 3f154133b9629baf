/*
 * Drift: somebody else has changed or removed what is ours in the kernel. The
 * monitor of rules/ tells; this module looks what is really different, puts it
 * right (or only says so), and remembers who it was. Used by daemon.c; shown
 * by core_status.c.
 */
#ifndef GW_DRIFT_H
#define GW_DRIFT_H

#include <jansson.h>
#include <systemd/sd-event.h>

#include "gatewayd/apply.h"

struct drift_monitor;

struct drift_owner {
	void *userdata;
	/* Whether differences are put right, or only reported. */
	bool (*heals)(void *userdata);
	/* Something was found: kind "drift", data is new and taken over. May be NULL. */
	void (*tell)(void *userdata, json_t *data);
	/* There is a difference that was not put right, or no longer. May be NULL. */
	void (*changed)(void *userdata, bool present);
	/* An interface or an address has come, gone or changed. May be NULL. */
	void (*link_changed)(void *userdata, const char *interface);
};

/* Watches from now on. 0 or negative errno. */
int drift_new(sd_event *event, struct apply *apply, const struct route_params *route, const struct drift_owner *owner,
        struct drift_monitor **ret);
void drift_free(struct drift_monitor *drift);
/* {state: "none" or "present", healed, last: null or {at, what, process, pid, detail, healed}}; NULL: no memory. */
json_t *drift_status(const struct drift_monitor *drift);
/* Whether a difference is there that was not put right. */
bool drift_present(const struct drift_monitor *drift);
/* Looks again soon if there is a difference that was not put right: after a change of the configuration. */
void drift_look_if_present(struct drift_monitor *drift);
/* Looks soon: a change of ours has failed, and its way back as well. */
void drift_look_for_ours(struct drift_monitor *drift);

#endif
