/*
 * One change of the configuration as one transaction over every plane: store,
 * plan, nft, routing, XDP, relay. Either all of them are in the new state
 * afterwards, or all in the old one. Called by core.c (writes) and daemon.c
 * (start); knows no HTTP.
 */
#ifndef GW_APPLY_H
#define GW_APPLY_H

#include "gatewayd/intercept.h"
#include "gatewayd/store.h"
#include "rules/kernel.h"
#include "rules/render_nft.h"
#include "schema/errs.h"

/* The steps in their order; each has a way back, taken in reverse order when a later one fails. */
enum apply_step {
	APPLY_STORE,   /* BEGIN IMMEDIATE, rows written. Back: ROLLBACK */
	APPLY_PLAN,    /* what differs; ties are refused. Back: the model stays what it was */
	APPLY_CHECK,   /* dry run of the nft text against the kernel. Back: nothing was done */
	APPLY_LOAD,    /* XDP programs for what differs, verified by the kernel. Back: they go */
	APPLY_PREPARE, /* the relay has the new configuration beside the old. Back: ABORT */
	APPLY_ROUTE,   /* our rules and routes are what they must be. Back: nothing, they do not depend on the change */
	APPLY_NFT,     /* one nft transaction. Back: the reverse one, or the whole old table anew */
	APPLY_XDP,     /* the XDP programs are in force. Back: those before */
	APPLY_RELAY,   /* the relay serves the new configuration. Back: the reverse change */
	APPLY_COMMIT,  /* COMMIT: the change is acknowledged only from here on */
	APPLY_STEPS
};

/* The relay's part; the daemon gives the worker's functions, tests give their own. See worker.h for what they mean. */
struct apply_relay {
	void *userdata;
	int (*prepare)(void *userdata, const struct plan *plan, const char **ret_reason);
	void (*commit)(void *userdata, const struct plan *plan);
	void (*abort)(void *userdata, const struct plan *plan);
};

/* The prefilters' part; the daemon gives the functions of shield.h, which says what they mean. All NULL: there is none.
 */
struct apply_shield {
	void *userdata;
	int (*load)(void *userdata, const struct snapshot *from, const struct snapshot *to, struct errs *errs);
	int (*put)(void *userdata, struct errs *errs);
	void (*undo)(void *userdata);
	void (*settle)(void *userdata, int64_t revision);
};

struct apply_config {
	struct store *store;
	struct kernel *kernel;
	struct apply_relay relay;
	struct apply_shield shield;
	struct intercept *intercept; /* NULL: there is none */
	struct render_params render;
	struct route_params route;
};

/* One row written (old_row NULL: new), or deleted (new_row NULL). Borrowed; new_row must not be shared yet: its id and
 * revision are filled in. */
struct apply_change {
	const struct row *old_row;
	struct row *new_row;
};

struct apply;
struct heal;
struct store_audit;

/* Borrows store and kernel, which must outlive it. */
int apply_new(const struct apply_config *config, struct apply **ret);
void apply_free(struct apply *apply);

/* Brings the kernel from whatever it is in to the stored configuration, with the fewest changes, and makes it the
 * one in force. 0, or negative errno with words in ret_reason (free it). */
int apply_boot(struct apply *apply, struct snapshot *snapshot, char **ret_reason);
/* Only what apply_boot would let the kernel check, without effect. */
int apply_dry_boot(struct apply *apply, struct snapshot *snapshot, char **ret_reason);

/* What to run, and how. Borrowed. */
struct apply_request {
	const struct apply_change *changes; /* sorted by resource, so that what is referred to comes first */
	size_t n;
	struct snapshot *to;         /* the configuration in force with these changes, of the next revision's number */
	const char *actor, *summary; /* for the history */
	const struct store_audit *audit; /* stored with the change, its revision filled in; NULL: none */
	const char *pending;             /* value of the pending mark from this revision on; NULL: no mark */
	bool way_back;                   /* to what was in force before: nothing of it is refused for its size */
	bool dry_run;                    /* stop after APPLY_LOAD and take everything back */
};

/* Key of the value in the store that marks a change which waits to be confirmed. */
#define APPLY_PENDING_KEY "pending"

/* Runs the transaction: 0 and request->to is in force, or the errors of core_write with faults in errs. ret_nft (may
 * be NULL), on success: the nft text of the change, a new string. */
int apply_run(struct apply *apply, const struct apply_request *request, struct errs *errs, char **ret_nft);

/* Bans and unbans, and makes the sets that are missing for that. 0 or negative errno. */
int apply_bans(struct apply *apply, const struct render_ban *bans, size_t n);
/* Calls this whenever our whole table was made anew, so that what lay in its sets is gone. */
void apply_on_replace(struct apply *apply, void (*replaced)(void *userdata), void *userdata);
/* Calls `begin` before and `end` after each large transaction of ours in nft (kernel_nft_is_large), with how many the
 * kernel took for it. */
void apply_on_large(struct apply *apply, void (*begin)(void *userdata), void (*end)(void *userdata, uint64_t commits),
        void *userdata);
/* Opens (relay down) or closes the way past the relay for `direct` listeners. 0 or negative errno. Where there is no
 * such listener the kernel is left alone, and the way is opened when there is one. */
int apply_set_gate(struct apply *apply, bool open);
/* Whether there is such a listener. */
bool apply_has_direct(const struct apply *apply);
/* What it was told last. */
bool apply_gate_is_wanted(const struct apply *apply);

/* From so many elements on, a look at the table is not for the daemon's own thread (examine.h): fewer are read and
 * compared in some 50 ms. */
#define APPLY_LARGE 10000U

/* Whether reading our table back takes long. */
bool apply_is_large(const struct apply *apply);
/* What of our table in the kernel is not what it must be, and how to put it right (heal_clear it). 0 or negative errno;
 * -EINTR: others changed theirs all the while, and it is to be looked at again. */
int apply_examine(struct apply *apply, struct heal *ret);
/* The same in a child that shares the kernel's handle with its parent, and has time to wait until others pause. */
int apply_examine_in_child(struct apply *apply, struct heal *ret);
/* Puts right what apply_examine found, counters and dynamic sets kept where they are intact; what it found must not be
 * older than apply_serial. 1 if anything had to be done, 0 if not, negative errno. */
int apply_mend(struct apply *apply, const struct heal *heal);
/* Another number after each transaction of ours. */
uint64_t apply_serial(const struct apply *apply);
/* Rules and routes: whether they are what they must be and what is beside them; the same, put right where wrong
 * (ret->wrong: how many were). */
int apply_look_at_routing(struct apply *apply, struct route_look *ret);
int apply_mend_routing(struct apply *apply, struct route_look *ret);

/* How long each step of the last apply_run took, in microseconds: APPLY_STEPS of them, 0 for one that was not reached.
 * Borrowed. */
const uint64_t *apply_times(const struct apply *apply);

/* The configuration in force and its compiled form, borrowed. */
const struct snapshot *apply_snapshot(const struct apply *apply);
const struct model *apply_model(const struct apply *apply);
const struct render_params *apply_render_params(const struct apply *apply);
/* Generation that nft has applied, and the one routing was last made right for. */
int64_t apply_nft_generation(const struct apply *apply);
int64_t apply_route_generation(const struct apply *apply);
/* "store", "plan", ... */
const char *apply_step_name(enum apply_step step);

#endif
