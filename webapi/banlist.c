/* Bans and rate limits at work, see banlist.h. */
#include "webapi/banlist.h"

#include <errno.h>
#include <string.h>

#include "gatewayd/base/array.h"
#include "webapi/problem.h"
#include "webapi/query.h"
#include "webapi/rest.h"
#include "webapi/write.h"

static int not_found(const struct request *request, struct response *response)
{
	return problem_answer(response, PROBLEM_NOT_FOUND, request, NULL, "This address or prefix is not banned.");
}

/* The parameters "limit" and "after"; the caller frees *ret_after. As query_parse. */
static int parse_page(const struct request *request, uint64_t *ret_limit, char **ret_after, struct response *response)
{
	static const char *const known[] = { "limit", "after" };
	char *values[2];
	int r = query_parse(request, known, 2, values, response);

	if (r)
		return r;
	*ret_limit = REST_PAGE_DEFAULT;
	r = query_number(request, known[0], values[0], 1, REST_PAGE_MAX, ret_limit, response);
	*ret_after = r ? NULL : TAKE_PTR(values[1]);
	query_free(values, 2);
	return r;
}

int banlist_get(const struct request *request, struct response *response)
{
	_cleanup_free_ char *after = NULL;
	struct prefix prefix;
	uint64_t limit;
	int r = parse_page(request, &limit, &after, response);

	if (!r && after && prefix_parse(after, &prefix) < 0)
		r = query_refuse(request, "after", "what \"next\" of an earlier page was", response);
	if (r)
		return r < 0 ? r : 0;
	return response_json(response, 200, CONTENT_JSON, core_bans(request->core, after ? &prefix : NULL, limit));
}

/* --- POST --- */

static void read_address(json_t *value, struct errs *errs, struct core_ban *wish)
{
	const char *text = json_string_value(value);
	char hint[ADDR_TEXT_MAX + 4];
	int r = text ? prefix_parse(text, &wish->prefix) : -EINVAL;

	if (!value)
		errs_add(errs, "/address", "required", "An address or a prefix has to be given.");
	else if (r == -ENOTUNIQ)
		errs_add(errs, "/address", "host_bits", "Bits behind the length are set; the prefix is %s.",
		        prefix_format(&wish->prefix, hint));
	else if (r < 0)
		errs_add(errs, "/address", "bad_value", "This is no address and no prefix.");
}

static void read_seconds(json_t *value, struct errs *errs, struct core_ban *wish)
{
	if (!value || json_is_null(value))
		return;
	wish->seconds = json_integer_value(value);
	if (!json_is_integer(value))
		errs_add(errs, "/ban_s", "wrong_type", "A whole number of seconds, or null: until it is lifted.");
	else if (wish->seconds < 1 || wish->seconds > BANLIST_S_MAX)
		errs_add(
		        errs, "/ban_s", "out_of_range", "1 to %d seconds, or null: until it is lifted.", BANLIST_S_MAX);
}

static void read_reason(json_t *value, struct errs *errs, struct core_ban *wish)
{
	wish->reason = "";
	if (!value)
		return;
	if (!json_is_string(value))
		errs_add(errs, "/reason", "wrong_type", "The reason is a text.");
	else if (json_string_length(value) > BANLIST_REASON_MAX)
		errs_add(errs, "/reason", "too_long", "At most %d bytes.", BANLIST_REASON_MAX);
	else
		wish->reason = json_string_value(value);
}

static void read_placement(json_t *value, struct errs *errs, struct core_ban *wish)
{
	const char *text = json_string_value(value);

	if (!value)
		return;
	wish->xdp = text && strcmp(text, "xdp") == 0;
	if (!text || (!wish->xdp && strcmp(text, "nft") != 0))
		errs_add(errs, "/placement", "bad_value", "nft, or xdp: at the prefilters too.");
}

static const char *const fields[] = { "address", "ban_s", "reason", "placement" };

static void read_wish(json_t *body, struct errs *errs, struct core_ban *wish)
{
	const char *key;
	json_t *value;

	read_address(json_object_get(body, "address"), errs, wish);
	read_seconds(json_object_get(body, "ban_s"), errs, wish);
	read_reason(json_object_get(body, "reason"), errs, wish);
	read_placement(json_object_get(body, "placement"), errs, wish);
	json_object_foreach(body, key, value) if (!words_have(fields, ARRAY_SIZE(fields), key)) errs_add(errs, "",
	        "unknown_field", "There is no field \"%.64s\"; there are address, ban_s, reason, placement.", key);
}

