/*
 * Routes of a listener: which of them a connection takes by its first bytes.
 * The first that matches wins. A route's conditions must all hold; of the
 * values of one condition, any. Used by the relay and by the daemon's
 * explanations, so that the two cannot disagree.
 */
#ifndef GW_BASE_FIRST_ROUTE_H
#define GW_BASE_FIRST_ROUTE_H

#include "gatewayd/base/first.h"

enum first_condition {
	/* TLS server name: "www.example.com", or "*.example.com" for every name below example.com, however deep,
	 * but not for that name itself. Lower case. */
	FIRST_SNI,
	/* An application protocol that the client offers, byte for byte; "h2c": HTTP/2 by its preface, without TLS. */
	FIRST_ALPN,
	/* Host of an HTTP/1 request, as FIRST_SNI. */
	FIRST_HTTP_HOST,
	/* Method of an HTTP/1 request, byte for byte (methods are in upper case). */
	FIRST_HTTP_METHOD,
	/* Beginning of the path of an HTTP/1 request as it was sent, byte for byte: nothing is decoded, "/a" is also
	 * the beginning of "/ab", and what follows ? does not count. */
	FIRST_HTTP_PATH,
	FIRST_CONDITIONS
};

/* Most values of one condition, and the longest: as in schema/listener_route.def. */
#define FIRST_ROUTE_VALUES_MAX 64
#define FIRST_ROUTE_VALUE_MAX  255

/* All zero: no condition, matches every connection, also one whose bytes say nothing. */
struct first_route {
	struct {
		char **values;
		uint32_t n;
	} condition[FIRST_CONDITIONS];
};

/* Frees what the route holds; it is all zero again. */
void first_route_clear(struct first_route *route);
/* Whether this is a value that the condition takes. */
bool first_route_takes(enum first_condition condition, const char *value);
/* Adds a value. -EINVAL (not what the condition takes), -E2BIG, -ENOMEM. */
int first_route_add(struct first_route *route, enum first_condition condition, const char *value);
/* Whether a name in lower case is one that a value of FIRST_SNI or FIRST_HTTP_HOST means. */
bool first_route_host_matches(const char *host, const char *pattern);
/* first: NULL if the bytes were not understood. */
bool first_route_matches(const struct first_route *route, const struct first *first);

#endif
