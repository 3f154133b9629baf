/* Rate limits as they are at work, and bans: the documents of GET /stats/rate-limits and /bans. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/core.h"
#include "gatewayd/document.h"
#include "rules/limits.h"
#include "rules/xdp_limits.h"

/* From this share of its places on, a set of sources is told in the status, in percent. */
#define FILL_ALARM 80
/* Listeners shown for one limit: the first by name. */
#define LISTENERS_MAX 100
/* Warnings of limits in the status. */
#define WARNINGS_MAX 20

struct view {
	struct core *core;
	const struct limits *limits;
	json_t *counters; /* of the kernel */
	const char **why; /* xdp_limits_plan */
};

/* What is added to the counters of nft. */
struct adding {
	const struct core *core;
	json_t *counters;
};

static void add_to(json_t *counters, const char *name, const struct prefilter_count *count)
{
	json_t *counter = json_object_get(counters, name);

	/* What nft does not count is of a limit that is not in force. */
	if (!counter)
		return;
	(void)json_object_set_new(counter, "packets",
	        json_integer(json_integer_value(json_object_get(counter, "packets")) + (json_int_t)count->packets));
	(void)json_object_set_new(counter, "bytes",
	        json_integer(json_integer_value(json_object_get(counter, "bytes")) + (json_int_t)count->bytes));
}

const char *core_limit_name(const struct core *core, uint32_t limit)
{
	const struct rows *rows = &apply_snapshot(core->apply)->rows[RESOURCE_RATE_LIMIT];

	for (size_t i = 0; i < rows->n; i++)
		if ((uint32_t)rows->items[i]->id == limit)
			return row_name(rows->items[i]);
	return NULL;
}

static void add_over(void *userdata, const struct prefilter_over *pair, const struct prefilter_count *count)
{
	const struct adding *adding = userdata;
	const char *limit = core_limit_name(adding->core, pair->limit);
	char name[LIMITS_NAME_MAX];

	if (!limit)
		return;
	add_to(adding->counters, limits_counter(limit, "over", name), count);
	add_to(adding->counters, limits_listener_counter(pair->listener, limit, "over", name), count);
}

int core_limit_counters(const struct core *core, json_t **ret)
{
	struct adding adding = { .core = core };
	int r = kernel_nft_counters(core->kernel, &adding.counters);

	if (r < 0)
		return r;
	if (core->shield)
		shield_overs(core->shield, add_over, &adding);
	*ret = adding.counters;
	return 0;
}

static int view_open(struct core *core, struct view *ret)
{
	*ret = (struct view){ .core = core, .limits = model_limits(apply_model(core->apply)) };
	if (core_limit_counters(core, &ret->counters) < 0)
		ret->counters = json_object();
	ret->why = xdp_limits_plan(apply_snapshot(core->apply));
	if (ret->counters && ret->why)
		return 0;
	json_decref(ret->counters);
	free(ret->why);
	return -ENOMEM;
}

static void view_close(struct view *view)
{
	json_decref(view->counters);
	free(view->why);
}

static json_int_t packets_of(const struct view *view, const char *counter)
{
	return json_integer_value(json_object_get(json_object_get(view->counters, counter), "packets"));
}

static json_int_t bytes_of(const struct view *view, const char *counter)
{
	return json_integer_value(json_object_get(json_object_get(view->counters, counter), "bytes"));
}

static int count_one(void *userdata, const struct addr *addr, int64_t left_ms)
{
	(void)addr;
	(void)left_ms;
	++*(json_int_t *)userdata;
	return 0;
}

/* How many sources the limit knows, of one family; -1: it has no such set. */
static json_int_t sources_of(const struct view *view, const struct rate_limit *limit, int family)
{
	char name[LIMITS_NAME_MAX];
	json_int_t n = 0;

	limits_sources_set(limit, family, name);
	if (!limits_find(view->limits, LIMITS_SET, name))
		return -1;
	(void)kernel_nft_addresses(view->core->kernel, name, count_one, &n);
	return n;
}

static json_t *sources_document(const struct view *view, const struct rate_limit *limit)
{
	json_int_t v4 = sources_of(view, limit, 4), v6 = sources_of(view, limit, 6);

	return v4 < 0 ? json_null() : json_pack("{s:I, s:I, s:i}", "ipv4", v4, "ipv6", v6, "size", LIMITS_SOURCES_MAX);
}

static bool names_limit(const struct listener *listener, const char *limit)
{
	for (size_t i = 0; i < listener->rate_limits.n; i++)
		if (strcmp(listener->rate_limits.items[i], limit) == 0)
			return listener->enabled;
	return false;
}

