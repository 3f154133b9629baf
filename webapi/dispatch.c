/* The way of a request, see dispatch.h: first what is wrong with its form, then who asks, then what for. */
#include "webapi/dispatch.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "gatewayd/base/log.h"
#include "webapi/problem.h"
#include "webapi/screen.h"
#include "webapi/url.h"
#include "webapi/watch.h"

/* Bodies grow from this, doubling; a length that is only announced costs nothing. */
#define BODY_FIRST 4096

/* Routing steps answer 0 to go on, 1 when the response is filled, -ENOMEM. */

static int split_path(struct exchange *exchange)
{
	struct request *request = &exchange->request;
	int r;

	if (request->method == METHOD_OPTIONS && !strcmp(request->path, "*"))
		return 0;
	r = url_split_path(request);
	if (r == -EINVAL)
		return problem_answer(&exchange->response, PROBLEM_MALFORMED, request, NULL,
		               "The path of the address is not well formed.") < 0
		               ? -ENOMEM
		               : 1;
	if (r == -E2BIG)
		return problem_answer(&exchange->response, PROBLEM_NOT_FOUND, request, NULL,
		               "No path here has so many segments.") < 0
		               ? -ENOMEM
		               : 1;
	return r;
}

static int authenticate(struct dispatch *dispatch, struct exchange *exchange, const struct auth_peer *peer)
{
	struct request *request = &exchange->request;
	enum auth_verdict verdict;
	unsigned wait = 0;

	if (exchange->route && exchange->route->role == ROLE_NONE)
		return 0;
	verdict = auth_check(dispatch->services.auth, peer, request_header(request, HEADER_AUTHORIZATION),
	        watch_now() / 1000000, request, &wait);
	return auth_refuse(request, verdict, wait, &exchange->response);
}

/* No route: 404, 405 with Allow, or the answer to OPTIONS. */
static int answer_routeless(struct exchange *exchange, unsigned methods)
{
	struct response *response = &exchange->response;
	const struct request *request = &exchange->request;
	char list[METHOD_LIST_BYTES];
	int r;

	if (!methods) {
		r = problem_answer(response, PROBLEM_NOT_FOUND, request, NULL, "There is nothing at this address.");
		return r < 0 ? r : 1;
	}
	method_list(methods, list);
	r = response_header(response, "Allow", "%s", list);
	if (request->method == METHOD_OPTIONS)
		response->status = 204;
	else if (!r)
		r = problem_answer(
		        response, PROBLEM_METHOD_NOT_ALLOWED, request, NULL, "Methods of this address: %s.", list);
	return r < 0 ? r : 1;
}

static int check_role(struct exchange *exchange)
{
	if (exchange->request.role >= exchange->route->role)
		return 0;
	return problem_answer(&exchange->response, PROBLEM_FORBIDDEN, &exchange->request, NULL,
	               "The role of this token does not allow it.") < 0
	               ? -ENOMEM
	               : 1;
}

static int begin(struct dispatch *dispatch, struct exchange *exchange, const struct auth_peer *peer)
{
	struct request *request = &exchange->request;
	struct response *response = &exchange->response;
	unsigned methods = METHOD_BIT(METHODS) - 1;
	int r;

	if ((r = screen_framing(request, response)) ||
	        (!peer->unix_socket && (r = screen_host(request, dispatch->host_name, response))) ||
	        (r = screen_method(request, response)) || (r = split_path(exchange)))
		return r;
	if (request->n_segments || *request->path == '/')
		exchange->route = router_find(request, &methods);
	if ((r = authenticate(dispatch, exchange, peer)))
		return r;
	if (!exchange->route)
		return answer_routeless(exchange, methods);
	r = check_role(exchange);
	return r ? r : screen_body(request, exchange->route, response);
}

void dispatch_begin(struct dispatch *dispatch, struct exchange *exchange, const struct auth_peer *peer)
{
	exchange->request.core = dispatch->core;
	exchange->request.assets = dispatch->assets;
	exchange->request.services = &dispatch->services;
	exchange->request.peer = peer;
	if (begin(dispatch, exchange, peer) < 0)
		problem_fallback(&exchange->response);
}

bool dispatch_answers_now(const struct exchange *exchange)
{
	const struct request *request = &exchange->request;
	uint64_t announced = screen_announced(request);

	if (!exchange->response.status)
		return false;
	if (exchange->response.must_close)
		return true;
	/* A client that waits for "100 Continue" reads before it writes; an endless body is not worth reading. */
	return announced &&
	       (request_header(request, HEADER_EXPECT) || (announced > HTTP_BODY_SWALLOWED && announced != UINT64_MAX));
}

