/*
 * Who is shut out: by hand, or by a rate limit of action "ban". The sets in
 * the kernel have the last word on packets, with a time for each element, so a
 * ban ends also while no daemon runs; this keeps the list with who and why,
 * in memory and in the database. Limits ban in the path of the packet; that
 * they did is seen once a second by their counters, and whom in a small set of
 * the last few seconds. A ban of placement "xdp" is put into the prefilters
 * too, which then drop all that the source sends.
 */
#ifndef GW_GATEWAYD_BANS_H
#define GW_GATEWAYD_BANS_H

#include <jansson.h>
#include <systemd/sd-event.h>

#include "gatewayd/apply.h"
#include "webapi/core.h"

/* Bans that are listed, of all kinds; as many as one set of the kernel holds. By hand no more are accepted; what limits
 * ban beyond it is in force (as long as its set has room), but not listed. */
#define BANS_MAX LIMITS_BANS_MAX

struct ban {
	struct prefix prefix;
	int64_t created_at, expires_at; /* seconds since 1970; expires_at 0: when it is lifted */
	char *reason, *actor, *limit;   /* limit: its name, "" by hand */
	bool xdp;                       /* at the prefilters too, where nobody in it is exempt */
};

struct bans;

/* Reads them from the store; the ones whose time is over are forgotten. */
int bans_new(struct store *store, struct bans **ret);
void bans_free(struct bans *bans);
/* The lengths that there must be sets for, before the kernel is touched. */
void bans_lengths(const struct bans *bans, struct ban_lengths *ret);
/* What lies between: the kernel, the prefilters (NULL: none), and who is told ("ban" events; data is taken over). */
struct bans_owner {
	struct apply *apply;
	struct kernel *kernel;
	struct shield *shield;
	void *userdata;
	void (*tell)(void *userdata, json_t *data);
};
/* Puts into the kernel what is missing there, learns what limits did meanwhile, and goes on doing so. */
int bans_start(struct bans *bans, sd_event *event, const struct bans_owner *owner);

/* Bans by hand, also what is banned already, then with the new time, reason, actor and placement. -EPERM (never to be
 * banned), -ENOSPC (BANS_MAX), -EIO (kernel or store do not take it), -ENOMEM. */
int bans_add(struct bans *bans, const struct core_ban *wish);
/* Also what a prefilter has made itself. -ENOENT, -EIO, -ENOMEM. */
int bans_lift(struct bans *bans, const struct prefix *prefix, const char *actor);
/* NULL if the daemon has none of exactly this prefix. */
const struct ban *bans_find(const struct bans *bans, const struct prefix *prefix);
/* Whether the address is in any of them, and not exempt. lengths: bans_lengths of them. */
bool bans_cover(const struct bans *bans, const struct ban_lengths *lengths, const struct addr *addr);
/* Whether all of the prefix is never to be banned; of one that is partly so, the rest is. */
bool bans_is_exempt(const struct bans *bans, const struct prefix *prefix);
size_t bans_count(const struct bans *bans);
/* A ban as it is listed: the daemon's, or one that a prefilter has made itself, or both. Borrowed. */
struct ban_view {
	const struct ban *ban;
	const struct shield_ban *own; /* the first of n_own, of several interfaces */
	size_t n_own;
};
const struct prefix *ban_view_prefix(const struct ban_view *view);
/* Those whose prefix is greater (prefix_compare) than `after` (NULL: from the first), up to max; returns how many.
 * ret_total: of all. */
size_t bans_page(
        const struct bans *bans, const struct prefix *after, size_t max, struct ban_view *ret, size_t *ret_total);
/* The one of exactly this prefix; false: there is none. */
bool bans_view(const struct bans *bans, const struct prefix *prefix, struct ban_view *ret);
/* {address, reason, actor, rate_limit, created_at, expires_at, placement, interfaces, prefilter}; NULL when memory is
 * out. */
json_t *bans_document(const struct bans *bans, const struct ban_view *view);

#endif
