/*
 * libmicrohttpd as a machine without threads.
 *
 * Theory of operation. The library accepts, reads and writes when MHD_run is
 * called, on sockets that are in its epoll descriptor. It calls us: for a
 * connection (on_connection), for the request line (on_target), at the end of
 * the headers, for each piece of a body and at its end (on_request), and when
 * a request is over (on_completed). A response that is queued at the end of
 * the headers makes the library close the connection afterwards, so ordinary
 * answers, and refusals whose body is worth reading, wait for the last call.
 * In the middle of a body no response can be queued at all: what has to be
 * said there is written to the socket by watch.c, which also holds every
 * deadline, since the library's own timeout is one of inactivity. The strict
 * mode of the library is off, because it refuses without a problem document
 * what screen.c refuses with one.
 *
 * Streams of events. The library asks for the next bytes (on_stream_read); if
 * there are none, the connection is suspended there, and resumed by the next
 * event or the next heartbeat. A suspended connection has no time limit in
 * the library and does not notice that its client is gone: the heartbeat is
 * what finds out. None may be suspended when the library is stopped, so they
 * are ended and run once more before (end_streams).
 */
#include "webapi/http.h"

#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <string.h>

#include "gatewayd/base/log.h"
#include "webapi/assets.h"
#include "webapi/dispatch.h"
#include "webapi/kept.h"
#include "webapi/problem.h"
#include "webapi/watch.h"

/* One reader of events. */
struct stream {
	struct stream *previous, *next;
	struct http_server *server;
	struct MHD_Connection *connection;
	struct events_reader *reader;
	bool suspended;
};

struct http_server {
	struct MHD_Daemon *mhd;
	struct stream *streams;
	struct events_listener listener;
	struct sessions *own_sessions;
	uint64_t beat; /* when the next heartbeat is due, microseconds */
	bool resumed;  /* since the last MHD_run a stream was resumed, which the library tells nobody */
	bool closing;
	int listen_fd;
	bool closed_some; /* since the last MHD_run a connection ended */
	struct watches watches;
	struct dispatch dispatch;
};

static void on_panic(void *cls, const char *file, unsigned line, const char *reason)
{
	(void)cls;
	log_error("libmicrohttpd gives up at %s:%u: %s", file, line, reason ? reason : "no reason told");
	abort(); /* its state is broken; the relay goes on without us, and the next daemon finds it */
}

static void on_log(void *cls, const char *format, va_list arguments)
{
	char line[256];

	(void)cls;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	vsnprintf(line, sizeof(line), format, arguments);
#pragma GCC diagnostic pop
	line[strcspn(line, "\n")] = '\0';
	log_debug("libmicrohttpd: %s", line);
}

static struct watch *watch_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

static void on_connection(
        void *cls, struct MHD_Connection *connection, void **context, enum MHD_ConnectionNotificationCode code)
{
	struct http_server *server = cls;
	const union MHD_ConnectionInfo *info;
	struct watch *watch;

	if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
		watch = *context;
		/* A request that has left the library no memory to answer it with is never said to be over. */
		dispatch_end(&server->dispatch, watch ? watch->exchange : NULL);
		watch_free(&server->watches, watch);
		server->closed_some = true;
		return;
	}
	info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	watch = watch_new(&server->watches, info->connect_fd);
	if (watch)
		auth_peer_read(server->dispatch.services.auth, watch->fd, &watch->peer);
	*context = watch; /* NULL: on_request then closes the connection */
}

/* The target as it was received, since the library decodes it loosely: url.c does it strictly. Returns the context of
 * the request. */
static void *on_target(void *cls, const char *target, struct MHD_Connection *connection)
{
	struct http_server *server = cls;
	struct watch *watch = watch_of(connection);
	struct exchange *exchange = watch ? calloc(1, sizeof(*exchange)) : NULL;
	char *query;

	if (watch)
		watch_enter(&server->watches, watch, WATCH_HEADERS);
	if (!exchange)
		return NULL;
	exchange->request.path = strdup(target);
	if (!exchange->request.path) {
		free(exchange);
		return NULL;
	}
	query = strchr(exchange->request.path, '?');
	if (query)
		*query++ = '\0';
	exchange->request.query = query ? query : "";
	watch->exchange = exchange;
	return exchange;
}

static enum MHD_Result on_header(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct request *request = cls;
	enum header_id id = header_parse(name);

	(void)kind;
	/* A name with a blank at its end is another name to us, and the same one to some proxy in front. */
	if (!*name || strpbrk(name, " \t\v\f\r\"(),/:;<=>?@[\\]{}"))
		request->bad_header = true;
	if (id != HEADERS && !request->headers[id].count++)
		request->headers[id].value = value ? value : "";
	return MHD_YES;
}

