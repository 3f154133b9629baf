/* What becomes of flows; see records.h. */
#include "gatewayd/records.h"

#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <time.h>

#include "gatewayd/base/clock.h"
#include "gatewayd/base/log.h"
#include "gatewayd/record_events.h"
#include "gatewayd/record_log.h"
#include "gatewayd/record_text.h"

/* Names of interfaces that are remembered for the length of one look. */
#define INTERFACES_MAX 16

struct interface {
	uint32_t index;
	char name[IF_NAMESIZE];
};

struct records {
	struct core *core;
	sd_event_source *timer;
	uint64_t pause_ms;
	struct record_log *log;
	struct talkers *talkers;
	int64_t talkers_since;
	struct record_events told;
	struct events_listener listener;
	uint64_t now_ms;                    /* of this look, CLOCK_MONOTONIC */
	uint32_t every[STATS_RECORD_KINDS]; /* of how many flows the log has one; 0: none */
	uint32_t fields;
	int64_t clock_ms;
	struct interface interfaces[INTERFACES_MAX];
	unsigned n_interfaces;
};

/* --- what is wanted --- */

static const struct settings *settings_of(const struct records *records)
{
	return (const struct settings *)core_find(records->core, RESOURCE_SETTINGS, "settings");
}

static uint32_t fields_of(const struct settings *settings)
{
	uint32_t fields = 0;

	for (size_t i = 0; i < settings->flow_log_fields.n; i++)
		fields |= UINT32_C(1) << flow_field_of_word(settings->flow_log_fields.items[i]);
	return fields ? fields : RECORD_TEXT_ALL;
}

static void follow_log(struct records *records, const struct settings *settings)
{
	int64_t events = settings->flow_log_events;
	bool off = settings->flow_log_destination == FLOW_LOG_DESTINATION_OFF;
	uint32_t sample = off ? 0 : (uint32_t)settings->flow_log_sample;

	records->every[STATS_RECORD_START] = events == FLOW_LOG_EVENTS_END ? 0 : sample;
	records->every[STATS_RECORD_END] = events == FLOW_LOG_EVENTS_START ? 0 : sample;
	records->fields = fields_of(settings);
	if (off)
		record_log_close(records->log);
	else
		record_log_open(records->log,
		        settings->flow_log_destination == FLOW_LOG_DESTINATION_FILE ? settings->flow_log_file : NULL);
}

/* Another number of talkers: those that were seen last stay. */
static void follow_talkers(struct records *records, const struct settings *settings)
{
	struct talkers *talkers;

	if (settings->talkers_kept == talkers_max(records->talkers))
		return;
	if (talkers_new((uint32_t)settings->talkers_kept, &talkers) < 0) {
		log_warning("%lld talkers cannot be kept: memory is out", (long long)settings->talkers_kept);
		return;
	}
	talkers_take(talkers, records->talkers);
	talkers_free(records->talkers);
	records->talkers = talkers;
}

/* Says so to the relay, which looks at each beginning and end. */
static void want(struct records *records)
{
	struct stats_wanted *wanted = worker_wanted(records->core->worker);

	for (unsigned kind = 0; kind < STATS_RECORD_KINDS; kind++) {
		bool each = record_events_are_wanted(&records->told) ||
		            (kind == STATS_RECORD_END && talkers_max(records->talkers) > 0);

		atomic_store_explicit(&wanted->every[kind], each ? 1 : records->every[kind], memory_order_relaxed);
	}
}

/* --- one record --- */

static const char *name_of(struct records *records, enum stats_kind kind, uint32_t id)
{
	const struct name *name = names_find(&records->core->names, kind, id);

	return name ? row_name(name->row) : NULL;
}

static void interface_of(struct records *records, uint32_t index, char ret[IF_NAMESIZE])
{
	struct interface *found = records->interfaces, *end = found + records->n_interfaces;

	ret[0] = '\0';
	if (index == 0)
		return;
	while (found < end && found->index != index)
		found++;
	if (found == end) {
		found = records->n_interfaces < INTERFACES_MAX ? &records->interfaces[records->n_interfaces++]
		                                               : end - 1;
		found->index = index;
		if (!if_indextoname(index, found->name))
			found->name[0] = '\0';
	}
	memcpy(ret, found->name, IF_NAMESIZE);
}

static void write_line(struct records *records, const struct record_view *view)
{
	char line[RECORD_TEXT_MAX];
	size_t length = record_text(view, records->fields, line);
	struct worker *worker = records->core->worker;

	if (record_log_put(records->log, line, length))
		return;
	worker_count(worker, STATS_flow_records_written, record_log_flush(records->log));
	if (!record_log_put(records->log, line, length))
		worker_count(worker, STATS_flow_records_unwritten, 1);
}

static void take(struct records *records, const struct stats_record *record)
{
	const struct stats_flow *flow = &record->flow;
	struct record_view view = { .record = record,
		.listener = name_of(records, STATS_LISTENER, flow->listener),
		.upstream = name_of(records, STATS_UPSTREAM, flow->upstream),
		.clock_ms = records->clock_ms };

	interface_of(records, flow->ifindex, view.interface);
	if (record->kind == STATS_RECORD_END)
		talkers_add(records->talkers, flow, record->at_ms, records->clock_ms);
	if (stats_record_is_sampled(flow->id, records->every[record->kind]))
		write_line(records, &view);
	record_events_offer(&records->told, &view, records->now_ms);
}

/* --- a look --- */

static uint64_t realtime_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void look_begin(struct records *records)
{
	int64_t clock_ms;

	(void)names_follow(&records->core->names, apply_snapshot(records->core->apply)); /* else there are no names */
	records->now_ms = clock_us() / 1000;
	clock_ms = (int64_t)(realtime_ms() - records->now_ms);
	/* Both are cut to milliseconds, each at a time of its own: one more or less is no other time of day. */
	if (clock_ms > records->clock_ms + 1 || clock_ms < records->clock_ms - 1)
		records->clock_ms = clock_ms;
	records->n_interfaces = 0;
}

