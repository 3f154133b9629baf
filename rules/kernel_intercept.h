/*
 * The second interception engine in the kernel: loading the program of
 * rules/bpf/intercept.bpf.c, filling its maps from the plan's elements, and
 * attaching it. Nothing is pinned: what is attached holds program and maps,
 * and the next daemon puts a program of its own in their place. Used by
 * gatewayd/intercept.c.
 */
#ifndef GW_RULES_KERNEL_INTERCEPT_H
#define GW_RULES_KERNEL_INTERCEPT_H

#include "rules/intercept.h"
#include "rules/plan.h"

struct kernel_intercept;

/* What the engine does with packets that match the element. */
enum intercept_verdict intercept_verdict(const struct element *element);

/* Loads the program, with empty maps and closed. 0, or a negative errno with words in why (at most why_size bytes):
 * -EOPNOTSUPP for a kernel that cannot do it. directory: as kernel_tc.h says. */
int kernel_intercept_open(const char *directory, struct kernel_intercept **ret, char *why, size_t why_size);
/* Lets go; what is attached stays. Legal for NULL. */
void kernel_intercept_free(struct kernel_intercept *intercept);

/* Whether the program takes so many shapes, and ranges; groups as kernel_intercept_shapes wants them. */
bool kernel_intercept_takes(const struct group *groups, size_t n, const struct elements *elements);

/* What is the same for all packets; n_shapes is kernel_intercept_shapes' and not looked at. */
int kernel_intercept_set(struct kernel_intercept *intercept, const struct intercept_control *control);
/* The shapes in use, of groups that are sorted by group_compare. -E2BIG: more than the program tries. Only while it is
 * closed. */
int kernel_intercept_shapes(struct kernel_intercept *intercept, const struct group *groups, size_t n);
/* One element more, or gone. 0 or a negative errno: -E2BIG: there is no room. Only while it is closed. */
int kernel_intercept_put(struct kernel_intercept *intercept, const struct element *element);
int kernel_intercept_remove(struct kernel_intercept *intercept, const struct element *element);

/* Packets of each kind so far. */
void kernel_intercept_counts(const struct kernel_intercept *intercept, uint64_t ret[INTERCEPT_COUNTS]);

/* Forgets the name of an interface that is gone. */
void kernel_intercept_forget(struct kernel_intercept *intercept, unsigned ifindex);
/* To the ingress of an interface (kernel_tc.h), whose name it has from now on; whether it is there; and off all. */
int kernel_intercept_attach(struct kernel_intercept *intercept, const char *interface);
bool kernel_intercept_is_attached(const char *interface);
void kernel_intercept_detach(const char *directory, const char *interface);
void kernel_intercept_detach_all(const char *directory);

#endif
