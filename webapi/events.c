/*
 * Events and their readers, see events.h.
 *
 * Theory of operation. An event is made into the bytes of the stream once. A
 * reader takes a copy of the one it is sending, so that the ring can go on
 * under it. There are two rings, of which the one of single flows is read only
 * by those who ask for it; numbers are given out across both, so that a reader
 * has one place, the number of the last event it has got. In each ring it has a
 * position besides. When that has left the ring, the reader was too slow: it is
 * dropped, or, for single flows, told how many are missing. Only a new reader
 * may begin with a gap, which it is told of.
 */
#include "webapi/events.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "webapi/problem.h"
#include "webapi/url.h"
#include "webapi/watch.h"

struct event {
	int64_t id;
	char *type, *text; /* NULL: lost */
	size_t length;
};

/* Positions count from the first event of a ring on. */
struct ring {
	struct event *slots;
	size_t room, bytes, bytes_max;
	uint64_t first, next; /* positions: of the oldest event that is kept, and of the one to come */
	int64_t forgotten;    /* number of the newest event that is not kept any more; 0: none */
};

enum { RING_ALL, RING_FLOWS, RINGS };

struct events {
	struct ring ring[RINGS];
	struct event slots[EVENTS_RING], flow_slots[EVENTS_FLOWS_RING];
	int64_t first, next; /* numbers: of the first event ever, and of the one to come */
	unsigned readers, flow_readers;
	struct events_listener *listeners;
};

struct events_reader {
	struct events *events;
	uint64_t next[RINGS]; /* positions */
	int64_t last;         /* number of the event that was sent last, or stands for the place where it began */
	char *types;          /* ",a,b,"; NULL: all but single flows */
	bool flows;           /* single flows too */
	char *out;            /* what is being sent */
	size_t at, length;
	uint64_t until; /* when the stream ends by itself, microseconds */
	bool beat, over;
};

struct events *events_new(void)
{
	struct events *events = calloc(1, sizeof(*events));

	if (!events)
		return NULL;
	events->first = events->next = (int64_t)time(NULL) * 1000000;
	events->ring[RING_ALL] = (struct ring){ .slots = events->slots, EVENTS_RING, .bytes_max = EVENTS_BYTES_MAX };
	events->ring[RING_FLOWS] =
	        (struct ring){ .slots = events->flow_slots, EVENTS_FLOWS_RING, .bytes_max = EVENTS_FLOWS_BYTES_MAX };
	return events;
}

static struct event *slot(const struct ring *ring, uint64_t position)
{
	return &ring->slots[position % ring->room];
}

static void forget_oldest(struct ring *ring)
{
	struct event *event = slot(ring, ring->first++);

	ring->forgotten = event->id;
	ring->bytes -= event->length;
	free(event->type);
	free(event->text);
	*event = (struct event){ 0 };
}

void events_free(struct events *events)
{
	if (!events)
		return;
	for (int i = 0; i < RINGS; i++)
		while (events->ring[i].first < events->ring[i].next)
			forget_oldest(&events->ring[i]);
	free(events);
}

int64_t events_newest(const struct events *events)
{
	return events->first < events->next ? events->next - 1 : 0;
}

unsigned events_flow_readers(const struct events *events)
{
	return events->flow_readers;
}

static bool is_of_flow(const char *type)
{
	return strncmp(type, "flow_", strlen("flow_")) == 0;
}

/* The bytes of an event, without line breaks in its data. NULL when memory is out. */
static char *text_of(int64_t id, const char *type, const json_t *data)
{
	_cleanup_free_ char *json = json_dumps(data, JSON_COMPACT);
	char *text;

	if (!json)
		return NULL;
	return asprintf(&text, "id: %" PRId64 "\nevent: %s\ndata: %s\n\n", id, type,
	               strlen(json) > EVENT_BYTES_MAX ? "{\"too_large\":true}" : json) < 0
	               ? NULL
	               : text;
}

/* An event that could not be made for want of memory takes its place too: readers see a gap in the numbers. */
static void ring_put(struct ring *ring, const struct event *event)
{
	while (ring->first < ring->next &&
	        (ring->next - ring->first >= ring->room || ring->bytes + event->length > ring->bytes_max))
		forget_oldest(ring);
	*slot(ring, ring->next++) = *event;
	ring->bytes += event->length;
}

static void wake_all(const struct events *events)
{
	for (struct events_listener *listener = events->listeners; listener; listener = listener->next)
		listener->wake(listener->userdata);
}

