/*
 * The resources of schema/resources.def as REST objects: one set of handlers
 * for all of them. Called through routes.def; reaches the configuration only
 * through core.h.
 *
 * List:   {"items": [object...], "next": name or null, "total": number}; `next` is the value for ?after= of the next
 *         page, `total` counts what the filter lets through. ?limit= 1 to 1000 (default 100), ?after= a name,
 *         ?name= a name, or the beginning of one followed by '*'.
 *         An address set of more than REST_LIST_ENTRIES_MAX entries has `entries_count` in lists instead of `entries`;
 *         by itself, and in GET /config, it is complete, so that what is got can be put.
 * Object: as encode_row makes it; ETag is its revision, that of a list the configuration's revision. Where something is
 *         observed of an object it has that too, and is never "not modified": the tag knows nothing of it.
 * Write:  answers the object as it is stored now, with the headers of write.h.
 * Target: /upstreams/{name}/targets/{address}:{port} (an IPv6 address in brackets, or bare): a part of its upstream,
 *         with that one's entity tag. To be read, and PATCH: targets.h.
 */
#ifndef GW_WEBAPI_REST_H
#define GW_WEBAPI_REST_H

#include "webapi/router.h"

/* Names in one page at most: an answer of some hundred KiB. */
#define REST_PAGE_MAX     1000
#define REST_PAGE_DEFAULT 100

/* Entries of an address set that a list still shows: so many that a page of sets stays some megabytes. */
#define REST_LIST_ENTRIES_MAX 1000

/* An object with what is observed of it, where there is anything; new, NULL when memory is out. */
json_t *rest_document(struct core *core, const struct row *row);
/* Route handlers: 0 with the response filled, -ENOMEM. */
int rest_list(const struct request *request, struct response *response);
int rest_get(const struct request *request, struct response *response);
/* POST to a list, PUT, PATCH and DELETE of an object. */
int rest_write(const struct request *request, struct response *response);

#endif
