/*
 * GET /metrics: the same figures as text for Prometheus. Names begin with
 * "gateway_", units are base units and end the name, counters end in "_total".
 * What grows with the configuration is bounded: METRICS_OBJECTS_MAX of each
 * kind have series of their own, the oldest ones, so that the set is stable.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "gatewayd/base/clock.h"
#include "gatewayd/core.h"
#include "gatewayd/health_view.h"
#include "rules/limits.h"

/* Listeners, upstreams and targets with series of their own, each; some ten series for one. */
#define METRICS_OBJECTS_MAX 1000
/* Listeners, and as many upstreams, with histograms of their own: some fifty series for one. */
#define METRICS_HISTOGRAMS_MAX 50
#define METRIC_NAME_MAX        128

struct writer {
	FILE *out;
	struct core *core;
	const struct stats_memory *memory;
};

static void head(const struct writer *writer, const char *name, const char *type, const char *doc)
{
	fprintf(writer->out, "# HELP %s %s\n# TYPE %s %s\n", name, doc, name, type);
}

static void single(const struct writer *writer, const char *name, const char *type, const char *doc, uint64_t value)
{
	head(writer, name, type, doc);
	fprintf(writer->out, "%s %" PRIu64 "\n", name, value);
}

/* "gateway_", what it is about, the member without its unit in front, the unit, "_total". */
static void counter_name(char name[METRIC_NAME_MAX], const char *about, const char *member, const char *unit)
{
	size_t length = strlen(unit);
	bool first = length > 0 && strncmp(member, unit, length) == 0 && member[length] == '_';

	snprintf(name, METRIC_NAME_MAX, "gateway_%s%s%s%s_total", about, first ? member + length + 1 : member,
	        length ? "_" : "", unit);
}

static void write_counters(const struct writer *writer)
{
	for (int i = 0; i < STATS_COUNTERS; i++) {
		enum stats_counter counter = (enum stats_counter)i;
		char name[METRIC_NAME_MAX];

		counter_name(name, "", stats_name(counter), stats_unit(counter));
		single(writer, name, "counter", stats_doc(counter), stats_sum(writer->memory, counter));
	}
	single(writer, "gateway_flows_active", "gauge", "flows now", stats_active_all(writer->memory));
}

/* --- histograms --- */

/* Bounds are powers of two, where buckets end: the counts are exact. Times: every fourth from 64 us to 18 minutes.
 * Bytes: every sixteenth from 256 B to 64 GiB; whole numbers, so the bound is one less. */
enum {
	TIME_FIRST_BIT = 6,
	TIME_LAST_BIT = 30,
	TIME_STEP = 2,
	BYTES_FIRST_BIT = 8,
	BYTES_LAST_BIT = 36,
	BYTES_STEP = 4
};

static void write_buckets(const struct writer *writer, const char *name, const char *labels,
        const struct histogram_sum *sum, bool is_time)
{
	int first = is_time ? TIME_FIRST_BIT : BYTES_FIRST_BIT, last = is_time ? TIME_LAST_BIT : BYTES_LAST_BIT;
	const char *comma = *labels ? "," : "";

	for (int bit = first; bit <= last; bit += is_time ? TIME_STEP : BYTES_STEP) {
		uint64_t bound = UINT64_C(1) << bit, count = histogram_at_most(sum, bound - 1);

		fprintf(writer->out, "%s_bucket{%s%sle=\"", name, labels, comma);
		if (is_time)
			fprintf(writer->out, "%.6f", (double)bound / 1e6);
		else
			fprintf(writer->out, "%" PRIu64, bound - 1);
		fprintf(writer->out, "\"} %" PRIu64 "\n", count);
	}
	fprintf(writer->out, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, labels, comma, sum->count);
	fprintf(writer->out, "%s_sum%s%s%s ", name, *labels ? "{" : "", labels, *labels ? "}" : "");
	if (is_time)
		fprintf(writer->out, "%.6f\n", (double)sum->sum / 1e6);
	else
		fprintf(writer->out, "%" PRIu64 "\n", sum->sum);
	fprintf(writer->out, "%s_count%s%s%s %" PRIu64 "\n", name, *labels ? "{" : "", labels, *labels ? "}" : "",
	        sum->count);
}

