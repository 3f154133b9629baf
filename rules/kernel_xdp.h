/*
 * The XDP program of one interface: loaded with its maps filled, attached by
 * a pinned link that outlives the daemon, replaced in one step, changed entry
 * by entry, looked at and removed. Used by gatewayd/shield.c. With
 * kernel_bpf.c the only ones that know libbpf (this one: kernel_xdp*.c).
 *
 * Below BPF-DIR/xdp/INTERFACE lie the link and what outlives a program: counts,
 * bans, accounts of sources, what was over limits, the ring of events. Lists and ports belong to one
 * program.
 */
#ifndef GW_RULES_KERNEL_XDP_H
#define GW_RULES_KERNEL_XDP_H

#include "rules/render_xdp.h"

struct kernel_xdp;

enum xdp_mode { XDP_MODE_NONE, XDP_MODE_NATIVE, XDP_MODE_GENERIC, XDP_MODES };

/* What there is to say for people is at most this long: the names of ten programs behind a dispatcher fit. */
#define XDP_WHY_MAX 384

/* Finds what an earlier daemon has left for this interface. Nothing is made. directory NULL, or not on a bpf file
 * system: nothing is pinned, and the program goes with the daemon. 0 or -ENOMEM. */
int kernel_xdp_new(const char *directory, const char *interface, struct kernel_xdp **ret);
/* Lets go; what is pinned stays. */
void kernel_xdp_free(struct kernel_xdp *xdp);
/* Calls visit with the name of each interface for which something is pinned. */
void kernel_xdp_each_pinned(
        const char *directory, void (*visit)(void *userdata, const char *interface), void *userdata);

/* Loads a program for the configuration, its maps filled, beside the one in force; the kernel verifies it. One that was
 * loaded before and not put in force goes. 0 or negative errno with words in why. */
int kernel_xdp_load(struct kernel_xdp *xdp, const struct xdp_config *config, char *why, size_t why_size);
/* Drops what was loaded and not put in force. */
void kernel_xdp_discard(struct kernel_xdp *xdp);
/* The loaded program takes the place of the one in force, between two packets; on an interface that has none it is
 * attached, in the mode that `mode` asks for. The one before is kept until kernel_xdp_settle. -ENODEV: there is no such
 * interface, -EBUSY: it has a program of somebody else, -EOPNOTSUPP and others, with words in why. */
int kernel_xdp_switch(struct kernel_xdp *xdp, enum prefilter_mode mode, char *why, size_t why_size);
/* Takes kernel_xdp_switch back: the program before, or none. 0 or negative errno. */
int kernel_xdp_undo(struct kernel_xdp *xdp);
void kernel_xdp_settle(struct kernel_xdp *xdp);
/* Changes lists and ports of the program in force, which must have been loaded with `from`, entry by entry. After a
 * failure (-ENOMEM, -ENOSPC) a part may have been changed: the way back is the same call with the two exchanged. */
int kernel_xdp_adjust(struct kernel_xdp *xdp, const struct xdp_config *from, const struct xdp_config *to);
/* Takes the program off whatever interface it is on now; what it has counted and whom it bans stays. */
void kernel_xdp_detach(struct kernel_xdp *xdp);
/* Takes the program off the interface, and all that is pinned for it. */
void kernel_xdp_remove(struct kernel_xdp *xdp);

struct xdp_look {
	enum xdp_mode mode; /* in which our program runs now; NONE: it does not */
	uint32_t program;   /* its id */
	uint32_t foreign;   /* id of a program of somebody else on the interface; 0: none */
	bool present;       /* the interface */
	bool pinned;
};
/* Asks the kernel. */
void kernel_xdp_look(struct kernel_xdp *xdp, struct xdp_look *ret);
/* Whether our program is on the interface: what a change has to know, for less. */
bool kernel_xdp_is_attached(const struct kernel_xdp *xdp);
/* Whose program of this id (kernel_xdp_look's `foreign`) is on the interface, as far as it may be known: a sentence. */
void kernel_xdp_foreign(const struct kernel_xdp *xdp, uint32_t program, char *why, size_t why_size);
/* Why the mode that is in use was chosen; "" if there is nothing to say. */
const char *kernel_xdp_why(const struct kernel_xdp *xdp);
const char *xdp_mode_name(enum xdp_mode mode);

/* Whether the program in force answers connection requests with cookies when one is due. A kernel that refuses a
 * program with this part of it has one without. */
