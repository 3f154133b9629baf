/* Rows to JSON, in the order of the resource's fields. Called by webapi and the core. */
#ifndef GW_SCHEMA_ENCODE_H
#define GW_SCHEMA_ENCODE_H

#include <jansson.h>

#include "schema/field.h"

/* A new object with every field of the row; NULL when memory is out. */
json_t *encode_row(const struct row *row);

/* A list as one line of JSON, e.g. ["443","8000-8100"]; a new string, NULL when memory is out. */
char *encode_list(const struct strings *strings);

#endif
