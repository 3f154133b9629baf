/*
 * What operators have said about targets while the gateway runs, in the
 * database: beside the configuration, in no revision, gone with the target.
 * Used by overrides.c, which says what it means. Faults as in store.h.
 */
#ifndef GW_GATEWAYD_STORE_RUNTIME_H
#define GW_GATEWAYD_STORE_RUNTIME_H

#include "gatewayd/store.h"

/* One target's. Numbers that are nothing are STORE_RUNTIME_NONE. */
#define STORE_RUNTIME_NONE (-1)
struct store_runtime {
	int64_t target;                      /* id of its row */
	int64_t admin_state, weight;         /* enum admin_state; or NONE: as configured */
	int64_t over_admin, over_weight;     /* what was configured when it was said */
	int64_t drain_deadline, reset_per_s; /* seconds since 1970, or NONE */
	int64_t said_at;                     /* seconds since 1970 */
	const char *actor;
};

typedef int (*store_runtime_visitor)(void *userdata, const struct store_runtime *runtime);

/* At once, outside of the transactions of the configuration. -EINVAL if there is no such target. */
int store_runtime_put(struct store *store, const struct store_runtime *runtime);
/* Legal if there is none. */
int store_runtime_delete(struct store *store, int64_t target);
/* All, by target; strings are borrowed. A negative result of the visitor ends the walk and is passed on. */
int store_runtime_list(struct store *store, store_runtime_visitor visitor, void *userdata);

#endif