static bool add_header(struct MHD_Response *answer, const char *name, const char *value)
{
	return MHD_add_response_header(answer, name, value) == MHD_YES;
}

/* The UI loads its own scripts and styles, talks to its own origin and never makes markup out of text; an answer of the
 * API is never a page. */
static bool add_headers(struct MHD_Response *answer, const struct response *response)
{
	bool ok =
	        add_header(answer, "X-Content-Type-Options", "nosniff") &&
	        add_header(answer, "Referrer-Policy", "no-referrer") &&
	        add_header(answer, "Cross-Origin-Resource-Policy", "same-origin") &&
	        add_header(answer, "Cache-Control", response->page ? "no-cache" : "no-store") &&
	        add_header(answer, "Content-Security-Policy",
	                response->page ? "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
	                                 "frame-ancestors 'none'; require-trusted-types-for 'script'"
	                               : "default-src 'none'; frame-ancestors 'none'");

	if (response->content_type)
		ok = ok && add_header(answer, "Content-Type", response->content_type);
	if (response->must_close)
		ok = ok && add_header(answer, "Connection", "close");
	for (size_t i = 0; i < response->n_headers; i++)
		ok = ok && add_header(answer, response->headers[i].name, response->headers[i].value);
	return ok;
}

static void resume(struct stream *stream)
{
	if (!stream->suspended)
		return;
	stream->suspended = false;
	stream->server->resumed = true;
	MHD_resume_connection(stream->connection);
}

static void on_event(void *userdata)
{
	struct http_server *server = userdata;

	for (struct stream *stream = server->streams; stream; stream = stream->next)
		resume(stream);
}

static ssize_t on_stream_read(void *cls, uint64_t position, char *bytes, size_t size)
{
	struct stream *stream = cls;
	ssize_t n = events_read(stream->reader, bytes, size);

	(void)position;
	if (n < 0)
		return MHD_CONTENT_READER_END_OF_STREAM;
	/* What is read here goes out at once, or the client is slow: then this is not called again in time. */
	watch_enter(&stream->server->watches, watch_of(stream->connection), WATCH_ANSWER);
	if (!n) {
		stream->suspended = true;
		MHD_suspend_connection(stream->connection);
	}
	return n;
}

static void on_stream_end(void *cls)
{
	struct stream *stream = cls;

	if (stream->next)
		stream->next->previous = stream->previous;
	if (stream->previous)
		stream->previous->next = stream->next;
	else
		stream->server->streams = stream->next;
	events_reader_free(stream->reader);
	free(stream);
}

/* Takes the reader out of the response. NULL when memory is out. */
static struct MHD_Response *make_stream(
        struct http_server *server, struct MHD_Connection *connection, struct response *response)
{
	struct stream *stream = calloc(1, sizeof(*stream));
	struct MHD_Response *answer = stream ? MHD_create_response_from_callback(
	                                               MHD_SIZE_UNKNOWN, 4096, on_stream_read, stream, on_stream_end)
	                                     : NULL;

	if (!answer) {
		free(stream);
		return NULL;
	}
	*stream = (struct stream){ .next = server->streams,
		.server = server,
		.connection = connection,
		.reader = TAKE_PTR(response->stream) };
	if (stream->next)
		stream->next->previous = stream;
	else
		server->beat = watch_now() + server->watches.limits.heartbeat;
	server->streams = stream;
	if (server->closing)
		events_reader_end(stream->reader);
	return answer;
}

/* When it is time, every stream says that it is alive. */
static void beat(struct http_server *server)
{
	uint64_t now = watch_now();

	if (!server->streams || now < server->beat)
		return;
	server->beat = now + server->watches.limits.heartbeat;
	for (struct stream *stream = server->streams; stream; stream = stream->next) {
		events_reader_beat(stream->reader);
		resume(stream);
	}
}

static void end_streams(struct http_server *server)
{
	server->closing = true;
	for (struct stream *stream = server->streams; stream; stream = stream->next) {
		events_reader_end(stream->reader);
		resume(stream);
	}
	MHD_run(server->mhd);
	MHD_run(server->mhd);
}

/* The library's response with the body, which it takes over. */
static struct MHD_Response *make_answer(
        struct http_server *server, struct MHD_Connection *connection, struct response *response)
{
	struct MHD_Response *answer;

