/*
 * Plans and models as text for libnftables: pure functions. Everything in the
 * text is a number, an address printed from binary, a fixed word, or an
 * interface name that has passed match_key_check and is quoted.
 */
#ifndef GW_RULES_RENDER_NFT_H
#define GW_RULES_RENDER_NFT_H

#include "rules/plan.h"

#define NFT_TABLE "gatewayd"

struct kernel_state;

struct render_params {
	uint32_t mark, mark_mask;  /* the bit we set, and the bits that are ours */
	uint16_t port_v4, port_v6; /* where tproxy sends to on 127.0.0.1 and ::1 */
	bool gate_open;            /* relay down: listeners with on_worker_down direct are forwarded */
	struct ban_lengths bans;   /* lengths of prefixes that are banned, beside those of rate limits */
};

/* The whole table from nothing: (delete and) add, with all elements of the model and the generation marker. */
int render_nft_full(const struct model *model, const struct render_params *params, int64_t generation, char **ret);
/* Only what the plan changes, and the generation marker. */
int render_nft_plan(const struct plan *plan, const struct render_params *params, char **ret);
/* What brings a damaged table (compatible, as kernel_nft_read found it) to the plan's target in one transaction; the
 * plan's `removed` may hold elements of verdict VERDICTS. For heal.c. */
int render_nft_repair(
        const struct plan *plan, const struct kernel_state *found, const struct render_params *params, char **ret);
/* Whether a plan changes more than elements. One that does not need not be tried in a dry run before: its commit is
 * atomic and takes a tenth of a millisecond, while a dry run makes the kernel wait for an RCU grace period (8-25 ms)
 * when it undoes what it tried. */
bool render_nft_needs_check(const struct plan *plan);
/* Bans or (seconds 0) unbans a prefix whose length has its set; a ban that is there already gets the new time. -ENOMEM.
 */
struct render_ban {
	struct prefix prefix;
	int64_t seconds;   /* from now; 0: not banned any more; -1: until it is taken back */
	const char *limit; /* one that is not banned any more was so by this; NULL or "": by none */
};
/* All of them in one text. `limits` and params say what lengths there were; more_lengths what there must be. */
int render_nft_bans(const struct limits *limits, const struct render_params *params,
        const struct ban_lengths *more_lengths, const struct render_ban *bans, size_t n, char **ret);
/* Opens or closes the gate for `direct` listeners, nothing else. */
int render_nft_gate(bool open, char **ret);

#endif
