/*
 * The elements of listeners as entries of a prefilter's maps: which connection
 * requests at an interface are led to the relay's listening socket, so that
 * they may be answered in its name, and whose datagrams are limited. Pure; used
 * by render_xdp.c and xdp_limits.c, and by kernel_xdp_maps.c, which puts them
 * there.
 */
#ifndef GW_RULES_RELAYED_H
#define GW_RULES_RELAYED_H

#include <stddef.h>
#include <stdint.h>

#include "rules/prefilter.h"
#include "rules/snapshot.h"

struct relayed_entry {
	union {
		struct prefilter_relayed_v4 v4;
		struct prefilter_relayed_v6 v6;
	};
	uint32_t value; /* of TCP 1: a cookie may be given; of UDP what the listener's owner says */
	uint8_t family; /* AF_INET, AF_INET6 */
	uint8_t kind;   /* enum match_port_kind of the element that it is made of */
	uint8_t unused[2];
};

struct relayed {
	struct relayed_entry *items; /* sorted: IPv4 first; no two of one key */
	size_t n;
	/* Listeners that relay TCP here, and how many of them keep the kernel's own cookies: those with limits of
	 * connections, which must see each SYN, and those that may be bypassed while no relay serves. */
	size_t listeners, excepted;
};

/* The entries for an interface, new (relayed_clear), and into params what the program must know to look them up. 0;
 * -E2BIG: more ways or entries than a program takes; -EINVAL: the listeners are not valid, -ENOMEM. */
int relayed_of(
        const struct snapshot *snapshot, const char *interface, struct prefilter_params *params, struct relayed *ret);
void relayed_clear(struct relayed *relayed);

/* A listener whose elements have a value other than 0. */
struct relayed_owner {
	uint32_t listener; /* row id */
	uint32_t value;
};
/* Adds the entries of all listeners of UDP; the owners are sorted by listener. 0, or the faults of relayed_of: then
 * nothing has been added, but what params say of ways of UDP is of no use. */
int relayed_add_limited(const struct snapshot *snapshot, const char *interface, const struct relayed_owner *owners,
        size_t n_owners, struct prefilter_params *params, struct relayed *relayed);
/* Whether packets that come in at this interface can be the listener's. */
bool relayed_comes_in_at(const struct listener *listener, const char *interface);

/* Calls visit for each entry that differs; of a changed value with the new one. added: it is in `to`. A negative result
 * ends the walk and is passed on. */
int relayed_differences(const struct relayed *from, const struct relayed *to,
        int (*visit)(void *userdata, const struct relayed_entry *entry, bool added), void *userdata);

#endif
