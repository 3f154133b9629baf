/*
 * What filters of traffic control an interface has, as far as we have to know
 * of others'. Used by kernel_tc.c.
 */
#ifndef GW_RULES_KERNEL_FILTERS_H
#define GW_RULES_KERNEL_FILTERS_H

#include <stdint.h>

struct kernel_filters {
	unsigned n;     /* in the clsact discipline, both ways */
	unsigned there; /* of them, at the ingress with the priority and handle that were asked about */
	char name[64];  /* of the program of that one, as whoever attached it has called it; "": none */
};

/* 0, or a negative errno: that cannot be found out. */
int kernel_filters_look(unsigned ifindex, uint16_t priority, uint32_t handle, struct kernel_filters *ret);

#endif
