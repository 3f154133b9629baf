/*
 * Large sets of prefixes, sorted, in pieces that sets share by reference: an
 * edit of one entry among a million makes a new set that has all pieces but
 * one in common with the old one, and a comparison of the two looks at that
 * one. Built from JSON (decode), from text in bulk (webapi) and from the
 * database (store). prefixes_private.h says how they are kept.
 */
#ifndef GW_SCHEMA_PREFIXES_H
#define GW_SCHEMA_PREFIXES_H

#include "schema/errs.h"
#include "schema/types.h"

/* Longest text of one line of a bulk document; what is longer is no prefix whatever it says. */
#define PREFIXES_LINE_MAX 512

/* <0, 0, >0 by family (IPv4 first), then address, then length: a prefix stands before what it contains. */
int prefix_compare(const struct prefix *a, const struct prefix *b);

/* Prefixes on their way to a set, in any order. Zeroed: none. */
struct prefixes_builder {
	struct prefix *items;
	size_t n, capacity;
};

/* Appends. 0 or -ENOMEM. */
int prefixes_add(struct prefixes_builder *builder, const struct prefix *prefix);
/* Appends what the text says: an address, a prefix or a range. -EINVAL with a fault at pointer, -ENOMEM. */
int prefixes_add_text(struct prefixes_builder *builder, const char *text, const char *pointer, struct errs *errs);
/* Sorts, drops repetitions and makes the set; the builder is empty then. 0 or -ENOMEM. */
int prefixes_finish(struct prefixes_builder *builder, struct prefixes *ret);
void prefixes_builder_clear(struct prefixes_builder *builder);

/* Into a zeroed member: the same set, one reference more. */
void prefixes_share(struct prefixes *to, const struct prefixes *from);
/* Gives up the reference. */
void prefixes_clear(struct prefixes *prefixes);
bool prefixes_equal(const struct prefixes *a, const struct prefixes *b);
/* Whether the set has exactly this prefix. */
bool prefixes_contain(const struct prefixes *set, const struct prefix *prefix);
/* Index of the first that is not less (prefix_compare): what the prefix contains begins there. */
size_t prefixes_lower_bound(const struct prefixes *set, const struct prefix *prefix);
/* The one at this index, in the order of prefix_compare; NULL behind the last. Costs a search: to see many, walk. */
const struct prefix *prefixes_at(const struct prefixes *set, size_t index);
/* A place in a set that must outlive it. */
struct prefixes_cursor {
	const struct prefixes_list *list;
	size_t run, at;
};
/* The place of this index; prefixes_next gives the prefix there and goes on to the next one, NULL behind the last. */
struct prefixes_cursor prefixes_from(const struct prefixes *set, size_t index);
const struct prefix *prefixes_next(struct prefixes_cursor *cursor);
/* Whether the set is sorted, each prefix once and without bits behind its length. */
bool prefixes_are_canonical(const struct prefixes *prefixes);

/* New sets: what is in a or b; what is in a and not in b. 0 or -ENOMEM. */
int prefixes_unite(const struct prefixes *a, const struct prefixes *b, struct prefixes *ret);
int prefixes_subtract(const struct prefixes *a, const struct prefixes *b, struct prefixes *ret);

/* Visits what leads from old to new, in order: each prefix that only one of them has. A negative result ends the walk
 * and is passed on. Pieces that the two share cost next to nothing. */
typedef int (*prefixes_visitor)(void *userdata, const struct prefix *prefix, bool added);
int prefixes_differences(
        const struct prefixes *old, const struct prefixes *new, prefixes_visitor visitor, void *userdata);

/* A bulk document: an address, prefix or range a line; empty lines and what follows a # do not count. Every fault in
 * errs, with pointer "" and the line's number in its words (a bounded number of them, as errs keeps). More than
 * ADDRESS_SET_ENTRIES_MAX prefixes are refused. -EINVAL, -ENOMEM. */
int prefixes_parse(const char *text, size_t length, struct errs *errs, struct prefixes *ret);
/* The same document in canonical form: sorted, a prefix a line. A new string; -ENOMEM. */
int prefixes_format(const struct prefixes *prefixes, char **ret, size_t *ret_length);

#define _cleanup_prefixes_         _cleanup_(prefixes_clear)
#define _cleanup_prefixes_builder_ _cleanup_(prefixes_builder_clear)

#endif
