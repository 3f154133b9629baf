/*
 * The rules of our table by handle, as the kernel has them, read when somebody
 * asks and they have changed. For traces and POST /explain.
 */
#ifndef GW_RULE_INDEX_H
#define GW_RULE_INDEX_H

#include "gatewayd/apply.h"
#include "rules/trace.h"

/* All zero is an empty one. */
struct rule_index {
	struct trace_rules *rules; /* NULL: not read yet */
	uint64_t serial;           /* of the transaction of ours that they are of */
};

/* Forgets them. */
void rule_index_clear(struct rule_index *index);
/* The rules, borrowed, read now if a transaction of ours has come between, which takes about as long as that has; NULL:
 * they cannot be read. */
const struct trace_rules *rule_index_get(struct rule_index *index, const struct apply *apply, struct kernel *kernel);

#endif
