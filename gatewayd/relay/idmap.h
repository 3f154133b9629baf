/*
 * Rows of the configuration by their number: a sorted array. Numbers mostly
 * come in ascending order, so that filling one appends. Owns nothing that it
 * points to.
 */
#ifndef GW_RELAY_IDMAP_H
#define GW_RELAY_IDMAP_H

#include <stddef.h>
#include <stdint.h>

struct idmap_item {
	uint32_t id;
	void *value;
};

/* All zero is an empty map. */
struct idmap {
	struct idmap_item *items;
	size_t n, room;
};

/* The value, or NULL. */
void *idmap_get(const struct idmap *map, uint32_t id);
/* Adds a number that is not there yet. 0 or -ENOMEM. */
int idmap_add(struct idmap *map, uint32_t id, void *value);
/* Takes the number out; its value, or NULL if there is none. */
void *idmap_remove(struct idmap *map, uint32_t id);
/* Frees the array, not the values. */
void idmap_clear(struct idmap *map);

#endif
