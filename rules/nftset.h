/*
 * The nft set of one group: its name, its type, the rule that looks it up, its
 * elements. Private to the renderers and to the readers of what the kernel
 * holds (kernel_parse.c, kernel_dump.c), which need the same order of fields.
 *
 * Sets, not one verdict map per shape: whenever an element is added to a
 * verdict map, the kernel walks all of them to see where their verdicts lead
 * (15-25 ms of 100,000, against 1 ms for one more in a set). Only listeners
 * with rate limits lie in such maps, for each has a chain of its own.
 */
#ifndef GW_RULES_NFTSET_H
#define GW_RULES_NFTSET_H

#include <stdio.h>

#include "rules/plan.h"

/* The fields a set's key may consist of, in their order. */
enum nftset_field { NFTSET_PROTOCOL, NFTSET_DST, NFTSET_SRC, NFTSET_INTERFACE, NFTSET_PORT, NFTSET_FIELDS };

/* Room for the longest name of a set and the NUL. */
#define NFTSET_NAME_MAX 40

/* Which fields the keys of a group's set have; returns how many (at least 1). */
size_t nftset_fields(const struct group *group, enum nftset_field fields[NFTSET_FIELDS]);
/* Name of the set that holds the elements of a group, e.g. "tcp4_d24_s0_exact_relay", "tcp4_d32_s0_p8000-8100_drop". */
void nftset_name(const struct group *group, char buffer[NFTSET_NAME_MAX]);
/* The group of a set by its name. -EINVAL for a name that is not one. */
int nftset_group_of_name(const char *name, struct group *ret);

/* nft's type of a field, e.g. "ipv4_addr". */
const char *nftset_field_type(const struct match_shape *shape, enum nftset_field field);

/* "set", or "map" where the elements lead to chains of their listeners. */
const char *nftset_kind(const struct group *group);
/* The action chain of a verdict other than VERDICT_LIMITED. */
const char *nftset_action_chain(enum verdict verdict);
/* "ip daddr", or with the mask of a shorter prefix "ip daddr & 255.255.0.0"; which is "saddr" or "daddr". */
void nftset_put_address(FILE *out, uint8_t family, const char *which, unsigned length);

/* One declaration, look-up rule or list of elements per call, with a newline. "verb" is "add" or "delete"; the
 * elements are those of one group. nftset_put_elements: -EINVAL for a key that must not get into the text. */
void nftset_put_declaration(FILE *out, const struct group *group);
void nftset_put_lookup(FILE *out, const char *chain, const struct group *group);
/* A look-up in a chain that is only about limited listeners: what others win leaves it. */
void nftset_put_meter(FILE *out, const char *chain, const struct group *group);
/* One element as it stands in such a list; leads: with where it leads, which a deletion must not name. -EINVAL as
 * below.
 */
int nftset_put_element(FILE *out, const struct element *element, bool leads);
int nftset_put_elements(FILE *out, const char *verb, const struct element *elements, size_t n);

/* One line of such a list, "10.0.0.0 . 443,", which is changed, back to the element of the group. -EINVAL. */
int nftset_parse_element(char *line, const struct group *group, struct element *ret);

/* Bytes of a field of a key; in a concatenation it takes whole words. */
size_t nftset_field_size(const struct match_shape *shape, enum nftset_field field);
size_t nftset_padded(size_t size);
/* Longest key: two addresses of IPv6, an interface, a port. */
#define NFTSET_KEY_MAX 56
/* The element's key as the kernel has it (end: the other end of its ports, of an interval); returns its length. */
size_t nftset_key(const struct element *element, bool end, uint8_t buffer[NFTSET_KEY_MAX]);

#endif
