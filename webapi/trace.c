/* POST /trace, GET and DELETE /trace/{id}, see trace.h. */
#include "webapi/trace.h"

#include <errno.h>
#include <string.h>

#include "webapi/explain.h"
#include "webapi/problem.h"
#include "webapi/query.h"
#include "webapi/write.h"

static unsigned read_number(
        const json_t *body, const char *key, const char *pointer, unsigned max, unsigned otherwise, struct errs *errs)
{
	const json_t *value = json_object_get(body, key);
	json_int_t number = json_integer_value(value);

	if (!value)
		return otherwise;
	if (!json_is_integer(value) || number < 1 || number > max)
		errs_add(errs, pointer, "out_of_range", "A number from 1 to %u is wanted.", max);
	return (unsigned)number;
}

static void read_order(const json_t *body, struct core_trace_order *order, struct errs *errs)
{
	static const char *const more[] = { "seconds", "packets" };

	explain_read_packet(body, more, ARRAY_SIZE(more), &order->packet, &order->source_port, errs);
	if (order->packet.interface)
		errs_add(errs, "/interface", "invalid", "A trace tells where packets come in; it is not asked for.");
	order->seconds =
	        read_number(body, "seconds", "/seconds", CORE_TRACE_SECONDS_MAX, CORE_TRACE_SECONDS_DEFAULT, errs);
	order->packets =
	        read_number(body, "packets", "/packets", CORE_TRACE_PACKETS_MAX, CORE_TRACE_PACKETS_DEFAULT, errs);
}

static int refuse(const struct request *request, int error, const char *reason, struct response *response)
{
	if (error == -ENOMEM)
		return error;
	if (response_header(response, "Retry-After", "10") < 0)
		return -ENOMEM;
	if (error == -EUSERS)
		return problem_answer(response, PROBLEM_UNAVAILABLE, request, NULL,
		        "As many traces as there can be are armed; end one, or wait.");
	return problem_answer(response, PROBLEM_UNAVAILABLE, request, NULL, "The kernel cannot trace: %s.",
	        reason ? reason : strerror(-error));
}

static int start(const struct request *request, const struct core_trace_order *order, struct response *response)
{
	_cleanup_free_ char *reason = NULL;
	json_t *document;
	json_int_t number;
	int r = core_trace_start(request->core, order, request->actor, &document, &reason);

	if (r < 0)
		return refuse(request, r, reason, response);
	number = json_integer_value(json_object_get(document, "id"));
	r = response_json(response, 201, CONTENT_JSON, document);
	return r < 0 ? r : response_header(response, "Location", "/api/v1/trace/%lld", (long long)number);
}

int trace_post(const struct request *request, struct response *response)
{
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_json_ json_t *body = NULL;
	struct core_trace_order order = { 0 };
	int r = write_refuse_query(request, response);

	if (!r)
		r = write_parse_body(request, response, &body);
	if (r)
		return r < 0 ? r : 0;
	read_order(body, &order, &errs);
	if (errs_count(&errs))
		return problem_answer(response, PROBLEM_INVALID, request, &errs, "%s",
		        errs.n ? errs.items[0].detail : "The packet is not understood.");
	return start(request, &order, response);
}

int trace_list(const struct request *request, struct response *response)
{
	int r = query_parse(request, NULL, 0, NULL, response);

	if (r)
		return r < 0 ? r : 0;
	return response_json(response, 200, CONTENT_JSON, core_traces(request->core));
}

/* The number that the path names; 0 if it is none. */
static uint64_t number_of(const struct request *request)
{
	const char *text = request->name;

	if (!*text || strlen(text) > 18 || strspn(text, "0123456789") != strlen(text))
		return 0;
	return strtoull(text, NULL, 10);
}

static int not_found(const struct request *request, struct response *response)
{
	return problem_answer(response, PROBLEM_NOT_FOUND, request, NULL, "There is no such trace (any more).");
}

int trace_one(const struct request *request, struct response *response)
{
	json_t *document;
	int r = query_parse(request, NULL, 0, NULL, response);

	if (r)
		return r < 0 ? r : 0;
	r = core_trace_get(request->core, number_of(request), &document);
	if (r == -ENOENT)
		return not_found(request, response);
	return r < 0 ? r : response_json(response, 200, CONTENT_JSON, document);
}

int trace_delete(const struct request *request, struct response *response)
{
	int r = query_parse(request, NULL, 0, NULL, response);

	if (r)
		return r < 0 ? r : 0;
	if (core_trace_end(request->core, number_of(request)) == -ENOENT)
		return not_found(request, response);
	response->status = 204;
	return 0;
}
