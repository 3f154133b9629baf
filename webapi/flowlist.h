/* Handlers of live flows: GET /flows with its filters, GET and DELETE /flows/{id}. */
#ifndef GW_WEBAPI_FLOWLIST_H
#define GW_WEBAPI_FLOWLIST_H

#include "webapi/message.h"

/* Digits of a flow's id, hexadecimal. */
#define FLOWLIST_ID_DIGITS 16

/* GET /flows */
int flowlist_get(const struct request *request, struct response *response);
/* GET /flows/{id} */
int flowlist_one(const struct request *request, struct response *response);
/* DELETE /flows/{id} */
int flowlist_kill(const struct request *request, struct response *response);

#endif
