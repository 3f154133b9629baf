/* One object of a resource: read, create, replace, patch, delete. See rest.h. */
#include "webapi/rest.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "schema/decode.h"
#include "schema/encode.h"
#include "webapi/precondition.h"
#include "webapi/problem.h"
#include "webapi/url.h"

#define _cleanup_json_ _cleanup_(json_decrefp)
#define _cleanup_row_  _cleanup_(row_unref_p)

#define ETAG_BYTES 32

/* The entity tag of a revision; NULL for "nothing there". */
static const char *etag_of(int64_t revision, char text[ETAG_BYTES])
{
	snprintf(text, ETAG_BYTES, "\"%" PRId64 "\"", revision);
	return text;
}

/* None of these take query parameters. 0, 1 if the response tells a fault, -ENOMEM. */
static int refuse_query(const struct request *request, struct response *response)
{
	_cleanup_errs_ struct errs errs = { 0 };
	int r = url_parse_query(request->query, NULL, 0, NULL, &errs);

	if (r == -EINVAL)
		r = problem_answer(response, PROBLEM_MALFORMED, request, &errs,
		            "The query of the address is not understood.") < 0
		            ? -ENOMEM
		            : 1;
	return r;
}

static int not_found(const struct request *request, struct response *response)
{
	return problem_answer(
	        response, PROBLEM_NOT_FOUND, request, NULL, "There is no %s of this name.", request->resource->name);
}

/* Compares the preconditions with the row (NULL: none). 0 to go on, 1 if the response is ready, -ENOMEM. */
static int check_precondition(const struct request *request, const char *etag, struct response *response)
{
	int r;

	switch (precondition_check(request, etag)) {
	case PRECONDITION_PASSED:
		return 0;
	case PRECONDITION_NOT_MODIFIED:
		response->status = 304;
		return 1;
	case PRECONDITION_FAILED:
		if (etag && response_header(response, "ETag", "%s", etag) < 0)
			return -ENOMEM;
		r = problem_answer(response, PROBLEM_PRECONDITION, request, NULL,
		        etag ? "The object exists with the entity tag %s." : "The object does not exist%s",
		        etag ? etag : ".");
		return r < 0 ? r : 1;
	case PRECONDITION_MALFORMED:
		r = problem_answer(response, PROBLEM_MALFORMED, request, NULL,
		        "If-Match or If-None-Match is not a list of entity tags.");
		return r < 0 ? r : 1;
	}
	return 0;
}

static int answer_row(struct response *response, unsigned status, const struct row *row)
{
	char etag[ETAG_BYTES];

	if (response_header(response, "ETag", "%s", etag_of(row->revision, etag)) < 0)
		return -ENOMEM;
	return response_json(response, status, CONTENT_JSON, encode_row(row));
}

int rest_get(const struct request *request, struct response *response)
{
	const struct row *row = core_find(request->core, request->resource->id, request->name);
	char etag[ETAG_BYTES];
	int r = refuse_query(request, response);

	if (r)
		return r < 0 ? r : 0;
	if (!row)
		return not_found(request, response);
	r = check_precondition(request, etag_of(row->revision, etag), response);
	if (r < 0)
		return r;
	if (response->status == 304)
		return response_header(response, "ETag", "%s", etag);
	return r ? 0 : answer_row(response, 200, row);
}

/* The body as an object. 0, 1 if the response tells why not, -ENOMEM. */
static int parse_body(const struct request *request, struct response *response, json_t **ret)
{
	_cleanup_errs_ struct errs errs = { 0 };
	int r = -EBADMSG;

	if (request->body_length)
		r = decode_parse(request->body, request->body_length, &errs, ret);
	else
		errs_add(&errs, "", "malformed", "The body is empty; a JSON object is expected.");
	if (r == -EBADMSG || r == -EINVAL)
		r = problem_answer(response, PROBLEM_MALFORMED, request, &errs, "%s",
		            errs.n && errs.items[0].detail ? errs.items[0].detail : "The body is not a JSON object.") <
		                    0
		            ? -ENOMEM
		            : 1;
	return r;
}

/* Object to row. 0, 1 if the response tells the faults, -ENOMEM. */
static int decode(const struct request *request, json_t *object, struct response *response, struct row **ret)
{
	_cleanup_errs_ struct errs errs = { 0 };
	int r = decode_row(request->resource, object, request->name, &errs, ret);

	if (r == -EINVAL)
		r = problem_from_errno(response, r, request, &errs) < 0 ? -ENOMEM : 1;
	return r;
}

