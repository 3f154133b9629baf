/* POST /explain: what would happen to a packet. Called through routes.def. */
#ifndef GW_WEBAPI_EXPLAIN_H
#define GW_WEBAPI_EXPLAIN_H

#include "webapi/message.h"

/* Route handler: 0 with the response filled, -ENOMEM. */
int explain_post(const struct request *request, struct response *response);

#endif
