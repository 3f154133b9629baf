/*
 * JSON to rows: types, ranges, unknown and missing keys, canonical text. All
 * faults of a document are gathered in errs. Called by webapi (requests).
 */
#ifndef GW_SCHEMA_DECODE_H
#define GW_SCHEMA_DECODE_H

#include <jansson.h>

#include "schema/errs.h"
#include "schema/field.h"

/* Objects and arrays within each other in a request; resources need 4. */
#define DECODE_DEPTH_MAX 16

/* Parses bytes as one JSON object, refusing duplicate keys and deep nesting. -EBADMSG with a fault in errs
 * (code "malformed" or "duplicate_key"), -ENOMEM. */
int decode_parse(const char *bytes, size_t length, struct errs *errs, json_t **ret);

/* One resource from an object. Absent keys take their default; a key that is required (a name or an address)
 * and missing is a fault. `name`, if given, is the name in the request's path: a body may leave it out but not
 * contradict it. A document that encode_row made is taken back as it is. -EINVAL with faults in errs, -ENOMEM. */
int decode_row(const struct resource *resource, json_t *object, const char *name, struct errs *errs, struct row **ret);

/* RFC 7396: applies patch to target in place. Both objects. 0 or -ENOMEM. */
int decode_merge_patch(json_t *target, json_t *patch);

/* The text that encode_list wrote, into an empty list. -EBADMSG if it is not an array of strings, -ENOMEM. */
int decode_list(const char *text, struct strings *ret);

#endif
