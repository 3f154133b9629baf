/* Routes of a listener; see first_routes.h. */
#include "gatewayd/relay/first_routes.h"

#include <errno.h>
#include <stdlib.h>

void first_routes_clear(struct first_routes *routes)
{
	for (uint32_t i = 0; i < routes->n; i++)
		first_route_clear(&routes->items[i].match);
	free(routes->items);
	*routes = (struct first_routes){ 0 };
}

int first_routes_add(struct first_routes *routes, uint8_t action, uint32_t upstream)
{
	struct first_routes_item *grown;

	if (routes->n == FIRST_ROUTES_MAX)
		return -E2BIG;
	grown = realloc(routes->items, (routes->n + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	grown[routes->n] = (struct first_routes_item){ .action = action, .upstream = upstream };
	routes->items = grown;
	routes->n++;
	return 0;
}

int first_routes_value(struct first_routes *routes, enum first_condition condition, const char *value)
{
	if (routes->n == 0)
		return -ENOENT;
	return first_route_add(&routes->items[routes->n - 1].match, condition, value);
}

const struct first_routes_item *first_routes_find(const struct first_routes *routes, const struct first *first)
{
	for (uint32_t i = 0; i < routes->n; i++)
		if (first_route_matches(&routes->items[i].match, first))
			return &routes->items[i];
	return NULL;
}
