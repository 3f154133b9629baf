/*
 * What was changed and by whom, and the way back. Called through routes.def.
 *
 * GET /revisions              {"items": [...], "next": number or null, "pending": {...} or null}, newest first;
 *                             ?limit= 1 to 1000 (default 100), ?before= a revision
 * GET /revisions/{n}          one, with its changes
 * GET /revisions/{n}/diff     {"from", "to", "diff": [{op, path, before, after}]}; ?to= (default: the newest)
 * POST /revisions/{n}/rollback  as a new revision
 * POST /revisions/{n}/confirm   keeps the change that waits
 * GET /audit                  {"items": [...], "next"}; ?limit=, ?before= an id
 * GET /backup                 a consistent copy of the database
 */
#ifndef GW_WEBAPI_HISTORY_H
#define GW_WEBAPI_HISTORY_H

#include "webapi/router.h"

/* Route handlers: 0 with the response filled, -ENOMEM. */
int history_list(const struct request *request, struct response *response);
int history_get(const struct request *request, struct response *response);
int history_diff(const struct request *request, struct response *response);
int history_rollback(const struct request *request, struct response *response);
int history_confirm(const struct request *request, struct response *response);
int history_audit(const struct request *request, struct response *response);
int history_backup(const struct request *request, struct response *response);

#endif
