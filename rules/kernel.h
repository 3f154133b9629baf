/*
 * The kernel as the core sees it: nft transactions, policy routing, read-back.
 * One interface, two implementations: the real one (kernel_nft.c over
 * libnftables, kernel_route.c over libmnl) and kernel_fake.c, which keeps the
 * state in memory and fails on request at a chosen call. Touches only what is
 * ours: table inet gatewayd, rules and routes of our own protocol number.
 */
#ifndef GW_RULES_KERNEL_H
#define GW_RULES_KERNEL_H

#include <jansson.h>
#include <string.h>

#include "rules/plan.h"

struct kernel;

enum kernel_call {
	KERNEL_NFT_CHECK,
	KERNEL_NFT_COMMIT,
	KERNEL_NFT_READ,
	KERNEL_NFT_LIST,
	KERNEL_ROUTE_SYNC,
	KERNEL_CLEANUP,
	KERNEL_CALLS
};

struct route_params {
	uint32_t mark, mark_mask;
	uint32_t table;    /* routing table of our own */
	uint32_t priority; /* of the first of our three rules; the next two follow */
};

/* What is found of rules and routes. */
struct route_look {
	unsigned wrong;                /* how many kernel_route_sync would add or remove */
	unsigned foreign;              /* routes of others in our table, which may take marked packets away */
	unsigned mark_rules;           /* rules of others that come before ours and look at our bits of the mark */
	uint32_t mark_priority;        /* of the last of them */
	char first[ADDR_TEXT_MAX + 4]; /* where the first of them leads, as a prefix */
};

/* Something in our table that we did not put there, or a set of ours that is not usable any more. */
struct kernel_stray {
	const char *kind; /* nft's word: "chain", "set", "map", "counter", ... */
	char *name;
};

/* What of ours is in the kernel. */
struct kernel_state {
	bool present;       /* the nft table exists */
	bool compatible;    /* of this version, and with names that can be named, so a difference can be applied */
	bool chains_differ; /* anything but elements is not as the last commit of this process left it: chains,
	                     * rules, declarations of sets and counters. Also true before any such commit */
	int64_t generation; /* of the marker; 0 if there is none, -1 if there are several */
	struct elements elements; /* sorted; listener is 0, the kernel does not know ids */
	struct elements odd;      /* sorted; in our sets, but not of our making: with a comment, say */
	struct group *groups;     /* usable sets present, also empty ones; sorted */
	size_t n_groups;
	struct kernel_stray *strays;
	size_t n_strays;
};

/* The real kernel, of the network namespace the process is in now. -ENOMEM. */
int kernel_open(struct kernel **ret);
/* Frees the handle; what is in the kernel stays. */
void kernel_free(struct kernel *kernel);

/* From so many bytes of text on, a transaction is a large one: some thousand elements. */
#define KERNEL_LARGE 65536U

static inline bool kernel_nft_is_large(const char *text)
{
	return strnlen(text, KERNEL_LARGE) == KERNEL_LARGE;
}

/* Runs the text as one transaction, without effect (check) or for good (commit). ret_error, on failure, is the
 * library's message (free it), else NULL. -EINVAL refused by nft, -EPERM, -EIO, -ENOMEM. */
int kernel_nft_check(struct kernel *kernel, const char *text, char **ret_error);
int kernel_nft_commit(struct kernel *kernel, const char *text, char **ret_error);
/* How many transactions the kernel has taken of us: a large text may be several. */
uint64_t kernel_nft_commits(const struct kernel *kernel);
/* Reads our table back through JSON. */
int kernel_nft_read(struct kernel *kernel, struct kernel_state *ret);
void kernel_state_clear(struct kernel_state *state);
/* Our table as text, for people; a new string. "" if there is no table. */
int kernel_nft_list(struct kernel *kernel, char **ret_text);
/* Other tables' chains that interfere, as a JSON array of {code, detail, family, table, chain}, where detail is a human
 * sentence: "source_nat", a masquerade or snat behind routing that would rewrite spoofed sources, with `owners`, the
 * users whose sockets' packets it exempts; "input_drop", a chain that drops by default what is delivered here, with
 * `marks`, [mask, value] of each packet mark that it lets in; "forward_drop", each chain that judges what is forwarded,
 * with `policy` and `rules`, by which rules/forward_fate.h says what it drops. */
int kernel_nft_foreign(struct kernel *kernel, json_t **ret);

/* Tables of family inet with the handles of their rules and without elements, as text; a new string. */
int kernel_nft_rules(struct kernel *kernel, char **ret_text);

/* Our named counters, a new object {"no_listener_socket": {"packets": n, "bytes": n}, ...}; empty without a table. */
int kernel_nft_counters(struct kernel *kernel, json_t **ret);

/* What the ledger has counted, by interface and sorted so; a new array (free it), NULL without a table. Counters are
 * read one after the other, in no order, while packets go on. */
struct ledger_counts;
int kernel_nft_ledger(struct kernel *kernel, struct ledger_counts **ret, size_t *ret_n);

/* Visits the addresses in one of our sets, with the time until each is forgotten (-1: never); they may be thousands. A
 * negative result of the visitor ends the walk and is passed on. -ENOENT: there is no such set. */
typedef int (*kernel_address_visitor)(void *userdata, const struct addr *addr, int64_t left_ms);
int kernel_nft_addresses(struct kernel *kernel, const char *set, kernel_address_visitor visitor, void *userdata);
/* One of them: 0 with the time until it is forgotten (-1: never). -ENOENT: it is not in it, or there is no such set. */
int kernel_nft_address(struct kernel *kernel, const char *set, const struct addr *addr, int64_t *ret_left_ms);

/* Makes our rules and routes, both families, exactly what they must be: adds what is missing, removes what is ours
 * and wrong, leaves the rest alone. Idempotent. ret_changed (may be NULL): how many were added or removed. */
int kernel_route_sync(struct kernel *kernel, const struct route_params *params, unsigned *ret_changed);
/* Whether they are so, and what others have put beside them. Touches nothing. */
int kernel_route_look(struct kernel *kernel, const struct route_params *params, struct route_look *ret);
/* For a child after fork: lets go of what is shared with the parent. It may read only. -ENOMEM. */
int kernel_renew(struct kernel *kernel);
/* Removes everything of ours: table, rules, routes. Idempotent. */
int kernel_cleanup(struct kernel *kernel);

/* A transaction over a socket of its own, which is kept: tables with "flags owner" that it adds live as long as that
 * does, and go with it, also when the process is killed. Not by way of a struct kernel. Errors as kernel_nft_commit. */
struct kernel_hold;
int kernel_hold_new(const char *text, struct kernel_hold **ret, char **ret_error);
void kernel_hold_free(struct kernel_hold *hold);

/* For tests: an in-memory kernel. fail_at(call, n, error): the n-th next call of that kind (1: the next) returns
 * error (negative errno) and changes nothing; fail_from: that one and the next ones, so many in all. */
int kernel_fake_new(struct kernel **ret);
void kernel_fake_fail_at(struct kernel *kernel, enum kernel_call call, unsigned n, int error);
void kernel_fake_fail_from(struct kernel *kernel, enum kernel_call call, unsigned n, unsigned times, int error);
/* How many calls of this kind were made, and the text of the last committed transaction (borrowed). */
unsigned kernel_fake_calls(const struct kernel *kernel, enum kernel_call call);
const char *kernel_fake_committed(const struct kernel *kernel);
/* What its ledger has counted from now on; borrowed. */
void kernel_fake_ledger(struct kernel *kernel, const struct ledger_counts *counts, size_t n);

#endif