/* Whether it is one of time; then its base unit is the second. */
static bool histogram_name(char name[METRIC_NAME_MAX], const char *about, enum stats_histogram which)
{
	bool is_time = strcmp(stats_histogram_unit(which), "us") == 0;

	snprintf(
	        name, METRIC_NAME_MAX, "gateway_%s%s%s", about, stats_histogram_name(which), is_time ? "_seconds" : "");
	return is_time;
}

static void write_histograms(const struct writer *writer)
{
	for (int i = 0; i < STATS_HISTOGRAMS; i++) {
		enum stats_histogram which = (enum stats_histogram)i;
		struct histogram_sum sum;
		char name[METRIC_NAME_MAX];
		bool is_time = histogram_name(name, "", which);

		stats_histogram_read(writer->memory, which, &sum);
		head(writer, name, "histogram", stats_histogram_doc(which));
		write_buckets(writer, name, "", &sum, is_time);
	}
}

/* --- objects --- */

static const char *const kind_names[] = { "listener", "upstream", "target" };
static_assert(ARRAY_SIZE(kind_names) == STATS_KINDS, "one name per kind");

static void labels_of(enum stats_kind kind, const struct name *name, char labels[2 * METRIC_NAME_MAX])
{
	char target[NAMES_TARGET_MAX];

	if (kind == STATS_TARGET)
		snprintf(labels, 2 * METRIC_NAME_MAX, "upstream=\"%s\",target=\"%s\"", name->upstream->name,
		        names_target((const struct target *)name->row, target));
	else
		snprintf(labels, 2 * METRIC_NAME_MAX, "%s=\"%s\"", kind_names[kind], row_name(name->row));
}

static size_t shown(const struct writer *writer, enum stats_kind kind)
{
	size_t n = writer->core->names.n[kind];

	return n < METRICS_OBJECTS_MAX ? n : METRICS_OBJECTS_MAX;
}

/* All of one metric must stand together: read once, written counter by counter. */
static void write_objects(const struct writer *writer, enum stats_kind kind, struct stats_object_sum *sums)
{
	const struct name *names = writer->core->names.items[kind];
	char about[32], name[METRIC_NAME_MAX], labels[2 * METRIC_NAME_MAX];

	for (size_t i = 0; i < shown(writer, kind); i++)
		stats_object_read(writer->memory, meter_find(worker_meter(writer->core->worker), kind, names[i].id),
		        names[i].id, &sums[i]);
	snprintf(about, sizeof(about), "%s_", kind_names[kind]);
	for (int c = 0; c < STATS_OBJECT_COUNTERS && shown(writer, kind) > 0; c++) {
		enum stats_object_counter counter = (enum stats_object_counter)c;

		counter_name(name, about, stats_object_name(counter), stats_object_unit(counter));
		head(writer, name, "counter", stats_object_doc(counter));
		for (size_t i = 0; i < shown(writer, kind); i++) {
			labels_of(kind, &names[i], labels);
			fprintf(writer->out, "%s{%s} %" PRIu64 "\n", name, labels, sums[i].counter[c]);
		}
	}
	snprintf(name, sizeof(name), "gateway_%sflows_active", about);
	if (shown(writer, kind) > 0)
		head(writer, name, "gauge", "flows now");
	for (size_t i = 0; i < shown(writer, kind); i++) {
		labels_of(kind, &names[i], labels);
		fprintf(writer->out, "%s{%s} %" PRIu64 "\n", name, labels, sums[i].active);
	}
}

