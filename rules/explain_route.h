/* Which route of a listener a connection takes by what the client says first; for explain.c, and the same as in the
 * relay (base/first_route.h). */
#ifndef GW_RULES_EXPLAIN_ROUTE_H
#define GW_RULES_EXPLAIN_ROUTE_H

#include "gatewayd/base/first.h"
#include "schema/types.h"

/* The first that matches, and its place in the list; NULL: none does. */
const struct listener_route *explain_route(const struct listener *listener, const struct first *first, size_t *ret_at);

#endif
