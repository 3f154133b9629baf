/*
 * Percent-decoding of paths and query strings, strictly: what is not well
 * formed is refused, never guessed. Called by router.c and the handlers.
 */
#ifndef GW_WEBAPI_URL_H
#define GW_WEBAPI_URL_H

#include "webapi/message.h"

/* Splits request->path at its slashes into request->segments, decoded; one slash at the end is ignored. 0, or -EINVAL
 * (bad escape, a byte that may not stand in a path, an escaped slash or control byte, an empty segment, no slash in
 * front), -E2BIG (more segments than any route has), -ENOMEM. */
int url_split_path(struct request *request);

/* The parameters of a request's query. `known` are the names that the handler takes; values[i] is a new string or
 * NULL for known[i]. Each fault (unknown, twice, bad escape) goes to errs. 0, -EINVAL with every value NULL, -ENOMEM.
 */
int url_parse_query(const char *query, const char *const *known, size_t n_known, char **values, struct errs *errs);

#endif
