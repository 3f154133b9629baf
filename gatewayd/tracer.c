/*
 * Traces: arming, gathering, ending; see tracer.h.
 *
 * Theory of operation. The kernel sends one message for each rule that a
 * traced packet matches, in their order, and tells the packet itself only
 * with the first of each table. So steps are gathered by the packet's number
 * until nothing more has come for a moment; then it is judged, kept and told.
 */
#include "gatewayd/tracer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "gatewayd/base/clock.h"
#include "gatewayd/base/log.h"
#include "gatewayd/tracer_private.h"

/* Packets whose steps are being gathered at a time: those of TRACE_PACKETS_PER_S within QUIET_MS, of all traces. */
#define GATHERED_MAX 32
/* A packet's steps follow each other within microseconds; this is for a busy machine. */
#define QUIET_MS 50

struct tracer {
	struct core *core;
	struct kernel_trace *kernel; /* NULL: nothing is armed */
	sd_event_source *io, *quiet;
	uint64_t last; /* number of the newest trace */
	struct trace traces[TRACER_KEPT_MAX];
	struct gathered *gathered; /* GATHERED_MAX of them while something is armed */
};

int tracer_new(struct core *core, struct tracer **ret)
{
	struct tracer *tracer = calloc(1, sizeof(*tracer));

	if (!tracer)
		return -ENOMEM;
	tracer->core = core;
	*ret = tracer;
	return 0;
}

/* --- the end --- */

static void close_kernel(struct tracer *tracer)
{
	tracer->io = sd_event_source_disable_unref(tracer->io);
	tracer->quiet = sd_event_source_disable_unref(tracer->quiet);
	kernel_trace_free(TAKE_PTR(tracer->kernel));
	free(TAKE_PTR(tracer->gathered));
}

static unsigned armed(const struct tracer *tracer)
{
	unsigned n = 0;

	for (size_t i = 0; i < TRACER_KEPT_MAX; i++)
		n += tracer->traces[i].hold != NULL;
	return n;
}

static void disarm(struct trace *trace, const char *why)
{
	if (!trace->hold)
		return;
	trace->timer = sd_event_source_disable_unref(trace->timer);
	kernel_hold_free(TAKE_PTR(trace->hold));
	shortcut_release(trace->tracer->core->shortcut);
	trace->why = why;
	core_tell(trace->tracer->core, "trace_end",
	        json_pack("{s:I, s:s}", "trace", (json_int_t)trace->number, "why", why));
}

static void forget(struct trace *trace)
{
	disarm(trace, "ended");
	json_decref(trace->packets);
	*trace = (struct trace){ 0 };
}

void tracer_free(struct tracer *tracer)
{
	if (!tracer)
		return;
	for (size_t i = 0; i < TRACER_KEPT_MAX; i++)
		if (tracer->traces[i].number)
			forget(&tracer->traces[i]);
	close_kernel(tracer);
	free(tracer);
}

static struct trace *find(const struct tracer *tracer, uint64_t number)
{
	for (size_t i = 0; number && i < TRACER_KEPT_MAX; i++)
		if (tracer->traces[i].number == number)
			return (struct trace *)&tracer->traces[i];
	return NULL;
}

/* --- packets --- */

/* Takes over the document. */
static void keep_packet(struct trace *trace, json_t *packet)
{
	if (!packet || json_array_size(trace->packets) >= trace->packets_max) {
		json_decref(packet);
		return;
	}
	(void)json_array_append(trace->packets, packet);
	json_object_set_new(packet, "trace", json_integer((json_int_t)trace->number));
	core_tell(trace->tracer->core, "trace", packet);
	if (json_array_size(trace->packets) >= trace->packets_max)
		disarm(trace, "packets");
}

static void conclude(struct tracer *tracer, struct gathered *gathered)
{
	struct trace *trace = find(tracer, gathered->trace);

	if (trace)
		keep_packet(trace, tracer_packet_document(tracer->core, core_rules(tracer->core), gathered));
	gathered->trace = 0;
}

/* Those of which nothing has come for a while, or (at the end) all. Whether any are left. */
static bool conclude_quiet(struct tracer *tracer, bool all)
{
	uint64_t now = clock_us();
	bool left = false;

	for (size_t i = 0; i < GATHERED_MAX; i++) {
		struct gathered *gathered = &tracer->gathered[i];

		if (gathered->trace && (all || now - gathered->last_us >= QUIET_MS * UINT64_C(1000)))
			conclude(tracer, gathered);
		left |= gathered->trace != 0;
	}
	return left;
}

