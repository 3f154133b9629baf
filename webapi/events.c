/*
 * Events and their readers, see events.h.
 *
 * Theory of operation. An event is made into the bytes of the stream once. A
 * reader takes a copy of the one it is sending, so that the ring can go on
 * under it; its place is the number of the next event it wants. When that
 * number has left the ring, the reader was too slow and is dropped. Only a
 * new reader may begin with a gap, which it is told of.
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

struct events {
	struct event ring[EVENTS_RING];
	size_t bytes;        /* of all texts */
	int64_t first, next; /* numbers: of the oldest event that is kept, and of the one to come */
	unsigned readers;
	struct events_listener *listeners;
};

struct events_reader {
	struct events *events;
	int64_t next;
	char *types; /* ",a,b,"; NULL: all */
	char *out;   /* what is being sent */
	size_t at, length;
	uint64_t until; /* when the stream ends by itself, microseconds */
	bool beat, over;
};

struct events *events_new(void)
{
	struct events *events = calloc(1, sizeof(*events));

	if (events)
		events->first = events->next = (int64_t)time(NULL) * 1000000;
	return events;
}

static struct event *slot(struct events *events, int64_t id)
{
	return &events->ring[(uint64_t)id % EVENTS_RING];
}

static void forget_oldest(struct events *events)
{
	struct event *event = slot(events, events->first++);

	events->bytes -= event->length;
	free(event->type);
	free(event->text);
	*event = (struct event){ 0 };
}

void events_free(struct events *events)
{
	if (!events)
		return;
	while (events->first < events->next)
		forget_oldest(events);
	free(events);
}

int64_t events_newest(const struct events *events)
{
	return events->first < events->next ? events->next - 1 : 0;
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

void events_publish(struct events *events, const char *type, json_t *data)
{
	int64_t id = events->next;
	_cleanup_free_ char *text = text_of(id, type, data), *copy = strdup(type);
	size_t length = text && copy ? strlen(text) : 0;

	json_decref(data);
	while (events->first < events->next &&
	        (events->next - events->first >= EVENTS_RING || events->bytes + length > EVENTS_BYTES_MAX))
		forget_oldest(events);
	events->next++;
	if (length) {
		*slot(events, id) = (struct event){ id, TAKE_PTR(copy), TAKE_PTR(text), length };
		events->bytes += length;
	}
	for (struct events_listener *listener = events->listeners; listener; listener = listener->next)
		listener->wake(listener->userdata);
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
	if (asprintf(&reader->types, ",%s,", types) >= 0)
		return 0;
	reader->types = NULL;
	return -ENOMEM;
}

/* Puts the reader behind an event that may have left the ring, or be of another time. */
static int take_place(struct events_reader *reader, int64_t after)
{
	const struct events *events = reader->events;

	reader->next = after < 0 || after >= events->next ? events->next : after + 1;
	if (reader->next >= events->first)
		/* Something to send at once: the client then knows that it is connected. */
		return say(reader, ":\n\n");
	reader->next = events->first;
	return say(
	        reader, "event: missed\ndata: {\"after\":%" PRId64 ",\"next\":%" PRId64 "}\n\n", after, events->first);
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
	if (r < 0)
		events_reader_free(reader);
	else
		*ret = reader;
	return r;
}

void events_reader_free(struct events_reader *reader)
{
	if (!reader)
		return;
	reader->events->readers--;
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
	return !reader->types || strstr(reader->types, type);
}

/* Finds something to send. 0 also when there is nothing. */
static int next_piece(struct events_reader *reader)
{
	struct events *events = reader->events;

	if (reader->next < events->first) {
		reader->over = true;
		return say(reader, "event: dropped\ndata: {\"after\":%" PRId64 ",\"next\":%" PRId64 "}\n\n",
		        reader->next - 1, events->first);
	}
	while (reader->next < events->next) {
		const struct event *event = slot(events, reader->next++);

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
