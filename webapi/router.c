/* The search for a route, see router.h. The table is small: it is walked from top to bottom. */
#include "webapi/router.h"

#include <string.h>

#include "webapi/assets.h"
#include "webapi/banlist.h"
#include "webapi/config.h"
#include "webapi/entries.h"
#include "webapi/events.h"
#include "webapi/explain.h"
#include "webapi/figures.h"
#include "webapi/flowlist.h"
#include "webapi/history.h"
#include "webapi/rest.h"
#include "webapi/sessions.h"
#include "webapi/status.h"
#include "webapi/targets.h"
#include "webapi/trace.h"
#include "webapi/tls.h"

static const struct route routes[] = {
#define ROUTE(method, pattern, handler, role, body_max, media)                                                         \
	{ METHOD_##method, pattern, handler, role, body_max, media },
#include "webapi/routes.def"
#undef ROUTE
};

static bool is_pattern(const char *pattern, size_t length, const char *word)
{
	return strlen(word) == length && !memcmp(pattern, word, length);
}

/* A resource with one row, or one with many; a single row has the name that it always has. */
static bool match_resource(const char *segment, bool single, struct request *request)
{
	const struct resource *resource = resource_by_path(segment);

	if (!resource || single != !!(resource->flags & RESOURCE_IS_SINGLE))
		return false;
	request->resource = resource;
	request->name = single ? resource->fields[0].initial_text : NULL;
	return true;
}

/* Whether one segment fits one segment of a pattern; notes what it stands for. */
static bool match_segment(const char *pattern, size_t length, const char *segment, struct request *request)
{
	if (is_pattern(pattern, length, "{resource}") || is_pattern(pattern, length, "{single}"))
		return match_resource(segment, pattern[1] == 's', request);
	if (is_pattern(pattern, length, "{name}")) {
		request->name = segment;
		return true;
	}
	if (is_pattern(pattern, length, "{target}")) {
		request->target = segment;
		return true;
	}
	if (!is_pattern(pattern, length, segment))
		return false;
	/* Targets and entries are parts of objects: the handlers of resources take such paths as well. */
	if (!strcmp(segment, "upstreams") || !strcmp(segment, "address-sets"))
		request->resource = resource_by_path(segment);
	request->on_targets = request->on_targets || !strcmp(segment, "targets");
	return true;
}

static void forget(struct request *request)
{
	request->resource = NULL;
	request->name = request->target = NULL;
	request->on_targets = false;
}

static bool match(const char *pattern, struct request *request)
{
	size_t i = 0;

	forget(request);
	if (!strcmp(pattern, "/{asset}"))
		return !request->n_segments || strcmp(request->segments[0], "api") != 0;
	while (*pattern == '/') {
		size_t length = strcspn(++pattern, "/");

		if (i == request->n_segments || !match_segment(pattern, length, request->segments[i], request))
			return false;
		pattern += length;
		i++;
	}
	return i == request->n_segments;
}

const struct route *router_find(struct request *request, unsigned *ret_methods)
{
	enum http_method method = request->method == METHOD_HEAD ? METHOD_GET : request->method;
	unsigned methods = 0;

	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		if (!match(routes[i].pattern, request))
			continue;
		if (routes[i].method == method)
			return &routes[i];
		methods |= METHOD_BIT(routes[i].method);
		if (routes[i].method == METHOD_GET)
			methods |= METHOD_BIT(METHOD_HEAD);
	}
	forget(request);
	*ret_methods = methods ? methods | METHOD_BIT(METHOD_OPTIONS) : 0;
	return NULL;
}
