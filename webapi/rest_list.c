/* Lists of a resource: parameters, filter, pages. See rest.h. */
#include "webapi/rest.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "schema/encode.h"
#include "schema/prefixes.h"
#include "webapi/precondition.h"
#include "webapi/problem.h"
#include "webapi/url.h"
#include "webapi/write.h"

/* Rows asked for at a time when a filter has to look at many. */
#define BATCH 256

enum { PARAMETER_LIMIT, PARAMETER_AFTER, PARAMETER_NAME, PARAMETERS };
static const char *const parameter_names[] = { "limit", "after", "name" };

struct page {
	size_t limit;
	const char *after;                         /* NULL: from the start */
	const struct row *rows[REST_PAGE_MAX + 1]; /* one more than asked for tells that there is a next page */
	size_t n, total;
};

static void free_values(char **values)
{
	for (size_t i = 0; i < PARAMETERS; i++)
		free(values[i]);
}

static int parse_limit(const char *text, size_t *ret)
{
	char *end;
	unsigned long value;

	if (!text) {
		*ret = REST_PAGE_DEFAULT;
		return 0;
	}
	errno = 0;
	value = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || value < 1 || value > REST_PAGE_MAX)
		return -EINVAL;
	*ret = value;
	return 0;
}

/* Counts a row that the filter lets through, and keeps it if it is of this page. */
static void page_add(struct page *page, const struct row *row)
{
	page->total++;
	if (page->n <= page->limit && (!page->after || strcmp(row_name(row), page->after) > 0))
		page->rows[page->n++] = row;
}

static void fill_all(struct page *page, struct core *core, enum resource_id id)
{
	page->n = core_list(core, id, page->after, page->limit + 1, page->rows);
	page->total = core_count(core, id);
}

/* All names with a common beginning follow that beginning itself without a gap. */
static void fill_prefix(struct page *page, struct core *core, enum resource_id id, const char *prefix)
{
	const struct row *batch[BATCH], *row = *prefix ? core_find(core, id, prefix) : NULL;
	const char *after = *prefix ? prefix : NULL;
	size_t n;

	if (row)
		page_add(page, row);
	while ((n = core_list(core, id, after, BATCH, batch)) > 0) {
		for (size_t i = 0; i < n; i++) {
			if (strncmp(row_name(batch[i]), prefix, strlen(prefix)) != 0)
				return;
			page_add(page, batch[i]);
		}
		after = row_name(batch[n - 1]);
	}
}

static void fill(struct page *page, struct core *core, enum resource_id id, char *filter)
{
	const struct row *row;
	size_t length = filter ? strlen(filter) : 0;

	if (!filter) {
		fill_all(page, core, id);
	} else if (length && filter[length - 1] == '*') {
		filter[length - 1] = '\0';
		fill_prefix(page, core, id, filter);
	} else if ((row = core_find(core, id, filter))) {
		page_add(page, row);
	}
}

/* An object as lists show it. */
static json_t *encode_listed(struct core *core, const struct row *row)
{
	const struct address_set *set = (const void *)row;
	_cleanup_row_ struct row *bare = NULL;
	json_t *object;

	if (row->resource != RESOURCE_ADDRESS_SET || set->entries.n <= REST_LIST_ENTRIES_MAX)
		return rest_document(core, row);
	bare = row_copy(row);
	if (!bare)
		return NULL;
	prefixes_clear(&((struct address_set *)bare)->entries);
	object = encode_row(bare);
	if (!object || json_object_del(object, "entries") < 0 ||
	        json_object_set_new(object, "entries_count", json_integer((json_int_t)set->entries.n)) < 0) {
		json_decref(object);
		return NULL;
	}
	return object;
}

static int answer_page(struct core *core, struct response *response, const struct page *page)
{
	json_t *document = json_object(), *items = json_array();
	size_t shown = page->n < page->limit ? page->n : page->limit;

	for (size_t i = 0; i < shown; i++)
		if (json_array_append_new(items, encode_listed(core, page->rows[i])) < 0) {
			json_decref(items);
			json_decref(document);
			return -ENOMEM;
		}
	json_object_set_new(document, "items", items);
	json_object_set_new(
	        document, "next", page->n > shown ? json_string(row_name(page->rows[shown - 1])) : json_null());
	json_object_set_new(document, "total", json_integer((json_int_t)page->total));
	return response_json(response, 200, CONTENT_JSON, document);
}

static int list(const struct request *request, struct response *response, char **values)
{
	struct page page = { .after = values[PARAMETER_AFTER] };
	char etag[32];

	if (parse_limit(values[PARAMETER_LIMIT], &page.limit) < 0)
		return problem_answer(response, PROBLEM_MALFORMED, request, NULL,
		        "The query parameter \"limit\" is a number from 1 to %d.", REST_PAGE_MAX);
	snprintf(etag, sizeof(etag), "\"%" PRId64 "\"", core_revision(request->core));
	if (response_header(response, "ETag", "%s", etag) < 0)
		return -ENOMEM;
	switch (precondition_check(request, etag)) {
	case PRECONDITION_MALFORMED:
		return problem_answer(
		        response, PROBLEM_MALFORMED, request, NULL, "If-None-Match is not a list of entity tags.");
	case PRECONDITION_FAILED:
		return problem_answer(
		        response, PROBLEM_PRECONDITION, request, NULL, "The configuration has another revision.");
	case PRECONDITION_NOT_MODIFIED:
		if (request->resource->flags & RESOURCE_IS_OBSERVED)
			break;
		response->status = 304;
		return 0;
	case PRECONDITION_PASSED:
		break;
	}
	fill(&page, request->core, request->resource->id, values[PARAMETER_NAME]);
	return answer_page(request->core, response, &page);
}

int rest_list(const struct request *request, struct response *response)
{
	_cleanup_errs_ struct errs errs = { 0 };
	char *values[PARAMETERS];
	int r;

	r = url_parse_query(request->query, parameter_names, PARAMETERS, values, &errs);
	if (r == -EINVAL)
		return problem_answer(
		        response, PROBLEM_MALFORMED, request, &errs, "The query of the address is not understood.");
	if (r < 0)
		return r;
	r = list(request, response, values);
	free_values(values);
	return r;
}