static struct trace *wanted_by(struct tracer *tracer, const struct trace_packet *packet, enum trace_way *ret_way)
{
	for (size_t i = 0; i < TRACER_KEPT_MAX; i++) {
		*ret_way = tracer->traces[i].hold ? trace_way_of(&tracer->traces[i].filter, packet) : TRACE_NONE;
		if (*ret_way != TRACE_NONE)
			return &tracer->traces[i];
	}
	return NULL;
}

/* Whether the step is the one in which the packet was chosen. */
static bool is_choice(const struct trace_step *step)
{
	return strncmp(step->table, TRACE_TABLE, sizeof(TRACE_TABLE) - 1) == 0;
}

static bool is_beginning(const struct trace_event *event)
{
	return event->has_packet && is_choice(&event->step);
}

/* Whether the event is about this packet. The kernel makes the number of where the packet lies in memory, so that the
 * next one of a flow often has the same: it begins where packets are chosen. */
static bool is_about(const struct gathered *gathered, const struct trace_event *event)
{
	return gathered->id == event->id && !gathered->closed &&
	       !(is_beginning(event) && (gathered->n > 0 || strcmp(gathered->begun, event->step.table) == 0));
}

/* Where the steps of this event's packet are gathered; NULL: nobody asked for it, or there are too many. */
static struct gathered *place_of(struct tracer *tracer, const struct trace_event *event)
{
	struct gathered *place = NULL;
	struct trace *trace;
	enum trace_way way;

	for (size_t i = 0; i < GATHERED_MAX; i++) {
		struct gathered *one = &tracer->gathered[i];

		if (!one->trace)
			place = place ? place : one;
		else if (is_about(one, event))
			return one;
		else if (one->id == event->id)
			one->closed = true;
	}
	trace = place && is_beginning(event) ? wanted_by(tracer, &event->packet, &way) : NULL;
	if (!trace)
		return NULL;
	*place = (struct gathered){ .trace = trace->number, .id = event->id, .way = way, .packet = event->packet };
	memcpy(place->begun, event->step.table, sizeof(place->begun));
	if (!if_indextoname(event->interface, place->interface))
		place->interface[0] = '\0';
	return place;
}

static void take_event(struct tracer *tracer, const struct trace_event *event)
{
	struct gathered *gathered = place_of(tracer, event);

	if (!gathered)
		return;
	gathered->last_us = clock_us();
	if (is_choice(&event->step) || trace_step_counts(&event->step))
		return;
	if (gathered->n < TRACER_STEPS_MAX)
		gathered->steps[gathered->n++] = event->step;
	else
		gathered->more = true;
}

static void close_if_over(struct tracer *tracer)
{
	if (tracer->kernel && armed(tracer) == 0)
		close_kernel(tracer);
}

