/* What interfaces say that they have received: /proc/net/dev, read by ledger.c. */
#ifndef GW_LINKS_H
#define GW_LINKS_H

#include <net/if.h>
#include <stdint.h>
#include <stdio.h>

struct link_count {
	char interface[IFNAMSIZ];
	uint64_t packets, bytes;
};

/* All interfaces of the network namespace that the process is in, a new array in the kernel's order. -ENOENT, -ENOMEM.
 */
int links_read(struct link_count **ret, size_t *ret_n);
/* The same of a text in the form of /proc/net/dev; lines that are of another form are left out. */
int links_parse(FILE *file, struct link_count **ret, size_t *ret_n);

#endif
