/*
 * Beginnings and ends of single flows as events (webapi/events.h), while
 * somebody reads them: at most so many a second, and word of how many were left
 * out. Used by records.c.
 */
#ifndef GW_RECORD_EVENTS_H
#define GW_RECORD_EVENTS_H

#include "gatewayd/record_text.h"
#include "webapi/events.h"

/* As many as a person can look through, and a browser. */
#define RECORD_EVENTS_PER_S 100

struct record_events {
	struct events *events; /* NULL: nobody is told */
	uint64_t second_ms;    /* when the count below began */
	unsigned told;
	uint64_t left_out;
};

/* Whether anybody wants any. */
bool record_events_are_wanted(const struct record_events *told);
void record_events_offer(struct record_events *told, const struct record_view *view, uint64_t now_ms);
/* To be called now and then: tells what was left out, once a second. */
void record_events_tick(struct record_events *told, uint64_t now_ms);

#endif
