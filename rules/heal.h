/*
 * From what is found in our nft table to one transaction that makes it what
 * it must be: at start, and after somebody else's hand. Counters, dynamic
 * sets and elements that are intact are left alone. Pure.
 */
#ifndef GW_RULES_HEAL_H
#define GW_RULES_HEAL_H

#include "rules/kernel.h"
#include "rules/render_nft.h"

/* What is wrong, and the text that puts it right. */
struct heal {
	char *text;            /* for kernel_nft_commit; never NULL: also where nothing is wrong it may be committed */
	bool needed;           /* anything is wrong at all */
	bool replaces;         /* the whole table is made anew: it is gone, of another version, or beyond naming */
	bool chains;           /* chains, rules or declarations were not as they must be */
	size_t added, removed; /* elements that were missing, wrong (in both) or not ours */
	size_t strays;         /* chains, sets, maps and objects to be deleted */
};

/* The kernel may refuse the text in a few cases (one of our sets was made anew with another type, say); the caller
 * then commits render_nft_full. `found` is left as it is. -ENOMEM. */
int heal_new(const struct model *model, const struct kernel_state *found, const struct render_params *params,
        int64_t generation, struct heal *ret);
void heal_clear(struct heal *heal);

#endif
