/*
 * What others have put in the way of packets that the relay takes and sends:
 * rules, address translation, encryption. The short cut would pass by it. Used
 * by gatewayd/shortcut.c and worker.c.
 */
#ifndef GW_RULES_KERNEL_OTHERS_H
#define GW_RULES_KERNEL_OTHERS_H

#include <stdbool.h>
#include <stddef.h>

/* Finds the first thing of that kind in the network namespace of the process: a base chain of somebody else's nft table
 * (those that only look at forwarded packets are not meant), iptables' own tables, an IPsec policy, connection
 * tracking, without which nothing is translated. 1 with words in ret, 0 with "", or a negative errno: it cannot be
 * found out. */
int kernel_others_look(char *ret, size_t size);
/* Whether connections pass through conntrack in this network namespace: some are known to it. */
bool kernel_others_track(void);

#endif
