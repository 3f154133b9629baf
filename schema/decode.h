/*
 * JSON to rows: types, ranges, unknown and missing keys, canonical text. All
 * faults of a document are gathered in errs. Called by webapi (requests).
 */
#ifndef GW_SCHEMA_DECODE_H
#define GW_SCHEMA_DECODE_H

#include <jansson.h>

#include "schema/errs.h"
#include "schema/field.h"

/* Parses bytes as one JSON object, refusing duplicate keys and deep nesting. -EBADMSG with a fault in errs
 * (code "malformed" or "duplicate_key"), -ENOMEM. */
int decode_parse(const char *bytes, size_t length, struct errs *errs, json_t **ret);

/* One resource from an object. Absent keys take their default; a key that is required (a name or an address)
 * and missing is a fault. `name`, if given, is the name in the request's path: a body may leave it out but not
 * contradict it. Read-only keys that encode adds are accepted and ignored. -EINVAL with faults in errs, -ENOMEM. */
int decode_row(const struct resource *resource, json_t *object, const char *name, struct errs *errs, struct row **ret);

/* RFC 7396: applies patch to target in place. Both objects. 0 or -ENOMEM. */
int decode_merge_patch(json_t *target, json_t *patch);

#endif
