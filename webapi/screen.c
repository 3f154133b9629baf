/*
 * Checks of headers, see screen.h. The HTTP library lets much of this pass:
 * Content-Length together with Transfer-Encoding, two Content-Length, no Host.
 */
#include "webapi/screen.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "webapi/problem.h"

/* All methods, for the Allow header of a method nobody knows. */
#define METHODS_ALL (METHOD_BIT(METHODS) - 1)

static int refuse(const struct request *request, struct response *response, const char *detail)
{
	response->must_close = true;
	return problem_answer(response, PROBLEM_MALFORMED, request, NULL, "%s", detail) < 0 ? -ENOMEM : 1;
}

/* The header that stands more than once, or HEADERS. Accept may: it decides nothing but the form of an answer. */
static enum header_id repeated(const struct request *request)
{
	for (int i = 0; i < HEADERS; i++)
		if (request->headers[i].count > 1 && i != HEADER_ACCEPT)
			return (enum header_id)i;
	return HEADERS;
}

static int refuse_encoding(const struct request *request, struct response *response)
{
	response->must_close = true;
	return problem_answer(
	               response, PROBLEM_NOT_IMPLEMENTED, request, NULL, "The only transfer coding is \"chunked\".") < 0
	               ? -ENOMEM
	               : 1;
}

int screen_framing(const struct request *request, struct response *response)
{
	const char *coding = request_header(request, HEADER_TRANSFER_ENCODING);
	const char *length = request_header(request, HEADER_CONTENT_LENGTH);

	if (request->bad_header)
		return refuse(request, response, "A header has a name that is not a token.");
	if (coding && length)
		return refuse(request, response, "Content-Length and Transfer-Encoding stand together.");
	if (request->http_1_1 && !request_header(request, HEADER_HOST))
		return refuse(request, response, "An HTTP/1.1 request needs a Host header.");
	if (repeated(request) != HEADERS) {
		response->must_close = true;
		return problem_answer(response, PROBLEM_MALFORMED, request, NULL, "%s stands more than once.",
		               header_name(repeated(request))) < 0
		               ? -ENOMEM
		               : 1;
	}
	if (coding && !request->http_1_1)
		return refuse(request, response, "Transfer-Encoding needs HTTP/1.1.");
	if (coding && strcasecmp(coding, "chunked") != 0)
		return refuse_encoding(request, response);
	return 0;
}

/* Cuts "host:port" or "[v6]:port" down to the host, in text of `size` bytes. False if it is neither. */
static bool host_of(const char *value, char *text, size_t size)
{
	const char *begin = *value == '[' ? value + 1 : value;
	size_t length = strcspn(begin, *value == '[' ? "]" : ":");
	const char *rest = begin + length;

	if (*value == '[' && *rest++ != ']')
		return false;
	if (length >= size || !length)
		return false;
	if (*rest == ':')
		rest += 1 + strspn(rest + 1, "0123456789");
	memcpy(text, begin, length);
	text[length] = '\0';
	return !*rest;
}

int screen_host(const struct request *request, const char *host_name, struct response *response)
{
	const char *value = request_header(request, HEADER_HOST);
	struct in6_addr address;
	char host[256];

	if (!value)
		return 0; /* HTTP/1.0: no browser speaks it */
	if (host_of(value, host, sizeof(host))) {
		if (inet_pton(*value == '[' ? AF_INET6 : AF_INET, host, &address) == 1)
			return 0;
		if (*value != '[' && (!strcasecmp(host, "localhost") || (host_name && !strcasecmp(host, host_name))))
			return 0;
	}
	response->must_close = true;
	return problem_answer(response, PROBLEM_MISDIRECTED, request, NULL,
	               "Host must be an address, \"localhost\" or the configured name.") < 0
	               ? -ENOMEM
	               : 1;
}

int screen_method(const struct request *request, struct response *response)
{
	char list[METHOD_LIST_BYTES];

	if (request->method != METHOD_NONE)
		return 0;
	method_list(METHODS_ALL, list);
	if (response_header(response, "Allow", "%s", list) < 0 ||
	        problem_answer(response, PROBLEM_NOT_IMPLEMENTED, request, NULL, "The method is unknown.") < 0)
		return -ENOMEM;
	return 1;
}