static json_t *listeners_document(const struct view *view, const struct rate_limit *limit)
{
	const struct rows *rows = &apply_snapshot(view->core->apply)->rows[RESOURCE_LISTENER];
	json_t *array = json_array();
	bool failed = array == NULL;
	char passed[LIMITS_NAME_MAX], over[LIMITS_NAME_MAX];

	for (size_t i = 0; i < rows->n && json_array_size(array) < LISTENERS_MAX && !failed; i++) {
		const struct listener *listener = (const struct listener *)rows->items[i];
		uint32_t id = (uint32_t)listener->row.id;

		if (!names_limit(listener, limit->name))
			continue;
		limits_listener_counter(id, limit->name, "passed", passed);
		limits_listener_counter(id, limit->name, "over", over);
		failed = json_array_append_new(
		                 array, json_pack("{s:s, s:I, s:I}", "listener", listener->name, "passed",
		                                packets_of(view, passed), "over", packets_of(view, over))) < 0;
	}
	return document_done(array, failed);
}

static bool is_used(const struct view *view, const struct rate_limit *limit)
{
	const struct rows *listeners = &apply_snapshot(view->core->apply)->rows[RESOURCE_LISTENER];
	char name[LIMITS_NAME_MAX];

	for (size_t i = 0; limits_is_of_flows(limit) && i < listeners->n; i++)
		if (names_limit((const struct listener *)listeners->items[i], limit->name))
			return true;
	return limits_find(view->limits, LIMITS_COUNTER, limits_counter(limit->name, "passed", name)) != NULL;
}

/* Of limits of key flow; of others all are 0. */
static void set_flows(const struct view *view, const struct rate_limit *limit, json_t *object, bool *failed)
{
	struct stats_object_sum sum;

	stats_object_read(worker_stats(view->core->worker),
	        meter_find(worker_meter(view->core->worker), STATS_LIMIT, limit->row.id), (uint32_t)limit->row.id,
	        &sum);
	document_set(object, "flows", document_number(sum.counter[STATS_OBJECT_flows_opened]), failed);
	document_set(object, "flows_active", document_number(sum.active), failed);
	document_set(object, "flows_at_rate", document_number(sum.counter[STATS_OBJECT_flows_at_rate]), failed);
}

/* placement, reason and interfaces. */
static void set_placement(const struct view *view, const struct rate_limit *limit, json_t *object, bool *failed)
{
	size_t place = snapshot_after(apply_snapshot(view->core->apply), RESOURCE_RATE_LIMIT, limit->name) - 1;
	const char *why = view->why[place], *here = NULL;
	json_t *interfaces = !why && view->core->shield
	                             ? shield_limited_at(view->core->shield, (uint32_t)limit->row.id, &here)
	                             : json_array();
	bool used = is_used(view, limit);
	struct limits_placement placement = limits_placement(limit, used, json_array_size(interfaces) > 0);

	if (!why)
		why = here ? here : "none is in force at an interface of its listeners";
	document_set(object, "placement", json_string(placement.place), failed);
	document_set(object, "reason",
	        strcmp(placement.place, "nft") == 0 && *why
	                ? json_sprintf("%s; not by prefilters: %s", placement.reason, why)
	                : json_string(placement.reason),
	        failed);
	document_set(object, "interfaces", interfaces, failed);
}

static json_t *limit_document(const struct view *view, const struct rate_limit *limit)
{
	static const char *const whats[] = { "passed", "over", "full", "banned", "escalated" };
	json_t *object = json_object();
	bool failed = object == NULL;
	char name[LIMITS_NAME_MAX];

	document_set(object, "name", json_string(limit->name), &failed);
	set_placement(view, limit, object, &failed);
	document_set(object, "mode", json_string(limit->mode == LIMIT_MODE_SHADOW ? "shadow" : "enforce"), &failed);
	for (size_t i = 0; i < ARRAY_SIZE(whats); i++)
		document_set(object, whats[i],
		        json_integer(packets_of(view, limits_counter(limit->name, whats[i], name))), &failed);
	document_set(object, "passed_bytes", json_integer(bytes_of(view, limits_counter(limit->name, "passed", name))),
	        &failed);
	document_set(
	        object, "over_bytes", json_integer(bytes_of(view, limits_counter(limit->name, "over", name))), &failed);
	set_flows(view, limit, object, &failed);
	document_set(object, "sources", sources_document(view, limit), &failed);
	document_set(object, "listeners", listeners_document(view, limit), &failed);
	return document_done(object, failed);
}

