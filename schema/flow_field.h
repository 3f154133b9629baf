/*
 * The fields of a record of a flow, by the words that settings choose them
 * with. The settings' rules and the daemon's writer share the table.
 */
#ifndef GW_SCHEMA_FLOW_FIELD_H
#define GW_SCHEMA_FLOW_FIELD_H

#include <stdbool.h>

enum flow_field {
#define FLOW_FIELD(member, ends, doc) FLOW_FIELD_##member,
#include "schema/flow_field.def"
#undef FLOW_FIELD
	FLOW_FIELDS
};

/* "bytes_to_client" */
const char *flow_field_word(enum flow_field field);
/* Whether only records of ends have it. */
bool flow_field_is_of_end(enum flow_field field);
/* The field of this word, FLOW_FIELDS if there is none. */
enum flow_field flow_field_of_word(const char *word);

#endif
