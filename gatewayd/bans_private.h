/* What bans.c (the list, by hand, into the kernel) and bans_learn.c (once a second) share. */
#ifndef GW_GATEWAYD_BANS_PRIVATE_H
#define GW_GATEWAYD_BANS_PRIVATE_H

#include "gatewayd/bans.h"
#include "gatewayd/shield.h"
#include "gatewayd/store_bans.h"
#include "rules/limits.h"
#include "schema/prefixes.h"

/* How often it is looked whether limits have banned somebody, or a ban has ended. */
#define BANS_LOOK_US UINT64_C(1000000)
/* With every so many looks, all that a limit bans is read, if it has banned meanwhile; otherwise only what is fresh. */
#define BANS_LOOKS_FOR_ALL 60U

struct bans {
	struct store *store;
	struct bans_owner owner;
	sd_event_source *timer;
	struct ban *items; /* sorted by prefix */
	size_t n, size;
	json_t *seen, *seen_all; /* how many each limit had banned when what is fresh, or all, was last read */
	unsigned looks;
	int64_t revision;       /* that was in force at the last look */
	uint64_t epoch;         /* of the prefilters, when they were last told all */
	struct prefixes exempt; /* at that time */
};

/* Into its place in the list, over what is there. -ENOSPC, -ENOMEM. */
int bans_put(struct bans *bans, const struct prefix *prefix, const struct store_ban *from);
void bans_take_out(struct bans *bans, size_t at);
/* An event; what: "added", "lifted", "expired". */
void bans_tell(const struct bans *bans, const struct ban *ban, const char *what);
/* At the prefilters, if the ban is for these. */
void bans_shut(const struct bans *bans, const struct ban *ban);
void bans_unshut(const struct bans *bans, const struct ban *ban);
/* Tells the prefilters all anew when one has come into force, or others are exempt now. */
void bans_follow_prefilters(struct bans *bans);
/* What is done once a second. */
void bans_look(struct bans *bans);

#endif
