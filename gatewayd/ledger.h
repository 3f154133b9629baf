/*
 * The ledger as the daemon sees it: for each interface what it has received,
 * what its prefilter made of it, and what our table made of the rest
 * (rules/ledger.h). What an interface counts begins with the interface, so it
 * is compared from a moment on that the daemon has noted. Made by daemon.c;
 * shown by core_ledger.c; docs/ledger.md has the balances.
 */
#ifndef GW_LEDGER_H
#define GW_LEDGER_H

#include <systemd/sd-event.h>

#include "gatewayd/shield.h"
#include "gatewayd/shortcut.h"
#include "rules/kernel.h"
#include "rules/ledger.h"

/* How often it is looked for interfaces that have come or gone. */
#define LEDGER_LOOK_US UINT64_C(5000000)
/* After so many looks without it, what was counted of an interface that has gone makes room for others. */
#define LEDGER_LOOKS_GONE 12U

/* The interface and its prefilter, since a moment. */
struct ledger_link {
	bool present;                                      /* it is there; else nothing of this is known */
	int64_t since;                                     /* seconds since 1970 */
	struct ledger_count in;                            /* frames that it has received */
	bool filtered;                                     /* a prefilter is in force, and has been since then */
	struct prefilter_count reasons[PREFILTER_REASONS]; /* what that made of them */
	uint64_t to_stack;                                 /* frames that were not dropped by it */
	uint64_t taken;                                    /* packets that came to our table, or took the short cut */
};

struct ledger_row {
	struct ledger_counts counts; /* of our table, since it was made, and of the short cut */
	struct ledger_link link;
};

struct ledger;

/* event NULL: nothing is looked at but when asked (tests). Borrows kernel, shield and shortcut (NULL: none). 0,
 * -ENOMEM. */
int ledger_new(sd_event *event, struct kernel *kernel, struct shield *shield, const struct shortcut *shortcut,
        struct ledger **ret);
void ledger_free(struct ledger *ledger);
/* All interfaces that have counted anything, by name; a new array. ret_omitted: how many there is no telling of, for
 * there are too many or their names are no text. -ENOMEM, or what the kernel says. */
int ledger_look(struct ledger *ledger, struct ledger_row **ret, size_t *ret_n, size_t *ret_omitted);

/* Looks, and forgets interfaces that have been gone for LEDGER_LOOKS_GONE of these; the timer's work. */
void ledger_tend(struct ledger *ledger);

/* What of the frames is not accounted for: neither dropped by the prefilter nor passed. 0 without a prefilter. */
int64_t ledger_rest_link(const struct ledger_row *row);
/* What of the packets: nothing that they could have come to has counted them. */
int64_t ledger_rest_stack(const struct ledger_row *row);
/* Packets that were passed on, for whatever reason, and those of them that are neither for this host nor forwarded. */
uint64_t ledger_passed(const struct ledger_row *row);
int64_t ledger_rest_passed(const struct ledger_row *row);

#endif
