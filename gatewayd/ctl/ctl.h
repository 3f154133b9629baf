/*
 * gatewayctl: what its commands share. A thin client: each command asks the
 * API for a document (client.h), and prints it (print.h) or says why not.
 * Knows the API's public names, and nothing of the daemon's inside.
 */
#ifndef GW_CTL_CTL_H
#define GW_CTL_CTL_H

#include <jansson.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/ctl/args.h"
#include "gatewayd/ctl/client.h"

/* Documented in gatewayctl(1). */
enum ctl_exit {
	CTL_OK = 0,
	CTL_REFUSED = 1,     /* by the gateway; or a file could not be written */
	CTL_USAGE = 2,       /* wrong command line, or a file that cannot be read */
	CTL_UNREACHABLE = 3, /* no answer of the gateway */
	CTL_ATTENTION = 4    /* done, and there is something to look at */
};

struct ctl {
	struct args args;
	struct client *client;
	bool json; /* -o json */
};

CLEANUP_DEFINE(json_t *, json_decref)
#define _cleanup_json_ _cleanup_(json_decref_p)

/* A line to standard error, "gatewayctl: " in front. */
void ctl_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Asks the API; body may be NULL and stays the caller's. CTL_OK and the answer (client_answer_clear it), or the exit
 * code after the reason was said: what the problem says, with each fault and its pointer. */
int ctl_ask(struct ctl *ctl, const char *method, const char *path, json_t *body, const char *if_match,
        struct client_answer *ret);
/* The document of a GET, new; as ctl_ask. */
int ctl_get(struct ctl *ctl, const char *path, json_t **ret);
/* All pages of a list as one new array, of up to about `most` items; if the path is no list, its one document. As
 * ctl_ask. */
int ctl_list(struct ctl *ctl, const char *resource, uint64_t most, json_t **ret);
/* The unix socket and the address that options or environment name; NULL: no address, the socket is meant. */
const char *ctl_socket(const struct ctl *ctl);
const char *ctl_url(const struct ctl *ctl);
/* Says what the headers of an accepted write tell: warnings, and until when it must be confirmed. */
void ctl_say_written(const struct client_answer *answer);
/* A question at the terminal; without one, or with --yes, the answer is yes. */
bool ctl_may(const struct ctl *ctl, const char *question);
/* A path below /api/v1 of words (NULL ends them), new, each escaped but for its slashes; NULL when memory is out. */
char *ctl_path(struct ctl *ctl, const char *first, ...) __attribute__((sentinel));

/* The commands of commands.def. */
#define COMMAND(function, name, least, most, mask, usage, summary) ctl_command ctl_##function;
#include "gatewayd/ctl/commands.def"
#undef COMMAND

#endif
