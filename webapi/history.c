/* History, rollback, audit and backup, see history.h. */
#include "webapi/history.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "webapi/problem.h"
#include "webapi/rest.h"
#include "webapi/url.h"
#include "webapi/write.h"

/* Digits only, up to INT64_MAX; -1 if it is none. */
static int64_t number_of(const char *text)
{
	int64_t value;

	if (!*text || strspn(text, "0123456789") != strlen(text))
		return -1;
	errno = 0;
	value = strtoll(text, NULL, 10);
	return errno ? -1 : value;
}

/* 0, 1 if the response tells the fault, -ENOMEM. */
static int refuse_number(const struct request *request, const char *name, struct response *response)
{
	return problem_answer(response, PROBLEM_MALFORMED, request, NULL,
	               "The query parameter \"%s\" is not a number in its range.", name) < 0
	               ? -ENOMEM
	               : 1;
}

/* Parameters that are numbers, not less than `least`; values[i] stays as it is when known[i] is absent. 0, 1, -ENOMEM.
 */
static int parse_numbers(const struct request *request, const char *const *known, size_t n, int64_t least,
        int64_t *values, struct response *response)
{
	_cleanup_errs_ struct errs errs = { 0 };
	char *texts[2] = { NULL, NULL };
	int r = url_parse_query(request->query, known, n, texts, &errs);

	if (r == -EINVAL)
		return problem_answer(response, PROBLEM_MALFORMED, request, &errs,
		               "The query of the address is not understood.") < 0
		               ? -ENOMEM
		               : 1;
	for (size_t i = 0; i < n && !r; i++) {
		if (texts[i] && (values[i] = number_of(texts[i])) < least)
			r = refuse_number(request, known[i], response);
	}
	for (size_t i = 0; i < n; i++)
		free(texts[i]);
	return r;
}

/* The number in the path: 0 is the empty configuration at the beginning. Negative with the refusal in the response. */
static int64_t revision_of(const struct request *request, struct response *response, int *ret)
{
	int64_t revision = number_of(request->name);

	*ret = revision >= 0 ? 0
	                     : problem_answer(
	                               response, PROBLEM_NOT_FOUND, request, NULL, "A revision is a number from 0 on.");
	return revision;
}

typedef int lister(struct core *core, int64_t before, size_t max, json_t **ret);

/* {"items", "next"}: `key` is what ?before= takes. NULL document: the response tells why. */
static int page(const struct request *request, lister *list, const char *key, json_t **ret, struct response *response)
{
	static const char *const known[] = { "before", "limit" };
	int64_t values[] = { 0, REST_PAGE_DEFAULT };
	json_t *items, *next;
	size_t limit;
	int r = parse_numbers(request, known, 2, 1, values, response);

	if (!r && values[1] > REST_PAGE_MAX)
		r = refuse_number(request, "limit", response);
	if (r)
		return r;
	limit = (size_t)values[1];
	r = list(request->core, values[0], limit + 1, &items);
	if (r < 0)
		return problem_from_errno(response, r, request, NULL) < 0 ? -ENOMEM : 1;
	next = json_null();
	if (json_array_size(items) > limit) {
		(void)json_array_remove(items, limit);
		next = json_incref(json_object_get(json_array_get(items, limit - 1), key));
	}
	*ret = json_pack("{s:o, s:o}", "items", items, "next", next);
	return *ret ? 0 : -ENOMEM;
}

int history_list(const struct request *request, struct response *response)
{
	json_t *document = NULL;
	int r = page(request, core_revisions, "revision", &document, response);

	if (r)
		return r < 0 ? r : 0;
	if (json_object_set_new(document, "pending", core_pending(request->core)) < 0) {
		json_decref(document);
		return -ENOMEM;
	}
	return response_json(response, 200, CONTENT_JSON, document);
}

int history_audit(const struct request *request, struct response *response)
{
	json_t *document = NULL;
	int r = page(request, core_audit_list, "id", &document, response);

	if (r)
		return r < 0 ? r : 0;
	return response_json(response, 200, CONTENT_JSON, document);
}

static int not_in_history(const struct request *request, int error, struct response *response)
{
	if (error != -ENOENT)
		return problem_from_errno(response, error, request, NULL);
	return problem_answer(response, PROBLEM_NOT_FOUND, request, NULL, "The history does not have this revision.");
}

