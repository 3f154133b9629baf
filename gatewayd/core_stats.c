/* The documents of GET /stats and what is below it: what relay and kernel have counted. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "gatewayd/core.h"
#include "gatewayd/document.h"
#include "rules/limits.h"
#include "schema/value.h"

static json_t *now_text(void)
{
	char text[32];

	return json_string(value_time_format((int64_t)time(NULL), text));
}

static json_t *rates_document(const struct sampler_rates *rates)
{
	return json_pack("{s:f, s:f, s:f, s:i}", "flows_opened", rates->flows_opened, "bytes_to_target",
	        rates->bytes_to_target, "bytes_to_client", rates->bytes_to_client, "window_s", SAMPLER_WINDOW_S);
}

/* --- histograms --- */

static json_t *histogram_document(const struct histogram_sum *sum, enum stats_histogram which)
{
	static const struct {
		const char *key;
		double share;
	} shares[] = { { "p50", 0.5 }, { "p90", 0.9 }, { "p99", 0.99 }, { "p999", 0.999 }, { "max", 1 } };
	json_t *object = json_object();
	bool failed = object == NULL;

	document_set(object, "unit", json_string(stats_histogram_unit(which)), &failed);
	document_set(object, "count", document_number(sum->count), &failed);
	document_set(object, "sum", document_number(sum->sum), &failed);
	for (size_t i = 0; i < ARRAY_SIZE(shares); i++)
		document_set(object, shares[i].key, document_number(histogram_quantile(sum, shares[i].share)), &failed);
	return document_done(object, failed);
}

/* Of the relay (id 0), or of one object; has: it may have something in them. */
static json_t *histograms_document(struct core *core, uint32_t slot, uint32_t id, bool has)
{
	const struct stats_memory *memory = worker_stats(core->worker);
	json_t *object = json_object();
	bool failed = object == NULL;

	for (int i = 0; i < STATS_HISTOGRAMS; i++) {
		enum stats_histogram which = (enum stats_histogram)i;
		struct histogram_sum sum = { 0 };

		if (id == 0)
			stats_histogram_read(memory, which, &sum);
		else if (has && !stats_own_read(memory, slot, id, which, &sum))
			continue;
		document_set(object, stats_histogram_name(which), histogram_document(&sum, which), &failed);
	}
	return document_done(object, failed);
}

/* --- objects --- */

static void set_names(json_t *object, enum stats_kind kind, const struct name *name, bool *failed)
{
	char target[NAMES_TARGET_MAX];

	if (kind != STATS_TARGET) {
		document_set(object, "name", json_string(row_name(name->row)), failed);
		return;
	}
	document_set(object, "upstream", json_string(name->upstream->name), failed);
	document_set(object, "target", json_string(names_target((const struct target *)name->row, target)), failed);
}

static json_t *object_document(struct core *core, enum stats_kind kind, const struct name *name)
{
	uint32_t slot = meter_find(worker_meter(core->worker), kind, name->id);
	json_t *object = json_object();
	bool failed = object == NULL;
	struct stats_object_sum sum;
	struct sampler_rates rates;

	stats_object_read(worker_stats(core->worker), slot, name->id, &sum);
	sampler_object(core->sampler, slot, name->id, &rates);
	set_names(object, kind, name, &failed);
	document_set(object, "flows_active", document_number(sum.active), &failed);
	for (int i = 0; i < STATS_OBJECT_COUNTERS; i++)
		document_set(object, stats_object_name((enum stats_object_counter)i), document_number(sum.counter[i]),
		        &failed);
	document_set(object, "rates", rates_document(&rates), &failed);
	if (kind < (enum stats_kind)STATS_OWN_KINDS)
		document_set(object, "histograms",
		        histograms_document(core, slot, name->id, names_has_histograms(kind, name)), &failed);
	return document_done(object, failed);
}

json_t *core_stats_page(struct core *core, enum core_counted kind, uint32_t after, size_t max)
{
	static const enum stats_kind kinds[] = { STATS_LISTENER, STATS_UPSTREAM, STATS_TARGET };
	const struct names *names = &core->names;
	json_t *items = json_array(), *next = json_null();
	bool failed = items == NULL || names_follow(&core->names, apply_snapshot(core->apply)) < 0;
	enum stats_kind which = kinds[kind];
	size_t i = 0, n = failed ? 0 : names->n[which];

	while (i < n && names->items[which][i].id <= after)
		i++;
	for (; i < n && json_array_size(items) < max && !failed; i++)
		failed = json_array_append_new(items, object_document(core, which, &names->items[which][i])) < 0;
	if (i < n && i > 0)
		next = json_integer(names->items[which][i - 1].id);
	return document_done(
	        json_pack("{s:o, s:o, s:I}", "items", items, "next", next, "total", (json_int_t)n), failed);
}

/* --- the busiest --- */

struct busy {
	uint64_t bytes, flows;
	const struct name *name;
};

static bool is_busier(const struct busy *a, const struct busy *b)
{
	if (a->bytes != b->bytes)
		return a->bytes > b->bytes;
	return a->flows != b->flows ? a->flows > b->flows : a->name->id < b->name->id;
}

static int compare_busy(const void *a, const void *b)
{
	return is_busier(a, b) ? -1 : is_busier(b, a);
}

