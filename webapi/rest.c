/* One object of a resource, or one target of an upstream: read, create, replace, patch, delete. See rest.h. */
#include "webapi/rest.h"

#include <errno.h>
#include <string.h>

#include "schema/encode.h"
#include "webapi/edit.h"
#include "webapi/kept.h"
#include "webapi/problem.h"
#include "webapi/write.h"

static int not_found(const struct request *request, const char *what, struct response *response)
{
	return problem_answer(response, PROBLEM_NOT_FOUND, request, NULL, "There is no %s of this name.", what);
}

/* The row that the path names; of a target its upstream. */
static const struct row *row_of(const struct request *request)
{
	return core_find(request->core, request->resource->id, request->name);
}

/* The object, which is taken over; with the secret, if one was made with it. */
static int answer_row(struct response *response, unsigned status, json_t *object, int64_t revision, const char *secret)
{
	char etag[ETAG_BYTES];

	if (response_header(response, "ETag", "%s", write_etag(revision, etag)) < 0 ||
	        (secret && json_object_set_new(object, "token", json_string(secret)) < 0)) {
		json_decref(object);
		return -ENOMEM;
	}
	return response_json(response, status, CONTENT_JSON, object);
}

json_t *rest_document(struct core *core, const struct row *row)
{
	json_t *object = encode_row(row);

	if (!object || !(resource_get(row->resource)->flags & RESOURCE_IS_OBSERVED) ||
	        json_object_set_new(object, FIELD_OBSERVED, core_observed(core, row)) == 0)
		return object;
	json_decref(object);
	return NULL;
}

/* A row as it is; what does not change but by a write is encoded once. */
static int answer_found(
        const struct request *request, const struct row *row, const char *etag, struct response *response)
{
	bool keeps = !(request->resource->flags & RESOURCE_IS_OBSERVED);
	struct kept *kept = request->services->kept;
	int r = response_header(response, "ETag", "%s", etag);

	if (!r && keeps)
		r = kept_answer(kept, row, response);
	if (r)
		return r < 0 ? r : 0;
	r = response_json(response, 200, CONTENT_JSON, rest_document(request->core, row));
	if (!r && keeps)
		kept_put(kept, row, response);
	return r;
}

int rest_get(const struct request *request, struct response *response)
{
	const struct row *row = row_of(request);
	char etag[ETAG_BYTES];
	int r = write_refuse_query(request, response);

	if (r)
		return r < 0 ? r : 0;
	if (!row)
		return not_found(request, request->resource->name, response);
	r = write_check_precondition(request, write_etag(row->revision, etag), response);
	if (r < 0)
		return r;
	if (response->status == 304 && request->resource->flags & RESOURCE_IS_OBSERVED)
		r = 0;
	else if (response->status == 304)
		return response_header(response, "ETag", "%s", etag);
	return r ? 0 : answer_found(request, row, etag, response);
}

/* The object as it is stored now, after the write; NULL if there is none. */
static json_t *stored_document(
        const struct request *request, const struct operation *operation, const struct row *stored)
{
	const struct target *target;

	if (!stored || !operation->on_targets)
		return stored ? rest_document(request->core, stored) : NULL;
	target = edit_find_target(stored, strrchr(operation->path, '/') + 1, NULL);
	return target ? core_target(request->core, (const struct upstream *)stored, target) : NULL;
}

static int answer_stored(
        const struct request *request, const struct operation *operation, const char *name, struct response *response)
{
	const struct row *stored = core_find(request->core, request->resource->id, name);
	json_t *shown = stored_document(request, operation, stored);

	if (!shown) /* cannot be, but must not end the daemon */
		return problem_from_errno(response, -EIO, request, NULL);
	if (operation->status == 201 && response_header(response, "Location", "%s", operation->path) < 0) {
		json_decref(shown);
		return -ENOMEM;
	}
	return answer_row(response, operation->status, shown, stored->revision, operation->secret);
}

/* Hands the write to the core and answers what became of it. */
static int commit(const struct request *request, struct edit *edit, const struct operation *operation,
        struct write *write, struct response *response)
{
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_core_result_ struct core_result result = { 0 };
	int r;

	write->audit.status = operation->status;
	r = edit_commit(edit, &write->core, &errs, &result);

	if (r < 0)
		return problem_from_errno(response, r, request, &errs);
	if (write->core.dry_run)
		return write_answer_dry_run(&result, response);
	r = write_headers(request, write, &result, response);
	if (r < 0)
		return r;
	if (operation->status == 204) {
		response->status = 204;
		return 0;
	}
	return answer_stored(request, operation, edit->entries[0].name, response);
}

/* What the core must find, once the preconditions have passed on the row that was there; 0: whatever is there. */
static int64_t expected_revision(const struct request *request, const struct row *now)
{
	if (request_header(request, HEADER_IF_NONE_MATCH) && !now)
		return -1;
	return request_header(request, HEADER_IF_MATCH) && now ? now->revision : 0;
}

/* Preconditions speak of what the path names: an object, or the list of a POST, whose tag is the configuration's. */
static int check(const struct request *request, const struct row *now, struct response *response)
{
	char etag[ETAG_BYTES];

	if (!request->name)
		return request_header(request, HEADER_IF_MATCH)
		               ? write_check_precondition(
		                         request, write_etag(core_revision(request->core), etag), response)
		               : 0;
	/* A target that is not there yet has no tag of its own; its upstream has. */
	return write_check_precondition(request, now ? write_etag(now->revision, etag) : NULL, response);
}

/* The part of a write between its body and the core. */
static int run(
        const struct request *request, struct operation *operation, struct write *write, struct response *response)
{
	_cleanup_edit_ struct edit edit = { .core = request->core };
	_cleanup_errs_ struct errs errs = { 0 };
	const struct row *now = request->name ? row_of(request) : NULL;
	int64_t expected;
	int r;

	if (!now && request->name && (operation->method != METHOD_PUT || operation->on_targets))
		return not_found(request, request->resource->name, response);
	r = check(request, now, response);
	if (r)
		return r < 0 ? r : 0;
	r = edit_run(&edit, operation, &errs);
	if (r < 0)
		return problem_from_errno(response, r, request, &errs);
	expected = request->name ? expected_revision(request, now) : 0;
	if (expected)
		edit.entries[0].if_revision = expected;
	return commit(request, &edit, operation, write, response);
}

int rest_write(const struct request *request, struct response *response)
{
	_cleanup_json_ json_t *body = NULL;
	_cleanup_operation_ struct operation operation = { .method = request->method,
		.resource = request->resource,
		.name = request->name,
		.on_targets = request->on_targets,
		.target = request->target,
		.pointer = "",
		.address = "" };
	struct write write;
	int r = write_begin(request, &write, response);

	if (!r && request->method != METHOD_DELETE)
		r = write_parse_body(request, response, &body);
	if (r)
		return r < 0 ? r : 0;
	operation.body = body;
	return run(request, &operation, &write, response);
}
