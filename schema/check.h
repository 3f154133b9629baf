/*
 * Rules about several fields of one row that no single field's table row can
 * say. Rules about several rows are in rules/ (overlap) and in the core (references).
 */
#ifndef GW_SCHEMA_CHECK_H
#define GW_SCHEMA_CHECK_H

#include "schema/errs.h"
#include "schema/types.h"

/* 0, or -EINVAL with faults in errs. Called by decode_row and after loading. */
int check_row(const struct row *row, struct errs *errs);

#endif
