/*
 * One request and its answer, as the handlers see them: no word of the HTTP
 * library. Filled by http.c, screen.c and router.c; read by the handlers.
 */
#ifndef GW_WEBAPI_MESSAGE_H
#define GW_WEBAPI_MESSAGE_H

#include <jansson.h>
#include <stdbool.h>

#include "schema/field.h"
#include "webapi/core.h"
#include "webapi/limits.h"

enum http_method {
	METHOD_NONE = -1, /* not one of ours */
	METHOD_GET,
	METHOD_HEAD,
	METHOD_POST,
	METHOD_PUT,
	METHOD_PATCH,
	METHOD_DELETE,
	METHOD_OPTIONS,
	METHODS
};
#define METHOD_BIT(method) (1u << (method))

/* The request headers that mean something here. */
enum header_id {
	HEADER_HOST,
	HEADER_AUTHORIZATION,
	HEADER_CONTENT_TYPE,
	HEADER_CONTENT_LENGTH,
	HEADER_TRANSFER_ENCODING,
	HEADER_EXPECT,
	HEADER_IF_MATCH,
	HEADER_IF_NONE_MATCH,
	HEADER_COOKIE,
	HEADER_ACCEPT,
	HEADER_CSRF,
	HEADER_LAST_EVENT_ID,
	HEADERS
};

/* What a caller may do; each role includes those before it. */
enum role { ROLE_NONE, ROLE_VIEWER, ROLE_OPERATOR, ROLE_ADMIN };

struct header {
	const char *value; /* borrowed, of the first occurrence; NULL: absent */
	unsigned count;
};

struct assets;
struct auth;
struct auth_peer;
struct events;
struct events_reader;
struct session;
struct sessions;
struct tls;

/* What the server of a request has beside the core; any of it may be NULL in tests. */
struct services {
	struct auth *auth;
	struct events *events;
	struct sessions *sessions;
	struct tls *tls;
	struct kept *kept;
	const char *temp_dir;
	bool secure; /* the connection is TLS */
};

struct request {
	struct core *core;
	const struct assets *assets;
	const struct services *services;
	const struct auth_peer *peer;
	struct session *session; /* that the request is part of, or NULL */
	enum http_method method;
	bool http_1_1;
	bool bad_header; /* a header name that is not a token */
	struct header headers[HEADERS];
	char *path;        /* owned; as received, without the query */
	const char *query; /* as received, without '?'; "" if there is none; inside path's memory */
	char *decoded;     /* owned; where segments point to */
	const char *segments[HTTP_SEGMENTS_MAX];
	size_t n_segments;
	const struct resource *resource; /* of the route's {resource}, or NULL */
	const char *name;                /* of the route's {name}, or NULL */
	const char *target;              /* of the route's {target}, or NULL */
	bool on_targets;                 /* the path goes on to the targets of an upstream */
	enum role role;
	char actor[80]; /* "token " and a name */
	char *body;     /* owned, not terminated; NULL if empty */
	size_t body_length, body_capacity;
};

#define RESPONSE_HEADERS_MAX 16

struct response {
	unsigned status;          /* 0: not answered yet */
	const char *content_type; /* static text; NULL: no body */
	char *body;               /* owned unless is_static */
	uint64_t length;
	bool is_static;
	bool has_file;                  /* the body is the content of `file` instead */
	int file;                       /* owned */
	struct events_reader *stream;   /* owned: the body is this stream instead; NULL: it is not */
	bool page;                      /* of the UI: may load its own scripts and be kept by caches that ask again */
	bool rehearsed;                 /* a dry run: nothing was changed */
	int64_t revision;               /* that the request made; 0: none */
	char why[AUDIT_DETAIL_BYTES];   /* it was refused, for the audit log: title and detail, nothing of a body that
	                                   cannot be read; "": it was not */
	unsigned audited;               /* the audit log has a line already that says this status; 0: it has none */
	char timing[CORE_TIMING_BYTES]; /* of the steps of a change, for Server-Timing; "": there was none */
	bool must_close;                /* the rest of the connection cannot be trusted or is not worth reading */
	struct {
		const char *name; /* static text */
		char *value;      /* owned */
	} headers[RESPONSE_HEADERS_MAX];
	size_t n_headers;
};

/* METHOD_NONE if the text (case matters) is none of ours. */
enum http_method method_parse(const char *text);
/* "GET" and the like; "-" for METHOD_NONE. */
const char *method_name(enum http_method method);
/* "GET, HEAD, OPTIONS" for a mask of METHOD_BITs, into text of METHOD_LIST_BYTES. */
#define METHOD_LIST_BYTES 64
void method_list(unsigned mask, char text[METHOD_LIST_BYTES]);
/* HEADERS if the name (case does not matter) is none that means something. */
enum header_id header_parse(const char *name);
/* "Host" and the like. */
const char *header_name(enum header_id id);
/* The value, or NULL. */
const char *request_header(const struct request *request, enum header_id id);
/* Frees what the request owns and zeroes it. */
void request_clear(struct request *request);

/* Adds a header; name must be static text, the value is formatted. 0 or -ENOMEM. */
int response_header(struct response *response, const char *name, const char *format, ...)
        __attribute__((format(printf, 3, 4)));
/* A JSON body, compact, with a newline at its end; takes over the reference, also on failure. A NULL document
 * counts as memory that ran out. 0 or -ENOMEM. */
int response_json(struct response *response, unsigned status, const char *content_type, json_t *document);
/* A body from the heap, which is taken over. */
void response_body(struct response *response, unsigned status, const char *content_type, char *body, size_t length);
/* A body that lives longer than the server. */
void response_static(
        struct response *response, unsigned status, const char *content_type, const char *body, size_t length);
/* The first `length` bytes of an open file as body; takes over the descriptor. */
void response_file(struct response *response, unsigned status, const char *content_type, int fd, uint64_t length);
/* Frees what the response owns and zeroes it: it is then not answered yet. */
void response_clear(struct response *response);

#define CONTENT_JSON    "application/json"
#define CONTENT_PROBLEM "application/problem+json"
#define CONTENT_TEXT    "text/plain; charset=utf-8"
#define CONTENT_METRICS "text/plain; version=0.0.4; charset=utf-8"

#endif
