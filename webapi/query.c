/* Parameters of queries; see query.h. */
#include "webapi/query.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "webapi/problem.h"
#include "webapi/url.h"

int query_parse(
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

void query_free(char **values, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(values[i]);
}

int query_refuse(const struct request *request, const char *name, const char *what, struct response *response)
{
	return problem_answer(
	               response, PROBLEM_MALFORMED, request, NULL, "The query parameter \"%s\" is %s.", name, what) < 0
	               ? -ENOMEM
	               : 1;
}

int query_number(const struct request *request, const char *name, const char *text, uint64_t least, uint64_t most,
        uint64_t *ret, struct response *response)
{
	char what[96];
	uint64_t value;

	if (!text)
		return 0;
	errno = 0;
	value = strtoull(text, NULL, 10);
	if (*text && strspn(text, "0123456789") == strlen(text) && !errno && value >= least && value <= most) {
		*ret = value;
		return 0;
	}
	snprintf(what, sizeof(what), "a number from %" PRIu64 " to %" PRIu64, least, most);
	return query_refuse(request, name, what, response);
}

int query_word(const struct request *request, const char *name, const char *text, const char *const *words, size_t n,
        size_t *ret, struct response *response)
{
	char what[160] = "one of";

	if (!text)
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (strcmp(text, words[i]) == 0) {
			*ret = i;
			return 0;
		}
		snprintf(what + strlen(what), sizeof(what) - strlen(what), "%s %s", i ? "," : "", words[i]);
	}
	return query_refuse(request, name, what, response);
}
