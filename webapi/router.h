/*
 * The table of routes (routes.def) and the search in it. Called by http.c;
 * knows the handlers by name only.
 */
#ifndef GW_WEBAPI_ROUTER_H
#define GW_WEBAPI_ROUTER_H

#include "webapi/message.h"

/* Which media types a route reads. */
enum media {
	MEDIA_ANY,         /* the body is not read */
	MEDIA_JSON,        /* application/json */
	MEDIA_MERGE_PATCH, /* application/merge-patch+json, or plain JSON */
	MEDIA_ENTRIES,     /* text/plain or application/json; none at all if the body is empty */
};

/* Answers a request whose body is complete. 0 with the response filled, or -ENOMEM. */
typedef int route_handler(const struct request *request, struct response *response);

struct route {
	enum http_method method;
	const char *pattern;
	route_handler *handler;
	enum role role;
	size_t body_max;
	enum media media;
};

/* Finds the route of request->segments and request->method, and sets request->resource and ->name. NULL if there is
 * none; ret_methods then says which methods the path has: 0 means that the path does not exist. */
const struct route *router_find(struct request *request, unsigned *ret_methods);

#endif
