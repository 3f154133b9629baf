/*
 * Tells when somebody else changes what is ours in the kernel, and when
 * interfaces and addresses come and go: a monitor over netlink, one
 * descriptor for the daemon's loop. It only reports; reading the state back
 * and restoring it is the core's.
 */
#ifndef GW_RULES_KERNEL_WATCH_H
#define GW_RULES_KERNEL_WATCH_H

#include <net/if.h>

#include "rules/kernel.h"

enum watch_kind {
	WATCH_NFT,     /* our table was changed or deleted by another process */
	WATCH_RULE,    /* a rule of ours, or one that leads to our table, was added or deleted by another process */
	WATCH_ROUTE,   /* the same with a route of ours, or one in our table */
	WATCH_LINK,    /* an interface appeared, disappeared, went up or down, or has another XDP program; a rename is a
	                * disappearance and an appearance */
	WATCH_ADDRESS, /* an interface's address was added or removed */
	WATCH_OVERRUN, /* events were lost: everything may have changed, check it all */
	WATCH_KINDS
};

struct watch_event {
	enum watch_kind kind;
	int32_t pid;      /* who did it, as the kernel counts processes (in its first pid namespace); 0: unknown, or
	                   * the kernel itself */
	char process[16]; /* that process's name, printable; "" if it could not be told */
	char interface[IFNAMSIZ]; /* of LINK and ADDRESS, as the kernel has it */
	bool up, removed;         /* up: LINK only, enabled and with carrier */
	char detail[128];         /* for people, printable */
};

struct kernel_watch;

/* Watches the network namespace the process is in now, from now on. -ENOMEM, or the error of a socket call. */
int kernel_watch_open(struct kernel_watch **ret);
void kernel_watch_free(struct kernel_watch *watch);
/* A descriptor that is readable while there is something to read; stays the watch's. */
int kernel_watch_fd(const struct kernel_watch *watch);
/* 1 and an event, 0 when there is none now (the descriptor is not readable any more), or negative errno. What this
 * process does itself is no event. `ours` says which rules and routes are meant. */
int kernel_watch_next(struct kernel_watch *watch, const struct route_params *ours, struct watch_event *ret);

/* Does not listen to nft while a large transaction of our own goes on: as long as anybody listens, the kernel makes a
 * message of each element, which costs more than the element. Negative errno: it goes on listening. */
int kernel_watch_pause(struct kernel_watch *watch);
/* Listens again. `commits`: how many transactions of our own the kernel has taken meanwhile. 0; 1 and an event: there
 * were others, or that cannot be told. */
int kernel_watch_resume(struct kernel_watch *watch, uint64_t commits, struct watch_event *ret);

#endif