static void drop_body(struct dispatch *dispatch, struct request *request)
{
	dispatch->bodies -= request->body_capacity;
	free(request->body);
	request->body = NULL;
	request->body_length = request->body_capacity = 0;
}

/* Makes room for `length` more bytes. 0, -ENOSPC (the bodies of all connections are too many), -ENOMEM. */
static int grow_body(struct dispatch *dispatch, struct request *request, size_t length)
{
	size_t capacity = request->body_capacity ? request->body_capacity : BODY_FIRST;
	char *body;

	while (capacity - request->body_length < length)
		capacity *= 2;
	if (capacity == request->body_capacity)
		return 0;
	if (dispatch->bodies + (capacity - request->body_capacity) > HTTP_BODIES_TOTAL)
		return -ENOSPC;
	body = realloc(request->body, capacity);
	if (!body)
		return -ENOMEM;
	dispatch->bodies += capacity - request->body_capacity;
	request->body = body;
	request->body_capacity = capacity;
	return 0;
}

static void keep(struct dispatch *dispatch, struct exchange *exchange, const char *bytes, size_t length)
{
	struct request *request = &exchange->request;
	int r = 0;

	if (exchange->received > exchange->route->body_max)
		r = problem_answer(&exchange->response, PROBLEM_TOO_LARGE, request, NULL,
		        "The body may have %zu bytes here.", exchange->route->body_max);
	else if (exchange->route->media != MEDIA_ANY && (r = grow_body(dispatch, request, length)) == -ENOSPC)
		r = problem_answer(&exchange->response, PROBLEM_UNAVAILABLE, request, NULL,
		        "Too many large requests at the same time; try again.");
	if (r < 0)
		problem_fallback(&exchange->response);
	if (exchange->response.status) {
		drop_body(dispatch, request);
	} else if (exchange->route->media != MEDIA_ANY) {
		memcpy(request->body + request->body_length, bytes, length);
		request->body_length += length;
	}
}

int dispatch_body(struct dispatch *dispatch, struct exchange *exchange, const char *bytes, size_t length)
{
	exchange->received += length;
	if (!exchange->response.status)
		keep(dispatch, exchange, bytes, length);
	return exchange->response.status && exchange->received > HTTP_BODY_SWALLOWED ? -EFBIG : 0;
}

void dispatch_finish(struct dispatch *dispatch, struct exchange *exchange)
{
	const struct request *request = &exchange->request;
	struct response *response = &exchange->response;

	exchange->complete = watch_now();
	if (!response->status && exchange->route->handler(request, response) < 0)
		problem_fallback(response);
	log_debug("api: %s: method %d %s: %u, %zu bytes", *request->actor ? request->actor : "-", (int)request->method,
	        request->path, response->status, (size_t)response->length);
	drop_body(dispatch, &exchange->request);
}

/* Whether another refusal of somebody unknown may be noted. */
static bool strangers_fit(struct dispatch *dispatch)
{
	uint64_t now = watch_now();

	if (now - dispatch->strangers_since >= 60000000) {
		dispatch->strangers_since = now;
		dispatch->strangers = 0;
	}
	return dispatch->strangers++ < AUDIT_STRANGERS_PER_MINUTE;
}

void dispatch_audit(struct dispatch *dispatch, struct exchange *exchange)
{
	const struct request *request = &exchange->request;
	const struct response *response = &exchange->response;
	struct core_audit entry = { .actor = *request->actor ? request->actor : "-",
		.method = method_name(request->method),
		.path = request->path,
		.status = response->status,
		.revision = response->revision,
		.detail = response->why };

	if (exchange->audited || request->method == METHOD_NONE || request->method == METHOD_GET ||
	        request->method == METHOD_HEAD || request->method == METHOD_OPTIONS)
		return;
	exchange->audited = true;
	/* What those may send who may only read is a question (explain). */
	if (request->method == METHOD_POST && exchange->route && exchange->route->role == ROLE_VIEWER &&
	        request->role >= ROLE_VIEWER)
		return;
	if (response->rehearsed || (response->audited && response->audited == response->status) ||
	        (request->role == ROLE_NONE && response->status >= 400 && !strangers_fit(dispatch)))
		return;
	core_audit(dispatch->core, &entry);
}

void dispatch_end(struct dispatch *dispatch, struct exchange *exchange)
{
	if (!exchange)
		return;
	drop_body(dispatch, &exchange->request);
	request_clear(&exchange->request);
	response_clear(&exchange->response);
	free(exchange);
}
