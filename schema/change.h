/*
 * What a change did to a row, as two texts for the history, and the way back.
 * Of a large set of prefixes only what differs is kept: of a change of one
 * entry among a hundred thousand, that entry.
 */
#ifndef GW_SCHEMA_CHANGE_H
#define GW_SCHEMA_CHANGE_H

#include <jansson.h>

#include "schema/errs.h"
#include "schema/types.h"

/* The row before and after, as JSON objects in new strings; NULL where there is none (old or new is NULL). Where both
 * are, a field of prefixes holds in each text only what the other lacks. 0 or -ENOMEM. */
int change_encode(const struct row *old, const struct row *new, char **ret_before, char **ret_after);
/* The same as JSON values, JSON null where there is none; for a diff that is shown. */
int change_json(const struct row *old, const struct row *new, json_t **ret_before, json_t **ret_after);
/* Undoes a change: the row that `before` says, where `now` is the row as it is after the change (NULL: deleted by it)
 * and both texts are those of change_encode. The row has the id of `now` and revision 0. For the other direction
 * exchange the texts. -EINVAL with faults in errs, -EBADMSG (no JSON), -ENOMEM. */
int change_undo(enum resource_id resource, const char *name, const struct row *now, const char *before,
        const char *after, struct errs *errs, struct row **ret);

#endif
