/* Entity tags, see precondition.h and RFC 9110 section 13. */
#include "webapi/precondition.h"

#include <string.h>

/* Whether the header's list has the tag: 1, 0, or -1 if it is not a list. A weak tag ("W/") counts only if `weak`. */
static int list_has(const char *list, const char *etag, bool weak)
{
	int found = 0;

	if (!strcmp(list, "*"))
		return etag ? 1 : 0;
	for (;;) {
		bool is_weak;
		size_t length;

		list += strspn(list, " \t,");
		is_weak = !strncmp(list, "W/", 2);
		list += is_weak ? 2 : 0;
		if (*list != '"')
			return -1;
		length = 1 + strcspn(list + 1, "\"");
		if (list[length] != '"')
			return -1;
		length++;
		if (etag && strlen(etag) == length && !memcmp(list, etag, length) && (weak || !is_weak))
			found = 1;
		list += length;
		list += strspn(list, " \t");
		if (!*list)
			return found;
		if (*list != ',')
			return -1;
	}
}

enum precondition precondition_check(const struct request *request, const char *etag)
{
	const char *match = request_header(request, HEADER_IF_MATCH);
	const char *none_match = request_header(request, HEADER_IF_NONE_MATCH);
	int must = match ? list_has(match, etag, false) : 1;
	int must_not = none_match ? list_has(none_match, etag, true) : 0;

	if (must < 0 || must_not < 0)
		return PRECONDITION_MALFORMED;
	if (!must)
		return PRECONDITION_FAILED;
	if (!must_not)
		return PRECONDITION_PASSED;
	return request->method == METHOD_GET || request->method == METHOD_HEAD ? PRECONDITION_NOT_MODIFIED
	                                                                       : PRECONDITION_FAILED;
}