void events_publish(struct events *events, const char *type, json_t *data)
{
	_cleanup_free_ char *text = text_of(events->next, type, data), *copy = strdup(type);
	struct event event = { .id = events->next };

	json_decref(data);
	if (text && copy) {
		event.length = strlen(text);
		event.type = TAKE_PTR(copy);
		event.text = TAKE_PTR(text);
	}
	events->next++;
	ring_put(&events->ring[is_of_flow(type) ? RING_FLOWS : RING_ALL], &event);
	wake_all(events);
}

void events_listen(struct events *events, struct events_listener *listener)
{
	listener->next = events->listeners;
	events->listeners = listener;
}

void events_unlisten(struct events *events, struct events_listener *listener)
{
	struct events_listener **at = &events->listeners;

	while (*at && *at != listener)
		at = &(*at)->next;
	if (*at)
		*at = listener->next;
}

/* Gives the reader something of its own to send. */
__attribute__((format(printf, 2, 3))) static int say(struct events_reader *reader, const char *format, ...)
{
	va_list arguments;
	char *text;
	int n;

	va_start(arguments, format);
	n = vasprintf(&text, format, arguments);
	va_end(arguments);
	if (n < 0)
		return -ENOMEM;
	free(reader->out);
	reader->out = text;
	reader->at = 0;
	reader->length = (size_t)n;
	return 0;
}

/* "a,b" as ",a,b,". */
static int take_types(struct events_reader *reader, const char *types)
{
	if (!types)
		return 0;
	if (!*types || strlen(types) > EVENTS_TYPES_BYTES_MAX ||
	        strspn(types, "abcdefghijklmnopqrstuvwxyz0123456789_,") != strlen(types))
		return -EINVAL;
	if (asprintf(&reader->types, ",%s,", types) < 0) {
		reader->types = NULL;
		return -ENOMEM;
	}
	reader->flows = strstr(reader->types, ",flow_") != NULL;
	reader->events->flow_readers += reader->flows;
	return 0;
}