json_t *core_limits(struct core *core, const char *after, size_t max)
{
	const struct snapshot *snapshot = apply_snapshot(core->apply);
	const struct rows *rows = &snapshot->rows[RESOURCE_RATE_LIMIT];
	size_t i = snapshot_after(snapshot, RESOURCE_RATE_LIMIT, after);
	json_t *items = json_array(), *next = json_null();
	struct view view;
	bool failed = !items || view_open(core, &view) < 0;

	if (failed)
		return document_done(items, true);
	for (; i < rows->n && json_array_size(items) < max && !failed; i++)
		failed = json_array_append_new(
		                 items, limit_document(&view, (const struct rate_limit *)rows->items[i])) < 0;
	if (i < rows->n && i > 0)
		next = json_string(row_name(rows->items[i - 1]));
	view_close(&view);
	return document_done(
	        json_pack("{s:o, s:o, s:I}", "items", items, "next", next, "total", (json_int_t)rows->n), failed);
}

int core_limit_get(struct core *core, const char *name, json_t **ret)
{
	const struct row *row = snapshot_find(apply_snapshot(core->apply), RESOURCE_RATE_LIMIT, name);
	struct view view;
	json_t *document;

	if (!row)
		return -ENOENT;
	if (view_open(core, &view) < 0)
		return -ENOMEM;
	document = limit_document(&view, (const struct rate_limit *)row);
	view_close(&view);
	if (!document)
		return -ENOMEM;
	*ret = document;
	return 0;
}

/* A limit with more sources than it can tell apart is told while that is so, and when it has been so. */
static int warn(const struct view *view, const struct rate_limit *limit, json_t *warnings)
{
	json_int_t v4 = sources_of(view, limit, 4), v6 = sources_of(view, limit, 6), full;
	char name[LIMITS_NAME_MAX], detail[256];

	full = packets_of(view, limits_counter(limit->name, "full", name));
	if (v4 * 100 < (json_int_t)LIMITS_SOURCES_MAX * FILL_ALARM &&
	        v6 * 100 < (json_int_t)LIMITS_SOURCES_MAX * FILL_ALARM)
		return 0;
	snprintf(detail, sizeof(detail),
	        "rate limit \"%s\" knows %lld IPv4 and %lld IPv6 sources and has places for %d of each; %lld packets "
	        "found none and shared what is left to all such",
	        limit->name, (long long)v4, (long long)v6, LIMITS_SOURCES_MAX, (long long)full);
	return json_array_append_new(warnings, json_pack("{s:s, s:s}", "code", "limit_nearly_full", "detail", detail));
}

int core_limits_warn(struct core *core, json_t *warnings)
{
	const struct rows *rows = &apply_snapshot(core->apply)->rows[RESOURCE_RATE_LIMIT];
	size_t before = json_array_size(warnings);
	struct view view;
	int r = view_open(core, &view);

	if (r < 0)
		return r;
	for (size_t i = 0; i < rows->n && r == 0 && json_array_size(warnings) < before + WARNINGS_MAX; i++)
		r = warn(&view, (const struct rate_limit *)rows->items[i], warnings);
	view_close(&view);
	return r < 0 ? -ENOMEM : 0;
}

/* --- bans --- */

json_t *core_bans(struct core *core, const struct prefix *after, size_t max)
{
	_cleanup_free_ struct ban_view *page = calloc(max + 1, sizeof(*page));
	json_t *items = json_array(), *next = json_null();
	char text[ADDR_TEXT_MAX + 4];
	bool failed = !items || !page;
	size_t total = 0, n = failed ? 0 : bans_page(core->bans, after, max + 1, page, &total);

	for (size_t i = 0; i < n && i < max && !failed; i++)
		failed = json_array_append_new(items, bans_document(core->bans, &page[i])) < 0;
	if (n > max)
		next = json_string(prefix_format(ban_view_prefix(&page[max - 1]), text));
	return document_done(
	        json_pack("{s:o, s:o, s:I}", "items", items, "next", next, "total", (json_int_t)total), failed);
}

int core_ban_get(struct core *core, const struct prefix *prefix, json_t **ret)
{
	struct ban_view view;
	bool found = bans_view(core->bans, prefix, &view);
	json_t *document = found ? bans_document(core->bans, &view) : NULL;

	if (!document)
		return found ? -ENOMEM : -ENOENT;
	*ret = document;
	return 0;
}

int core_ban_add(struct core *core, const struct core_ban *ban)
{
	return bans_add(core->bans, ban);
}

int core_ban_lift(struct core *core, const struct prefix *prefix, const char *actor)
{
	return bans_lift(core->bans, prefix, actor);
}