/* Of time; how many bytes they had in all is a counter. */
static void write_own_histogram(const struct writer *writer, enum stats_kind kind, enum stats_histogram which, size_t n)
{
	char name[METRIC_NAME_MAX], labels[2 * METRIC_NAME_MAX], about[32];

	snprintf(about, sizeof(about), "%s_", kind_names[kind]);
	if (!histogram_name(name, about, which))
		return;
	head(writer, name, "histogram", stats_histogram_doc(which));
	for (size_t i = 0; i < n; i++) {
		const struct name *object = &writer->core->names.items[kind][i];
		struct histogram_sum sum = { 0 };

		if (names_has_histograms(kind, object))
			(void)stats_own_read(writer->memory,
			        meter_find(worker_meter(writer->core->worker), kind, object->id), object->id, which,
			        &sum);
		labels_of(kind, object, labels);
		write_buckets(writer, name, labels, &sum, true);
	}
}

static void write_own_histograms(const struct writer *writer, enum stats_kind kind)
{
	size_t n = writer->core->names.n[kind];

	if (n > METRICS_HISTOGRAMS_MAX)
		n = METRICS_HISTOGRAMS_MAX;
	for (int i = 0; i < STATS_HISTOGRAMS && n > 0; i++)
		write_own_histogram(writer, kind, (enum stats_histogram)i, n);
}

/* --- health --- */

static uint64_t is_healthy(const struct health_view *view)
{
	return view->health != TARGET_HEALTH_DOWN;
}

static uint64_t is_usable(const struct health_view *view)
{
	return view->usable;
}

static uint64_t is_ejected(const struct health_view *view)
{
	return view->ejected_until_ms != 0;
}

static uint64_t check_count(const struct health_view *view)
{
	return view->checks;
}

static uint64_t failure_count(const struct health_view *view)
{
	return view->failures;
}

/* One metric of every target that has series of its own. */
static void write_target_metric(const struct writer *writer, const char *name, const char *type, const char *doc,
        uint64_t (*value)(const struct health_view *view))
{
	const struct name *targets = writer->core->names.items[STATS_TARGET];
	uint64_t now_ms = clock_us() / 1000;

	if (shown(writer, STATS_TARGET) > 0)
		head(writer, name, type, doc);
	for (size_t i = 0; i < shown(writer, STATS_TARGET); i++) {
		char labels[2 * METRIC_NAME_MAX];
		struct health_view view;

		health_view_read(
		        worker_meter(writer->core->worker), (const struct target *)targets[i].row, now_ms, &view);
		labels_of(STATS_TARGET, &targets[i], labels);
		fprintf(writer->out, "%s{%s} %" PRIu64 "\n", name, labels, value(&view));
	}
}

static void write_upstream_metrics(const struct writer *writer)
{
	static const char *const docs[] = { "1 when targets are usable and the quorum is met",
		"1 when fewer targets than the quorum are usable", "1 when no target is usable" };
	const struct name *upstreams = writer->core->names.items[STATS_UPSTREAM];
	uint64_t now_ms = clock_us() / 1000;

	static_assert(ARRAY_SIZE(docs) == HEALTH_VIEW_STATES, "one each");
	for (int state = 0; state < HEALTH_VIEW_STATES && shown(writer, STATS_UPSTREAM) > 0; state++) {
		char name[METRIC_NAME_MAX];

		snprintf(name, sizeof(name), "gateway_upstream_%s",
		        health_view_upstream_name((enum health_view_upstream_state)state));
		head(writer, name, "gauge", docs[state]);
		for (size_t i = 0; i < shown(writer, STATS_UPSTREAM); i++) {
			char labels[2 * METRIC_NAME_MAX];
			struct health_view_upstream view;

			health_view_upstream(worker_meter(writer->core->worker),
			        (const struct upstream *)upstreams[i].row, now_ms, &view);
			labels_of(STATS_UPSTREAM, &upstreams[i], labels);
			fprintf(writer->out, "%s{%s} %d\n", name, labels, (int)view.state == state);
		}
	}
}

