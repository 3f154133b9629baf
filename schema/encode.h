/* Rows to JSON, in the order of the resource's fields. Called by webapi and the core. */
#ifndef GW_SCHEMA_ENCODE_H
#define GW_SCHEMA_ENCODE_H

#include <jansson.h>

#include "schema/field.h"
#include "schema/text.h"

/* A new object with every field of the row; NULL when memory is out. */
json_t *encode_row(const struct row *row);

/* What else encode_text writes, or leaves out. */
enum {
	ENCODE_SECRETS = 1 << 0,          /* fields that are told to nobody, too */
	ENCODE_WITHOUT_PREFIXES = 1 << 1, /* no large sets */
};

/* Appends the same document as compact text, several times faster. 0 or -ENOMEM. */
int encode_text(const struct row *row, unsigned flags, struct text *text);

/* A list as one line of JSON, e.g. ["443","8000-8100"]; a new string, NULL when memory is out. */
char *encode_list(const struct strings *strings);

#endif
