/* Flows as events; see record_events.h. */
#include "gatewayd/record_events.h"

bool record_events_are_wanted(const struct record_events *told)
{
	return told->events && events_flow_readers(told->events) > 0;
}

static void publish(struct record_events *told, const struct record_view *view)
{
	bool start = view->record->kind == STATS_RECORD_START;
	char line[RECORD_TEXT_MAX];
	json_t *data;

	record_text(view, RECORD_TEXT_ALL & ~(UINT32_C(1) << FLOW_FIELD_event), line);
	data = json_loads(line, 0, NULL);
	if (data)
		events_publish(told->events, start ? "flow_start" : "flow_end", data);
}

void record_events_tick(struct record_events *told, uint64_t now_ms)
{
	if (now_ms - told->second_ms < 1000)
		return;
	if (told->left_out > 0 && record_events_are_wanted(told))
		events_publish(told->events, EVENTS_LEFT_OUT,
		        json_pack("{s:I, s:s}", "left_out", (json_int_t)told->left_out, "why", "rate"));
	told->second_ms = now_ms;
	told->told = 0;
	told->left_out = 0;
}

void record_events_offer(struct record_events *told, const struct record_view *view, uint64_t now_ms)
{
	if (!record_events_are_wanted(told))
		return;
	record_events_tick(told, now_ms);
	if (told->told == RECORD_EVENTS_PER_S) {
		told->left_out++;
		return;
	}
	told->told++;
	publish(told, view);
}
