/* The common part of writes, see write.h. */
#include "webapi/write.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "schema/decode.h"
#include "webapi/precondition.h"
#include "webapi/problem.h"
#include "webapi/url.h"

enum { PARAMETER_DRY_RUN, PARAMETER_CONFIRM_WITHIN, PARAMETERS };
static const char *const parameter_names[] = { "dry_run", "confirm_within" };

const char *write_etag(int64_t revision, char text[ETAG_BYTES])
{
	snprintf(text, ETAG_BYTES, "\"%" PRId64 "\"", revision);
	return text;
}

/* 1 with the refusal of a query in the response, or -ENOMEM. */
static int refuse(const struct request *request, const struct errs *errs, struct response *response)
{
	return problem_answer(
	               response, PROBLEM_MALFORMED, request, errs, "The query of the address is not understood.") < 0
	               ? -ENOMEM
	               : 1;
}

int write_refuse_query(const struct request *request, struct response *response)
{
	_cleanup_errs_ struct errs errs = { 0 };
	int r = url_parse_query(request->query, NULL, 0, NULL, &errs);

	return r == -EINVAL ? refuse(request, &errs, response) : r;
}

static void parse_values(char *const *values, struct core_request *core, struct errs *errs)
{
	const char *dry_run = values[PARAMETER_DRY_RUN], *within = values[PARAMETER_CONFIRM_WITHIN];
	char *end = NULL;
	long seconds = 0;

	core->dry_run = dry_run && !strcmp(dry_run, "true");
	if (dry_run && !core->dry_run && strcmp(dry_run, "false") != 0)
		errs_add(errs, "", "bad_parameter", "The query parameter \"dry_run\" is \"true\" or \"false\".");
	if (within)
		seconds = *within >= '0' && *within <= '9' && strlen(within) < 10 ? strtol(within, &end, 10) : -1;
	if (within && (seconds < WRITE_CONFIRM_MIN || seconds > WRITE_CONFIRM_MAX || *end))
		errs_add(errs, "", "bad_parameter",
		        "The query parameter \"confirm_within\" is a number of seconds from %d to %d.",
		        WRITE_CONFIRM_MIN, WRITE_CONFIRM_MAX);
	else
		core->confirm_within_s = seconds;
}

