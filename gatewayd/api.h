/*
 * The API's servers within the daemon: opens their sockets, gives them what
 * they share (certificate, sessions, events) and drives them from the event
 * loop. Used by daemon.c.
 */
#ifndef GW_API_H
#define GW_API_H

#include <systemd/sd-event.h>

#include "gatewayd/options.h"
#include "webapi/core.h"
#include "webapi/events.h"

struct api;

/* Opens api.sock and every --listen, after reading or making token and certificate. What is wrong is logged.
 * event, options and core must outlive it. 0 or negative errno. */
int api_new(sd_event *event, const struct options *options, struct core *core, struct events *events, struct api **ret);
/* Ends every connection and closes the sockets. */
void api_free(struct api *api);

#endif
