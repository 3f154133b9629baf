/*
 * The prefilters as the daemon keeps them: one XDP program for each enabled
 * one, changed as a part of the apply transaction, put back on interfaces that
 * return, told about in status, stats and events. Used by daemon.c and apply.c
 * (through struct apply_shield); shown by core_status.c, core_stats.c and
 * core_metrics.c.
 */
#ifndef GW_SHIELD_H
#define GW_SHIELD_H

#include <jansson.h>
#include <systemd/sd-event.h>

#include "gatewayd/base/match.h"
#include "rules/kernel_xdp.h"
#include "webapi/events.h"

/* Drops of one interface that are told as events, a second at most. */
#define SHIELD_EVENTS_PER_S 20
/* How often it looks whether each program is where it must be, and removes bans that are over. */
#define SHIELD_TEND_MS 5000
/* So long after the last SYN cookie a prefilter still counts as giving them, in seconds. */
#define SHIELD_COOKIE_S 10

struct shield;

/* event NULL: nothing is told and nothing tended (dry runs, tests). directory: of the BPF pins. events may be NULL.
 * 0 or -ENOMEM. */
int shield_new(sd_event *event, const char *directory, struct events *events, const struct render_xdp_relay *relay,
        struct shield **ret);
/* What is pinned stays in force. */
void shield_free(struct shield *shield);

/* The parts of a change, in this order; `userdata` is the shield. Load: what leads from one snapshot to the other is
 * made and verified by the kernel, nothing is in force. 0, or negative errno with faults (-EINVAL: "kernel_refused" and
 * those of render_xdp, -ENOMEM). */
int shield_load(void *userdata, const struct snapshot *from, const struct snapshot *to, struct errs *errs);
/* What was loaded is put in force. A prefilter that this very change writes must come into force if its interface is
 * there: else -EINVAL with a fault. Others may wait, or fail, and say so. */
int shield_put(void *userdata, struct errs *errs);
/* Takes back what was loaded or put in force since the last settle. */
void shield_undo(void *userdata);
/* The change is acknowledged. */
void shield_settle(void *userdata, int64_t revision);

/* The start: everything of the snapshot, as far as it can be, in the place of what an earlier daemon has left. Faults
 * are logged and told in the status. */
void shield_boot(struct shield *shield, const struct snapshot *snapshot);
/* An interface has come, gone or changed. */
void shield_link_changed(struct shield *shield, const char *interface);

/* Revision that is in force; 0 while an interface that is there has not got its program. */
int64_t shield_generation(const struct shield *shield);
/* Array of {interface, state, mode, why, program, foreign, pinned, bans, syn_cookies: {state, why}}, by interface;
 * state: "on", "waiting" (no such interface), "failed". NULL: no memory. */
json_t *shield_status(struct shield *shield);
/* Enabled prefilters, those whose interface is there and does not take the program, and the first of these. */
struct shield_health {
	size_t n, failed;
	char interface[NAME_MAX_BYTES + 1], why[XDP_WHY_MAX];
};
void shield_health(const struct shield *shield, struct shield_health *ret);
/* What is observed of the prefilter of an interface, new: {state, mode, why, program, foreign, pinned, bans,
 * syn_cookies, bans_max, generation, entries, entries_max, reasons}; state "off", and nulls, of one that is not
 * enabled. NULL: no memory. */
json_t *shield_observed(struct shield *shield, const char *interface);
/* Array of {interface, reasons: {NAME: {packets, bytes}}}. NULL: no memory. */
json_t *shield_stats(struct shield *shield);
/* The interface at this place and what it has counted; NULL behind the last. */
const char *shield_counts(struct shield *shield, size_t place, struct prefilter_count ret[PREFILTER_REASONS]);
/* How the prefilter of an interface runs, and what it has counted; NONE: there is none in force. */
enum xdp_mode shield_mode(struct shield *shield, const char *interface, struct prefilter_count ret[PREFILTER_REASONS]);
/* Whether the prefilter at this place has lately given SYN cookies. */
bool shield_gives_cookies(const struct shield *shield, size_t place);
/* Words of the reason. */
const char *shield_reason_name(enum prefilter_reason reason);
/* Whether a packet that is counted under it goes no further. */
bool shield_reason_drops(enum prefilter_reason reason);
/* For bans: shuts a prefix out at every prefilter that is in force, for so many seconds (negative: until
 * shield_unshut). How many there were. */
unsigned shield_shut(struct shield *shield, const struct prefix *prefix, int64_t seconds);
unsigned shield_unshut(struct shield *shield, const struct prefix *prefix);
/* Lets in everywhere what keep does not know. */
void shield_unshut_others(
        struct shield *shield, bool (*keep)(void *userdata, const struct prefix *prefix), void *userdata);
/* Array of the interfaces at which exactly this prefix is shut out. NULL: no memory. */
json_t *shield_where_shut(const struct shield *shield, const struct prefix *prefix);
/* Who is banned by a prefilter itself, for sending more than its source_pps. */
struct shield_ban {
	struct prefix prefix; /* of full length */
	char interface[NAME_MAX_BYTES + 1];
	int64_t created_at, expires_at; /* seconds since 1970 */
};
/* All of them, by prefix, then interface; as of a second ago at most. Up to PREFILTER_BANS_MAX of each prefilter.
 * Borrowed until this is called again. */
size_t shield_own_bans(struct shield *shield, const struct shield_ban **ret);
/* Ends them at all interfaces; at how many there was one. */
unsigned shield_unban(struct shield *shield, const struct prefix *prefix);
/* Array of the interfaces at whose prefilters the limit of this row id is enforced now, which may be none; ret_why:
 * what there is to say of one at which it cannot be though it is asked for; NULL: nothing. NULL: no memory. */
json_t *shield_limited_at(const struct shield *shield, uint32_t limit, const char **ret_why);
/* Calls visit for what was over each listener's limits at prefilters, and so was dropped there: several times for a
 * pair, of which the sum counts. */
void shield_overs(const struct shield *shield,
        void (*visit)(void *userdata, const struct prefilter_over *pair, const struct prefilter_count *count),
        void *userdata);
/* Another number whenever a prefilter has come into force, which may not know who is shut out. */
uint64_t shield_epoch(const struct shield *shield);
/* Calls this for each drop that a program tells, told as an event or not; NULL: no more. */
void shield_watch(struct shield *shield,
        void (*dropped)(void *userdata, const char *interface, const struct prefilter_event *event), void *userdata);
/* What the prefilter of the packet's interface would do with it: 1 it passes, 0 it is dropped, with the reason, and the
 * row id of the limit that it is over (else 0); -ENODEV: none is in force there, or another negative errno: it cannot
 * be found out. */
int shield_judge(struct shield *shield, const struct match_packet *packet, uint16_t source_port,
        enum prefilter_reason *ret, uint32_t *ret_limit);

#endif
