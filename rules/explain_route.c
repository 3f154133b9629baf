/* Routes by first bytes, see explain_route.h. */
#include "rules/explain_route.h"

#include "gatewayd/base/first_route.h"

static void borrow(struct first_route *route, enum first_condition condition, const struct strings *values)
{
	route->condition[condition].values = values->items;
	route->condition[condition].n = (uint32_t)values->n;
}

static bool matches(const struct listener_route *row, const struct first *first)
{
	struct first_route route;

	borrow(&route, FIRST_SNI, &row->sni);
	borrow(&route, FIRST_ALPN, &row->alpn);
	borrow(&route, FIRST_HTTP_HOST, &row->http_host);
	borrow(&route, FIRST_HTTP_METHOD, &row->http_method);
	borrow(&route, FIRST_HTTP_PATH, &row->http_path_prefix);
	return first_route_matches(&route, first);
}

const struct listener_route *explain_route(const struct listener *listener, const struct first *first, size_t *ret_at)
{
	for (size_t i = 0; i < listener->routes.n; i++) {
		const struct listener_route *route = (const struct listener_route *)listener->routes.items[i];

		if (!matches(route, first))
			continue;
		*ret_at = i;
		return route;
	}
	return NULL;
}
