/*
 * The head of an HTTP/1 request at the beginning of a stream: method, host
 * and path; and the preface of HTTP/2 without TLS, of which no more is read
 * (host and path of its first request are compressed, and each request of the
 * connection may have others). Called by first.c.
 */
#ifndef GW_BASE_FIRST_HTTP_H
#define GW_BASE_FIRST_HTTP_H

#include "gatewayd/base/first.h"

/* See first_parse. FIRST_OTHER leaves *ret with kind FIRST_UNKNOWN. */
enum first_state first_http_parse(const uint8_t *bytes, size_t length, struct first *ret);

#endif