static void write_health(const struct writer *writer)
{
	const struct stats_health *health = &writer->memory->health;

	write_target_metric(writer, "gateway_target_healthy", "gauge",
	        "0 when health checks say that the target is down; 1 also when it is not checked", is_healthy);
	write_target_metric(writer, "gateway_target_usable", "gauge",
	        "1 when the target gets new flows: in service, with a weight, not down and not ejected", is_usable);
	write_target_metric(writer, "gateway_target_ejected", "gauge",
	        "1 while the target is left out because connections to it failed", is_ejected);
	write_target_metric(writer, "gateway_target_health_checks_total", "counter",
	        "health checks of the target that have ended", check_count);
	write_target_metric(writer, "gateway_target_health_check_failures_total", "counter",
	        "health checks of the target that have failed", failure_count);
	write_upstream_metrics(writer);
	single(writer, "gateway_health_checks_late_total", "counter",
	        "health checks that had to wait because too many were under way",
	        atomic_load_explicit(&health->late, memory_order_relaxed));
	single(writer, "gateway_health_checks_under_way", "gauge", "health checks that wait for an answer",
	        atomic_load_explicit(&health->under_way, memory_order_relaxed));
}

static void write_omitted(const struct writer *writer)
{
	head(writer, "gateway_metrics_omitted_objects", "gauge", "objects beyond those that have series of their own");
	for (unsigned kind = 0; kind < STATS_KINDS; kind++)
		fprintf(writer->out, "gateway_metrics_omitted_objects{kind=\"%s\"} %zu\n", kind_names[kind],
		        writer->core->names.n[kind] - shown(writer, (enum stats_kind)kind));
}

/* --- the rest --- */

static void write_nft_counter(const struct writer *writer, json_t *counters, const char *field, const char *doc)
{
	char name[METRIC_NAME_MAX];
	const char *counter;
	json_t *value;

	snprintf(name, sizeof(name), "gateway_nft_%s_total", field);
	head(writer, name, "counter", doc);
	json_object_foreach(counters, counter, value) if (!limits_owns_counter(counter))
	        fprintf(writer->out, "%s{counter=\"%s\"} %" JSON_INTEGER_FORMAT "\n", name, counter,
	                json_integer_value(json_object_get(value, field)));
}

/* Packets of one kind of all limits, each with a series of its own. */
static void write_limit_counter(
        const struct writer *writer, json_t *counters, const char *what, const char *field, const char *doc)
{
	const struct rows *rows = &apply_snapshot(writer->core->apply)->rows[RESOURCE_RATE_LIMIT];
	const char *unit = strcmp(field, "bytes") == 0 ? "_bytes" : what[0] == 'b' ? "" : "_packets";
	char name[METRIC_NAME_MAX], counter[LIMITS_NAME_MAX];

	snprintf(name, sizeof(name), "gateway_limit_%s%s_total", what, unit);
	head(writer, name, "counter", doc);
	for (size_t i = 0; i < rows->n && i < METRICS_OBJECTS_MAX; i++) {
		const char *limit = row_name(rows->items[i]);

		fprintf(writer->out, "%s{rate_limit=\"%s\"} %" JSON_INTEGER_FORMAT "\n", name, limit,
		        json_integer_value(json_object_get(
		                json_object_get(counters, limits_counter(limit, what, counter)), field)));
	}
}

/* Flows that were shaped, of limits of key flow: one metric of all. */
static void write_flow_limits(const struct writer *writer, const char *name, const char *type, const char *doc,
        uint64_t (*value)(const struct stats_object_sum *sum))
{
	const struct rows *rows = &apply_snapshot(writer->core->apply)->rows[RESOURCE_RATE_LIMIT];
	const struct meter *meter = worker_meter(writer->core->worker);

	head(writer, name, type, doc);
	for (size_t i = 0; i < rows->n && i < METRICS_OBJECTS_MAX; i++) {
		struct stats_object_sum sum;

		stats_object_read(writer->memory, meter_find(meter, STATS_LIMIT, rows->items[i]->id),
		        (uint32_t)rows->items[i]->id, &sum);
		fprintf(writer->out, "%s{rate_limit=\"%s\"} %" PRIu64 "\n", name, row_name(rows->items[i]),
		        value(&sum));
	}
}