uint64_t screen_announced(const struct request *request)
{
	const char *length = request_header(request, HEADER_CONTENT_LENGTH);
	unsigned long long value;

	if (request_header(request, HEADER_TRANSFER_ENCODING))
		return UINT64_MAX;
	if (!length)
		return 0;
	errno = 0;
	value = strtoull(length, NULL, 10);
	return errno ? UINT64_MAX : value;
}

/* Whether what follows a media type is nothing, or charset=utf-8 and no other parameter. */
static bool parameters_are_fine(const char *rest)
{
	rest += strspn(rest, " \t");
	if (!*rest)
		return true;
	if (*rest++ != ';')
		return false;
	rest += strspn(rest, " \t");
	if (!*rest)
		return true;
	if (strncasecmp(rest, "charset=", 8) != 0)
		return false;
	rest += 8;
	return !strcasecmp(rest, "utf-8") || !strcasecmp(rest, "utf8") || !strcasecmp(rest, "\"utf-8\"");
}

static bool is_media(const char *value, const char *type)
{
	size_t length = strlen(type);

	return value && !strncasecmp(value, type, length) && parameters_are_fine(value + length);
}

static bool media_fits(const struct request *request, enum media media)
{
	const char *value = request_header(request, HEADER_CONTENT_TYPE);

	switch (media) {
	case MEDIA_ANY:
		return true;
	case MEDIA_JSON:
		return is_media(value, CONTENT_JSON);
	case MEDIA_MERGE_PATCH:
		return is_media(value, "application/merge-patch+json") || is_media(value, CONTENT_JSON);
	case MEDIA_ENTRIES:
		return is_media(value, "text/plain") || is_media(value, CONTENT_JSON) ||
		       (!value && !screen_announced(request));
	}
	return false;
}

/* What else than JSON a route reads, for words. */
static const char *beside_json(enum media media)
{
	switch (media) {
	case MEDIA_MERGE_PATCH:
		return "application/merge-patch+json or ";
	case MEDIA_ENTRIES:
		return "text/plain or ";
	case MEDIA_ANY:
	case MEDIA_JSON:
		break;
	}
	return "";
}

bool screen_is_json(const struct request *request)
{
	return is_media(request_header(request, HEADER_CONTENT_TYPE), CONTENT_JSON);
}

/* How well one media range ("text/plain", "text/any of them", anything) fits a type: 3, 2, 1, or 0 for not at all. */
static unsigned range_fits(const char *range, size_t length, const char *type)
{
	size_t family = strcspn(type, "/") + 1;

	if (length == strlen(type) && !strncasecmp(range, type, length))
		return 3;
	if (length == family + 1 && range[family] == '*' && !strncasecmp(range, type, family))
		return 2;
	return length == 3 && !strncmp(range, "*/*", 3);
}

/* The weight in parameters like ";q=0.5"; 1 if there is none. */
static double weight_of(const char *parameters, size_t length)
{
	for (size_t i = 0; i + 2 < length; i++)
		if (strchr("; \t", parameters[i]) && !strncasecmp(&parameters[i + 1], "q=", 2))
			return strtod(&parameters[i + 3], NULL);
	return 1;
}

/* The weight that an Accept header gives a type: that of the range that says most about it. */
static double accepted(const char *accept, const char *type)
{
	unsigned best = 0;
	double weight = 0;

	while (*accept) {
		size_t range, length;

		accept += strspn(accept, " \t,");
		length = strcspn(accept, ",");
		range = strcspn(accept, ",; \t");
		if (range_fits(accept, range, type) > best) {
			best = range_fits(accept, range, type);
			weight = weight_of(accept + range, length - range);
		}
		accept += length;
	}
	return weight;
}

bool screen_prefers_json(const struct request *request)
{
	const char *accept = request_header(request, HEADER_ACCEPT);

	return accept && accepted(accept, CONTENT_JSON) > accepted(accept, "text/plain");
}

int screen_body(const struct request *request, const struct route *route, struct response *response)
{
	uint64_t announced = screen_announced(request);
	int r;

	if (announced != UINT64_MAX && announced > route->body_max) {
		r = problem_answer(response, PROBLEM_TOO_LARGE, request, NULL, "The body may have %zu bytes here.",
		        route->body_max);
		return r < 0 ? r : 1;
	}
	if (media_fits(request, route->media))
		return 0;
	r = problem_answer(response, PROBLEM_MEDIA_TYPE, request, NULL, "Content-Type must be %s%s.",
	        beside_json(route->media), CONTENT_JSON);
	return r < 0 ? r : 1;
}
