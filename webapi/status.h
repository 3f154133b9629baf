/* What is told of the system: status, ruleset, liveness, readiness, documents. Called through routes.def. */
#ifndef GW_WEBAPI_STATUS_H
#define GW_WEBAPI_STATUS_H

#include "webapi/router.h"

/* Route handlers: 0 with the response filled, -ENOMEM. */
int status_health(const struct request *request, struct response *response);       /* "ok": the loop turns */
int status_readiness(const struct request *request, struct response *response);    /* 200, or 503 */
int status_status(const struct request *request, struct response *response);       /* core_status */
int status_doctor(const struct request *request, struct response *response);       /* core_doctor */
int status_doctor_probe(const struct request *request, struct response *response); /* core_doctor_probe */
int status_ruleset(const struct request *request, struct response *response); /* ?format=applied (default), desired */
int status_relay_restart(const struct request *request, struct response *response); /* core_relay_restart */
int status_openapi(const struct request *request, struct response *response);
int status_schema(const struct request *request, struct response *response);

#endif
