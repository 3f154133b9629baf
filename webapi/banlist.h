/*
 * Handlers of bans: GET, POST and DELETE /bans, /bans/{address} and
 * /bans/{address}/{length}. And of rate limits as they are at work: GET
 * /stats/rate-limits.
 */
#ifndef GW_WEBAPI_BANLIST_H
#define GW_WEBAPI_BANLIST_H

#include "webapi/message.h"

/* Bounds of POST /bans: seconds (30 days, as for rate limits), bytes of the reason. */
#define BANLIST_S_MAX      2592000
#define BANLIST_REASON_MAX 255

/* GET /bans */
int banlist_get(const struct request *request, struct response *response);
/* POST /bans {"address", "ban_s", "reason", "placement"} */
int banlist_post(const struct request *request, struct response *response);
/* DELETE /bans?address= */
int banlist_delete(const struct request *request, struct response *response);
/* GET and DELETE /bans/{address} and /bans/{address}/{length} */
int banlist_one(const struct request *request, struct response *response);
int banlist_lift(const struct request *request, struct response *response);
/* GET /stats/rate-limits and /stats/rate-limits/{name} */
int banlist_limits(const struct request *request, struct response *response);
int banlist_limit(const struct request *request, struct response *response);

#endif