int history_get(const struct request *request, struct response *response)
{
	json_t *document;
	int64_t revision;
	int r = write_refuse_query(request, response);

	if (r)
		return r < 0 ? r : 0;
	revision = revision_of(request, response, &r);
	if (revision < 0)
		return r;
	r = core_revision_get(request->core, revision, &document);
	return r < 0 ? not_in_history(request, r, response) : response_json(response, 200, CONTENT_JSON, document);
}

int history_diff(const struct request *request, struct response *response)
{
	static const char *const known[] = { "to" };
	int64_t to = core_revision(request->core), from;
	json_t *diff;
	int r = parse_numbers(request, known, 1, 0, &to, response);

	if (r)
		return r < 0 ? r : 0;
	from = revision_of(request, response, &r);
	if (from < 0)
		return r;
	r = core_revision_diff(request->core, from, to, &diff);
	if (r < 0)
		return not_in_history(request, r, response);
	return response_json(response, 200, CONTENT_JSON,
	        json_pack("{s:I, s:I, s:o}", "from", (json_int_t)from, "to", (json_int_t)to, "diff", diff));
}

int history_rollback(const struct request *request, struct response *response)
{
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_core_result_ struct core_result result = { 0 };
	struct write write;
	int64_t revision;
	int r = write_begin(request, &write, response);

	if (r)
		return r < 0 ? r : 0;
	revision = revision_of(request, response, &r);
	if (revision < 0)
		return r;
	r = core_rollback(request->core, revision, &write.core, &errs, &result);
	if (r == -ENOENT && !errs.n)
		return not_in_history(request, r, response);
	if (r < 0)
		return problem_from_errno(response, r, request, &errs);
	return write_answer(request, &write, &result, NULL, response);
}

int history_confirm(const struct request *request, struct response *response)
{
	_cleanup_errs_ struct errs errs = { 0 };
	struct write write = { .core = { .actor = request->actor } };
	int64_t revision;
	int r = write_refuse_query(request, response);

	if (r)
		return r < 0 ? r : 0;
	revision = revision_of(request, response, &r);
	if (revision < 0)
		return r;
	snprintf(write.summary, sizeof(write.summary), "confirm revision %" PRId64, revision);
	write.core.summary = write.summary;
	r = core_confirm(request->core, revision, &write.core, &errs);
	if (r == -ENOENT)
		return problem_answer(response, PROBLEM_NOT_FOUND, request, &errs,
		        "No change of this revision waits to be confirmed.");
	if (r < 0)
		return problem_from_errno(response, r, request, &errs);
	return response_json(response, 200, CONTENT_JSON,
	        json_pack("{s:I, s:b, s:o}", "revision", (json_int_t)revision, "confirmed", 1, "pending",
	                core_pending(request->core)));
}

/* Makes the copy in a directory that only we can enter, opens it and takes both away again. */
static int copy_database(struct core *core, const char *parent, int *ret_fd)
{
	char directory[PATH_MAX / 2], path[PATH_MAX];
	int r, fd = -1;

	snprintf(directory, sizeof(directory), "%s/backup-XXXXXX", parent);
	if (!mkdtemp(directory))
		return -errno;
	snprintf(path, sizeof(path), "%s/gateway.db", directory);
	r = core_backup(core, path);
	if (!r && (fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) < 0)
		r = -errno;
	(void)unlink(path);
	(void)rmdir(directory);
	if (!r)
		*ret_fd = fd;
	return r;
}

int history_backup(const struct request *request, struct response *response)
{
	_cleanup_close_ int fd = -1;
	struct stat status;
	int r = write_refuse_query(request, response);

	if (r)
		return r < 0 ? r : 0;
	r = copy_database(request->core, request->services->temp_dir, &fd);
	if (!r && fstat(fd, &status) < 0)
		r = -errno;
	if (r < 0)
		return problem_answer(response, PROBLEM_UNAVAILABLE, request, NULL,
		        "The copy of the database cannot be made: %s.", strerror(-r));
	if (response_header(response, "Content-Disposition", "attachment; filename=\"gateway-%" PRId64 ".db\"",
	            core_revision(request->core)) < 0)
		return -ENOMEM;
	response_file(response, 200, "application/vnd.sqlite3", TAKE_FD(fd), (uint64_t)status.st_size);
	return 0;
}
