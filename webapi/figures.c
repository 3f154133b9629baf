/* What has been counted, see figures.h. */
#include "webapi/figures.h"

#include <errno.h>
#include <string.h>

#include "webapi/problem.h"
#include "webapi/query.h"
#include "webapi/rest.h"

int figures_stats(const struct request *request, struct response *response)
{
	static const char *const known[] = { "limit" };
	uint64_t limit = FIGURES_BUSIEST_DEFAULT;
	char *values[1];
	int r = query_parse(request, known, 1, values, response);

	if (r)
		return r < 0 ? r : 0;
	r = query_number(request, known[0], values[0], 1, REST_PAGE_MAX, &limit, response);
	query_free(values, 1);
	if (r)
		return r < 0 ? r : 0;
	return response_json(response, 200, CONTENT_JSON, core_stats(request->core, limit));
}

/* By the last segment of the path: routes.def has no others. */
static enum core_counted kind_of(const struct request *request)
{
	const char *last = request->segments[request->n_segments - 1];

	return !strcmp(last, "listeners") ? CORE_LISTENERS : !strcmp(last, "upstreams") ? CORE_UPSTREAMS : CORE_TARGETS;
}

int figures_page(const struct request *request, struct response *response)
{
	static const char *const known[] = { "limit", "after" };
	uint64_t limit = REST_PAGE_DEFAULT, after = 0;
	char *values[2];
	int r = query_parse(request, known, 2, values, response);

	if (r)
		return r < 0 ? r : 0;
	r = query_number(request, known[0], values[0], 1, REST_PAGE_MAX, &limit, response);
	if (!r)
		r = query_number(request, known[1], values[1], 0, UINT32_MAX, &after, response);
	query_free(values, 2);
	if (r)
		return r < 0 ? r : 0;
	return response_json(
	        response, 200, CONTENT_JSON, core_stats_page(request->core, kind_of(request), (uint32_t)after, limit));
}

int figures_history(const struct request *request, struct response *response)
{
	static const char *const known[] = { "step", "after" };
	uint64_t step = FIGURES_STEP_DEFAULT, after = 0;
	char *values[2];
	int r = query_parse(request, known, 2, values, response);

	if (r)
		return r < 0 ? r : 0;
	r = query_number(request, known[0], values[0], 1, CORE_HISTORY_STEP_MAX, &step, response);
	if (!r)
		r = query_number(request, known[1], values[1], 0, INT64_MAX, &after, response);
	query_free(values, 2);
	if (r)
		return r < 0 ? r : 0;
	return response_json(
	        response, 200, CONTENT_JSON, core_stats_history(request->core, (unsigned)step, (int64_t)after));
}

int figures_ledger(const struct request *request, struct response *response)
{
	static const char *const known[] = { "interface" };
	json_t *document;
	char *values[1];
	int r = query_parse(request, known, 1, values, response);

	if (r)
		return r < 0 ? r : 0;
	r = core_ledger(request->core, values[0], &document);
	query_free(values, 1);
	if (r == -ENOMEM)
		return r;
	if (r < 0)
		return problem_answer(
		        response, PROBLEM_UNAVAILABLE, request, NULL, "The ledger cannot be read: %s.", strerror(-r));
	return response_json(response, 200, CONTENT_JSON, document);
}

int figures_metrics(const struct request *request, struct response *response)
{
	char *text;
	size_t length;
	int r = query_parse(request, NULL, 0, NULL, response);

	if (r)
		return r < 0 ? r : 0;
	r = core_metrics(request->core, &text, &length);
	if (r < 0)
		return r;
	response->status = 200;
	response->content_type = CONTENT_METRICS;
	response->body = text;
	response->length = length;
	return 0;
}