static void look_end(struct records *records)
{
	record_events_tick(&records->told, records->now_ms);
	worker_count(records->core->worker, STATS_flow_records_written, record_log_flush(records->log));
}

/* Takes what is in the rings of a bank, at most *budget. */
static void look_at_bank(struct records *records, unsigned bank, size_t *budget)
{
	const struct stats_memory *memory = worker_stats(records->core->worker);
	struct stats_record record;

	for (unsigned i = 0; i < stats_threads(memory, bank); i++) {
		struct stats_ring *ring = worker_ring(records->core->worker, bank, i);

		while (*budget > 0 && stats_ring_take(ring, &record)) {
			take(records, &record);
			(*budget)--;
		}
	}
}

/* How many were taken. */
static size_t look(struct records *records)
{
	size_t budget = RECORDS_SLICE;

	look_begin(records);
	for (unsigned bank = 0; bank < STATS_BANKS; bank++)
		look_at_bank(records, bank, &budget);
	look_end(records);
	return RECORDS_SLICE - budget;
}

/* There may be a reader of single flows by now. */
static void on_events(void *userdata)
{
	want(userdata);
}

static void follow(struct records *records)
{
	const struct settings *settings = settings_of(records);

	if (settings) {
		follow_log(records, settings);
		follow_talkers(records, settings);
	}
	want(records);
}

void records_follow(struct records *records)
{
	(void)look(records); /* what came before is dealt with as it was wanted then */
	follow(records);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct records *records = userdata;
	size_t n = look(records);

	(void)usec;
	if (n == 0)
		records->pause_ms =
		        records->pause_ms * 2 < RECORDS_PAUSE_MAX_MS ? records->pause_ms * 2 : RECORDS_PAUSE_MAX_MS;
	else
		records->pause_ms = n < RECORDS_SLICE ? RECORDS_PAUSE_MS : 1;
	want(records);
	(void)sd_event_source_set_time_relative(source, records->pause_ms * 1000);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

/* --- a relay that has ended --- */

/* A flow that its relay has left behind, unless the next one goes on with it. */
static void take_left(struct records *records, const struct stats_rows *rows, uint32_t number, enum flow_why why)
{
	struct stats_record record = { .at_ms = clock_us() / 1000, .kind = STATS_RECORD_END, .end = (uint8_t)why };

	if (stats_row_id(&rows->row[number]) == 0 || !stats_row_read(rows, number, &record.flow) ||
	        worker_holds(records->core->worker, record.flow.id))
		return;
	if (stats_record_is_wanted(worker_wanted(records->core->worker), STATS_RECORD_END, record.flow.id))
		take(records, &record);
}

void records_relay_ended(struct records *records, unsigned bank, bool handed_over)
{
	const struct stats_memory *memory = worker_stats(records->core->worker);
	enum flow_why why = handed_over ? FLOW_END_relay_ended : FLOW_END_relay_died;
	size_t budget = (size_t)STATS_RECORDS_MAX * STATS_THREADS_MAX;

	look_begin(records);
	look_at_bank(records, bank, &budget);
	for (unsigned table = 0; table < stats_tables(memory, bank); table++) {
		uint32_t first, n = stats_rows_left(memory, bank, table, &first);

		for (uint32_t i = 0; i < n; i++)
			take_left(records, &memory->rows[bank], first + i, why);
	}
	look_end(records);
}

/* --- the whole --- */

int records_new(struct core *core, struct records **ret)
{
	struct records *records = calloc(1, sizeof(*records));
	int r;

	if (!records)
		return -ENOMEM;
	records->core = core;
	records->told.events = core->events;
	records->listener = (struct events_listener){ .wake = on_events, .userdata = records };
	records->pause_ms = RECORDS_PAUSE_MS;
	records->talkers_since = (int64_t)time(NULL);
	r = record_log_new(core->options->log_dir, &records->log);
	if (r == 0)
		r = talkers_new(0, &records->talkers);
	if (r == 0)
		r = sd_event_add_time_relative(core->event, &records->timer, CLOCK_MONOTONIC,
		        records->pause_ms * UINT64_C(1000), 1000, on_timer, records);
	if (r < 0) {
		records_free(records);
		return r;
	}
	follow(records);
	if (core->events)
		events_listen(core->events, &records->listener);
	*ret = records;
	return 0;
}

void records_free(struct records *records)
{
	if (!records)
		return;
	sd_event_source_disable_unref(records->timer);
	if (records->core->events)
		events_unlisten(records->core->events, &records->listener);
	if (records->log && records->talkers)
		(void)look(records);
	record_log_free(records->log);
	talkers_free(records->talkers);
	free(records);
}

const struct talkers *records_talkers(const struct records *records, int64_t *ret_since)
{
	*ret_since = records->talkers_since;
	return records->talkers;
}

json_t *records_status(const struct records *records)
{
	const struct settings *settings = settings_of(records);
	static const char *const words[] = { "off", "file", "journal" };
	const char *fault = record_log_fault(records->log);

	static_assert(ARRAY_SIZE(words) == FLOW_LOG_DESTINATION_WORDS, "one word each");
	if (!settings)
		return json_null();
	return json_pack("{s:s, s:o, s:b, s:s?}", "destination", words[settings->flow_log_destination], "file",
	        settings->flow_log_destination == FLOW_LOG_DESTINATION_FILE
	                ? json_sprintf("%s/%s", records->core->options->log_dir, settings->flow_log_file)
	                : json_null(),
	        "ok", fault == NULL, "fault", fault);
}
