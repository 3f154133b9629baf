/*
 * What prefixes.c (sets as such) and prefixes_sets.c (two sets beside each
 * other) share. Not for others.
 *
 * Theory of operation: a set is a list of runs, each a sorted array of at most
 * RUN_MAX prefixes. Lists and runs are immutable and counted by reference, so
 * a set that differs from another in one entry has all runs but one or two of
 * it, and whoever compares the two skips a run that both have by its address.
 * An edit costs the list of runs and one run: at a million entries some tens
 * of kilobytes instead of eighteen megabytes.
 *
 * Two neighbours in a list have more than RUN_MAX prefixes together; else they
 * are made one. So there are never more than 2 n / RUN_MAX + 1 runs, whatever
 * has been taken out of them.
 */
#ifndef GW_SCHEMA_PREFIXES_PRIVATE_H
#define GW_SCHEMA_PREFIXES_PRIVATE_H

#include "schema/prefixes.h"

/* About the root of the largest set, where both costs of an edit are the same. */
#define RUN_MAX 1024U

struct run {
	unsigned references;
	unsigned n;
	struct prefix items[];
};

struct prefixes_list {
	size_t references;
	size_t n;
	struct {
		struct run *run;
		size_t start; /* index of its first prefix in the set */
	} runs[];
};

/* A set in the making: prefixes come in their order. Zeroed: none. */
struct maker {
	struct prefixes_list *list; /* counts for nothing until maker_finish */
	size_t capacity;
	struct run *open; /* of RUN_MAX; not in the list yet */
};

/* Appends copies. 0 or -ENOMEM. */
int maker_items(struct maker *maker, const struct prefix *items, size_t n);
/* Appends a whole run by reference. 0 or -ENOMEM. */
int maker_share(struct maker *maker, struct run *run);
/* Hands over what was made; the maker is empty then. 0 or -ENOMEM. */
int maker_finish(struct maker *maker, struct prefixes *ret);
void maker_clear(struct maker *maker);

#define _cleanup_maker_ _cleanup_(maker_clear)

#endif
