/*
 * The answer to an HTTP health check, piece by piece as it comes: status line,
 * header, and the body as far as a text is looked for in it. Bounded in what it
 * looks at and in memory; trusts nothing. Called by health_check.c.
 *
 * Chunked bodies are unwrapped, so a text that lies across chunks is found. What
 * is compressed is looked at as it is: a check does not ask for compression.
 */
#ifndef GW_RELAY_HEALTH_HTTP_H
#define GW_RELAY_HEALTH_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Status line and header of one answer; a longer one is no answer. */
#define HEALTH_HTTP_HEAD_MAX 16384
/* Body that a text is looked for in. */
#define HEALTH_HTTP_BODY_MAX 65536
/* Of a longer line only the beginning is looked at, which is enough for all lines that mean something. */
#define HEALTH_HTTP_LINE_MAX 64
#define HEALTH_HTTP_TEXT_MAX 255

enum health_http_result {
	HEALTH_HTTP_MORE,    /* not known yet */
	HEALTH_HTTP_GOOD,    /* as wanted */
	HEALTH_HTTP_STATUS,  /* another status */
	HEALTH_HTTP_BODY,    /* the status is right, the text is not there */
	HEALTH_HTTP_PROTOCOL /* no HTTP/1 answer, or one that ends early */
};

/* What a good answer is. */
struct health_http_want {
	uint16_t status_from, status_to;
	bool head;                            /* the request was HEAD: there is no body */
	uint8_t n_text;                       /* 0: any body */
	char text[HEALTH_HTTP_TEXT_MAX];      /* not terminated */
	uint8_t border[HEALTH_HTTP_TEXT_MAX]; /* how much of the text is left when it breaks off here */
};

struct health_http {
	uint8_t place; /* where in the answer: enum in health_http.c */
	bool chunked, counted;
	uint8_t matched; /* of the text */
	uint8_t n_line;
	uint16_t status;
	uint32_t head, body; /* bytes so far */
	uint64_t left;       /* of the body or the chunk */
	char line[HEALTH_HTTP_LINE_MAX];
};

/* Sets the text that is wanted, cut to what there is room for. */
void health_http_want_text(struct health_http_want *want, const char *text);
void health_http_begin(struct health_http *http);
/* Takes bytes in. Once it is not MORE, the answer is known and no more may be fed. */
enum health_http_result health_http_feed(
        struct health_http *http, const struct health_http_want *want, const char *bytes, size_t n);
/* The connection has ended while the result was MORE. Never MORE. */
enum health_http_result health_http_end(const struct health_http *http);

#endif
