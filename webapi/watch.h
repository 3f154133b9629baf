/*
 * Deadlines of the API's connections. The HTTP library only knows a time of
 * inactivity, which one byte now and then defeats; these are absolute. Called
 * by http.c for each change of a connection's state; knows descriptors, not
 * the library.
 */
#ifndef GW_WEBAPI_WATCH_H
#define GW_WEBAPI_WATCH_H

#include "webapi/auth.h"
#include "webapi/limits.h"

/*
 * accept -> FRESH -> HEADERS -> BODY -> ANSWER -> IDLE -> HEADERS ...
 * A connection that is late in FRESH, HEADERS or BODY is told so (408), since nothing of an answer has been sent;
 * in ANSWER and IDLE it is cut off in silence. GONE: cut off, the library has yet to notice.
 */
enum watch_state { WATCH_FRESH, WATCH_HEADERS, WATCH_BODY, WATCH_ANSWER, WATCH_IDLE, WATCH_GONE };

struct exchange;

struct watch {
	struct watch *previous, *next;
	int fd; /* the library's */
	enum watch_state state;
	uint64_t deadline; /* microseconds, CLOCK_MONOTONIC */
	uint64_t end;      /* of the body, whatever its pace */
	bool secure;       /* TLS: plain bytes of ours have no place on the socket */
	struct auth_peer peer;
	struct exchange *exchange; /* http.c's: the request under way; NULL: none */
};

struct watches {
	struct watch *first;
	struct http_limits limits;
	bool secure;
};

/* Microseconds of CLOCK_MONOTONIC. */
uint64_t watch_now(void);
/* A new watch in state FRESH, in the list; NULL when memory is out. */
struct watch *watch_new(struct watches *watches, int fd);
/* Takes it out of the list and frees it. */
void watch_free(struct watches *watches, struct watch *watch);
void watch_enter(const struct watches *watches, struct watch *watch, enum watch_state state);
/* In BODY: some bytes came. */
void watch_progress(const struct watches *watches, struct watch *watch);
/* Answers and shuts down every socket that is late; the library then sees its end. Returns how many. */
size_t watches_expire(struct watches *watches);
/* Microseconds until the next deadline; UINT64_MAX: none. */
uint64_t watches_wait(const struct watches *watches);
/* Sends a raw answer (problem.h; NULL: none) if the socket takes it at once and is not TLS, then shuts it down. */
void watch_cut(struct watch *watch, const char *answer);

#endif
