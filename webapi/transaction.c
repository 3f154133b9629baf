/* Many operations in one write, see config.h. */
#include <errno.h>
#include <string.h>

#include "webapi/config.h"
#include "webapi/edit.h"
#include "webapi/problem.h"
#include "webapi/tokens.h"
#include "webapi/url.h"
#include "webapi/write.h"

/* One item while it is run. */
struct item {
	size_t number;
	struct request address; /* only path, decoded and segments are used */
	struct operation operation;
	char body_pointer[32], path_pointer[32];
};

static void item_clear(struct item *item)
{
	operation_clear(&item->operation);
	request_clear(&item->address);
}

static int fault(const struct item *item, const char *key, const char *code, const char *detail, struct errs *errs)
{
	char pointer[48];

	snprintf(pointer, sizeof(pointer), "/%zu%s%s", item->number, key ? "/" : "", key ? key : "");
	errs_add(errs, pointer, code, "%s", detail);
	return -EINVAL;
}

/* Splits "/api/v1/listeners/web" or "listeners/web" into segments without the base. */
static int split(struct item *item, const char *path, struct errs *errs)
{
	static const char base[] = "/api/v1/";
	struct request *address = &item->address;
	int r;

	if (strncmp(path, base, sizeof(base) - 1) == 0)
		path += sizeof(base) - 2;
	if (asprintf(&address->path, "%s%s", *path == '/' ? "" : "/", path) < 0) {
		address->path = NULL;
		return -ENOMEM;
	}
	r = url_split_path(address);
	return r == -EINVAL || r == -E2BIG ? fault(item, "path", "bad_value", "The path is not well formed.", errs) : r;
}

/* Finds what the segments name. */
static int resolve(struct item *item, struct errs *errs)
{
	struct operation *operation = &item->operation;
	const struct request *address = &item->address;
	size_t n = address->n_segments;

	operation->resource = n ? resource_by_path(address->segments[0]) : NULL;
	operation->name = n > 1 ? address->segments[1] : NULL;
	if (operation->resource && (operation->resource->flags & RESOURCE_IS_SINGLE) && n == 1) {
		operation->name = operation->resource->fields[0].initial_text;
		if (operation->method == METHOD_PUT || operation->method == METHOD_PATCH)
			return 0;
		return fault(item, "method", "bad_value", "PUT and PATCH are for what there is one of.", errs);
	}
	operation->on_targets = n > 2;
	operation->target = n > 3 ? address->segments[3] : NULL;
	if (!operation->resource || n > 4 ||
	        (n > 2 &&
	                (operation->resource->id != RESOURCE_UPSTREAM || strcmp(address->segments[2], "targets") != 0)))
		return fault(item, "path", "bad_value", "This is not the address of a resource.", errs);
	if (operation->on_targets && operation->method == METHOD_PATCH)
		return fault(item, "method", "not_in_transaction",
		        "PATCH of a target is no configuration and takes effect at once, by itself; use PUT.", errs);
	if (tokens_is(operation->resource))
		return fault(item, "path", "not_in_transaction",
		        "Tokens are made one by one, since each is shown once.", errs);
	if ((operation->method == METHOD_POST) != (n == 1 || n == 3))
		return fault(
		        item, "method", "bad_value", "POST is for lists; PUT, PATCH and DELETE are for objects.", errs);
	return 0;
}

static int read_keys(struct item *item, json_t *object, struct errs *errs)
{
	static const char *const known[] = { "method", "path", "body" };
	const char *key;
	json_t *value;
	int r = 0;

	json_object_foreach(object, key, value)
	{
		bool found = false;

		for (size_t i = 0; i < ARRAY_SIZE(known); i++)
			found = found || !strcmp(key, known[i]);
		if (!found)
			r = fault(
			        item, NULL, "unknown_key", "An item has \"method\", \"path\" and \"body\" only.", errs);
	}
	return r;
}

