/*
 * What the first bytes of a connection say: who is spoken to, in which
 * protocol. Pure: a prefix of the stream goes in, a verdict comes out; nothing
 * is decrypted and nothing is kept between calls, so the caller asks again
 * with a longer prefix. Every verdict but FIRST_MORE is final: more bytes do
 * not change it. Used by the relay (live connections) and by the daemon.
 */
#ifndef GW_BASE_FIRST_H
#define GW_BASE_FIRST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Most bytes that are looked at: a ClientHello with two post-quantum key shares, a long ticket and padding has about
 * 6 KiB; what is longer than this is not a hello that any server takes. */
#define FIRST_BYTES_MAX 16384
/* Most bytes of an HTTP request head: what servers take at most by default. */
#define FIRST_HTTP_MAX 8192
/* Longest DNS name. */
#define FIRST_HOST_MAX 253

enum first_state {
	FIRST_MORE,      /* all is well so far, more bytes are needed */
	FIRST_COMPLETE,  /* understood as a whole */
	FIRST_OTHER,     /* another protocol */
	FIRST_MALFORMED, /* this protocol, but broken or ambiguous */
	FIRST_TOO_LONG,  /* this protocol, beyond the bound */
	FIRST_STATES
};

enum first_kind { FIRST_UNKNOWN, FIRST_TLS, FIRST_HTTP, FIRST_HTTP2, FIRST_KINDS };

/* Bytes inside the buffer that was parsed, or inside the struct first that describes it. */
struct first_span {
	const uint8_t *bytes;
	size_t length;
};

/* What is known once FIRST_COMPLETE is said. Large; one per thread is enough. */
struct first {
	enum first_kind kind;
	char host[FIRST_HOST_MAX + 1]; /* server name or HTTP host in lower case, without port; "": not said */
	/* TLS */
	uint16_t version;       /* highest that the client offers, e.g. 0x0304 */
	bool encrypted_hello;   /* with ECH; host is then the outer, public name */
	struct first_span alpn; /* names as they travel: each a byte of length and the name */
	/* HTTP/1 */
	struct first_span method;
	struct first_span path; /* without query; empty for CONNECT */
	/* The hello freed of its records; alpn lies in here. */
	uint8_t hello[FIRST_BYTES_MAX];
};

/* Any of the known protocols. *ret is complete with FIRST_COMPLETE only; its kind is also said with FIRST_MALFORMED
 * and FIRST_TOO_LONG. Spans of HTTP live as long as `bytes`. */
enum first_state first_parse(const uint8_t *bytes, size_t length, struct first *ret);

/* A DNS name of labels of a-z 0-9 - _ (any case), without a dot at the end, into lower case. False: it is none. */
bool first_host(const uint8_t *bytes, size_t length, char ret[FIRST_HOST_MAX + 1]);

#endif