static int on_quiet(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct tracer *tracer = userdata;

	(void)usec;
	if (conclude_quiet(tracer, false)) {
		(void)sd_event_source_set_time_relative(source, QUIET_MS * UINT64_C(1000));
		(void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	}
	close_if_over(tracer);
	return 0;
}

static int on_trace(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct tracer *tracer = userdata;
	struct trace_event event;
	int r;

	(void)source;
	(void)fd;
	(void)events;
	while ((r = kernel_trace_next(tracer->kernel, &event)) > 0)
		take_event(tracer, &event);
	if (r < 0)
		log_warning("traces have gaps: %s", strerror(-r));
	(void)sd_event_source_set_time_relative(tracer->quiet, QUIET_MS * UINT64_C(1000));
	(void)sd_event_source_set_enabled(tracer->quiet, SD_EVENT_ONESHOT);
	return 0;
}

void tracer_dropped(void *userdata, const char *interface, const struct prefilter_event *event)
{
	struct tracer *tracer = userdata;
	struct trace_packet packet = { .protocol = event->protocol,
		.src_port = event->source_port,
		.dst_port = event->destination_port,
		.length = event->length };
	enum trace_way way;
	struct trace *trace;

	if (armed(tracer) == 0 || (event->source.family != AF_INET && event->source.family != AF_INET6))
		return;
	packet.src.family = packet.dst.family = (uint8_t)event->source.family;
	memcpy(packet.src.bytes, event->source.addr, addr_bits(packet.src.family) / 8);
	memcpy(packet.dst.bytes, event->destination, addr_bits(packet.dst.family) / 8);
	trace = wanted_by(tracer, &packet, &way);
	if (trace)
		keep_packet(trace, tracer_drop_document(trace, way, &packet, interface,
		                           shield_reason_name((enum prefilter_reason)event->reason),
		                           core_limit_name(tracer->core, event->limit)));
}

/* --- the beginning --- */

static int open_kernel(struct tracer *tracer)
{
	int r;

	if (tracer->kernel)
		return 0;
	tracer->gathered = calloc(GATHERED_MAX, sizeof(*tracer->gathered));
	r = tracer->gathered ? kernel_trace_open(&tracer->kernel) : -ENOMEM;
	if (r == 0)
		r = sd_event_add_time_relative(
		        tracer->core->event, &tracer->quiet, CLOCK_MONOTONIC, 0, 1000, on_quiet, tracer);
	if (r >= 0)
		r = sd_event_add_io(
		        tracer->core->event, &tracer->io, kernel_trace_fd(tracer->kernel), EPOLLIN, on_trace, tracer);
	if (r < 0)
		close_kernel(tracer);
	return r < 0 ? r : 0;
}

static int on_time(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct trace *trace = userdata;
	struct tracer *tracer = trace->tracer;

	(void)source;
	(void)usec;
	(void)conclude_quiet(tracer, true);
	disarm(trace, "time");
	close_if_over(tracer);
	return 0;
}

/* The oldest that is over makes room: no more than TRACER_ARMED_MAX are not. */
static struct trace *make_room(struct tracer *tracer)
{
	struct trace *oldest = NULL;

	for (size_t i = 0; i < TRACER_KEPT_MAX; i++) {
		struct trace *trace = &tracer->traces[i];

		if (!trace->hold && (!oldest || trace->number < oldest->number))
			oldest = trace;
	}
	forget(oldest);
	return oldest;
}

static int arm(struct trace *trace, char **ret_reason)
{
	_cleanup_free_ char *text = NULL;
	struct tracer *tracer = trace->tracer;
	int r = trace_render(&trace->filter, (unsigned)trace->number, trace->seconds, &text);

	if (r == 0)
		r = kernel_hold_new(text, &trace->hold, ret_reason);
	if (trace->hold) /* what is traced must meet the rules */
		shortcut_hold(tracer->core->shortcut);
	if (r == 0)
		r = sd_event_add_time_relative(tracer->core->event, &trace->timer, CLOCK_MONOTONIC,
		        trace->seconds * UINT64_C(1000000), 1000, on_time, trace);
	return r < 0 ? r : 0;
}

int tracer_start(struct tracer *tracer, const struct trace_filter *filter, unsigned seconds, unsigned packets,
        const char *actor, uint64_t *ret_number, char **ret_reason)
{
	struct trace *trace;
	int r;

	*ret_reason = NULL;
	if (armed(tracer) >= TRACER_ARMED_MAX)
		return -EUSERS;
	r = open_kernel(tracer);
	if (r < 0)
		return r;
	trace = make_room(tracer);
	*trace = (struct trace){ .number = ++tracer->last,
		.filter = *filter,
		.seconds = seconds,
		.packets_max = packets,
		.started_at = (int64_t)time(NULL),
		.tracer = tracer,
		.packets = json_array() };
	snprintf(trace->actor, sizeof(trace->actor), "%s", actor);
	r = trace->packets ? arm(trace, ret_reason) : -ENOMEM;
	if (r < 0) {
		forget(trace);
		close_if_over(tracer);
		return r;
	}
	*ret_number = trace->number;
	return 0;
}

int tracer_end(struct tracer *tracer, uint64_t number)
{
	struct trace *trace = find(tracer, number);

	if (!trace)
		return -ENOENT;
	if (trace->hold)
		(void)conclude_quiet(tracer, true);
	disarm(trace, "ended");
	close_if_over(tracer);
	return 0;
}

bool tracer_has(const struct tracer *tracer, uint64_t number)
{
	return find(tracer, number) != NULL;
}

json_t *tracer_get(const struct tracer *tracer, uint64_t number)
{
	const struct trace *trace = find(tracer, number);

	return trace ? tracer_document(trace, true) : NULL;
}

json_t *tracer_list(const struct tracer *tracer)
{
	json_t *items = json_array();

	for (uint64_t number = tracer->last; items && number > 0; number--) {
		const struct trace *trace = find(tracer, number);

		if (!trace && number + TRACER_KEPT_MAX <= tracer->last)
			break;
		if (trace && json_array_append_new(items, tracer_document(trace, false)) < 0) {
			json_decref(items);
			return NULL;
		}
	}
	return json_pack("{s:o}", "items", items);
}
