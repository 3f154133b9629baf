/*
 * What rate limits are in our nft table: for each limit that an enabled
 * listener names, and for each such listener, the counters, sets and chains,
 * as text. Pure. The model holds one, a plan compares two by name and text, so
 * that a change touches only what it is about: state in sets and counters of
 * the same name stays. What decides about a source's share is part of a set's
 * name (a number made of key, metric, rate and burst), for elements keep the
 * rate they were made with; so a changed rate counts from the next packet on.
 *
 * Limits of key flow are not among them: the relay shapes by them (relay/shape.h).
 *
 * docs/limits.md has the picture; render_chains.c says how packets get here.
 */
#ifndef GW_RULES_LIMITS_H
#define GW_RULES_LIMITS_H

#include <jansson.h>
#include <stdio.h>

#include "rules/snapshot.h"
#include "schema/errs.h"

/* Sources that one limit tells apart, per family. Behind it, those that find no place share one more budget of the same
 * size (concurrent connections: are refused), so a full set never means no limit. An element takes some 200 bytes. */
#define LIMITS_SOURCES_MAX 65536
/* Bans per family and prefix length. */
#define LIMITS_BANS_MAX 65536
/* Bans of one limit and family that the daemon is told of in a few seconds; of more it learns when it reads all. */
#define LIMITS_FRESH_MAX 4096
/* For how long they are told: longer than the daemon takes from one look to the next. */
#define LIMITS_FRESH_S 5
/* Pairs of a listener and a limit: each is a chain of some five rules and two counters. Beyond it "too_complex". */
#define LIMITS_PAIRS_MAX 20000
/* Entries of the address set of the setting ban_exempt: it is written whole when it changes, and 10,000 take the kernel
 * a tenth of a second. Beyond it "too_complex". */
#define LIMITS_EXEMPT_MAX 10000

/* Lengths of prefixes for which there are sets of bans. */
struct ban_lengths {
	uint64_t v4;
	uint64_t v6[3];
};

enum limits_kind { LIMITS_COUNTER, LIMITS_LIMIT, LIMITS_SET, LIMITS_CHAIN, LIMITS_KINDS };

struct limits_object {
	enum limits_kind kind;
	char *name;
	char *text; /* of a chain: its rules, one a line; of others what stands behind the name */
};

struct limits {
	unsigned references;
	struct limits_object *items; /* sorted by kind, then name */
	size_t n, size, pairs;
	bool metered; /* packets of relayed TCP connections are counted by some limit */
	struct ban_lengths bans;
	char *exempt[2]; /* IPv4 and IPv6: elements of the sets of what is never banned; NULL: none */
};

/* Where a limit is enforced, and why there. */
struct limits_placement {
	const char *place;  /* "xdp" (and in nft as well), "nft", "relay" or "none" */
	const char *reason; /* for people */
};

/* Of a snapshot. -EINVAL with a fault in errs ("too_complex"; "not_applicable": a limit of key flow is named by a
 * listener that does not relay TCP, or beside another one), -ENOMEM. */
int limits_compile(const struct snapshot *snapshot, struct errs *errs, struct limits **ret);
struct limits *limits_ref(struct limits *limits);
void limits_unref(struct limits *limits);
/* Whether two rows of one name, either of which may be NULL, can make a difference to what limits_compile makes. */
bool limits_concern(const struct row *old_row, const struct row *new_row);

/* The object, or NULL. `limits` may be NULL here and below: then there is none. */
const struct limits_object *limits_find(const struct limits *limits, enum limits_kind kind, const char *name);
/* nft's word: "counter", "limit", "set", "chain". */
const char *limits_kind_word(enum limits_kind kind);
bool limits_equal(const struct limits *a, const struct limits *b);

/* What leads from one to the other; in this order, with the change of elements between the second and the third.
 * NULL for before: what may be there already is added as well, and all chains are emptied and filled. */
void limits_put_new(FILE *out, const struct limits *before, const struct limits *after);
void limits_put_emptied(FILE *out, const struct limits *before, const struct limits *after);
void limits_put_rules(FILE *out, const struct limits *before, const struct limits *after);
void limits_put_gone(FILE *out, const struct limits *before, const struct limits *after);
/* The content of the sets of what is never banned. */
void limits_put_exempt(FILE *out, const struct limits *limits);
void limits_put_exempt_change(FILE *out, const struct limits *before, const struct limits *after);

