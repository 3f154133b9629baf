/*
 * A TLS ClientHello at the beginning of a stream: server name, ALPN, version,
 * whether it holds an encrypted one. The hello may lie in any number of
 * records, and the prefix may end anywhere. Called by first.c.
 */
#ifndef GW_BASE_FIRST_TLS_H
#define GW_BASE_FIRST_TLS_H

#include "gatewayd/base/first.h"

/* See first_parse. FIRST_OTHER leaves *ret with kind FIRST_UNKNOWN. */
enum first_state first_tls_parse(const uint8_t *bytes, size_t length, struct first *ret);

#endif
