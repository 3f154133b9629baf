/*
 * The routes of one listener, in order, each with what it does; filled by
 * config.c, looked up before a connection is given a target.
 */
#ifndef GW_RELAY_FIRST_ROUTES_H
#define GW_RELAY_FIRST_ROUTES_H

#include "gatewayd/base/first_route.h"

/* Most routes of a listener: as in schema/listener.def. */
#define FIRST_ROUTES_MAX 64

enum first_action { FIRST_ACTION_RELAY, FIRST_ACTION_REJECT, FIRST_ACTIONS };

struct first_routes_item {
	struct first_route match;
	uint8_t action;    /* enum first_action */
	uint32_t upstream; /* 0: the packet's own destination */
};

/* All zero: none. */
struct first_routes {
	struct first_routes_item *items;
	uint32_t n;
};

/* Frees what they hold; there are none again. */
void first_routes_clear(struct first_routes *routes);
/* Adds a route without conditions behind the others. -E2BIG, -ENOMEM. */
int first_routes_add(struct first_routes *routes, uint8_t action, uint32_t upstream);
/* Adds a value to a condition of the last route. -ENOENT (there is none), else as first_route_add. */
int first_routes_value(struct first_routes *routes, enum first_condition condition, const char *value);
/* The first route that matches, or NULL: the listener's own action. first: NULL if the bytes were not understood. */
const struct first_routes_item *first_routes_find(const struct first_routes *routes, const struct first *first);

#endif
