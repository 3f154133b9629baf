/*
 * What is stored and checked but has no effect yet, because the plane that
 * will enforce it does not: told with each write that relies on it, and in
 * the status. One table; a row of it goes when its plane learns the field.
 */
#ifndef GW_SCHEMA_UNENFORCED_H
#define GW_SCHEMA_UNENFORCED_H

#include "schema/errs.h"
#include "schema/types.h"

/* Adds a warning (code "not_enforced", pointer, words) to ret for each thing in the row, its children included, that
 * has no effect yet. Returns whether there was any. ret NULL: only asks. */
bool check_unenforced(const struct row *row, struct errs *ret);

#endif
