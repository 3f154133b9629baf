/*
 * The entries of an address set in bulk: one prefix a line, or a JSON list of
 * strings. Called through routes.def; a change is a write of the set's row
 * like any other. It costs what differs, here and in the planes behind the core
 * (prefixes.h).
 *
 * GET     all, sorted, in canonical form: text/plain, or a JSON list if Accept prefers application/json
 * POST    adds those of the body, PUT replaces all by them, DELETE removes exactly them (what the set does not have is
 *         no fault; a prefix is not cut out of a wider one)
 *
 * Body: text/plain (an address, prefix or range a line; a # begins a comment) or application/json (a list of the same
 * as strings). Faults name the line, or point to the item. A write answers {"revision", "changed", "entries", "added",
 * "removed", "warnings", "pending"}, `entries` being how many the set has now, with the headers of write.h and the
 * set's ETag; ?dry_run= and ?confirm_within=, If-Match and If-None-Match are those of the set.
 */
#ifndef GW_WEBAPI_ENTRIES_H
#define GW_WEBAPI_ENTRIES_H

#include "webapi/router.h"

/* Route handlers: 0 with the response filled, -ENOMEM. */
int entries_get(const struct request *request, struct response *response);
int entries_write(const struct request *request, struct response *response);

#endif
