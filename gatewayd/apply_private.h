/* What apply.c (changes) and apply_kernel.c (the kernel outside of changes) share. */
#ifndef GW_APPLY_PRIVATE_H
#define GW_APPLY_PRIVATE_H

#include "gatewayd/apply.h"
#include "schema/hash.h"

struct apply {
	struct apply_config config;
	struct model *model;
	struct snapshot *current;
	struct config_hash hash; /* of current */
	int64_t nft_generation, route_generation;
	uint64_t serial;                  /* of our transactions */
	uint64_t times[APPLY_STEPS];      /* of the last change */
	bool gate_wanted;                 /* config.render.gate_open is what the kernel has */
	void (*replaced)(void *userdata); /* NULL: nobody asks */
	void *replaced_userdata;
	void (*large_begin)(void *userdata); /* NULL: nobody asks */
	void (*large_end)(void *userdata, uint64_t commits);
	void *large_userdata;
};

/* One transaction of ours in nft, as kernel_nft_commit. */
int apply_commit(struct apply *apply, const char *text, char **ret_error);
/* Renders the model in force as a whole table: the way out when a difference cannot be applied. The model must be
 * without a plan's changes, which it is at any time but between plan_commit and the end. */
int apply_replace_table(struct apply *apply, int64_t generation, char **ret_error);
/* Whether a refusal was because somebody has changed our part of the kernel: 1, and it is as it must be now; 0: it was
 * not; negative errno: that cannot be put right, and errs says so instead of what it said. */
int apply_heal_refused(struct apply *apply, struct errs *errs);

/* Opens the gate if it is wanted, closed, and somebody would go through it; closes it if it is not wanted. */
int apply_settle_gate(struct apply *apply);

/* The table was made anew. */
void apply_tell_replaced(struct apply *apply);
/* What the configuration in force needs beside what there was: sets of bans are not taken away while the daemon runs,
 * for there may be bans in them. */
void apply_note_limits(struct apply *apply);

#endif
