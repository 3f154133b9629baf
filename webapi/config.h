/*
 * The whole configuration as one document, and many changes as one. Called
 * through routes.def.
 *
 * GET /config        {"listeners": [...], ...}, each list sorted by name; ETag is the configuration's revision.
 * PUT /config        makes the document the configuration; a list that is left out is empty. What was got is put back
 *                    without a change. Tokens are not in it, and stay: their secrets are nobody's to export.
 * POST /transactions a list of {"method", "path", "body"}: each sees those before it, and all are done or none.
 * Pointers of faults begin with the item's number: "/3/body/ports/0".
 */
#ifndef GW_WEBAPI_CONFIG_H
#define GW_WEBAPI_CONFIG_H

#include "webapi/router.h"

/* Items of a transaction: the rows of a large gateway; more than that is a PUT of the configuration. */
#define TRANSACTION_ITEMS_MAX 10000

/* Route handlers: 0 with the response filled, -ENOMEM. */
int config_get(const struct request *request, struct response *response);
int config_put(const struct request *request, struct response *response);
int transaction_post(const struct request *request, struct response *response);

#endif
