/*
 * At which interfaces one of our programs is, and why not at others. Used by
 * shortcut.c and intercept.c.
 */
#ifndef GW_ATTACHED_H
#define GW_ATTACHED_H

#include <jansson.h>
#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>

struct attached_item {
	char interface[IFNAMSIZ];
	unsigned ifindex;
	char why[64]; /* it is not; "": it is */
};

struct attached {
	const char *what; /* for the log: "the short cut of flows" */
	/* Attaches the program: 0 or a negative errno, -EBUSY: somebody else's filter is in its place. */
	int (*attach)(void *userdata, const char *interface);
	/* Whether the program has anything to look for there. */
	bool (*fits)(void *userdata, const char *interface);
	bool (*is_there)(const char *interface);        /* whether the program is attached */
	void (*gone)(void *userdata, unsigned ifindex); /* the interface is no more */
	void *userdata;
	struct attached_item *items;
	size_t n, size;
};

/* Frees what it has gathered, and begins anew; nothing is detached. */
void attached_clear(struct attached *attached);
/* Tries an interface, all interfaces, those of which it failed, or one that has come or changed; of one that is gone
 * nothing is known any more. */
void attached_try(struct attached *attached, const char *interface);
void attached_try_all(struct attached *attached);
void attached_try_again(struct attached *attached);
void attached_link_changed(struct attached *attached, const char *interface);
void attached_forget(struct attached *attached, const char *interface);
/* Puts the program back where it was attached and somebody has taken it off. */
void attached_restore(struct attached *attached);
/* NULL: it was not tried. */
const struct attached_item *attached_find(const struct attached *attached, const char *interface);
/* [{interface, attached, why}, ...]; NULL: no memory. */
json_t *attached_status(const struct attached *attached);

#endif