/* "PUT listeners/web": the path as far as it is printable. */
static void summarise(const struct request *request, char *text, size_t size)
{
	const char *path = request->path ? request->path : "";
	static const char base[] = "/api/v1/";

	if (!strncmp(path, base, sizeof(base) - 1))
		path += sizeof(base) - 1;
	snprintf(text, size, "%s %s", method_name(request->method), path);
	for (char *c = text; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
}

int write_begin(const struct request *request, struct write *write, struct response *response)
{
	_cleanup_errs_ struct errs errs = { 0 };
	char *values[PARAMETERS];
	int r = url_parse_query(request->query, parameter_names, PARAMETERS, values, &errs);

	*write = (struct write){
		.core = { .actor = request->actor, .summary = write->summary, .audit = &write->audit },
		.audit = { .actor = request->actor,
		        .method = method_name(request->method),
		        .path = request->path ? request->path : "",
		        .status = 200,
		        .detail = "" },
	};
	summarise(request, write->summary, sizeof(write->summary));
	if (r == -EINVAL)
		return refuse(request, &errs, response);
	if (r < 0)
		return r;
	parse_values(values, &write->core, &errs);
	for (size_t i = 0; i < PARAMETERS; i++)
		free(values[i]);
	return errs.n ? refuse(request, &errs, response) : 0;
}

/* One warning into a header: printable ASCII only, so that nothing in it can end the line. */
static int add_warning(const json_t *warning, struct response *response)
{
	const char *code = json_string_value(json_object_get(warning, "code"));
	const char *detail = json_string_value(json_object_get(warning, "detail"));
	char text[WRITE_WARNING_BYTES];

	snprintf(text, sizeof(text), "%s; %s", code ? code : "warning", detail ? detail : "");
	for (char *c = text; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	return response_header(response, "Gateway-Warning", "%s", text);
}

static int add_warnings(const json_t *warnings, struct response *response)
{
	size_t n = json_array_size(warnings);
	int r = 0;

	for (size_t i = 0; i < n && i < WRITE_WARNINGS_MAX && !r; i++)
		r = add_warning(json_array_get(warnings, i), response);
	if (!r && n > WRITE_WARNINGS_MAX)
		r = response_header(response, "Gateway-Warning", "more_warnings; %zu more", n - WRITE_WARNINGS_MAX);
	return r;
}

static int add_deadline(const struct request *request, struct response *response)
{
	_cleanup_json_ json_t *pending = core_pending(request->core);
	const char *deadline = json_string_value(json_object_get(pending, "deadline"));

	if (!pending)
		return -ENOMEM;
	return deadline ? response_header(response, "Gateway-Confirm-Deadline", "%s", deadline) : 0;
}

int write_headers(const struct request *request, const struct write *write, const struct core_result *result,
        struct response *response)
{
	int r = response_header(response, "Gateway-Revision", "%" PRId64, result->revision);

	response->revision = result->changed ? result->revision : 0;
	response->audited = result->audited ? (unsigned)write->audit.status : 0;
	memcpy(response->timing, result->timing, sizeof(response->timing));
	if (!r && write->core.confirm_within_s)
		r = add_deadline(request, response);
	return r ? r : add_warnings(result->warnings, response);
}

static json_t *warnings_of(const struct core_result *result)
{
	return result->warnings ? json_incref(result->warnings) : json_array();
}

int write_answer_dry_run(const struct core_result *result, struct response *response)
{
	json_t *document = json_pack("{s:I, s:b, s:b, s:o, s:s?, s:o}", "revision", (json_int_t)result->revision,
	        "dry_run", 1, "changed", (int)result->changed, "diff",
	        result->diff ? json_incref(result->diff) : json_array(), "nft", result->nft, "warnings",
	        warnings_of(result));

	response->rehearsed = true;
	return response_json(response, 200, CONTENT_JSON, document);
}

int write_answer(const struct request *request, const struct write *write, const struct core_result *result,
        json_t *more, struct response *response)
{
	_cleanup_json_ json_t *added = more;
	json_t *document;
	int r;

	if (write->core.dry_run)
		return write_answer_dry_run(result, response);
	r = write_headers(request, write, result, response);
	if (r < 0)
		return r;
	document = json_pack("{s:I, s:b, s:o, s:o}", "revision", (json_int_t)result->revision, "changed",
	        (int)result->changed, "warnings", warnings_of(result), "pending", core_pending(request->core));
	if (document && added && json_object_update(document, added) < 0) {
		json_decref(document);
		return -ENOMEM;
	}
	return response_json(response, 200, CONTENT_JSON, document);
}

int write_parse_body(const struct request *request, struct response *response, json_t **ret)
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

/* jansson keeps its own bound on depth; lists are not for decode_parse, which takes objects. */
int write_parse_list(const struct request *request, const char *wanted, size_t max, struct errs *errs, json_t **ret)
{
	_cleanup_json_ json_t *list = NULL;
	json_error_t error = { 0 };
	bool repeated;
	size_t before = errs_count(errs);

	if (!request->body_length) {
		errs_add(errs, "", "malformed", "The body is empty. %s", wanted);
		return -EBADMSG;
	}
	list = json_loadb(request->body, request->body_length, JSON_REJECT_DUPLICATES, &error);
	if (!list && json_error_code(&error) == json_error_out_of_memory)
		return -ENOMEM;
	repeated = !list && json_error_code(&error) == json_error_duplicate_key;
	if (!list)
		errs_add(errs, "", repeated ? "duplicate_key" : "malformed", "line %d, column %d: %s", error.line,
		        error.column, error.text);
	else if (!json_is_array(list))
		errs_add(errs, "", "malformed", "%s", wanted);
	else if (json_array_size(list) > max)
		errs_add(errs, "", "too_many_items", "At most %zu items are taken.", max);
	if (errs_count(errs) > before)
		return -EBADMSG;
	*ret = TAKE_PTR(list);
	return 0;
}

int write_check_precondition(const struct request *request, const char *etag, struct response *response)
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