bool kernel_xdp_has_cookies(const struct kernel_xdp *xdp);
/* Seconds since it last gave one; -1: it never has. */
int64_t kernel_xdp_cookie_age(const struct kernel_xdp *xdp);
/* What it has counted since it was first attached, all processors together; zeros if there is none. */
void kernel_xdp_counts(struct kernel_xdp *xdp, struct prefilter_count ret[PREFILTER_REASONS]);
/* A descriptor that is readable while drops wait to be told, borrowed, the same for the life of xdp; -1: none yet. */
int kernel_xdp_ring(const struct kernel_xdp *xdp);
/* Calls visit for each that waits. */
void kernel_xdp_events(
        struct kernel_xdp *xdp, void (*visit)(void *userdata, const struct prefilter_event *event), void *userdata);

/* Tells the programs what they must know of the interface to enforce limits: to be called when links have changed.
 * Whether they can. */
bool kernel_xdp_refresh(struct kernel_xdp *xdp);
/* What was over a listener's limit and so was dropped, since this pair was first known. */
struct prefilter_count kernel_xdp_over(const struct kernel_xdp *xdp, const struct prefilter_over *pair);
/* Forgets it. */
void kernel_xdp_forget_over(struct kernel_xdp *xdp, const struct prefilter_over *pair);

/* Ends what the program's own rate has done to a source. -ENOENT: it is not shut out. */
int kernel_xdp_unban(struct kernel_xdp *xdp, const struct addr *source);
/* Shuts a prefix out for so many seconds from now on (negative: until kernel_xdp_unshut), whatever program is in force;
 * one that is shut out already gets the new time. -ENODEV: there is no program, -ENOSPC: as many as PREFILTER_BANS_MAX
 * are shut out. */
int kernel_xdp_shut(struct kernel_xdp *xdp, const struct prefix *prefix, int64_t seconds);
/* -ENOENT: it is not shut out. */
int kernel_xdp_unshut(struct kernel_xdp *xdp, const struct prefix *prefix);
/* Whether exactly this prefix is. */
bool kernel_xdp_is_shut(const struct kernel_xdp *xdp, const struct prefix *prefix);
/* Lets in all prefixes that are shut out and that keep does not know. */
void kernel_xdp_unshut_others(
        struct kernel_xdp *xdp, bool (*keep)(void *userdata, const struct prefix *prefix), void *userdata);
/* Calls visit for each source that the program's own rate has shut out, with the milliseconds that are left, in no
 * order; those that are over are removed. How many there are: up to PREFILTER_BANS_MAX, some ten milliseconds. visit
 * may be NULL. */
size_t kernel_xdp_bans(struct kernel_xdp *xdp,
        void (*visit)(void *userdata, const struct addr *source, uint64_t left_ms), void *userdata);
/* How many there are; walks over them only if somebody was over the rate since the last walk, or a ban has ended. */
size_t kernel_xdp_ban_count(struct kernel_xdp *xdp);

/* What the program in force would do with a frame from this source: 1 it passes, 0 it does not, and why; found by
 * running a copy of it, so nothing is counted, told or used up. The copy is made once for each program, within some ten
 * milliseconds. ret_limit: the row id of the limit that it is over, with reason `limited`; else 0. -ENODEV: none is in
 * force, or another negative errno. */
int kernel_xdp_judge(struct kernel_xdp *xdp, const struct addr *source, const void *frame, size_t length,
        enum prefilter_reason *ret, uint32_t *ret_limit);
/* For tests: what the program in force, or else the loaded one, does with a frame, counts and all. ret_nanoseconds (may
 * be NULL): what one of `repeat` times takes. The reason is told by the counters; returns 1 if it passes, 0 if it is
 * dropped, 2 if it is answered, or negative errno. answer (may be NULL) takes what the frame has become, of at most
 * *answer_length bytes. */
int kernel_xdp_try(struct kernel_xdp *xdp, const void *frame, size_t length, unsigned repeat, unsigned *ret_nanoseconds,
        void *answer, size_t *answer_length);
/* For tests: from now on it is as if so many periods of PREFILTER_SEEN_PERIOD_S had gone by since all flows were heard
 * of and the first request was judged. How many are remembered, or negative errno. */
int kernel_xdp_age(struct kernel_xdp *xdp, unsigned periods);

#endif
