/*
 * What happens in the gateway, as server-sent events: a ring of the newest
 * ones and readers that each have a place in it. Published to by the daemon,
 * read by http.c; knows no HTTP library. Events of single flows ("flow_...") are
 * many: they have a ring of their own, and only readers that ask for them by
 * type get them.
 *
 * GET /api/v1/events: each event as "id: N", "event: TYPE", "data: JSON". ?types=a,b lets only these through;
 * Last-Event-ID or ?after=N goes on behind an event. Two types are about the stream itself: "missed" (events between
 * were overwritten before this reader came back) and "dropped" (the reader was too slow; the stream ends after it). A
 * reader of single flows that is too slow for them is told how many it has not got, in "flow_left_out", and goes on.
 * A comment each 15 seconds tells that the stream is alive; after an hour it ends and is to be asked for anew, so that
 * a token that is no longer valid does not read on.
 */
#ifndef GW_WEBAPI_EVENTS_H
#define GW_WEBAPI_EVENTS_H

#include "webapi/router.h"

/* Told to all readers of single flows, whatever types they name: so many events there are no more, or never were. */
#define EVENTS_LEFT_OUT "flow_left_out"

struct events;
struct events_reader;

/* NULL when memory is out. Numbers begin with the time, so that they go on rising after a restart. */
struct events *events_new(void);
/* All readers and listeners must be gone. */
void events_free(struct events *events);
/* Takes over the reference of data (an object). Type: a-z and '_'. Lack of memory loses the event, which readers see
 * as a gap in the numbers. Too much data (EVENT_BYTES_MAX) is replaced by {"too_large": true}. */
void events_publish(struct events *events, const char *type, json_t *data);
/* Number of the newest event; 0 before the first. */
int64_t events_newest(const struct events *events);

/* Readers that ask for single flows. */
unsigned events_flow_readers(const struct events *events);

/* Called after each event, and when there is a reader of single flows. */
struct events_listener {
	void (*wake)(void *userdata);
	void *userdata;
	struct events_listener *next; /* of events.c */
};
/* The listener stays the caller's, and where it is. */
void events_listen(struct events *events, struct events_listener *listener);
void events_unlisten(struct events *events, struct events_listener *listener);

/* A new reader behind event `after` (-1: behind the newest); `types` is a list with commas, or NULL for all. 0,
 * -EUSERS (EVENTS_READERS_MAX), -EINVAL (types), -ENOMEM. */
int events_reader_new(struct events *events, int64_t after, const char *types, struct events_reader **ret);
void events_reader_free(struct events_reader *reader);
/* Up to `size` bytes of the stream. 0: nothing at the moment; -1: the stream is over. */
ssize_t events_read(struct events_reader *reader, char *bytes, size_t size);
/* The next read tells that the stream is alive, if there is nothing else to tell. */
void events_reader_beat(struct events_reader *reader);
/* The next read ends the stream. */
void events_reader_end(struct events_reader *reader);

/* Route handler: 0 with the response filled, -ENOMEM. */
int events_answer(const struct request *request, struct response *response);

#endif
