/* The entries of an address set in bulk, see entries.h. */
#include "webapi/entries.h"

#include <errno.h>
#include <string.h>

#include "schema/prefixes.h"
#include "schema/text.h"
#include "webapi/problem.h"
#include "webapi/screen.h"
#include "webapi/write.h"

/* A set before and after, and what became of it. */
struct entries_change {
	const struct row *before; /* borrowed */
	struct row *after;        /* owned */
	size_t added, removed;
};

static void change_clear(struct entries_change *change)
{
	if (change->after)
		row_unref(change->after);
}

static const struct prefixes *entries_of(const struct row *row)
{
	return &((const struct address_set *)row)->entries;
}

static const struct row *row_of(const struct request *request)
{
	return core_find(request->core, RESOURCE_ADDRESS_SET, request->name);
}

static int not_found(const struct request *request, struct response *response)
{
	return problem_answer(response, PROBLEM_NOT_FOUND, request, NULL, "There is no address set of this name.");
}

/* ---- reading ---- */

static int answer_text(const struct prefixes *entries, struct response *response)
{
	char *text;
	size_t length;
	int r = prefixes_format(entries, &text, &length);

	if (r < 0)
		return r;
	response->status = 200;
	response->content_type = CONTENT_TEXT;
	response->body = text;
	response->length = length;
	return 0;
}

/* Written at one go: as a tree a million entries take a hundred megabytes. */
static int answer_list(const struct prefixes *entries, struct response *response)
{
	struct prefixes_cursor cursor = prefixes_from(entries, 0);
	_cleanup_text_ struct text text = { 0 };
	const struct prefix *prefix;
	char entry[ADDR_TEXT_MAX];
	bool first = true;

	text_add(&text, "[");
	while ((prefix = prefixes_next(&cursor))) {
		text_add(&text, first ? "\"" : ",\"");
		first = false;
		text_add(&text, prefix_format(prefix, entry));
		text_add(&text, "\"");
	}
	text_add(&text, "]\n");
	if (text.failed)
		return -ENOMEM;
	response->status = 200;
	response->content_type = CONTENT_JSON;
	response->length = text.n;
	response->body = TAKE_PTR(text.bytes);
	return 0;
}

int entries_get(const struct request *request, struct response *response)
{
	const struct row *row = row_of(request);
	char etag[ETAG_BYTES];
	int r = write_refuse_query(request, response);

	if (r)
		return r < 0 ? r : 0;
	if (!row)
		return not_found(request, response);
	r = write_check_precondition(request, write_etag(row->revision, etag), response);
	if (r < 0 || (r && response->status != 304))
		return r < 0 ? r : 0;
	if (response_header(response, "ETag", "%s", etag) < 0 || response_header(response, "Vary", "Accept") < 0)
		return -ENOMEM;
	if (r)
		return 0;
	return screen_prefers_json(request) ? answer_list(entries_of(row), response)
	                                    : answer_text(entries_of(row), response);
}

/* ---- the body of a write ---- */

static int read_item(const json_t *item, size_t index, struct prefixes_builder *builder, struct errs *errs)
{
	char pointer[32];
	int r;

	snprintf(pointer, sizeof(pointer), "/%zu", index);
	if (json_is_string(item)) {
		r = prefixes_add_text(builder, json_string_value(item), pointer, errs);
		return r == -EINVAL ? 0 : r;
	}
	errs_add(errs, pointer, "wrong_type", "a string is wanted here");
	return 0;
}

static int read_list(const struct request *request, struct errs *errs, struct prefixes *ret)
{
	_cleanup_prefixes_builder_ struct prefixes_builder builder = { 0 };
	_cleanup_json_ json_t *list = NULL;
	int r = write_parse_list(request, "The body is a list of prefixes.", SIZE_MAX, errs, &list);

	for (size_t i = 0; i < json_array_size(list) && !r; i++)
		r = read_item(json_array_get(list, i), i, &builder, errs);
	if (r < 0)
		return r;
	/* Ranges become many; bounded here too, since a list of them is short. */
	if (builder.n > ADDRESS_SET_ENTRIES_MAX)
		errs_add(errs, "", "too_many_items", "more than %d prefixes", ADDRESS_SET_ENTRIES_MAX);
	return errs_count(errs) ? -EINVAL : prefixes_finish(&builder, ret);
}

