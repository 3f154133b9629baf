/*
 * What is refused of a request from its headers alone, before anything looks
 * at its path or body: framing that two readers could understand in two ways,
 * hosts that a browser was tricked into, unknown methods, wrong media types,
 * announced bodies that are too large. Called by http.c.
 */
#ifndef GW_WEBAPI_SCREEN_H
#define GW_WEBAPI_SCREEN_H

#include "webapi/router.h"

/* Each answers and returns 1, passes and returns 0, or returns -ENOMEM. */

/* Framing and Host; sets must_close, since what follows on the connection cannot be trusted. */
int screen_framing(const struct request *request, struct response *response);
/* TCP only: Host must be an address, "localhost" or host_name (may be NULL), against DNS rebinding. */
int screen_host(const struct request *request, const char *host_name, struct response *response);
/* Methods that the server does not know. */
int screen_method(const struct request *request, struct response *response);
/* Media type and announced length of a body for this route. */
int screen_body(const struct request *request, const struct route *route, struct response *response);

/* Whether the body says that it is JSON. */
bool screen_is_json(const struct request *request);
/* Whether the one who asks would rather have JSON than plain text; in doubt, and for curl and browsers, not. */
bool screen_prefers_json(const struct request *request);

/* The announced length of the body; 0 if none is announced, UINT64_MAX if it is chunked or absurd. */
uint64_t screen_announced(const struct request *request);

#endif
