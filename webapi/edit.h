/*
 * Operations on resources gathered into one write: each sees those before it,
 * and all go to the core together. One request is an edit of one operation,
 * a transaction one of many. Called by rest.c and transaction.c; knows no
 * HTTP beyond the names of the methods.
 *
 * A target (a child of an upstream) is addressed as {address}:{port}; an
 * operation on it becomes a write of its upstream.
 */
#ifndef GW_WEBAPI_EDIT_H
#define GW_WEBAPI_EDIT_H

#include "webapi/message.h"

/* One method on one address. */
struct operation {
	enum http_method method; /* POST, PUT, PATCH, DELETE */
	const struct resource *resource;
	const char *name;    /* NULL: the list of the resource (POST) */
	bool on_targets;     /* not the resource itself, but its targets */
	const char *target;  /* on_targets: "192.0.2.1:80", "[2001:db8::1]:0"; NULL: their list (POST) */
	json_t *body;        /* borrowed; NULL for DELETE */
	const char *pointer; /* in front of the pointers of faults in the body; "" for a single request */
	const char *address; /* where faults of the address go: "" or "/3/path" */

	/* Filled by edit_run. */
	unsigned status; /* 200, 201 or 204 */
	char *path;      /* owned: "/api/v1/listeners/web" */
	char *secret;    /* owned: the bearer token that was made, to be shown once; else NULL */
};

/* A row that will be different. */
struct edit_entry {
	const struct resource *resource;
	char *name;
	const struct row *before; /* borrowed from the core; NULL: it does not exist yet */
	struct row *after;        /* NULL: it will be deleted */
	int64_t if_revision;      /* for core_change */
	char *pointer;
};

struct edit {
	struct core *core;
	struct edit_entry *entries;
	size_t n, capacity;
	json_t *index; /* "resource/name" to the entry's number */
};

/* Empties and frees; a zeroed struct with its core set is an empty edit. */
void edit_clear(struct edit *edit);
void operation_clear(struct operation *operation);
#define _cleanup_edit_      _cleanup_(edit_clear)
#define _cleanup_operation_ _cleanup_(operation_clear)

/* The row as it will be after the operations so far, or NULL. */
const struct row *edit_find(const struct edit *edit, enum resource_id resource, const char *name);
/* Adds an operation. 0; -EINVAL with faults in errs; -ENOENT, -EEXIST, with a fault at operation->address; -ENOMEM.
 * After a failure the edit is as it was. */
int edit_run(struct edit *edit, struct operation *operation, struct errs *errs);
/* Hands all to core_write. Errors are those of core_write. */
int edit_commit(struct edit *edit, const struct core_request *request, struct errs *errs, struct core_result *ret);

/* The target of an upstream by "address:port", or NULL; ret_index may be NULL. */
const struct target *edit_find_target(const struct row *upstream, const char *text, size_t *ret_index);
/* "/api/v1/upstreams/{name}/targets/{address}:{port}", a new string; NULL when memory is out. */
char *edit_target_path(const char *upstream, const struct target *target);
/* Moves faults to another collection with something in front of their pointers. */
void edit_move_faults(struct errs *to, struct errs *from, const char *base);

#endif
