/*
 * Targets of an upstream as they are seen, and what operators say of them while
 * the gateway runs. Making, replacing and deleting targets is configuration and
 * is in rest.c; PATCH of a target is not: it makes no revision.
 */
#ifndef GW_WEBAPI_TARGETS_H
#define GW_WEBAPI_TARGETS_H

#include "webapi/router.h"

/* Route handlers: 0 with the response filled, -ENOMEM. */
int targets_list(const struct request *request, struct response *response);
int targets_get(const struct request *request, struct response *response);
int targets_patch(const struct request *request, struct response *response);

#endif