/* Hands the write to the core and answers what became of it. */
static int write_row(const struct request *request, struct core_write *write, struct response *response)
{
	_cleanup_errs_ struct errs errs = { 0 };
	struct core_result result = { 0 };
	const struct row *stored;
	int r;

	write->resource = request->resource->id;
	write->actor = request->actor;
	r = core_write(request->core, write, &errs, &result);
	if (r < 0)
		return problem_from_errno(response, r, request, &errs);
	r = response_header(response, "Gateway-Revision", "%" PRId64, result.revision);
	if (r < 0)
		return r;
	if (write->operation == CORE_DELETE) {
		response->status = 204;
		return 0;
	}
	stored = core_find(request->core, write->resource, write->name);
	if (!stored) /* cannot be, but must not end the daemon */
		return problem_from_errno(response, -EIO, request, NULL);
	if (result.created)
		r = response_header(response, "Location", "/api/v1/%s/%s", request->resource->path, row_name(stored));
	return r < 0 ? r : answer_row(response, result.created ? 201 : 200, stored);
}

int rest_create(const struct request *request, struct response *response)
{
	_cleanup_json_ json_t *object = NULL;
	_cleanup_row_ struct row *row = NULL;
	struct core_write write = { .operation = CORE_CREATE };
	char etag[ETAG_BYTES];
	int r;

	if ((r = refuse_query(request, response)) || (r = parse_body(request, response, &object)) ||
	        (r = decode(request, object, response, &row)))
		return r < 0 ? r : 0;
	/* The list is what is addressed: its tag is the configuration's revision. */
	if (request_header(request, HEADER_IF_MATCH)) {
		r = check_precondition(request, etag_of(core_revision(request->core), etag), response);
		if (r)
			return r < 0 ? r : 0;
	}
	write.name = row_name(row);
	write.row = row;
	return write_row(request, &write, response);
}

/* What core_write must find, once the preconditions have passed on the row that was there. */
static int64_t expected_revision(const struct request *request, const struct row *now)
{
	if (request_header(request, HEADER_IF_NONE_MATCH) && !now)
		return -1;
	return request_header(request, HEADER_IF_MATCH) && now ? now->revision : 0;
}

int rest_put(const struct request *request, struct response *response)
{
	const struct row *now = core_find(request->core, request->resource->id, request->name);
	_cleanup_json_ json_t *object = NULL;
	_cleanup_row_ struct row *row = NULL;
	struct core_write write = { .operation = CORE_PUT, .if_revision = expected_revision(request, now) };
	char etag[ETAG_BYTES];
	int r;

	if ((r = refuse_query(request, response)) || (r = parse_body(request, response, &object)) ||
	        (r = decode(request, object, response, &row)) ||
	        (r = check_precondition(request, now ? etag_of(now->revision, etag) : NULL, response)))
		return r < 0 ? r : 0;
	write.name = row_name(row);
	write.row = row;
	return write_row(request, &write, response);
}

int rest_patch(const struct request *request, struct response *response)
{
	const struct row *now = core_find(request->core, request->resource->id, request->name);
	_cleanup_json_ json_t *patch = NULL, *object = NULL;
	_cleanup_row_ struct row *row = NULL;
	struct core_write write = { .operation = CORE_PUT };
	char etag[ETAG_BYTES];
	int r;

	if ((r = refuse_query(request, response)) || (r = parse_body(request, response, &patch)))
		return r < 0 ? r : 0;
	if (!now)
		return not_found(request, response);
	r = check_precondition(request, etag_of(now->revision, etag), response);
	if (r)
		return r < 0 ? r : 0;
	object = encode_row(now);
	if (!object || decode_merge_patch(object, patch) < 0)
		return -ENOMEM;
	r = decode(request, object, response, &row);
	if (r)
		return r < 0 ? r : 0;
	write.name = request->name;
	write.row = row;
	write.if_revision = now->revision;
	return write_row(request, &write, response);
}

int rest_delete(const struct request *request, struct response *response)
{
	const struct row *now = core_find(request->core, request->resource->id, request->name);
	struct core_write write = { .operation = CORE_DELETE, .name = request->name };
	char etag[ETAG_BYTES];
	int r = refuse_query(request, response);

	if (r)
		return r < 0 ? r : 0;
	if (!now)
		return not_found(request, response);
	r = check_precondition(request, etag_of(now->revision, etag), response);
	if (r)
		return r < 0 ? r : 0;
	write.if_revision = expected_revision(request, now);
	return write_row(request, &write, response);
}