/* 0, 1 if the response tells a fault, -ENOMEM. */
static int read_body(const struct request *request, struct response *response, struct prefixes *ret)
{
	_cleanup_errs_ struct errs errs = { 0 };
	bool empty = !request->body_length &&
	             (request->method == METHOD_DELETE || !request_header(request, HEADER_CONTENT_TYPE));
	int r;

	if (empty) {
		/* An empty text is no entries, and fine; a forgotten body is not, and must not mean "all". */
		errs_add(&errs, "", "malformed", "The entries are missing: a body is wanted here.");
		r = -EBADMSG;
	} else {
		r = screen_is_json(request)
		            ? read_list(request, &errs, ret)
		            : prefixes_parse(request->body ? request->body : "", request->body_length, &errs, ret);
	}
	if (r == -EBADMSG)
		r = problem_answer(response, PROBLEM_MALFORMED, request, &errs, "%s", errs.items[0].detail);
	else if (r == -EINVAL)
		r = problem_from_errno(response, r, request, &errs);
	else
		return r;
	return r < 0 ? r : 1;
}

/* ---- writing ---- */

static int count_difference(void *userdata, const struct prefix *prefix, bool added)
{
	struct entries_change *change = userdata;

	(void)prefix;
	change->added += added;
	change->removed += !added;
	return 0;
}

/* The entries that the set will have. */
static int merge(
        enum http_method method, const struct prefixes *old, const struct prefixes *given, struct prefixes *ret)
{
	if (method == METHOD_POST)
		return prefixes_unite(old, given, ret);
	if (method == METHOD_DELETE)
		return prefixes_subtract(old, given, ret);
	prefixes_share(ret, given);
	return 0;
}

/* Fills `change` from its `before`. -EINVAL with a fault in errs, -ENOMEM. */
static int make_change(
        enum http_method method, const struct prefixes *given, struct entries_change *change, struct errs *errs)
{
	const struct prefixes *old = entries_of(change->before);
	_cleanup_prefixes_ struct prefixes new = { 0 };
	int r = merge(method, old, given, &new);

	if (r < 0)
		return r;
	if (new.n > ADDRESS_SET_ENTRIES_MAX) {
		errs_add(errs, "", "too_many_items", "the set would have %zu entries, more than %d", new.n,
		        ADDRESS_SET_ENTRIES_MAX);
		return -EINVAL;
	}
	change->after = row_copy(change->before);
	if (!change->after)
		return -ENOMEM;
	prefixes_clear(&((struct address_set *)change->after)->entries);
	prefixes_share(&((struct address_set *)change->after)->entries, &new);
	return prefixes_differences(old, &new, count_difference, change);
}

static int answer(const struct request *request, const struct write *write, const struct core_result *result,
        const struct entries_change *change, struct response *response)
{
	const struct row *stored = row_of(request);
	char etag[ETAG_BYTES];
	json_t *counts;

	if (!stored) /* cannot be, but must not end the daemon */
		return problem_from_errno(response, -EIO, request, NULL);
	if (!write->core.dry_run && response_header(response, "ETag", "%s", write_etag(stored->revision, etag)) < 0)
		return -ENOMEM;
	counts = json_pack("{s:I, s:I, s:I}", "entries", (json_int_t)entries_of(stored)->n, "added",
	        (json_int_t)change->added, "removed", (json_int_t)change->removed);
	return counts ? write_answer(request, write, result, counts, response) : -ENOMEM;
}

static int run(const struct request *request, const struct row *row, const struct write *write,
        const struct prefixes *given, struct response *response)
{
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_core_result_ struct core_result result = { 0 };
	_cleanup_(change_clear) struct entries_change change = { .before = row };
	int r = make_change(request->method, given, &change, &errs);

	if (r == 0) {
		/* The row is the one that the merge began with. */
		const struct core_change core = { .operation = CORE_PUT,
			.resource = RESOURCE_ADDRESS_SET,
			.name = request->name,
			.row = change.after,
			.if_revision = row->revision };

		r = core_write(request->core, &core, 1, &write->core, &errs, &result);
	}
	if (r < 0)
		return problem_from_errno(response, r, request, &errs);
	return answer(request, write, &result, &change, response);
}

int entries_write(const struct request *request, struct response *response)
{
	_cleanup_prefixes_ struct prefixes given = { 0 };
	const struct row *row = row_of(request);
	struct write write;
	char etag[ETAG_BYTES];
	int r = write_begin(request, &write, response);

	if (r)
		return r < 0 ? r : 0;
	if (!row)
		return not_found(request, response);
	r = write_check_precondition(request, write_etag(row->revision, etag), response);
	if (!r)
		r = read_body(request, response, &given);
	if (r)
		return r < 0 ? r : 0;
	return run(request, row, &write, &given, response);
}