/* The chain of a listener, "listener.7", and back. -EINVAL. */
#define LIMITS_CHAIN_NAME_MAX 24
const char *limits_listener_chain(uint32_t listener, char buffer[LIMITS_CHAIN_NAME_MAX]);
int limits_listener_of_chain(const char *chain, uint32_t *ret);
/* Names of counters; at most LIMITS_NAME_MAX with the terminator. `what` is "passed", "over", "full", "banned" or
 * "escalated". */
#define LIMITS_NAME_MAX 112
const char *limits_counter(const char *limit, const char *what, char buffer[LIMITS_NAME_MAX]);
const char *limits_listener_counter(
        uint32_t listener, const char *limit, const char *what, char buffer[LIMITS_NAME_MAX]);
/* The set of sources that a limit tells apart (family 4 or 6), that of those it has banned, that of those it has banned
 * in the last seconds, and that of what is over the limit, by source. */
const char *limits_sources_set(const struct rate_limit *limit, int family, char buffer[LIMITS_NAME_MAX]);
const char *limits_banned_set(const char *limit, int family, char buffer[LIMITS_NAME_MAX]);
const char *limits_fresh_set(const char *limit, int family, char buffer[LIMITS_NAME_MAX]);
const char *limits_excess_set(const struct rate_limit *limit, int family, char buffer[LIMITS_NAME_MAX]);
/* The set of all bans of prefixes of one length, whoever made them. */
const char *limits_ban_set(int family, unsigned length, char buffer[LIMITS_NAME_MAX]);
/* What decides about a share, as a number: with another one it is another set. */
uint32_t limits_number(const struct rate_limit *limit);
/* Counted for every packet, not only for the first of a connection. */
bool limits_is_of_packets(const struct rate_limit *limit);
/* What may come at once. */
int64_t limits_burst(const struct rate_limit *limit);
/* Whether it bans anybody: by its action, or because it escalates. */
bool limits_bans(const struct rate_limit *limit);
/* Whether a counter, by its name, is one of limits: there may be thousands. */
bool limits_owns_counter(const char *name);
/* Takes them out of an object of counters. */
void limits_drop_counters(json_t *counters);

/* Whether single flows are shaped by it, in the relay. */
bool limits_is_of_flows(const struct rate_limit *limit);
/* The one limit of key flow that the listener names, NULL if it names none. */
const struct rate_limit *limits_of_flows(const struct snapshot *snapshot, const struct listener *listener);
/* Bytes per second and direction that a limit of key flow gives. */
uint64_t limits_flow_rate(const struct rate_limit *limit);
/* Length of the prefixes that a limit tells apart; 0 for other keys. */
unsigned limits_length(const struct rate_limit *limit, int family);
/* Length of the prefixes that it bans, also with key listener. */
unsigned limits_ban_length(const struct rate_limit *limit, int family);
/* at_prefilters: some enforce it (xdp_limits.h). */
struct limits_placement limits_placement(const struct rate_limit *limit, bool used, bool at_prefilters);

/* A length of family 4 or 6: whether it is there; puts it there. */
bool ban_lengths_has(const struct ban_lengths *lengths, int family, unsigned length);
void ban_lengths_add(struct ban_lengths *lengths, int family, unsigned length);
/* All that are in either. */
void ban_lengths_unite(struct ban_lengths *lengths, const struct ban_lengths *more);
/* Whether they are the same. */
bool ban_lengths_equal(const struct ban_lengths *a, const struct ban_lengths *b);

/* For limits_text.c: takes the text over, also on failure; NULL: memory was out. For limits.c: appends the objects of
 * one limit, and those of a listener's chain. -ENOMEM. */
int limits_add(struct limits *limits, enum limits_kind kind, const char *name, char *text);
int limits_text_limit(struct limits *limits, const struct rate_limit *limit);
int limits_text_listener(struct limits *limits, const struct snapshot *snapshot, const struct listener *listener);

#endif
