/*
 * What the API asks of the core; implemented in gatewayd/core.c. webapi sees
 * rows, documents and errors, and nothing of the store, the kernel or the
 * relay. All calls are made on the daemon's one thread and answer at once.
 */
#ifndef GW_WEBAPI_CORE_H
#define GW_WEBAPI_CORE_H

#include <jansson.h>

#include "schema/errs.h"
#include "schema/field.h"

struct core;

enum core_operation {
	CORE_CREATE, /* -EEXIST if the name is taken */
	CORE_PUT,    /* creates or replaces */
	CORE_DELETE,
};

struct core_write {
	enum core_operation operation;
	enum resource_id resource;
	const char *name;    /* of the row */
	struct row *row;     /* borrowed; NULL for CORE_DELETE */
	int64_t if_revision; /* the row must be of this revision (If-Match); 0: any; -1: it must not exist */
	const char *actor;   /* who, for history and log: "uid 0", "token admin" */
};

struct core_result {
	int64_t revision; /* of the configuration after the write */
	bool created;
};

/* Validates, plans, applies in every plane and stores, or changes nothing at all. 0 or
 * -EINVAL 422, -EEXIST 409 (name, overlap), -EBUSY 409 (in use, pending), -ENOENT 404, -ESTALE 412,
 * -EIO, -ENOSPC, -EROFS, -EAGAIN 503; faults, with words, in errs. */
int core_write(struct core *core, const struct core_write *write, struct errs *errs, struct core_result *ret);

/* Borrowed until control returns to the event loop. NULL if there is none. */
const struct row *core_find(struct core *core, enum resource_id resource, const char *name);
/* Up to `max` rows with names greater than `after` (NULL: from the start), borrowed as above; returns how many. */
size_t core_list(struct core *core, enum resource_id resource, const char *after, size_t max, const struct row **ret);
size_t core_count(struct core *core, enum resource_id resource);
int64_t core_revision(struct core *core);

/* The document of GET /status, new. NULL when memory is out. */
json_t *core_status(struct core *core);
/* Readiness: 1 when every plane has applied the current revision, else 0. */
int core_ready(struct core *core);
/* nft text as applied (read from the kernel), or as rendered from the configuration; a new string. */
int core_ruleset(struct core *core, bool desired, char **ret_text);

#endif
