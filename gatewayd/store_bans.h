/* Bans in the database, so that they outlive a reboot. Beside the configuration: no revision is made. Faults as in
 * store.h. */
#ifndef GW_GATEWAYD_STORE_BANS_H
#define GW_GATEWAYD_STORE_BANS_H

#include "gatewayd/store.h"

/* Strings are borrowed. */
struct store_ban {
	const char *prefix; /* as prefix_format writes it */
	const char *reason, *actor;
	const char *rate_limit;         /* "": by hand */
	int64_t created_at, expires_at; /* seconds since 1970; expires_at 0: when it is lifted */
	bool xdp;                       /* at the prefilters too */
};

/* Visits one; a negative result ends the walk and is passed on. */
typedef int (*store_ban_visitor)(void *userdata, const struct store_ban *ban);
int store_bans_load(struct store *store, store_ban_visitor visitor, void *userdata);
/* Puts (over what is there of the same prefix) and forgets, all or nothing. No transaction may be open. */
int store_bans_write(
        struct store *store, const struct store_ban *bans, size_t n, const char *const *forget, size_t n_forget);

#endif