/* The position behind the events up to this number. */
static uint64_t position_behind(const struct ring *ring, int64_t number)
{
	uint64_t low = ring->first, high = ring->next;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (slot(ring, middle)->id <= number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Number of the oldest event that is kept, or to come. */
static int64_t oldest(const struct events *events)
{
	const struct ring *ring = &events->ring[RING_ALL];

	return ring->first < ring->next ? slot(ring, ring->first)->id : events->next;
}

/* Puts the reader behind an event that may have left the ring, or be of another time. */
static int take_place(struct events_reader *reader, int64_t after)
{
	const struct events *events = reader->events;
	const struct ring *ring = &events->ring[RING_ALL];

	reader->last = after < 0 || after >= events->next ? events->next - 1 : after;
	for (int i = 0; i < RINGS; i++)
		reader->next[i] = position_behind(&events->ring[i], reader->last);
	if (reader->last >= ring->forgotten && reader->last >= events->first - 1)
		/* Something to send at once: the client then knows that it is connected. */
		return say(reader, ":\n\n");
	return say(
	        reader, "event: missed\ndata: {\"after\":%" PRId64 ",\"next\":%" PRId64 "}\n\n", after, oldest(events));
}

int events_reader_new(struct events *events, int64_t after, const char *types, struct events_reader **ret)
{
	struct events_reader *reader;
	int r;

	if (events->readers >= EVENTS_READERS_MAX)
		return -EUSERS;
	reader = calloc(1, sizeof(*reader));
	if (!reader)
		return -ENOMEM;
	reader->events = events;
	reader->until = watch_now() + EVENTS_STREAM_S * UINT64_C(1000000);
	events->readers++;
	r = take_types(reader, types);
	if (!r)
		r = take_place(reader, after);
	if (r < 0) {
		events_reader_free(reader);
		return r;
	}
	*ret = reader;
	if (reader->flows)
		wake_all(events); /* single flows are wanted from now on */
	return 0;
}

void events_reader_free(struct events_reader *reader)
{
	if (!reader)
		return;
	reader->events->readers--;
	reader->events->flow_readers -= reader->flows;
	free(reader->types);
	free(reader->out);
	free(reader);
}

void events_reader_beat(struct events_reader *reader)
{
	reader->beat = true;
}

void events_reader_end(struct events_reader *reader)
{
	reader->over = true;
}

static bool wants(const struct events_reader *reader, const struct event *event)
{
	char type[64];

	if (!event->text)
		return false;
	snprintf(type, sizeof(type), ",%s,", event->type);
	return !reader->types || strstr(reader->types, type) || strcmp(event->type, EVENTS_LEFT_OUT) == 0;
}

/* The next event of all that the reader has not got yet, of whatever ring. NULL: there is none. */
static const struct event *next_event(struct events_reader *reader)
{
	const struct event *found = NULL;
	int from = RING_ALL;

	for (int i = 0; i < (reader->flows ? RINGS : RING_FLOWS); i++) {
		const struct ring *ring = &reader->events->ring[i];

		if (reader->next[i] == ring->next || (found && found->id < slot(ring, reader->next[i])->id))
			continue;
		found = slot(ring, reader->next[i]);
		from = i;
	}
	if (found)
		reader->next[from]++;
	return found;
}

/* Says what the reader was too slow for. 0: nothing; else what there is to send. */
static int say_lost(struct events_reader *reader)
{
	const struct ring *all = &reader->events->ring[RING_ALL], *flows = &reader->events->ring[RING_FLOWS];
	uint64_t lost;

	if (reader->next[RING_ALL] < all->first) {
		reader->over = true;
		(void)say(reader, "event: dropped\ndata: {\"after\":%" PRId64 ",\"next\":%" PRId64 "}\n\n",
		        reader->last, oldest(reader->events));
		return 1;
	}
	if (!reader->flows || reader->next[RING_FLOWS] >= flows->first)
		return 0;
	lost = flows->first - reader->next[RING_FLOWS];
	reader->next[RING_FLOWS] = flows->first;
	(void)say(reader, "event: " EVENTS_LEFT_OUT "\ndata: {\"left_out\":%" PRIu64 ",\"why\":\"slow_reader\"}\n\n",
	        lost);
	return 1;
}

/* Finds something to send. 0 also when there is nothing. */
static int next_piece(struct events_reader *reader)
{
	const struct event *event;

	if (say_lost(reader))
		return 0;
	while ((event = next_event(reader))) {
		reader->last = event->id;
		if (wants(reader, event)) {
			reader->beat = false;
			return say(reader, "%s", event->text);
		}
	}
	if (!reader->beat)
		return 0;
	reader->beat = false;
	return say(reader, ":\n\n");
}

ssize_t events_read(struct events_reader *reader, char *bytes, size_t size)
{
	if (reader->at == reader->length) {
		if (reader->over || watch_now() >= reader->until || next_piece(reader) < 0)
			return -1;
	}
	if (size > reader->length - reader->at)
		size = reader->length - reader->at;
	memcpy(bytes, reader->out + reader->at, size);
	reader->at += size;
	return (ssize_t)size;
}

/* A number of an event; -2 if it is none. */
static int64_t parse_place(const char *text)
{
	if (!*text || strlen(text) > 18 || strspn(text, "0123456789") != strlen(text))
		return -2;
	return strtoll(text, NULL, 10);
}

static int open_stream(const struct request *request, char *const *values, struct response *response)
{
	const char *place = values[0] ? values[0] : request_header(request, HEADER_LAST_EVENT_ID);
	int64_t after = place ? parse_place(place) : -1;
	struct events_reader *reader;
	int r;

	if (!request->services->events)
		return problem_answer(response, PROBLEM_NOT_FOUND, request, NULL, "This server has no events.");
	r = after == -2 ? -EINVAL : events_reader_new(request->services->events, after, values[1], &reader);

	if (r == -EINVAL)
		return problem_answer(response, PROBLEM_MALFORMED, request, NULL,
		        "\"after\" and Last-Event-ID are numbers of events; \"types\" is a list of words with commas.");
	if (r == -EUSERS) {
		if (response_header(response, "Retry-After", "10") < 0)
			return -ENOMEM;
		return problem_answer(response, PROBLEM_UNAVAILABLE, request, NULL,
		        "There are %d readers of events already.", EVENTS_READERS_MAX);
	}
	if (r < 0)
		return r;
	response->status = 200;
	response->content_type = "text/event-stream";
	response->stream = reader;
	return 0;
}

int events_answer(const struct request *request, struct response *response)
{
	static const char *const known[] = { "after", "types" };
	_cleanup_errs_ struct errs errs = { 0 };
	char *values[ARRAY_SIZE(known)];
	int r = url_parse_query(request->query, known, ARRAY_SIZE(known), values, &errs);

	if (r == -EINVAL)
		return problem_answer(
		        response, PROBLEM_MALFORMED, request, &errs, "The query of the address is not understood.");
	if (r < 0)
		return r;
	/* HEAD tells that the stream is there, and opens none. */
	if (request->method == METHOD_HEAD) {
		response->status = 200;
		response->content_type = "text/event-stream";
	} else {
		r = open_stream(request, values, response);
	}
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		free(values[i]);
	return r;
}
