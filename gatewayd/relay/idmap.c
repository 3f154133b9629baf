/* Rows by number; see idmap.h. */
#include "gatewayd/relay/idmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROOM_MIN 16

/* Index of the first item that is not below id. */
static size_t position(const struct idmap *map, uint32_t id)
{
	size_t low = 0, high = map->n;

	if (high > 0 && map->items[high - 1].id < id)
		return high;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (map->items[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void *idmap_get(const struct idmap *map, uint32_t id)
{
	size_t at = position(map, id);

	return at < map->n && map->items[at].id == id ? map->items[at].value : NULL;
}

int idmap_add(struct idmap *map, uint32_t id, void *value)
{
	size_t at = position(map, id);

	if (map->n == map->room) {
		size_t room = map->room ? map->room * 2 : ROOM_MIN;
		struct idmap_item *grown = realloc(map->items, room * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		map->items = grown;
		map->room = room;
	}
	memmove(map->items + at + 1, map->items + at, (map->n - at) * sizeof(*map->items));
	map->items[at] = (struct idmap_item){ id, value };
	map->n++;
	return 0;
}

void *idmap_remove(struct idmap *map, uint32_t id)
{
	size_t at = position(map, id);
	void *value;

	if (at == map->n || map->items[at].id != id)
		return NULL;
	value = map->items[at].value;
	map->n--;
	memmove(map->items + at, map->items + at + 1, (map->n - at) * sizeof(*map->items));
	return value;
}

void idmap_clear(struct idmap *map)
{
	free(map->items);
	*map = (struct idmap){ 0 };
}
