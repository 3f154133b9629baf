/* Rates and history from counters; see sampler.h. */
#include "gatewayd/sampler.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/log.h"

enum { RATE_OPENED, RATE_TO_TARGET, RATE_TO_CLIENT, RATES };

struct sample {
	uint64_t at_ms; /* CLOCK_MONOTONIC */
	uint64_t value[RATES];
};

/* The last samples, enough for the window. */
struct series {
	uint32_t id; /* of the object; 0: none yet */
	uint32_t n;  /* samples taken so far */
	struct sample sample[SAMPLER_WINDOW_S + 1];
};

struct sampler {
	sd_event_source *timer;
	const struct worker *worker;
	struct trend *trend;
	bool begun; /* there was a sample before */
	uint64_t at_ms;
	uint64_t before[TREND_VALUES];
	struct histogram_sum latencies[TREND_LATENCIES]; /* as they were then */
	struct series total;
	struct series *objects; /* by slot; pages that no object needs are never touched */
};

static uint64_t clock_ms(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* --- rates --- */

static void series_add(struct series *series, const struct sample *sample)
{
	series->sample[series->n++ % (SAMPLER_WINDOW_S + 1)] = *sample;
}

/* Counters that begin anew (the memory was lost with both processes) have no rate until they are ahead again. */
static double rate(const struct sample *old, const struct sample *new, int which)
{
	uint64_t took = new->at_ms - old->at_ms;

	if (took == 0 || new->value[which] < old->value[which])
		return 0;
	return (double)(new->value[which] - old->value[which]) * 1000.0 / (double)took;
}

static void series_rates(const struct series *series, struct sampler_rates *ret)
{
	uint32_t room = SAMPLER_WINDOW_S + 1, oldest = series->n > room ? series->n - room : 0;
	const struct sample *old = &series->sample[oldest % room], *new = &series->sample[(series->n - 1) % room];

	*ret = (struct sampler_rates){ 0 };
	if (series->n < 2)
		return;
	ret->flows_opened = rate(old, new, RATE_OPENED);
	ret->bytes_to_target = rate(old, new, RATE_TO_TARGET);
	ret->bytes_to_client = rate(old, new, RATE_TO_CLIENT);
}

/* An object that appears while we look has begun at nothing; at our own start its past is not known. */
static void sample_object(struct sampler *sampler, uint32_t slot, uint32_t id, uint64_t now_ms)
{
	struct series *series = &sampler->objects[slot];
	struct stats_object_sum sum;
	struct sample taken = { .at_ms = now_ms };

	stats_object_read(worker_stats(sampler->worker), slot, id, &sum);
	taken.value[RATE_OPENED] = sum.counter[STATS_OBJECT_flows_opened];
	taken.value[RATE_TO_TARGET] = sum.counter[STATS_OBJECT_bytes_to_target];
	taken.value[RATE_TO_CLIENT] = sum.counter[STATS_OBJECT_bytes_to_client];
	if (series->id != id) {
		if (taken.value[RATE_OPENED] == 0)
			return;
		*series = (struct series){ .id = id };
		if (sampler->begun)
			series_add(series, &(struct sample){ .at_ms = sampler->at_ms });
	}
	series_add(series, &taken);
}

static void sample_objects(struct sampler *sampler, uint64_t now_ms)
{
	const struct meter *meter = worker_meter(sampler->worker);

	for (unsigned kind = 0; kind < STATS_KINDS; kind++)
		for (size_t i = 0; i < meter_count(meter, (enum stats_kind)kind); i++) {
			uint32_t slot, id = meter_at(meter, (enum stats_kind)kind, i, &slot);

			sample_object(sampler, slot, id, now_ms);
		}
}

/* --- the whole --- */

static uint64_t sum_refused(const struct stats_memory *memory)
{
	uint64_t sum = 0;

	for (int i = 0; i < STATS_COUNTERS; i++)
		if (strncmp(stats_name((enum stats_counter)i), "refused_", strlen("refused_")) == 0)
			sum += stats_sum(memory, (enum stats_counter)i);
	return sum;
}

static void read_totals(const struct stats_memory *memory, uint64_t values[TREND_VALUES])
{
	values[TREND_flows_opened] = stats_sum(memory, STATS_flows_opened);
	values[TREND_flows_reset] = stats_sum(memory, STATS_flows_reset);
	values[TREND_refused] = sum_refused(memory);
	values[TREND_connect_failed] = stats_sum(memory, STATS_connect_failed) +
	                               stats_sum(memory, STATS_connect_timeout) +
	                               stats_sum(memory, STATS_source_ports_exhausted);
	values[TREND_bytes_to_target] = stats_sum(memory, STATS_bytes_to_target);
	values[TREND_bytes_to_client] = stats_sum(memory, STATS_bytes_to_client);
	values[TREND_flows_active] = stats_active_all(memory);
}

/* What was measured since the last look. */
static void read_latencies(struct sampler *sampler, struct trend_latencies *ret)
{
	static const enum stats_histogram histograms[] = {
		[TREND_CONNECT_TIME] = STATS_HISTOGRAM_connect_time, [TREND_FIRST_BYTE] = STATS_HISTOGRAM_first_byte
	};

	static_assert(ARRAY_SIZE(histograms) == TREND_LATENCIES, "one for each");
	for (size_t i = 0; i < TREND_LATENCIES; i++) {
		struct histogram_sum now;

		stats_histogram_read(worker_stats(sampler->worker), histograms[i], &now);
		trend_fold(&sampler->latencies[i], &now, ret->count[i]);
		sampler->latencies[i] = now;
	}
}

static void sample_total(struct sampler *sampler, uint64_t now_ms)
{
	struct trend_point point = { .time = (int64_t)(clock_ms(CLOCK_REALTIME) / 1000),
		.span_ms = now_ms - sampler->at_ms };
	struct sample taken = { .at_ms = now_ms };
	uint64_t now[TREND_VALUES];
	struct trend_latencies latencies;

	read_latencies(sampler, &latencies);
	read_totals(worker_stats(sampler->worker), now);
	taken.value[RATE_OPENED] = now[TREND_flows_opened];
	taken.value[RATE_TO_TARGET] = now[TREND_bytes_to_target];
	taken.value[RATE_TO_CLIENT] = now[TREND_bytes_to_client];
	series_add(&sampler->total, &taken);
	for (int i = 0; i < TREND_VALUES; i++)
		point.value[i] = now[i] >= sampler->before[i] ? now[i] - sampler->before[i] : now[i];
	point.value[TREND_flows_active] = now[TREND_flows_active];
	if (sampler->begun)
		trend_add(sampler->trend, &point, &latencies);
	memcpy(sampler->before, now, sizeof(now));
}

/* --- the timer --- */

/* Just behind the next whole second of the day, so that each second has one sample. */
static uint64_t until_next_us(void)
{
	return (1000 - clock_ms(CLOCK_REALTIME) % 1000) * 1000;
}

static void sample(struct sampler *sampler)
{
	uint64_t now_ms = clock_ms(CLOCK_MONOTONIC);

	sample_objects(sampler, now_ms);
	sample_total(sampler, now_ms);
	sampler->at_ms = now_ms;
	sampler->begun = true;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct sampler *sampler = userdata;

	(void)usec;
	sample(sampler);
	(void)sd_event_source_set_time_relative(source, until_next_us());
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

int sampler_new(sd_event *event, const struct worker *worker, const char *directory, struct sampler **ret)
{
	struct sampler *sampler = calloc(1, sizeof(*sampler));
	char path[PATH_MAX] = "";
	int r;

	if (!sampler)
		return -ENOMEM;
	sampler->worker = worker;
	sampler->objects = calloc(STATS_SLOTS_MAX, sizeof(*sampler->objects));
	if (directory)
		snprintf(path, sizeof(path), "%s/history", directory);
	r = sampler->objects
	            ? trend_open(*path ? path : NULL, (int64_t)(clock_ms(CLOCK_REALTIME) / 1000), &sampler->trend)
	            : -ENOMEM;
	if (r == 0)
		sample(sampler); /* what later ones are compared with */
	if (r == 0)
		r = sd_event_add_time_relative(
		        event, &sampler->timer, CLOCK_MONOTONIC, until_next_us(), 1000, on_timer, sampler);
	if (r < 0) {
		sampler_free(sampler);
		return r;
	}
	*ret = sampler;
	return 0;
}

void sampler_free(struct sampler *sampler)
{
	if (!sampler)
		return;
	sd_event_source_disable_unref(sampler->timer);
	trend_close(sampler->trend);
	free(sampler->objects);
	free(sampler);
}

void sampler_total(const struct sampler *sampler, struct sampler_rates *ret)
{
	series_rates(&sampler->total, ret);
}

void sampler_object(const struct sampler *sampler, uint32_t slot, uint32_t id, struct sampler_rates *ret)
{
	*ret = (struct sampler_rates){ 0 };
	if (slot < STATS_SLOTS_MAX && sampler->objects[slot].id == id)
		series_rates(&sampler->objects[slot], ret);
}

const struct trend *sampler_trend(const struct sampler *sampler)
{
	return sampler->trend;
}
