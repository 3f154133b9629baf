/*
 * One change of the configuration as one transaction over every plane: store,
 * plan, nft, routing, relay. Either all of them are in the new state
 * afterwards, or all in the old one. Called by core.c (writes) and daemon.c
 * (start); knows no HTTP.
 */
#ifndef GW_APPLY_H
#define GW_APPLY_H

#include "gatewayd/store.h"
#include "rules/kernel.h"
#include "rules/render_nft.h"
#include "schema/errs.h"

/* The steps in their order; each has a way back, taken in reverse order when a later one fails. */
enum apply_step {
	APPLY_STORE,   /* BEGIN IMMEDIATE, rows written. Back: ROLLBACK */
	APPLY_PLAN,    /* what differs; ties are refused. Back: the model stays what it was */
	APPLY_CHECK,   /* dry run of the nft text against the kernel. Back: nothing was done */
	APPLY_PREPARE, /* the relay has the new configuration beside the old. Back: ABORT */
	APPLY_ROUTE,   /* our rules and routes are what they must be. Back: nothing, they do not depend on the change */
	APPLY_NFT,     /* one nft transaction. Back: the reverse one, or the whole old table anew */
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

struct apply_config {
	struct store *store;
	struct kernel *kernel;
	struct apply_relay relay;
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
	const char *pending;         /* value of the pending mark from this revision on; NULL: no mark */
	bool dry_run;                /* stop after APPLY_CHECK and take everything back */
};

/* Key of the value in the store that marks a change which waits to be confirmed. */
#define APPLY_PENDING_KEY "pending"

/* Runs the transaction: 0 and request->to is in force, or the errors of core_write with faults in errs. ret_nft (may
 * be NULL), on success: the nft text of the change, a new string. */
int apply_run(struct apply *apply, const struct apply_request *request, struct errs *errs, char **ret_nft);

/* Opens (relay down) or closes the way past the relay for `direct` listeners. 0 or negative errno. */
int apply_set_gate(struct apply *apply, bool open);

/* Puts right what of ours in the kernel is not what it must be, counters and dynamic sets kept where they are intact.
 * 1 if anything had to be done, 0 if not, negative errno. */
int apply_heal(struct apply *apply);
/* Whether anything is different: 1, 0, or negative errno. */
int apply_differs(struct apply *apply);

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
