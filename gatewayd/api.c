/* The API's servers within the daemon; see api.h. */
#include "gatewayd/api.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "gatewayd/base/log.h"
#include "gatewayd/files.h"
#include "gatewayd/sockets.h"
#include "webapi/http.h"
#include "webapi/sessions.h"
#include "webapi/tls.h"

/* Members of this group may use api.sock. */
#define API_GROUP "gatewayd"

/* One server and its place in the event loop. */
struct api_server {
	struct http_server *server;
	sd_event_source *io, *timer;
};

struct api {
	sd_event *event;
	const struct options *options;
	struct core *core;
	struct events *events;
	struct sessions *sessions;
	struct tls *tls;
	struct api_server servers[1 + OPTIONS_LISTEN_MAX];
	unsigned n_servers;
};

static int on_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct api_server *server = userdata;

	(void)source;
	(void)fd;
	(void)events;
	http_server_run(server->server);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct api_server *server = userdata;

	(void)source;
	(void)usec;
	http_server_run(server->server);
	return 0;
}

/* Before each wait: the server says when it must be called next, whatever happened meanwhile. */
static int before_wait(sd_event_source *source, void *userdata)
{
	struct api_server *server = userdata;
	uint64_t timeout = http_server_timeout(server->server);

	(void)source;
	if (timeout == UINT64_MAX)
		return sd_event_source_set_enabled(server->timer, SD_EVENT_OFF);
	(void)sd_event_source_set_time_relative(server->timer, timeout);
	return sd_event_source_set_enabled(server->timer, SD_EVENT_ONESHOT);
}

/* What all servers have in common. */
static struct http_config common_config(const struct api *api)
{
	return (struct http_config){ .api_gid = -1,
		.ui_dir = api->options->ui_dir,
		.core = api->core,
		.events = api->events,
		.sessions = api->sessions,
		.tls = api->tls,
		.temp_dir = api->options->state_dir };
}

static int add_server(struct api *api, const struct http_config *config)
{
	struct api_server *server = &api->servers[api->n_servers];
	int r;

	r = http_server_new(config, &server->server);
	if (r < 0)
		return r;
	api->n_servers++;
	r = sd_event_add_io(api->event, &server->io, http_server_fd(server->server), EPOLLIN, on_io, server);
	if (r >= 0)
		r = sd_event_add_time_relative(api->event, &server->timer, CLOCK_MONOTONIC, 0, 1000, on_timer, server);
	if (r >= 0)
		r = sd_event_source_set_prepare(server->io, before_wait);
	return r < 0 ? r : 0;
}

static int open_unix(struct api *api)
{
	struct http_config config = common_config(api);
	const struct group *group = getgrnam(API_GROUP);
	char path[PATH_MAX];

	config.unix_socket = true;
	config.api_gid = group ? (int64_t)group->gr_gid : -1;
	snprintf(path, sizeof(path), "%s/api.sock", api->options->runtime_dir);
	config.listen_fd = sockets_make_api_unix(path, config.api_gid);
	if (config.listen_fd < 0) {
		log_error("%s: %s", path, strerror(-config.listen_fd));
		return config.listen_fd;
	}
	return add_server(api, &config);
}

static int open_tcp(struct api *api, const char *url, const char *token)
{
	struct http_config config = common_config(api);
	const char *reason = "";

	config.token = token;
	config.listen_fd = sockets_make_api_tcp(url, &config.secure, &reason);
	if (config.listen_fd < 0) {
		log_error("--listen %s: %s (%s)", url, reason, strerror(-config.listen_fd));
		return config.listen_fd;
	}
	return add_server(api, &config);
}

static int open_all(struct api *api)
{
	char token[FILES_TOKEN_LENGTH + 1];
	int r;

	r = files_admin_token(api->options->state_dir, token);
	if (r < 0) {
		log_error("%s/admin.token cannot be used: %s", api->options->state_dir, strerror(-r));
		return r;
	}
	r = open_unix(api);
	for (unsigned i = 0; r == 0 && i < api->options->n_listen; i++)
		r = open_tcp(api, api->options->listen[i], token);
	explicit_bzero(token, sizeof(token));
	return r;
}

static int open_certificate(struct api *api)
{
	char path[PATH_MAX];
	bool made = false;
	int r;

	snprintf(path, sizeof(path), "%s/tls", api->options->state_dir);
	r = tls_open(path, &api->tls, &made);
	if (r < 0) {
		log_error("the certificate in %s cannot be used: %s", path, strerror(-r));
		return r;
	}
	if (made)
		log_notice("made a self-signed certificate, fingerprint %s", tls_fingerprint(api->tls));
	tls_serve(api->tls);
	return 0;
}

int api_new(sd_event *event, const struct options *options, struct core *core, struct events *events, struct api **ret)
{
	struct api *api = calloc(1, sizeof(*api));
	int r;

	if (!api)
		return -ENOMEM;
	*api = (struct api){ .event = event, .options = options, .core = core, .events = events };
	api->sessions = sessions_new();
	r = api->sessions ? open_certificate(api) : -ENOMEM;
	if (r == 0)
		r = open_all(api);
	if (r < 0) {
		api_free(api);
		return r;
	}
	*ret = api;
	return 0;
}

void api_free(struct api *api)
{
	if (!api)
		return;
	for (unsigned i = 0; i < api->n_servers; i++) {
		sd_event_source_disable_unref(api->servers[i].io);
		sd_event_source_disable_unref(api->servers[i].timer);
		http_server_free(api->servers[i].server);
	}
	sessions_free(api->sessions);
	tls_free(api->tls);
	free(api);
}
