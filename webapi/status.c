/* What is told of the system, see status.h. */
#include "webapi/status.h"

#include <errno.h>
#include <string.h>

#include "schema/docs.h"
#include "webapi/problem.h"
#include "webapi/url.h"

static int answer_text(struct response *response, unsigned status, const char *text)
{
	response_static(response, status, CONTENT_TEXT, text, strlen(text));
	return 0;
}

int status_health(const struct request *request, struct response *response)
{
	(void)request;
	return answer_text(response, 200, "ok\n");
}

int status_readiness(const struct request *request, struct response *response)
{
	if (core_ready(request->core))
		return answer_text(response, 200, "ready\n");
	return answer_text(response, 503, "not ready\n");
}

/* 0, 1 if the response tells what is wrong with the query, -ENOMEM. */
static int parse_query(
        const struct request *request, const char *const *known, size_t n, char **values, struct response *response)
{
	_cleanup_errs_ struct errs errs = { 0 };
	int r = url_parse_query(request->query, known, n, values, &errs);

	if (r == -EINVAL)
		r = problem_answer(response, PROBLEM_MALFORMED, request, &errs,
		            "The query of the address is not understood.") < 0
		            ? -ENOMEM
		            : 1;
	return r;
}

int status_status(const struct request *request, struct response *response)
{
	int r = parse_query(request, NULL, 0, NULL, response);

	if (r)
		return r < 0 ? r : 0;
	return response_json(response, 200, CONTENT_JSON, core_status(request->core));
}

int status_doctor(const struct request *request, struct response *response)
{
	int r = parse_query(request, NULL, 0, NULL, response);

	if (r)
		return r < 0 ? r : 0;
	return response_json(response, 200, CONTENT_JSON, core_doctor(request->core));
}

int status_doctor_probe(const struct request *request, struct response *response)
{
	int r = parse_query(request, NULL, 0, NULL, response);

	if (r)
		return r < 0 ? r : 0;
	return response_json(response, 202, CONTENT_JSON,
	        json_pack("{s:I}", "targets", (json_int_t)core_doctor_probe(request->core)));
}

int status_ruleset(const struct request *request, struct response *response)
{
	static const char *const known[] = { "format" };
	_cleanup_free_ char *format = NULL, *text = NULL;
	int r = parse_query(request, known, 1, &format, response);
	bool desired = format && !strcmp(format, "desired");

	if (r)
		return r < 0 ? r : 0;
	if (format && !desired && strcmp(format, "applied") != 0)
		return problem_answer(response, PROBLEM_MALFORMED, request, NULL,
		        "The query parameter \"format\" is \"applied\" or \"desired\".");
	r = core_ruleset(request->core, desired, &text);
	if (r < 0)
		return problem_answer(
		        response, PROBLEM_UNAVAILABLE, request, NULL, "The ruleset cannot be read: %s.", strerror(-r));
	response->status = 200;
	response->content_type = CONTENT_TEXT;
	response->length = strlen(text);
	response->body = TAKE_PTR(text);
	return 0;
}

int status_relay_restart(const struct request *request, struct response *response)
{
	int r = parse_query(request, NULL, 0, NULL, response);

	if (r)
		return r < 0 ? r : 0;
	r = core_relay_restart(request->core);
	if (r == -EBUSY)
		return problem_answer(response, PROBLEM_CONFLICT, request, NULL,
		        "No relay serves that could hand over, or it is doing so already.");
	if (r < 0)
		return problem_answer(response, PROBLEM_UNAVAILABLE, request, NULL,
		        "The relay's program cannot be started; the relay that runs goes on.");
	return response_json(response, 202, CONTENT_JSON, json_pack("{s:s}", "state", "handing_over"));
}

static int answer_document(
        const struct request *request, struct response *response, const char *(*document)(size_t *ret_length))
{
	size_t length;
	const char *text;
	int r = parse_query(request, NULL, 0, NULL, response);

	if (r)
		return r < 0 ? r : 0;
	text = document(&length);
	if (!text)
		return -ENOMEM;
	response_static(response, 200, CONTENT_JSON, text, length);
	return 0;
}

int status_openapi(const struct request *request, struct response *response)
{
	return answer_document(request, response, docs_openapi);
}

int status_schema(const struct request *request, struct response *response)
{
	return answer_document(request, response, docs_schema);
}
