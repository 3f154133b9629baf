/*
 * Everything that a peer of the API can make grow, each with its bound and
 * the reason for it. Used by http.c and its helpers; tests set smaller ones.
 */
#ifndef GW_WEBAPI_LIMITS_H
#define GW_WEBAPI_LIMITS_H

#include <stddef.h>
#include <stdint.h>

/* Connections of one server: an API for a handful of people and scripts; 256 x HTTP_CONNECTION_MEMORY is 8 MiB. */
#define HTTP_CONNECTIONS_MAX 256
/* Of one address, so that one client cannot take them all. Browsers open six. */
#define HTTP_CONNECTIONS_PER_ADDRESS_MAX 64
/* The library's pool for one connection: bounds request line and headers (more is 431). No header of ours is long. */
#define HTTP_CONNECTION_MEMORY ((size_t)32 * 1024)
/* Body of a write of one resource: an upstream with 1024 targets takes a tenth of it. */
#define HTTP_BODY_RESOURCE ((size_t)1024 * 1024)
/* Body of a write of many: a whole configuration, a set in bulk. */
#define HTTP_BODY_BULK ((size_t)8 * 1024 * 1024)
/* Body of a whole configuration: 10,000 listeners are about 8 MiB, an address set may have a million entries. */
#define HTTP_BODY_CONFIG ((size_t)64 * 1024 * 1024)
/* Entries of an address set in bulk: a million lines with the longest IPv6 prefixes are 46 MB. */
#define HTTP_BODY_ENTRIES ((size_t)64 * 1024 * 1024)
/* Body of a request that has no use for one: read and forgotten. */
#define HTTP_BODY_IGNORED ((size_t)4096)
/* A refused body up to this size is read to its end before the answer, because most clients do not read before they
 * have written all; a longer one is cut off after the answer. Costs no memory. */
#define HTTP_BODY_SWALLOWED ((uint64_t)16 * 1024 * 1024)
/* Bodies being received on one server, together. */
#define HTTP_BODIES_TOTAL ((size_t)128 * 1024 * 1024)
/* Segments of a path; the longest route has five. */
#define HTTP_SEGMENTS_MAX 8
/* A UI is some hundred files and a few MiB; all of it stays in memory. */
#define ASSETS_FILES_MAX 512
#define ASSETS_BYTES_MAX ((size_t)16 * 1024 * 1024)
#define ASSETS_DEPTH_MAX 6
/* Failed attempts of one address within the window, then 429 until the window ends. Tokens are long and random:
 * the limit is against noise; the unix socket stays open whatever happens here. */
#define AUTH_FAILURES_MAX 10
#define AUTH_WINDOW_S     60
/* Addresses remembered for that; the oldest makes room. */
#define AUTH_ADDRESSES_MAX 256
/* Longest token looked at. */
#define AUTH_TOKEN_BYTES_MAX 512

/* Sessions of the UI at the same time; a person has one or two. */
#define SESSIONS_MAX 64
/* Seconds after which a session that is not used, or any session, has to be opened anew. */
#define SESSION_IDLE_S 1800
#define SESSION_S      43200
/* Events kept for readers that come back, and their bytes: some minutes of a busy gateway. */
#define EVENTS_RING      4096
#define EVENTS_BYTES_MAX ((size_t)4 * 1024 * 1024)
/* The same for events of single flows, which have a place of their own so that they do not push others out. */
#define EVENTS_FLOWS_RING      1024
#define EVENTS_FLOWS_BYTES_MAX ((size_t)1024 * 1024)
/* Data of one event. */
#define EVENT_BYTES_MAX ((size_t)16 * 1024)
/* Readers of events on all servers together; each holds a connection. */
#define EVENTS_READERS_MAX 100
/* Bytes of the list of types that a reader asks for. */
#define EVENTS_TYPES_BYTES_MAX 512
/* Seconds until a stream ends and its reader has to say again who it is. */
#define EVENTS_STREAM_S 3600
/* Refusals of requests from nobody in particular that are noted in the audit log each minute: it must not be filled,
 * nor the disk kept busy, by those who have no business here. */
#define AUDIT_STRANGERS_PER_MINUTE 60
/* Bytes of why a request was refused, in the audit log: a hundred thousand of them are kept. */
#define AUDIT_DETAIL_BYTES 320

/* Times in microseconds. All but body_idle are absolute: a byte now and then does not extend them. */
struct http_limits {
	uint64_t headers;   /* from the connection, or the first line of a later request, to the end of the headers */
	uint64_t body_idle; /* silence within a body */
	uint64_t body;      /* from the end of the headers to the end of the body */
	uint64_t answer;    /* until the client has taken the whole answer */
	uint64_t idle;      /* between two requests of a connection */
	uint64_t heartbeat; /* between two signs of life of a stream of events */
};

/* Generous to a person with a slow line; 256 connections that drip are gone within a minute. */
#define HTTP_LIMITS_DEFAULT                                                                                            \
	{                                                                                                              \
		.headers = 10000000, .body_idle = 10000000, .body = 60000000, .answer = 60000000, .idle = 60000000,    \
		.heartbeat = 15000000                                                                                  \
	}

#endif
