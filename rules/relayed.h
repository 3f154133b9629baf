/*
 * Which connection requests at an interface are led to the relay's listening
 * socket, so that a prefilter may answer them in its name: the elements of
 * listeners as entries of the program's maps. Pure; used by render_xdp.c, and
 * by kernel_xdp_maps.c, which puts them there.
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
	uint8_t family; /* AF_INET, AF_INET6 */
	uint8_t value;  /* 1: a cookie may be given */
	uint8_t kind;   /* enum match_port_kind of the element that it is made of */
	uint8_t unused;
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

/* Calls visit for each entry that differs; of a changed value with the new one. added: it is in `to`. A negative result
 * ends the walk and is passed on. */
int relayed_differences(const struct relayed *from, const struct relayed *to,
        int (*visit)(void *userdata, const struct relayed_entry *entry, bool added), void *userdata);

#endif
