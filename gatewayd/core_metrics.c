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

#include "gatewayd/core.h"

/* Listeners, upstreams and targets with series of their own, each; some ten series for one. */
#define METRICS_OBJECTS_MAX 1000
/* Upstreams with histograms of their own: some thirty series for one. */
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

static void write_upstream_histograms(const struct writer *writer)
{
	const struct names *names = &writer->core->names;
	size_t n =
	        names->n[STATS_UPSTREAM] < METRICS_HISTOGRAMS_MAX ? names->n[STATS_UPSTREAM] : METRICS_HISTOGRAMS_MAX;

	for (int h = 0; h < STATS_OWN_HISTOGRAMS && n > 0; h++) {
		enum stats_histogram which = (enum stats_histogram)h;
		char name[METRIC_NAME_MAX], labels[2 * METRIC_NAME_MAX];
		bool is_time = histogram_name(name, "upstream_", which);

		head(writer, name, "histogram", stats_histogram_doc(which));
		for (size_t i = 0; i < n; i++) {
			const struct name *upstream = &names->items[STATS_UPSTREAM][i];
			struct histogram_sum sum;

			(void)stats_upstream_histogram_read(writer->memory,
			        meter_find(worker_meter(writer->core->worker), STATS_UPSTREAM, upstream->id),
			        upstream->id, which, &sum);
			labels_of(STATS_UPSTREAM, upstream, labels);
			write_buckets(writer, name, labels, &sum, is_time);
		}
	}
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
	json_object_foreach(counters, counter, value)
	        fprintf(writer->out, "%s{counter=\"%s\"} %" JSON_INTEGER_FORMAT "\n", name, counter,
	                json_integer_value(json_object_get(value, field)));
}

static void write_nft(const struct writer *writer)
{
	json_t *counters;

	if (kernel_nft_counters(writer->core->kernel, &counters) < 0)
		return;
	if (json_object_size(counters) > 0) {
		write_nft_counter(writer, counters, "packets", "packets that met a named counter of our nft table");
		write_nft_counter(writer, counters, "bytes", "bytes that met a named counter of our nft table");
	}
	json_decref(counters);
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
	write_upstream_histograms(&writer);
	write_omitted(&writer);
	write_nft(&writer);
	if (fclose(writer.out) != 0) {
		free(text);
		return -ENOMEM;
	}
	*ret = text;
	*ret_length = length;
	return 0;
}
