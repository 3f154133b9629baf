/*
 * What stands behind kernel.h: the two implementations' tables of functions,
 * and the pieces that the real one is made of. Private to kernel*.c.
 */
#ifndef GW_RULES_KERNEL_OPS_H
#define GW_RULES_KERNEL_OPS_H

#include "rules/kernel.h"

struct kernel_ops {
	int (*check)(struct kernel *kernel, const char *text, char **ret_error);
	int (*commit)(struct kernel *kernel, const char *text, char **ret_error);
	int (*read)(struct kernel *kernel, struct kernel_state *ret);
	int (*list)(struct kernel *kernel, char **ret_text);
	int (*foreign)(struct kernel *kernel, json_t **ret);
	int (*counters)(struct kernel *kernel, json_t **ret);
	int (*addresses)(struct kernel *kernel, const char *set, kernel_address_visitor visitor, void *userdata);
	int (*ledger)(struct kernel *kernel, struct ledger_counts **ret, size_t *ret_n);
	int (*address)(struct kernel *kernel, const char *set, const struct addr *addr, int64_t *ret_left_ms);
	int (*rules)(struct kernel *kernel, char **ret_text);
	int (*route_sync)(struct kernel *kernel, const struct route_params *params, unsigned *ret_changed);
	int (*route_look)(struct kernel *kernel, const struct route_params *params, struct route_look *ret);
	int (*renew)(struct kernel *kernel);
	int (*cleanup)(struct kernel *kernel);
	void (*free)(struct kernel *kernel);
};

/* Head of both implementations. */
struct kernel {
	const struct kernel_ops *ops;
	uint64_t commits; /* transactions that the kernel has taken */
};

/* nft's JSON listing, without elements, of all tables of family inet to a state (which must be zeroed): everything of
 * ours but what kernel_dump adds. -EBADMSG if it is no such listing. */
int kernel_parse_table(json_t *listing, struct kernel_state *ret);
/* Adds the elements of our sets, the generation, and whether the version of the table is ours. -EINTR if somebody
 * changed it meanwhile: then all must be read again. */
int kernel_dump(struct kernel_state *state);
/* Notes a stray; a name that cannot be named in a command leaves the state incompatible instead. -ENOMEM. */
int kernel_state_stray(struct kernel_state *state, const char *kind, const char *name);
/* A number for everything in a listing of our table but elements, handles and counts; also of a listing without
 * elements. -ENOMEM. */
int kernel_parse_digest(json_t *listing, uint64_t *ret);
/* From a JSON listing of all chains: the tables of others that have some which judge what is delivered here or
 * forwarded, or may rewrite sources, appended as {family, name, chains}. -ENOMEM. */
int kernel_parse_chains(json_t *listing, json_t *tables);
/* From one of these, and the table's own listing without elements (NULL if it cannot be read): what interferes,
 * appended to findings, as kernel_nft_foreign tells it. -ENOMEM. */
int kernel_parse_foreign(const json_t *table, const json_t *listing, json_t *findings);
/* Our named counters as the kernel has them, {"name": {"packets", "bytes"}}; empty without a table. */
int kernel_counters_read(json_t **ret);

/* Visits the elements of one of our sets (key NULL), or the one with this key: its attributes, nested. A negative
 * result of the visitor ends the walk and is passed on. -ENOENT: there is no such set, or element. -EINTR: all were
 * visited, but somebody changed the set meanwhile, so some may have been missed, or visited twice. */
struct nlattr;
typedef int (*kernel_element_visitor)(void *userdata, const struct nlattr *element);
int kernel_elements_walk(
        const char *set, const void *key, size_t key_length, kernel_element_visitor visitor, void *userdata);
/* As kernel_nft_ledger. */
int kernel_ledger_read(struct ledger_counts **ret, size_t *ret_n);
/* As kernel_nft_addresses. */
int kernel_addresses_read(const char *set, kernel_address_visitor visitor, void *userdata);
/* As kernel_nft_address. */
int kernel_address_find(const char *set, const struct addr *addr, int64_t *ret_left_ms);

/* Marks rules and routes as ours; not in anybody's rt_protos that we know of. */
#define KERNEL_ROUTE_PROTOCOL 103

/* Whether a message about a rule or route that names this sender is about our own doing. */
bool kernel_route_port_is_own(uint32_t port);
/* Makes our rules and routes what params say, or (params NULL) removes them all. */
int kernel_route_apply(const struct route_params *params, unsigned *ret_changed);
/* Looks, and touches nothing. */
int kernel_route_examine(const struct route_params *params, struct route_look *ret);

#endif
