/*
 * Traces: what real packets of one flow meet in the kernel, for some seconds.
 * Each arms a table of its own (rules/trace.h) that goes with the socket which
 * made it, so that nothing is left behind by a daemon that was killed. What
 * was seen is kept for a while, and told as events ("trace"). Used by
 * core_trace.c; drops of prefilters come from shield.h.
 */
#ifndef GW_TRACER_H
#define GW_TRACER_H

#include <jansson.h>

#include "rules/prefilter.h"
#include "rules/trace.h"

/* At once: each makes the kernel write messages and us read them. */
#define TRACER_ARMED_MAX 4
/* Traces that are kept, the oldest makes room; and steps of one packet: the longest way through our table has some
 * twenty. */
#define TRACER_KEPT_MAX  16
#define TRACER_STEPS_MAX 48

struct core;
struct tracer;

/* 0 or -ENOMEM. */
int tracer_new(struct core *core, struct tracer **ret);
void tracer_free(struct tracer *tracer);

/* Armed when this returns 0; its number. -EUSERS (TRACER_ARMED_MAX), -ENOMEM, or what the kernel refused it with, in
 * words in ret_reason (free it). */
int tracer_start(struct tracer *tracer, const struct trace_filter *filter, unsigned seconds, unsigned packets,
        const char *actor, uint64_t *ret_number, char **ret_reason);
/* Ends one that is armed; what it saw stays. -ENOENT. */
int tracer_end(struct tracer *tracer, uint64_t number);
/* One with its packets, or all without them ({"items": []}), newest first. NULL: no memory, or (one) there is none. */
json_t *tracer_get(const struct tracer *tracer, uint64_t number);
json_t *tracer_list(const struct tracer *tracer);
bool tracer_has(const struct tracer *tracer, uint64_t number);

/* A prefilter has told a drop. */
void tracer_dropped(void *userdata, const char *interface, const struct prefilter_event *event);

#endif
