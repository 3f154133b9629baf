/* Targets as they are seen and operated, see targets.h. */
#include "webapi/targets.h"

#include <errno.h>
#include <string.h>

#include "webapi/edit.h"
#include "webapi/problem.h"
#include "webapi/write.h"

static const struct upstream *upstream_of(const struct request *request)
{
	return (const struct upstream *)core_find(request->core, RESOURCE_UPSTREAM, request->name);
}

/* The target of the path, and its upstream; NULL with the refusal in the response. */
static const struct target *target_of(
        const struct request *request, const struct upstream **ret_upstream, struct response *response, int *ret)
{
	const struct upstream *upstream = upstream_of(request);
	const struct target *target = upstream ? edit_find_target(&upstream->row, request->target, NULL) : NULL;

	*ret_upstream = upstream;
	*ret = target ? 0
	              : problem_answer(response, PROBLEM_NOT_FOUND, request, NULL, "There is no %s of this name.",
	                        upstream ? "target" : "upstream");
	return target;
}

/* The tag is the configuration's, for If-Match of writes. What is observed changes without it, so no answer is "still
 * the same". */
static int answer(
        const struct request *request, const struct upstream *upstream, json_t *document, struct response *response)
{
	char etag[ETAG_BYTES];

	(void)request;
	if (response_header(response, "ETag", "%s", write_etag(upstream->row.revision, etag)) < 0) {
		json_decref(document);
		return -ENOMEM;
	}
	return response_json(response, 200, CONTENT_JSON, document);
}

int targets_get(const struct request *request, struct response *response)
{
	const struct upstream *upstream;
	const struct target *target;
	int r = write_refuse_query(request, response);

	if (r)
		return r < 0 ? r : 0;
	target = target_of(request, &upstream, response, &r);
	return target ? answer(request, upstream, core_target(request->core, upstream, target), response) : r;
}

int targets_list(const struct request *request, struct response *response)
{
	const struct upstream *upstream = upstream_of(request);
	json_t *items;
	int r = write_refuse_query(request, response);

	if (r)
		return r < 0 ? r : 0;
	if (!upstream)
		return problem_answer(response, PROBLEM_NOT_FOUND, request, NULL, "There is no upstream of this name.");
	items = json_array();
	for (size_t i = 0; i < upstream->targets.n; i++)
		if (json_array_append_new(items, core_target(request->core, upstream,
		                                         (const struct target *)upstream->targets.items[i])) < 0) {
			json_decref(items);
			return -ENOMEM;
		}
	return answer(request, upstream,
	        json_pack("{s:o, s:n, s:I}", "items", items, "next", "total", (json_int_t)upstream->targets.n),
	        response);
}

/* --- PATCH --- */

/* A number within bounds, or null. */
static void read_number(const json_t *value, const char *key, int64_t min, int64_t max, int64_t *ret, struct errs *errs)
{
	char pointer[64];

	snprintf(pointer, sizeof(pointer), "/%s", key);
	if (json_is_null(value))
		*ret = CORE_TARGET_CONFIGURED;
	else if (!json_is_integer(value))
		errs_add(errs, pointer, "wrong_type", "a whole number, or null");
	else if (json_integer_value(value) < min || json_integer_value(value) > max)
		errs_add(errs, pointer, "out_of_range", "from %lld to %lld", (long long)min, (long long)max);
	else
		*ret = json_integer_value(value);
}

static void read_admin(const json_t *value, int64_t *ret, struct errs *errs)
{
	const struct field *field = resource_field(resource_get(RESOURCE_TARGET), "admin_state");
	int64_t admin = json_is_string(value) ? field_word_value(field, json_string_value(value)) : -1;

	if (json_is_null(value))
		*ret = CORE_TARGET_CONFIGURED;
	else if (admin < 0)
		errs_add(errs, "/admin_state", "bad_value", "\"up\", \"drain\" or \"down\"; or null: as configured");
	else
		*ret = admin;
}

static void read_key(const char *key, const json_t *value, struct core_target_order *order, struct errs *errs)
{
	char pointer[64];

	if (!strcmp(key, "admin_state")) {
		read_admin(value, &order->admin_state, errs);
	} else if (!strcmp(key, "weight")) {
		read_number(value, key, 0, 256, &order->weight, errs);
	} else if (!strcmp(key, "drain_deadline_s")) {
		read_number(value, key, 0, CORE_DRAIN_DEADLINE_S_MAX, &order->drain_deadline_s, errs);
	} else if (!strcmp(key, "drain_reset_per_s")) {
		read_number(value, key, 1, CORE_DRAIN_RESET_PER_S_MAX, &order->drain_reset_per_s, errs);
	} else {
		snprintf(pointer, sizeof(pointer), "/%s", key);
		errs_add(errs, pointer, "unknown_key",
		        "PATCH of a target changes what it does now: \"admin_state\", \"weight\", "
		        "\"drain_deadline_s\" and \"drain_reset_per_s\". PUT changes how it is configured.");
	}
}

static int read_order(json_t *body, struct core_target_order *ret, struct errs *errs)
{
	const char *key;
	json_t *value;

	*ret = (struct core_target_order){ CORE_TARGET_KEEP, CORE_TARGET_KEEP, CORE_TARGET_KEEP, CORE_TARGET_KEEP };
	json_object_foreach(body, key, value) read_key(key, value, ret, errs);
	return errs_count(errs) ? -EINVAL : 0;
}

int targets_patch(const struct request *request, struct response *response)
{
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_json_ json_t *body = NULL;
	const struct upstream *upstream;
	const struct target *target;
	struct core_target_order order;
	char etag[ETAG_BYTES];
	int r = write_refuse_query(request, response);

	if (!r)
		r = write_parse_body(request, response, &body);
	if (r)
		return r < 0 ? r : 0;
	target = target_of(request, &upstream, response, &r);
	if (!target)
		return r;
	r = write_check_precondition(request, write_etag(upstream->row.revision, etag), response);
	if (r)
		return r < 0 ? r : 0;
	r = read_order(body, &order, &errs);
	if (r == 0)
		r = core_target_set(request->core, upstream, target, &order, request->actor, &errs);
	if (r < 0)
		return problem_from_errno(response, r, request, &errs);
	return answer(request, upstream, core_target(request->core, upstream, target), response);
}
