/*
 * Rules about several fields of one row that no single field's table row can
 * say. Rules about several rows are in rules/ (overlap) and in the core (references).
 */
#ifndef GW_SCHEMA_CHECK_H
#define GW_SCHEMA_CHECK_H

#include "schema/errs.h"
#include "schema/types.h"

/* Every rule for a row that is already typed: each field's own (value.h), the children's, and those about several
 * fields. For rows that did not come through decode_row. 0, or -EINVAL with faults in errs. */
int check_row(const struct row *row, struct errs *errs);

/* Only the rules about several fields of the row itself, for the row at JSON pointer `base` ("" for the document).
 * A rule is skipped if errs holds a fault of a field it looks at. */
void check_rules(const struct row *row, const char *base, struct errs *errs);

#endif
