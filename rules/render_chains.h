/*
 * The chains and stable objects of our nft table. Private to render_nft.c;
 * the table's picture and the reasons for its order are at the head of
 * render_chains.c.
 */
#ifndef GW_RULES_RENDER_CHAINS_H
#define GW_RULES_RENDER_CHAINS_H

#include <stdio.h>

#include "rules/render_nft.h"

/* Raised whenever a chain, a stable object or the layout of the sets changes: a daemon that finds another number in
 * the kernel makes the table anew. */
#define NFT_SKELETON_VERSION 10

/* The classification chains, one per protocol and family. */
struct chain_id {
	const char *name;
	uint8_t protocol, family;
	const char *meter; /* NULL: there is no such chain, all packets get to this one */
};
#define CLASSIFY_CHAINS 4
extern const struct chain_id classify_chains[CLASSIFY_CHAINS];

/* Whether an object of this kind (nft's word) and name is one of those that chains_put_objects adds. */
bool chains_own(const char *kind, const char *name);
/* Named counters and sets, and every chain, empty. What exists already stays as it is. */
void chains_put_objects(FILE *out);
/* The rules of every chain but those of the classification ones. */
void chains_put_rules(FILE *out, const struct render_params *params);
/* Empties every chain but the classification ones. */
void chains_put_flush(FILE *out);
/* Makes the mark of the version the only one again. */
void chains_put_version(FILE *out);
/* The rules of one classification chain: `groups` are all in use, in order of precedence. */
void chains_put_classify(FILE *out, const struct chain_id *chain, const struct group *groups, size_t n);
/* What depends on bans and limits: the sets of bans of these lengths; and, when the chains are empty, where packets are
 * compared with them, and where packets of accepted connections meet limits. */
void chains_put_ban_sets(FILE *out, const struct ban_lengths *lengths);
void chains_put_bans(FILE *out, const struct render_params *params, const struct ban_lengths *lengths, bool metered);
void chains_put_bans_flush(FILE *out);
/* Whether it is the set of bans of one of these lengths. */
bool chains_is_ban_set(const char *name, const struct ban_lengths *lengths);
/* The rules of the chain that leads packets of accepted connections to their limits; `meter` of the chain's id is its
 * name. */
void chains_put_meter(FILE *out, const struct chain_id *chain, const struct group *groups, size_t n);
/* The rule that lies in direct_gate while the gate is open. */
void chains_put_gate(FILE *out, bool open);

#endif
