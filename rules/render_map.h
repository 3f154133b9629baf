/*
 * The nft map of one shape: its name, its type, the expression that looks it
 * up, its elements. Private to the renderers and to the reader of the
 * kernel's listing (kernel_parse.c), which needs the same order of fields.
 */
#ifndef GW_RULES_RENDER_MAP_H
#define GW_RULES_RENDER_MAP_H

#include <stdio.h>

#include "rules/plan.h"

/* The fields a map's key may consist of, in their order. */
enum map_field { MAP_PROTOCOL, MAP_DST, MAP_SRC, MAP_INTERFACE, MAP_PORT, MAP_FIELDS };

/* Which fields the key of a shape has; returns how many (at least 1). */
size_t map_fields(const struct match_shape *shape, enum map_field fields[MAP_FIELDS]);
/* Whether the map's keys may be intervals. */
bool map_is_interval(const struct match_shape *shape);
/* The shape of a map by its name, the inverse of render_nft_map_name. -EINVAL for a name that is not one. */
int map_shape_of_name(const char *name, struct match_shape *ret);

/* nft's type of a field, e.g. "ipv4_addr". */
const char *map_field_type(const struct match_shape *shape, enum map_field field);

/* Names of the action chains, by verdict. */
extern const char *const map_verdict_chains[VERDICTS];

/* One declaration, look-up rule or list of elements per call, with a newline. "verb" is "add" or "delete"; the
 * elements are those of one shape. map_put_elements: -EINVAL for a key that must not get into the text. */
void map_put_declaration(FILE *out, const struct match_shape *shape);
void map_put_lookup(FILE *out, const char *chain, const struct match_shape *shape);
int map_put_elements(FILE *out, const char *verb, const struct element *elements, size_t n);

/* How many elements from `at` on are of the same shape. */
size_t map_run(const struct elements *elements, size_t at);

#endif
