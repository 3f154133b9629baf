/*
 * The way of a request through screening, routing, authentication and its
 * handler. Called by http.c at the end of the headers, for each piece of the
 * body and at the end; knows nothing of the HTTP library.
 */
#ifndef GW_WEBAPI_DISPATCH_H
#define GW_WEBAPI_DISPATCH_H

#include "webapi/auth.h"
#include "webapi/router.h"

/* What all requests of one server share. */
struct dispatch {
	struct core *core;
	struct services services;
	struct assets *assets;
	char *host_name;          /* or NULL */
	uint64_t strangers_since; /* minute in which refusals of strangers are counted, microseconds */
	unsigned strangers;       /* noted in the audit log in this minute */
	size_t bodies;            /* bytes of bodies held at the moment, at most HTTP_BODIES_TOTAL */
};

/* One request under way. */
struct exchange {
	struct request request;
	struct response response;
	const struct route *route;
	uint64_t received; /* bytes of body, kept or not */
	uint64_t complete; /* microseconds: when the whole request was here */
	bool begun;        /* for http.c: the headers have been seen */
	bool audited;
};

/* The headers are complete: request's target, method and headers are set. Afterwards the response may be filled (a
 * refusal), and the body, if there is one, is then not needed. */
void dispatch_begin(struct dispatch *dispatch, struct exchange *exchange, const struct auth_peer *peer);
/* A piece of the body. Too much of it fills the response. -EFBIG when so much has come that reading on to its end
 * makes no sense. */
int dispatch_body(struct dispatch *dispatch, struct exchange *exchange, const char *bytes, size_t length);
/* The request is complete: calls the handler unless there is an answer already. */
void dispatch_finish(struct dispatch *dispatch, struct exchange *exchange);
/* Notes a write that was answered, accepted or refused, in the audit log; once. Called when the answer is sent. */
void dispatch_audit(struct dispatch *dispatch, struct exchange *exchange);
/* Frees what the exchange owns, and itself. */
void dispatch_end(struct dispatch *dispatch, struct exchange *exchange);
/* Whether a refused request is answered now, and its body not waited for. */
bool dispatch_answers_now(const struct exchange *exchange);

#endif