/* The item as an operation. 0, -EINVAL with faults, -ENOMEM. */
static int read_item(struct item *item, json_t *object, struct errs *errs)
{
	const char *method = json_string_value(json_object_get(object, "method"));
	const char *path = json_string_value(json_object_get(object, "path"));
	json_t *body = json_object_get(object, "body");
	struct operation *operation = &item->operation;
	int r;

	if (!json_is_object(object))
		return fault(item, NULL, "wrong_type", "An item is an object.", errs);
	r = read_keys(item, object, errs);
	operation->method = method ? method_parse(method) : METHOD_NONE;
	if (operation->method < METHOD_POST || operation->method > METHOD_DELETE)
		return fault(item, "method", "bad_value", "The method is POST, PUT, PATCH or DELETE.", errs);
	if (!path)
		return fault(item, "path", "required", "An item needs a path.", errs);
	if (operation->method != METHOD_DELETE && !json_is_object(body))
		return fault(item, "body", body ? "wrong_type" : "required", "The body must be an object.", errs);
	if (operation->method == METHOD_DELETE && body && !json_is_null(body))
		return fault(item, "body", "wrong_type", "DELETE has no body.", errs);
	operation->body = operation->method == METHOD_DELETE ? NULL : body;
	if (!r)
		r = split(item, path, errs);
	return r ? r : resolve(item, errs);
}

static int run_item(struct edit *edit, size_t number, json_t *object, json_t *results, struct errs *errs)
{
	_cleanup_(item_clear) struct item item = { .number = number };
	int r;

	snprintf(item.body_pointer, sizeof(item.body_pointer), "/%zu/body", number);
	snprintf(item.path_pointer, sizeof(item.path_pointer), "/%zu/path", number);
	item.operation.pointer = item.body_pointer;
	item.operation.address = item.path_pointer;
	r = read_item(&item, object, errs);
	if (!r)
		r = edit_run(edit, &item.operation, errs);
	if (!r && json_array_append_new(results, json_pack("{s:i, s:s}", "status", (int)item.operation.status, "path",
	                                                 item.operation.path)) < 0)
		r = -ENOMEM;
	return r;
}

/* Runs all, so that every fault is told. The gravest kind decides: what is not valid, then what is in conflict. */
static int run_all(struct edit *edit, json_t *list, json_t *results, struct errs *errs)
{
	int gravest = 0;

	for (size_t i = 0; i < json_array_size(list); i++) {
		int r = run_item(edit, i, json_array_get(list, i), results, errs);

		if (r == -ENOMEM)
			return r;
		if (r && gravest != -EINVAL)
			gravest = r == -EINVAL || !gravest ? r : gravest;
	}
	return gravest;
}

static int run(const struct request *request, json_t *list, const struct write *write, struct response *response)
{
	_cleanup_edit_ struct edit edit = { .core = request->core };
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_core_result_ struct core_result result = { 0 };
	_cleanup_json_ json_t *results = json_array();
	json_t *more;
	int r = results ? run_all(&edit, list, results, &errs) : -ENOMEM;

	if (!r)
		r = edit_commit(&edit, &write->core, &errs, &result);
	if (r < 0)
		return problem_from_errno(response, r, request, &errs);
	more = json_pack("{s:O}", "results", results);
	return more ? write_answer(request, write, &result, more, response) : -ENOMEM;
}

int transaction_post(const struct request *request, struct response *response)
{
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_json_ json_t *list = NULL;
	struct write write;
	char etag[ETAG_BYTES];
	int r = write_begin(request, &write, response);

	if (!r && (r = write_parse_list(request, "A transaction is a list of {method, path, body}.",
	                   TRANSACTION_ITEMS_MAX, &errs, &list)) == -EBADMSG)
		return problem_answer(response, PROBLEM_MALFORMED, request, &errs, "%s", errs.items[0].detail);
	if (!r)
		r = write_check_precondition(request, write_etag(core_revision(request->core), etag), response);
	if (r)
		return r < 0 ? r : 0;
	return run(request, list, &write, response);
}