static int put_location(const struct core_ban *wish, struct response *response)
{
	char text[ADDR_TEXT_MAX + 4];

	return response_header(response, "Location", "/api/v1/bans/%s", prefix_format(&wish->prefix, text));
}

static int ban(const struct request *request, const struct core_ban *wish, struct response *response)
{
	json_t *document;
	int r = core_ban_add(request->core, wish);

	if (r == -EPERM)
		return problem_answer(response, PROBLEM_CONFLICT, request, NULL,
		        "It belongs to what is never banned (setting ban_exempt).");
	if (r == -ENOSPC)
		return problem_answer(
		        response, PROBLEM_CONFLICT, request, NULL, "There are as many bans as there can be.");
	if (r < 0)
		return problem_answer(response, PROBLEM_UNAVAILABLE, request, NULL,
		        "The ban cannot be put in force: %s.", strerror(-r));
	r = core_ban_get(request->core, &wish->prefix, &document);
	if (r == 0)
		r = response_json(response, 201, CONTENT_JSON, document);
	return r < 0 ? r : put_location(wish, response);
}

int banlist_post(const struct request *request, struct response *response)
{
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_json_ json_t *body = NULL;
	struct core_ban wish = { .actor = request->actor };
	int r = write_refuse_query(request, response);

	if (!r)
		r = write_parse_body(request, response, &body);
	if (r)
		return r < 0 ? r : 0;
	read_wish(body, &errs, &wish);
	if (errs.n > 0)
		return problem_answer(response, PROBLEM_INVALID, request, &errs, "%s", errs.items[0].detail);
	return ban(request, &wish, response);
}

/* --- one --- */

/* parsed: 0, or that the text is no prefix, and so not banned. */
static int lift(const struct request *request, int parsed, const struct prefix *prefix, struct response *response)
{
	int r = parsed < 0 ? -ENOENT : core_ban_lift(request->core, prefix, request->actor);

	if (r == -ENOENT)
		return not_found(request, response);
	if (r < 0)
		return problem_answer(
		        response, PROBLEM_UNAVAILABLE, request, NULL, "The ban cannot be lifted: %s.", strerror(-r));
	response->status = 204;
	return 0;
}

int banlist_delete(const struct request *request, struct response *response)
{
	static const char *const known[] = { "address" };
	struct prefix prefix = { 0 };
	char *values[1];
	int r = query_parse(request, known, 1, values, response);

	if (r)
		return r < 0 ? r : 0;
	r = values[0] ? lift(request, prefix_parse(values[0], &prefix), &prefix, response)
	              : query_refuse(request, known[0], "the address or prefix of a ban", response);
	query_free(values, 1);
	return r < 0 ? r : 0;
}

/* The prefix that the path names. -EINVAL. */
static int parse_path(const struct request *request, struct prefix *ret)
{
	char text[2 * ADDR_TEXT_MAX];
	int n = snprintf(text, sizeof(text), "%s%s%s", request->name, request->target ? "/" : "",
	        request->target ? request->target : "");

	return n < 0 || (size_t)n >= sizeof(text) ? -EINVAL : prefix_parse(text, ret);
}

int banlist_one(const struct request *request, struct response *response)
{
	struct prefix prefix;
	json_t *document;
	int r = query_parse(request, NULL, 0, NULL, response);

	if (r)
		return r < 0 ? r : 0;
	r = parse_path(request, &prefix) < 0 ? -ENOENT : core_ban_get(request->core, &prefix, &document);
	if (r == -ENOENT)
		return not_found(request, response);
	return r < 0 ? r : response_json(response, 200, CONTENT_JSON, document);
}

int banlist_lift(const struct request *request, struct response *response)
{
	struct prefix prefix = { 0 };
	int r = query_parse(request, NULL, 0, NULL, response);

	if (r)
		return r < 0 ? r : 0;
	return lift(request, parse_path(request, &prefix), &prefix, response);
}

/* --- limits --- */

int banlist_limits(const struct request *request, struct response *response)
{
	_cleanup_free_ char *after = NULL;
	uint64_t limit;
	int r = parse_page(request, &limit, &after, response);

	if (r)
		return r < 0 ? r : 0;
	return response_json(response, 200, CONTENT_JSON, core_limits(request->core, after, limit));
}

int banlist_limit(const struct request *request, struct response *response)
{
	json_t *document;
	int r = query_parse(request, NULL, 0, NULL, response);

	if (r)
		return r < 0 ? r : 0;
	r = core_limit_get(request->core, request->name, &document);
	if (r == -ENOENT)
		return problem_answer(response, PROBLEM_NOT_FOUND, request, NULL, "There is no such rate limit.");
	return r < 0 ? r : response_json(response, 200, CONTENT_JSON, document);
}