	if (response->stream)
		return make_stream(server, connection, response);
	if (response->has_file) {
		answer = MHD_create_response_from_fd64(response->length, response->file);
		response->has_file = !answer;
		return answer;
	}
	answer = MHD_create_response_from_buffer(response->length, response->body,
	        response->is_static || !response->body ? MHD_RESPMEM_PERSISTENT : MHD_RESPMEM_MUST_FREE);
	if (answer)
		response->body = NULL;
	return answer;
}

/* The audit log, and with it the last of what a change is said to have taken. */
static void audit(struct http_server *server, struct exchange *exchange)
{
	struct response *response = &exchange->response;
	uint64_t begun = watch_now(), end;

	dispatch_audit(&server->dispatch, exchange);
	end = watch_now();
	if (*response->timing)
		(void)response_header(response, "Server-Timing", "%s, audit;dur=%.3f, total;dur=%.3f", response->timing,
		        (double)(end - begun) / 1e3, (double)(end - exchange->complete) / 1e3);
}

/* Hands the response to the library; its body goes along. MHD_NO closes the connection. */
static enum MHD_Result queue(struct http_server *server, struct MHD_Connection *connection, struct exchange *exchange)
{
	struct response *response = &exchange->response;
	struct MHD_Response *answer;
	enum MHD_Result result = MHD_NO;

	audit(server, exchange);
	answer = make_answer(server, connection, response);
	if (!answer)
		return MHD_NO;
	watch_enter(&server->watches, watch_of(connection), WATCH_ANSWER);
	if (add_headers(answer, response))
		result = MHD_queue_response(connection, response->status, answer);
	MHD_destroy_response(answer);
	return result;
}

/* The headers are complete. */
static enum MHD_Result begin(struct http_server *server, struct MHD_Connection *connection, struct exchange *exchange,
        const char *method, const char *version)
{
	struct watch *watch = watch_of(connection);
	struct request *request = &exchange->request;

	request->method = method_parse(method);
	request->http_1_1 = strcmp(version, MHD_HTTP_VERSION_1_0) != 0;
	MHD_get_connection_values(connection, MHD_HEADER_KIND, on_header, request);
	dispatch_begin(&server->dispatch, exchange, &watch->peer);
	watch_enter(&server->watches, watch, WATCH_BODY);
	exchange->begun = true;
	return dispatch_answers_now(exchange) ? queue(server, connection, exchange) : MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
        const char *version, const char *upload, size_t *upload_size, void **context)
{
	struct http_server *server = cls;
	struct exchange *exchange = *context;
	struct watch *watch = watch_of(connection);

	(void)url;
	if (!exchange || !watch)
		return MHD_NO;
	if (!exchange->begun)
		return begin(server, connection, exchange, method, version);
	if (*upload_size) {
		watch_progress(&server->watches, watch);
		if (dispatch_body(&server->dispatch, exchange, upload, *upload_size) < 0) {
			dispatch_audit(&server->dispatch, exchange);
			watch_cut(watch, problem_raw_too_large());
			return MHD_NO;
		}
		*upload_size = 0;
		return MHD_YES;
	}
	dispatch_finish(&server->dispatch, exchange);
	return queue(server, connection, exchange);
}

static void on_completed(
        void *cls, struct MHD_Connection *connection, void **context, enum MHD_RequestTerminationCode code)
{
	struct http_server *server = cls;
	struct watch *watch = watch_of(connection);

	(void)code;
	dispatch_end(&server->dispatch, *context);
	*context = NULL;
	if (watch) {
		watch->exchange = NULL;
		watch_enter(&server->watches, watch, WATCH_IDLE);
	}
}

static int start(struct http_server *server, bool unix_socket)
{
	unsigned per_address = unix_socket ? 0 : HTTP_CONNECTIONS_PER_ADDRESS_MAX;
	unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
	struct MHD_OptionItem plain[] = { { MHD_OPTION_END, 0, NULL } };
	struct MHD_OptionItem secure[] = { { MHD_OPTION_HTTPS_CERT_CALLBACK2, 0, (void *)tls_retrieve },
		{ MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)"NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2" },
		{ MHD_OPTION_END, 0, NULL } };

	MHD_set_panic_func(on_panic, NULL);
	if (server->dispatch.services.secure)
		flags |= MHD_USE_TLS;
	server->mhd = MHD_start_daemon(flags, 0, NULL, NULL, on_request, server, MHD_OPTION_EXTERNAL_LOGGER, on_log,
	        NULL, MHD_OPTION_LISTEN_SOCKET, server->listen_fd, MHD_OPTION_CONNECTION_LIMIT,
	        (unsigned)HTTP_CONNECTIONS_MAX, MHD_OPTION_PER_IP_CONNECTION_LIMIT, per_address,
	        MHD_OPTION_CONNECTION_MEMORY_LIMIT, HTTP_CONNECTION_MEMORY, MHD_OPTION_CONNECTION_TIMEOUT, 0u,
	        MHD_OPTION_NOTIFY_COMPLETED, on_completed, server, MHD_OPTION_NOTIFY_CONNECTION, on_connection, server,
	        MHD_OPTION_URI_LOG_CALLBACK, on_target, server, MHD_OPTION_ARRAY,
	        server->dispatch.services.secure ? secure : plain, MHD_OPTION_END);
	return server->mhd ? 0 : -EIO;
}

