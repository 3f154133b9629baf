/* POST /trace and what it has seen. Called through routes.def. */
#ifndef GW_WEBAPI_TRACE_H
#define GW_WEBAPI_TRACE_H

#include "webapi/message.h"

/* Route handlers: 0 with the response filled, -ENOMEM. */
int trace_post(const struct request *request, struct response *response);
int trace_list(const struct request *request, struct response *response);
int trace_one(const struct request *request, struct response *response);
int trace_delete(const struct request *request, struct response *response);

#endif
