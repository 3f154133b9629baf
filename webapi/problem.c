/*
 * RFC 9457 documents. Texts may hold what a client sent, so nothing here
 * takes for granted that they are UTF-8.
 */
#include "webapi/problem.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
	unsigned status;
	const char *type, *title;
} problems[] = {
#define PROBLEM(upper, status, slug, title) { status, "urn:gatewayd:problem:" slug, title },
#include "webapi/problems.def"
#undef PROBLEM
};
static_assert(ARRAY_SIZE(problems) == PROBLEMS, "one row per problem");

/* A new JSON string; bytes that are not UTF-8 become question marks. NULL when memory is out. */
static json_t *text_to_json(const char *text)
{
	json_t *json = json_string(text);
	_cleanup_free_ char *safe = NULL;

	if (json)
		return json;
	safe = strdup(text);
	if (!safe)
		return NULL;
	for (char *c = safe; *c; c++)
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	return json_string(safe);
}

static void add_faults(json_t *document, const struct errs *errs)
{
	json_t *list = json_array();

	for (size_t i = 0; i < errs->n; i++) {
		const struct err *err = &errs->items[i];
		json_t *fault = json_object();

		json_object_set_new(fault, "pointer", text_to_json(err->pointer ? err->pointer : ""));
		json_object_set_new(fault, "code", text_to_json(err->code ? err->code : "invalid"));
		json_object_set_new(fault, "detail", text_to_json(err->detail ? err->detail : ""));
		json_array_append_new(list, fault);
	}
	json_object_set_new(document, "errors", list);
	if (errs->dropped)
		json_object_set_new(document, "errors_not_shown", json_integer((json_int_t)errs->dropped));
}

static void drop_body(struct response *response)
{
	if (!response->is_static)
		free(response->body);
	response->body = NULL;
}

/* jansson shows where it gave up, and a body may hold a key or a token. */
#define QUOTES_BODY " near '"

/* Title and detail as they are kept: cut, on a whole character. */
static void note_why(struct response *response, const char *title, const char *detail)
{
	const char *quote = strstr(detail, QUOTES_BODY);
	int told = quote ? (int)(quote - detail) : (int)strlen(detail);
	bool same = strcmp(title, detail) == 0;
	size_t length = (size_t)snprintf(
	        response->why, sizeof(response->why), "%s%s%.*s", title, same ? "" : ": ", same ? 0 : told, detail);

	if (length < sizeof(response->why))
		return;
	length = sizeof(response->why) - strlen("…") - 1;
	while (length > 0 && ((unsigned char)response->why[length] & 0xc0) == 0x80)
		length--;
	memcpy(response->why + length, "…", sizeof("…"));
}

int problem_answer(struct response *response, enum problem problem, const struct request *request,
        const struct errs *errs, const char *format, ...)
{
	_cleanup_free_ char *detail = NULL;
	const char *words;
	va_list arguments;
	json_t *document = json_object();
	int r;

	va_start(arguments, format);
	r = vasprintf(&detail, format, arguments);
	va_end(arguments);
	if (r < 0)
		detail = NULL;
	drop_body(response);
	json_object_set_new(document, "type", json_string(problems[problem].type));
	json_object_set_new(document, "title", json_string(problems[problem].title));
	json_object_set_new(document, "status", json_integer(problems[problem].status));
	json_object_set_new(document, "detail", text_to_json(detail ? detail : problems[problem].title));
	words = json_string_value(json_object_get(document, "detail"));
	note_why(response, problems[problem].title, words ? words : problems[problem].title);
	if (request && request->path)
		json_object_set_new(document, "instance", text_to_json(request->path));
	if (errs && errs->n)
		add_faults(document, errs);
	return response_json(response, problems[problem].status, CONTENT_PROBLEM, document);
}

/* Longer ones are cut; all of it stands in errors. */
#define FAULT_WORDS_MAX 1024

/* The first fault with the place where it stands, and how many more there are: who is shown this sentence alone must
 * know what it is about. */
static const char *fault_words(const struct errs *errs, char words[FAULT_WORDS_MAX])
{
	const struct err *first = &errs->items[0];
	char more[40] = "";

	if (errs->n > 1)
		snprintf(more, sizeof(more), " (and %zu more)", errs->n - 1);
	snprintf(words, FAULT_WORDS_MAX, "%s%s%s%s", first->pointer ? first->pointer : "",
	        first->pointer && *first->pointer ? ": " : "", first->detail, more);
	return words;
}

/* The sentence for people: the first fault if there is one, else what the errno means. */
static const char *words_of(int error, const struct errs *errs, char words[FAULT_WORDS_MAX])
{
	if (errs && errs->n && errs->items[0].detail)
		return fault_words(errs, words);
	switch (error) {
	case -EINVAL:
		return "The content breaks a rule.";
	case -EEXIST:
		return "The name is taken.";
	case -EBUSY:
		return "The object is in use.";
	case -ENOENT:
		return "There is no object of this name.";
	case -ESTALE:
		return "The object was changed by somebody else.";
	case -ENOSPC:
		return "The disk is full; nothing was changed.";
	case -EROFS:
		return "The store is read-only; nothing was changed.";
	case -ENOMEM:
		return "Memory is out; nothing was changed.";
	default:
		return "The change could not be applied; nothing was changed.";
	}
}

int problem_from_errno(struct response *response, int error, const struct request *request, const struct errs *errs)
{
	static const struct {
		int error;
		enum problem problem;
	} kinds[] = {
		{ -EINVAL, PROBLEM_INVALID },
		{ -EEXIST, PROBLEM_CONFLICT },
		{ -EBUSY, PROBLEM_CONFLICT },
		{ -ENOENT, PROBLEM_NOT_FOUND },
		{ -ESTALE, PROBLEM_PRECONDITION },
	};
	enum problem problem = PROBLEM_UNAVAILABLE;
	char words[FAULT_WORDS_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i].error == error)
			problem = kinds[i].problem;
	return problem_answer(response, problem, request, errs, "%s", words_of(error, errs, words));
}

void problem_fallback(struct response *response)
{
	static const char body[] =
	        "{\"type\":\"urn:gatewayd:problem:unavailable\",\"title\":\"The server cannot do this "
	        "now\",\"status\":503,\"detail\":\"Memory is out.\"}\n";

	response_clear(response);
	response_static(response, 503, CONTENT_PROBLEM, body, sizeof(body) - 1);
	note_why(response, "The server cannot do this now", "Memory is out.");
	response->must_close = true;
}

/* Without Content-Length: the end of the connection ends the body. */
#define RAW(status_line, slug, title, status, detail)                                                                  \
	"HTTP/1.1 " status_line "\r\nContent-Type: application/problem+json\r\nConnection: close\r\n"                  \
	"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\r\n"                                           \
	"{\"type\":\"urn:gatewayd:problem:" slug "\",\"title\":\"" title "\",\"status\":" status                       \
	",\"detail\":\"" detail "\"}\n"

const char *problem_raw_timeout(void)
{
	return RAW("408 Request Timeout", "timeout", "The request did not arrive in time", "408",
	        "The connection was held open without a complete request.");
}

const char *problem_raw_too_large(void)
{
	return RAW("413 Content Too Large", "too-large", "The body is too large", "413",
	        "The body goes on beyond what is read.");
}