/* What the handlers have beside the core. 0 or -ENOMEM. */
static int build_services(struct http_server *server, const struct http_config *config)
{
	struct services *services = &server->dispatch.services;

	if (!config->sessions && !(server->own_sessions = sessions_new()))
		return -ENOMEM;
	services->sessions = config->sessions ? config->sessions : server->own_sessions;
	services->tls = config->tls;
	services->secure = config->secure && config->tls;
	services->events = config->events;
	services->kept = kept_new();
	services->temp_dir = strdup(config->temp_dir ? config->temp_dir : "/tmp");
	if (!services->kept || !services->temp_dir)
		return -ENOMEM;
	if (services->secure)
		tls_serve(config->tls);
	server->watches.secure = services->secure;
	server->listener = (struct events_listener){ .wake = on_event, .userdata = server };
	if (config->events)
		events_listen(config->events, &server->listener);
	return 0;
}

static int build(struct http_server *server, const struct http_config *config)
{
	int r;

	server->dispatch.core = config->core;
	server->watches.limits = config->limits ? *config->limits : (struct http_limits)HTTP_LIMITS_DEFAULT;
	if (config->host_name && !(server->dispatch.host_name = strdup(config->host_name)))
		return -ENOMEM;
	r = build_services(server, config);
	if (r < 0)
		return r;
	r = auth_new(config->unix_socket, config->api_gid, config->token, &server->dispatch.services.auth);
	if (r < 0)
		return r;
	r = assets_load(config->ui_dir, &server->dispatch.assets);
	if (r < 0)
		return r;
	if (fcntl(server->listen_fd, F_SETFL, fcntl(server->listen_fd, F_GETFL) | O_NONBLOCK) < 0)
		return -errno;
	return start(server, config->unix_socket);
}

int http_server_new(const struct http_config *config, struct http_server **ret)
{
	struct http_server *server = calloc(1, sizeof(*server));
	int r;

	if (!server) {
		close(config->listen_fd);
		return -ENOMEM;
	}
	server->listen_fd = config->listen_fd;
	r = build(server, config);
	if (r < 0) {
		http_server_free(server);
		return r;
	}
	*ret = server;
	return 0;
}

void http_server_free(struct http_server *server)
{
	if (!server)
		return;
	if (server->mhd) {
		end_streams(server);
		MHD_stop_daemon(server->mhd); /* closes the listening socket and every connection */
	} else {
		close(server->listen_fd);
	}
	if (server->dispatch.services.events)
		events_unlisten(server->dispatch.services.events, &server->listener);
	while (server->watches.first)
		watch_free(&server->watches, server->watches.first);
	assets_free(server->dispatch.assets);
	auth_free(server->dispatch.services.auth);
	sessions_free(server->own_sessions);
	kept_free(server->dispatch.services.kept);
	free((char *)server->dispatch.services.temp_dir);
	free(server->dispatch.host_name);
	free(server);
}

int http_server_fd(const struct http_server *server)
{
	return MHD_get_daemon_info(server->mhd, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
}

void http_server_run(struct http_server *server)
{
	watches_expire(&server->watches);
	beat(server);
	server->resumed = false;
	MHD_run(server->mhd);
	/* At its limit of connections the library stops listening, and listens again only at the start of a run. */
	if (server->closed_some) {
		server->closed_some = false;
		MHD_run(server->mhd);
	}
}

uint64_t http_server_timeout(struct http_server *server)
{
	uint64_t own = watches_wait(&server->watches);
	MHD_UNSIGNED_LONG_LONG milliseconds;
	uint64_t now = watch_now();

	if (server->resumed)
		return 0;
	if (server->streams && (server->beat <= now || server->beat - now < own))
		own = server->beat <= now ? 0 : server->beat - now;
	if (MHD_get_timeout(server->mhd, &milliseconds) != MHD_YES || milliseconds > own / 1000)
		return own;
	return milliseconds * 1000;
}
