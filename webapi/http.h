/*
 * The HTTP servers: libmicrohttpd without threads, one per socket (unix
 * socket, loopback TCP), driven by the daemon's event loop through one
 * descriptor each. The only file that includes microhttpd.h is http.c.
 */
#ifndef GW_WEBAPI_HTTP_H
#define GW_WEBAPI_HTTP_H

#include <stdint.h>

#include "webapi/core.h"
#include "webapi/events.h"
#include "webapi/limits.h"
#include "webapi/sessions.h"
#include "webapi/tls.h"

struct http_server;

struct http_config {
	int listen_fd;      /* bound and listening; taken over */
	bool unix_socket;   /* authenticate by peer credentials (root, own uid, or group api_gid) instead of by token */
	int64_t api_gid;    /* -1: none */
	const char *token;  /* bearer token for TCP; copied (as a hash). NULL: every TCP request is refused */
	const char *ui_dir; /* static files for "/", or NULL */
	struct core *core;
	const char *host_name; /* TCP: a further name accepted in Host beside addresses and "localhost"; NULL: none */
	struct events *events; /* shared by all servers (events.h); NULL: no stream of events. Must live longer */
	struct sessions
	        *sessions;    /* shared by all servers (sessions.h); NULL: the server has its own. Must live longer */
	struct tls *tls;      /* certificate that GET and PUT /tls are about (tls.h), or NULL. Must live longer */
	bool secure;          /* speak TLS, with the certificate of `tls`; one `tls` in a process */
	const char *temp_dir; /* where copies for GET /backup are made; copied; NULL: "/tmp" */
	const struct http_limits *limits; /* NULL: HTTP_LIMITS_DEFAULT; copied */
};

/* 0, -ENOMEM, -EIO (the library refused), or why ui_dir could not be read (assets.h). listen_fd is closed on failure.
 */
int http_server_new(const struct http_config *config, struct http_server **ret);
/* Ends every connection (streams of events with their last bytes), closes the socket and frees. NULL is allowed. */
void http_server_free(struct http_server *server);
/* Poll this for reading, and call http_server_run when it is ready or the timeout has passed. */
int http_server_fd(const struct http_server *server);
void http_server_run(struct http_server *server);
/* Microseconds until http_server_run must be called again; UINT64_MAX: not needed. */
uint64_t http_server_timeout(struct http_server *server);

#endif
