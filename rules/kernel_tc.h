/*
 * Our programs at the ingress of interfaces, as filters of the clsact
 * queueing discipline behind those of others. Where that is missing it is
 * made, and removed again when nobody's filter is in it any more. Used by
 * kernel_shortcut.c and kernel_intercept.c, and by the daemon for both.
 */
#ifndef GW_RULES_KERNEL_TC_H
#define GW_RULES_KERNEL_TC_H

#include <stdbool.h>
#include <stdint.h>

/* One of our programs. */
struct kernel_tc {
	const char *name;  /* as the kernel shows it */
	uint16_t priority; /* of its filter */
};

/* Whether an interface of this kind can have one: Ethernet, not loopback, up. */
bool kernel_tc_fits(const char *interface);
/* Whether it is part of another one (a bridge, a bond, a VRF), whose name the rules see. */
bool kernel_tc_is_part(const char *interface);
/* Attaches the program of this descriptor, in the place of an earlier daemon's; `directory`, which must not
 * outlive the system's next start, remembers whose the discipline is. 0, -EBUSY: somebody else's filter is in its
 * place, or another negative errno. */
int kernel_tc_attach(const struct kernel_tc *tc, const char *directory, int program, const char *interface);
/* Whether ours is there. */
bool kernel_tc_is_attached(const struct kernel_tc *tc, const char *interface);
/* Takes ours off, and the queueing discipline if we made it and nothing is left in it. Legal if there is none. */
void kernel_tc_detach(const struct kernel_tc *tc, const char *directory, const char *interface);
/* Forgets whose the discipline of an interface was that is gone. */
void kernel_tc_forget(const char *directory, unsigned ifindex);
/* Takes it off all interfaces, and forgets those that are gone. */
void kernel_tc_detach_all(const struct kernel_tc *tc, const char *directory);

#endif
