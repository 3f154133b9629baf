/* Deadlines, see watch.h. There are some hundred connections at most: the list is walked. */
#include "webapi/watch.h"

#include <string.h>
#include <sys/socket.h>

#include "gatewayd/base/clock.h"
#include "webapi/problem.h"

uint64_t watch_now(void)
{
	return clock_us();
}

struct watch *watch_new(struct watches *watches, int fd)
{
	struct watch *watch = calloc(1, sizeof(*watch));

	if (!watch)
		return NULL;
	watch->fd = fd;
	watch->secure = watches->secure;
	watch->next = watches->first;
	if (watch->next)
		watch->next->previous = watch;
	watches->first = watch;
	watch_enter(watches, watch, WATCH_FRESH);
	return watch;
}

void watch_free(struct watches *watches, struct watch *watch)
{
	if (!watch)
		return;
	if (watch->next)
		watch->next->previous = watch->previous;
	if (watch->previous)
		watch->previous->next = watch->next;
	else
		watches->first = watch->next;
	free(watch);
}

static uint64_t allowance(const struct http_limits *limits, enum watch_state state)
{
	switch (state) {
	case WATCH_FRESH:
	case WATCH_HEADERS:
		return limits->headers;
	case WATCH_BODY:
		return limits->body;
	case WATCH_ANSWER:
		return limits->answer;
	case WATCH_IDLE:
		return limits->idle;
	case WATCH_GONE:
		break;
	}
	return 0;
}

void watch_enter(const struct watches *watches, struct watch *watch, enum watch_state state)
{
	if (watch->state == WATCH_GONE)
		return;
	/* The first request's headers are counted from the connection's start, however its bytes drip in. */
	if (!(watch->state == WATCH_FRESH && state == WATCH_HEADERS))
		watch->deadline = watch_now() + allowance(&watches->limits, state);
	watch->state = state;
	watch->end = watch->deadline;
	if (state == WATCH_BODY)
		watch_progress(watches, watch);
}

void watch_progress(const struct watches *watches, struct watch *watch)
{
	uint64_t patience = watch_now() + watches->limits.body_idle;

	if (watch->state == WATCH_BODY)
		watch->deadline = patience < watch->end ? patience : watch->end;
}

void watch_cut(struct watch *watch, const char *answer)
{
	if (answer && !watch->secure)
		(void)!send(watch->fd, answer, strlen(answer), MSG_DONTWAIT | MSG_NOSIGNAL);
	shutdown(watch->fd, SHUT_RDWR);
	watch->state = WATCH_GONE;
	watch->deadline = UINT64_MAX;
}

size_t watches_expire(struct watches *watches)
{
	uint64_t now = watch_now();
	size_t n = 0;

	for (struct watch *watch = watches->first; watch; watch = watch->next) {
		if (watch->deadline > now)
			continue;
		watch_cut(watch, watch->state <= WATCH_BODY ? problem_raw_timeout() : NULL);
		n++;
	}
	return n;
}

uint64_t watches_wait(const struct watches *watches)
{
	uint64_t first = UINT64_MAX, now = watch_now();

	for (const struct watch *watch = watches->first; watch; watch = watch->next)
		if (watch->deadline < first)
			first = watch->deadline;
	if (first == UINT64_MAX)
		return UINT64_MAX;
	return first > now ? first - now : 0;
}