static uint64_t flow_count(const struct stats_object_sum *sum)
{
	return sum->counter[STATS_OBJECT_flows_opened];
}

static uint64_t flow_count_at_rate(const struct stats_object_sum *sum)
{
	return sum->counter[STATS_OBJECT_flows_at_rate];
}

static uint64_t flows_active(const struct stats_object_sum *sum)
{
	return sum->active;
}

static void write_limits(const struct writer *writer, json_t *counters)
{
	if (writer->core->bans)
		single(writer, "gateway_bans", "gauge", "addresses and prefixes that are banned now",
		        bans_count(writer->core->bans));
	if (apply_snapshot(writer->core->apply)->rows[RESOURCE_RATE_LIMIT].n == 0)
		return;
	write_limit_counter(writer, counters, "passed", "packets", "packets that a rate limit let pass");
	write_limit_counter(writer, counters, "passed", "bytes", "bytes that a rate limit let pass");
	write_limit_counter(writer, counters, "over", "packets", "packets over a rate limit, in mode shadow too");
	write_limit_counter(writer, counters, "over", "bytes", "bytes over a rate limit, in mode shadow too");
	write_limit_counter(writer, counters, "full", "packets", "packets of sources that a limit had no place for");
	write_limit_counter(writer, counters, "banned", "packets", "bans by a rate limit");
	write_limit_counter(writer, counters, "escalated", "packets",
	        "packets that moved a source up to the prefilters, or in mode shadow would have");
	write_flow_limits(writer, "gateway_limit_flows_total", "counter",
	        "flows that a rate limit of key flow came to be in force for", flow_count);
	write_flow_limits(writer, "gateway_limit_flows_at_rate_total", "counter",
	        "of these, the ones that moved as much in a second as it gives, in mode shadow too",
	        flow_count_at_rate);
	write_flow_limits(
	        writer, "gateway_limit_flows_active", "gauge", "flows now that it is in force for", flows_active);
}

static void write_nft(const struct writer *writer)
{
	json_t *counters;

	if (core_limit_counters(writer->core, &counters) < 0)
		return;
	if (json_object_size(counters) > 0) {
		write_nft_counter(writer, counters, "packets", "packets that met a named counter of our nft table");
		write_nft_counter(writer, counters, "bytes", "bytes that met a named counter of our nft table");
	}
	write_limits(writer, counters);
	json_decref(counters);
}

/* One kind of figure of all interfaces and reasons. */
static void write_xdp_counter(const struct writer *writer, bool bytes)
{
	struct prefilter_count counts[PREFILTER_REASONS];
	const char *name = bytes ? "gateway_xdp_bytes_total" : "gateway_xdp_packets_total", *interface;

	head(writer, name, "counter",
	        bytes ? "bytes that a prefilter has judged, by reason"
	              : "packets that a prefilter has judged, by reason");
	for (size_t i = 0; (interface = shield_counts(writer->core->shield, i, counts)); i++)
		for (unsigned k = 0; k < PREFILTER_REASONS; k++)
			fprintf(writer->out, "%s{interface=\"%s\",reason=\"%s\"} %" PRIu64 "\n", name, interface,
			        shield_reason_name((enum prefilter_reason)k),
			        (uint64_t)(bytes ? counts[k].bytes : counts[k].packets));
}

