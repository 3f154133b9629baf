/* The search for a route, see router.h. The table is small: it is walked from top to bottom, each
 * pattern taken apart beforehand. */
#include "webapi/router.h"

#include <assert.h>
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

/* What one segment of a pattern takes. */
enum step_kind { STEP_WORD, STEP_RESOURCE, STEP_SINGLE, STEP_NAME, STEP_TARGET };

struct step {
	const char *text; /* in the pattern, `length` bytes */
	size_t length;
	const struct resource *resource; /* of a word: the resource whose parts are behind it, or NULL */
	enum step_kind kind;
	bool is_targets; /* of a word: "targets" */
};

/* A pattern, taken apart; of "/{asset}" only that. */
struct path {
	size_t n;
	bool is_asset;
	struct step steps[HTTP_SEGMENTS_MAX];
};

static bool is_text(const struct step *step, const char *word)
{
	return strlen(word) == step->length && !memcmp(step->text, word, step->length);
}

/* Targets and entries are parts of objects: the handlers of resources take such paths as well. */
static void read_word(struct step *step)
{
	static const char *const owners[] = { "upstreams", "address-sets" };

	for (size_t i = 0; i < ARRAY_SIZE(owners); i++)
		if (is_text(step, owners[i]))
			step->resource = resource_by_path(owners[i]);
	step->is_targets = is_text(step, "targets");
}

static void read_step(struct step *step)
{
	static const struct {
		const char *text;
		enum step_kind kind;
	} kinds[] = { { "{resource}", STEP_RESOURCE }, { "{single}", STEP_SINGLE }, { "{name}", STEP_NAME },
		{ "{target}", STEP_TARGET } };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (is_text(step, kinds[i].text))
			step->kind = kinds[i].kind;
	if (step->kind == STEP_WORD)
		read_word(step);
}

static void read_pattern(const char *pattern, struct path *path)
{
	path->is_asset = !strcmp(pattern, "/{asset}");
	while (*pattern == '/') {
		struct step *step = &path->steps[path->n++];

		assert(path->n <= HTTP_SEGMENTS_MAX);
		step->text = ++pattern;
		step->length = strcspn(pattern, "/");
		read_step(step);
		pattern += step->length;
	}
}

/* The patterns of the routes, taken apart when they are first asked for. */
static const struct path *paths_get(void)
{
	static struct path paths[ARRAY_SIZE(routes)];

	if (!paths[0].n)
		for (size_t i = 0; i < ARRAY_SIZE(routes); i++)
			read_pattern(routes[i].pattern, &paths[i]);
	return paths;
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

/* Whether one segment fits one step; notes what it stands for. */
static bool match_step(const struct step *step, const char *segment, struct request *request)
{
	switch (step->kind) {
	case STEP_WORD:
		if (strncmp(segment, step->text, step->length) != 0 || segment[step->length])
			return false;
		request->resource = step->resource ? step->resource : request->resource;
		request->on_targets = request->on_targets || step->is_targets;
		return true;
	case STEP_RESOURCE:
	case STEP_SINGLE:
		return match_resource(segment, step->kind == STEP_SINGLE, request);
	case STEP_NAME:
		request->name = segment;
		return true;
	case STEP_TARGET:
		request->target = segment;
		return true;
	}
	return false;
}

static void forget(struct request *request)
{
	request->resource = NULL;
	request->name = request->target = NULL;
	request->on_targets = false;
}

static bool match(const struct path *path, struct request *request)
{
	if (path->is_asset)
		return !request->n_segments || strcmp(request->segments[0], "api") != 0;
	if (path->n != request->n_segments)
		return false;
	for (size_t i = 0; i < path->n; i++)
		if (!match_step(&path->steps[i], request->segments[i], request)) {
			forget(request);
			return false;
		}
	return true;
}

const struct route *router_find(struct request *request, unsigned *ret_methods)
{
	enum http_method method = request->method == METHOD_HEAD ? METHOD_GET : request->method;
	const struct path *paths = paths_get();
	unsigned methods = 0;

	forget(request);
	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		if (!match(&paths[i], request))
			continue;
		if (routes[i].method == method)
			return &routes[i];
		methods |= METHOD_BIT(routes[i].method);
		if (routes[i].method == METHOD_GET)
			methods |= METHOD_BIT(METHOD_HEAD);
		forget(request);
	}
	*ret_methods = methods ? methods | METHOD_BIT(METHOD_OPTIONS) : 0;
	return NULL;
}
