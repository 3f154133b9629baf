/*
 * Many elements at once, by netlink: libnftables takes 7 us for each, three
 * times what the kernel takes. Pure but for kernel_bulk_load and
 * kernel_bulk_elements. Used by kernel_nft.c, which cuts what it commits in
 * parts with these: the sets that are new are made and filled while no rule
 * looks at them, and the transaction that does look finds them full.
 */
#ifndef GW_RULES_KERNEL_BULK_H
#define GW_RULES_KERNEL_BULK_H

#include "rules/kernel.h"

struct mnl_socket;

/* What batches go through: opened for the first one and kept. Closing it right after a transaction would wait until no
 * reader can see any more what that has removed: ten milliseconds and more where the processors have little to do.
 * { 0 } at first. */
struct bulk_socket {
	struct mnl_socket *socket;
	int room; /* in bytes: the longest message that it takes */
};

/* Elements of one set, as lines of the text; borrowed. */
struct bulk_part {
	struct group group;
	const char *lines, *end;
};

struct bulk {
	struct bulk_part *parts;
	size_t n;
	char *before; /* declares the parts' sets, and the table if it is made */
	char *after;  /* everything but the parts' elements; the table is not deleted */
	char *undo;   /* takes back what `before` does */
};

/* Whether the text makes the whole table anew, if need be deleting another one. */
bool kernel_bulk_replaces(const char *text);
/* Takes the elements of new sets, without those that lead to chains, out of the text, which must outlive the result.
 * 1, 0: there are too few of them, -ENOMEM. Of a text that replaces the table only if there is none. */
int kernel_bulk_split(const char *text, struct bulk *ret);
void kernel_bulk_clear(struct bulk *bulk);
/* Puts the parts into the kernel. 0 or negative errno: some may be in. ret_commits counts what the kernel took. */
int kernel_bulk_load(struct bulk_socket *through, const struct bulk *bulk, unsigned *ret_commits);
/* Commits a text of nothing but elements as one transaction. -ENOTSUP: it has some that lead to chains, or something
 * else; or negative errno, and nothing is done. */
int kernel_bulk_elements(struct bulk_socket *through, const char *text);
void kernel_bulk_close(struct bulk_socket *through);

#endif
