/* The fields of a record of a flow; see flow_field.h. */
#include "schema/flow_field.h"

#include <assert.h>
#include <string.h>

#include "gatewayd/base/cleanup.h"

static const struct {
	const char *word;
	bool of_end;
} fields[] = {
#define FLOW_FIELD(member, ends, doc) { #member, ends },
#include "schema/flow_field.def"
#undef FLOW_FIELD
};
static_assert(ARRAY_SIZE(fields) == FLOW_FIELDS, "one row each");

const char *flow_field_word(enum flow_field field)
{
	return fields[field].word;
}

bool flow_field_is_of_end(enum flow_field field)
{
	return fields[field].of_end;
}

enum flow_field flow_field_of_word(const char *word)
{
	int i = 0;

	while (i < FLOW_FIELDS && strcmp(fields[i].word, word) != 0)
		i++;
	return (enum flow_field)i;
}
