/*
 * The PROXY protocol, versions 1 and 2: the header that tells a server who is
 * behind the proxy that it talks to. Pure; used where the relay sends one to a
 * target and where it takes one from a proxy in front of it.
 * https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt
 */
#ifndef GW_BASE_PROXY_HEADER_H
#define GW_BASE_PROXY_HEADER_H

#include "gatewayd/base/addr.h"
#include "gatewayd/base/first.h"

/* Longest header that proxy_header_write makes: version 1 with two IPv6 addresses. */
#define PROXY_HEADER_WRITE_MAX 107
/* Longest that is taken: version 2 with what proxies add (names, certificates' subjects, cloud ids). */
#define PROXY_HEADER_READ_MAX 4096

struct proxy_header {
	uint8_t version;                 /* 1 or 2 */
	bool known;                      /* false: LOCAL or UNKNOWN; the connection's own addresses count */
	uint8_t protocol;                /* IPPROTO_TCP, or with version 2 IPPROTO_UDP; 0 if not known */
	struct addr source, destination; /* of one family */
	uint16_t source_port, destination_port;
};

/* Writes the header and returns its length, which depends on nothing but the fields; 0 if version 1 cannot say it (UDP)
 * or the families differ. */
size_t proxy_header_write(const struct proxy_header *header, uint8_t ret[PROXY_HEADER_WRITE_MAX]);
/* Reads a header from the beginning of a stream. With FIRST_COMPLETE *ret_length bytes belong to it. FIRST_OTHER: no
 * PROXY header. What a version 2 header says beyond the addresses is stepped over, but its checksum must be right. */
enum first_state proxy_header_read(const uint8_t *bytes, size_t length, struct proxy_header *ret, size_t *ret_length);

#endif