/* Those that have most bytes, then most flows; those that have had nothing to do are left out. */
static json_t *busiest(struct core *core, enum stats_kind kind, size_t max, bool *failed)
{
	const struct names *names = &core->names;
	_cleanup_free_ struct busy *all = calloc(names->n[kind] + 1, sizeof(*all));
	json_t *array = json_array();
	size_t n = 0;

	for (size_t i = 0; all && i < names->n[kind]; i++) {
		const struct name *name = &names->items[kind][i];
		struct stats_object_sum sum;

		stats_object_read(worker_stats(core->worker), meter_find(worker_meter(core->worker), kind, name->id),
		        name->id, &sum);
		all[n] = (struct busy){ sum.counter[STATS_OBJECT_bytes_to_target] +
			                        sum.counter[STATS_OBJECT_bytes_to_client],
			sum.counter[STATS_OBJECT_flows_opened] + sum.counter[STATS_OBJECT_refused] + sum.active, name };
		n += all[n].flows > 0 || all[n].bytes > 0;
	}
	if (n > 1)
		qsort(all, n, sizeof(*all), compare_busy);
	for (size_t i = 0; i < n && i < max; i++)
		if (json_array_append_new(array, object_document(core, kind, all[i].name)) < 0)
			*failed = true;
	*failed = *failed || !all || !array;
	return array;
}

static json_t *counters_document(const struct stats_memory *memory, bool *failed)
{
	json_t *object = json_object();

	for (int i = 0; i < STATS_COUNTERS; i++)
		document_set(object, stats_name((enum stats_counter)i),
		        document_number(stats_sum(memory, (enum stats_counter)i)), failed);
	return object;
}

/* The kernel's own counters. A kernel that cannot be asked has none to tell. */
static json_t *nft_document(struct core *core)
{
	json_t *counters;

	if (kernel_nft_counters(core->kernel, &counters) < 0)
		return json_null();
	limits_drop_counters(counters);
	return counters;
}

json_t *core_stats(struct core *core, size_t max)
{
	const struct stats_memory *memory = worker_stats(core->worker);
	json_t *object = json_object();
	bool failed = object == NULL || names_follow(&core->names, apply_snapshot(core->apply)) < 0;
	struct sampler_rates rates;

	sampler_total(core->sampler, &rates);
	document_set(object, "time", now_text(), &failed);
	document_set(object, "flows_active", document_number(stats_active_all(memory)), &failed);
	document_set(object, "counters", counters_document(memory, &failed), &failed);
	document_set(object, "rates", rates_document(&rates), &failed);
	document_set(object, "histograms", histograms_document(core, 0, 0, true), &failed);
	document_set(object, "nft", nft_document(core), &failed);
	document_set(object, "prefilters", core->shield ? shield_stats(core->shield) : json_array(), &failed);
	document_set(object, "listeners", busiest(core, STATS_LISTENER, max, &failed), &failed);
	document_set(object, "upstreams", busiest(core, STATS_UPSTREAM, max, &failed), &failed);
	document_set(object, "targets", busiest(core, STATS_TARGET, max, &failed), &failed);
	return document_done(object, failed);
}

/* --- the last hour --- */

static json_t *columns_document(void)
{
	json_t *array = json_pack("[s, s]", "time", "seconds");
	bool failed = array == NULL;

	for (int i = 0; i < TREND_VALUES && !failed; i++)
		failed = json_array_append_new(array, json_string(trend_name((enum trend_value)i))) < 0;
	for (int i = 0; i < TREND_LATENCIES * TREND_QUANTILES && !failed; i++)
		failed = json_array_append_new(
		                 array, json_string(trend_quantile_name((enum trend_latency)(i / TREND_QUANTILES),
		                                (enum trend_quantile)(i % TREND_QUANTILES)))) < 0;
	return document_done(array, failed);
}

static json_t *point_document(const struct trend_point *point, const struct trend_quantiles *quantiles)
{
	json_t *array = json_pack("[I, f]", (json_int_t)point->time, (double)point->span_ms / 1000.0);
	bool failed = array == NULL;

	for (int i = 0; i < TREND_VALUES && !failed; i++)
		failed = json_array_append_new(array, document_number(point->value[i])) < 0;
	for (int i = 0; i < TREND_LATENCIES * TREND_QUANTILES && !failed; i++) {
		uint64_t us = quantiles->us[i / TREND_QUANTILES][i % TREND_QUANTILES];

		failed = json_array_append_new(array, us == TREND_NONE ? json_null() : document_number(us)) < 0;
	}
	return document_done(array, failed);
}

json_t *core_stats_history(struct core *core, unsigned step, int64_t after)
{
	_cleanup_free_ struct trend_point *points = calloc(TREND_SECONDS, sizeof(*points));
	_cleanup_free_ struct trend_quantiles *quantiles = calloc(TREND_SECONDS, sizeof(*quantiles));
	json_t *rows = json_array();
	bool failed = !points || !quantiles || !rows;
	size_t n = 0;

	if (!failed)
		n = trend_points(sampler_trend(core->sampler), (int64_t)time(NULL), step, after, points, quantiles);
	for (size_t i = 0; i < n && !failed; i++)
		failed = json_array_append_new(rows, point_document(&points[i], &quantiles[i])) < 0;
	return document_done(
	        json_pack("{s:i, s:o, s:o}", "step_s", (int)step, "columns", columns_document(), "rows", rows), failed);
}