static void write_xdp(const struct writer *writer)
{
	struct prefilter_count counts[PREFILTER_REASONS];
	const char *interface;

	if (!writer->core->shield || !shield_counts(writer->core->shield, 0, counts))
		return;
	write_xdp_counter(writer, false);
	write_xdp_counter(writer, true);
	head(writer, "gateway_xdp_syn_cookies_engaged", "gauge",
	        "whether connection requests are being answered with SYN cookies, for the listeners take no more");
	for (size_t i = 0; (interface = shield_counts(writer->core->shield, i, counts)); i++)
		fprintf(writer->out, "gateway_xdp_syn_cookies_engaged{interface=\"%s\"} %d\n", interface,
		        shield_gives_cookies(writer->core->shield, i));
}

static void write_interception(const struct writer *writer)
{
	uint64_t counts[INTERCEPT_COUNTS];

	single(writer, "gateway_interception_ebpf", "gauge",
	        "1 while the engine ebpf hands packets over, 0: nft does it all",
	        intercept_is_on(writer->core->intercept));
	if (!intercept_counts(writer->core->intercept, counts))
		return;
	head(writer, "gateway_interception_packets_total", "counter", "packets that the engine ebpf knew, by outcome");
	for (unsigned i = 0; i < INTERCEPT_COUNTS; i++)
		fprintf(writer->out, "gateway_interception_packets_total{outcome=\"%s\"} %" PRIu64 "\n",
		        intercept_count_name((enum intercept_count)i), counts[i]);
}

static void write_return_paths(const struct writer *writer)
{
	struct doctor_return back;

	return_paths_facts(writer->core->ways, &back);
	single(writer, "gateway_return_paths", "gauge", "targets that clients were seen of, with source_address client",
	        back.seen);
	single(writer, "gateway_return_paths_broken", "gauge",
	        "of these, the ones whose answers to clients do not come back", back.broken);
}

static void write_daemon(const struct writer *writer)
{
	struct core *core = writer->core;

	head(writer, "gateway_build_info", "gauge", "always 1; the version is the label");
	fprintf(writer->out, "gateway_build_info{version=\"%s\"} 1\n", GW_VERSION);
	single(writer, "gateway_ready", "gauge", "1 when every plane has applied the current revision",
	        (uint64_t)core_ready(core));
	single(writer, "gateway_revision", "gauge", "revision of the configuration in force",
	        (uint64_t)core_revision(core));
	single(writer, "gateway_relay_up", "gauge", "1 while a relay serves",
	        worker_state(core->worker) == WORKER_RUNNING);
	single(writer, "gateway_relay_restarts_total", "counter", "relays started after the death of another",
	        worker_restarts(core->worker));
	single(writer, "gateway_relay_uptime_seconds", "gauge", "since the relay was started or found",
	        worker_uptime_s(core->worker));
	write_return_paths(writer);
}

int core_metrics(struct core *core, char **ret, size_t *ret_length)
{
	_cleanup_free_ struct stats_object_sum *sums = calloc(METRICS_OBJECTS_MAX, sizeof(*sums));
	struct writer writer = { .core = core, .memory = worker_stats(core->worker) };
	char *text = NULL;
	size_t length = 0;

	if (!sums || names_follow(&core->names, apply_snapshot(core->apply)) < 0)
		return -ENOMEM;
	writer.out = open_memstream(&text, &length);
	if (!writer.out)
		return -ENOMEM;
	write_daemon(&writer);
	write_counters(&writer);
	write_histograms(&writer);
	for (unsigned kind = 0; kind < STATS_KINDS; kind++)
		write_objects(&writer, (enum stats_kind)kind, sums);
	for (unsigned kind = 0; kind < STATS_OWN_KINDS; kind++)
		write_own_histograms(&writer, (enum stats_kind)kind);
	write_health(&writer);
	write_omitted(&writer);
	write_nft(&writer);
	write_xdp(&writer);
	write_interception(&writer);
	core_ledger_metrics(core, writer.out);
	if (fclose(writer.out) != 0) {
		free(text);
		return -ENOMEM;
	}
	*ret = text;
	*ret_length = length;
	return 0;
}
