/*
 * Requests and answers as values: names of methods and headers, building of
 * bodies. Called by http.c and the handlers; knows nothing of sockets.
 */
#include "webapi/message.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>

#include "webapi/events.h"

static const char *const method_names[] = {
	[METHOD_GET] = "GET",
	[METHOD_HEAD] = "HEAD",
	[METHOD_POST] = "POST",
	[METHOD_PUT] = "PUT",
	[METHOD_PATCH] = "PATCH",
	[METHOD_DELETE] = "DELETE",
	[METHOD_OPTIONS] = "OPTIONS",
};
static_assert(ARRAY_SIZE(method_names) == METHODS, "a method without a name");

static const char *const header_names[] = {
	[HEADER_HOST] = "Host",
	[HEADER_AUTHORIZATION] = "Authorization",
	[HEADER_CONTENT_TYPE] = "Content-Type",
	[HEADER_CONTENT_LENGTH] = "Content-Length",
	[HEADER_TRANSFER_ENCODING] = "Transfer-Encoding",
	[HEADER_EXPECT] = "Expect",
	[HEADER_IF_MATCH] = "If-Match",
	[HEADER_IF_NONE_MATCH] = "If-None-Match",
	[HEADER_COOKIE] = "Cookie",
	[HEADER_ACCEPT] = "Accept",
	[HEADER_CSRF] = "X-CSRF-Token",
	[HEADER_LAST_EVENT_ID] = "Last-Event-ID",
};
static_assert(ARRAY_SIZE(header_names) == HEADERS, "a header without a name");

enum http_method method_parse(const char *text)
{
	for (int i = 0; i < METHODS; i++)
		if (!strcmp(text, method_names[i]))
			return (enum http_method)i;
	return METHOD_NONE;
}

const char *method_name(enum http_method method)
{
	return method == METHOD_NONE ? "-" : method_names[method];
}

void method_list(unsigned mask, char text[METHOD_LIST_BYTES])
{
	size_t at = 0;

	text[0] = '\0';
	for (int i = 0; i < METHODS; i++)
		if (mask & METHOD_BIT(i))
			at += (size_t)snprintf(
			        text + at, METHOD_LIST_BYTES - at, "%s%s", at ? ", " : "", method_names[i]);
}

enum header_id header_parse(const char *name)
{
	for (int i = 0; i < HEADERS; i++)
		if (!strcasecmp(name, header_names[i]))
			return (enum header_id)i;
	return HEADERS;
}

const char *header_name(enum header_id id)
{
	return header_names[id];
}

const char *request_header(const struct request *request, enum header_id id)
{
	return request->headers[id].value;
}

void request_clear(struct request *request)
{
	free(request->path);
	free(request->decoded);
	free(request->body);
	*request = (struct request){ .method = METHOD_NONE };
}

int response_header(struct response *response, const char *name, const char *format, ...)
{
	va_list arguments;
	char *value;
	int r;

	assert(response->n_headers < RESPONSE_HEADERS_MAX);
	va_start(arguments, format);
	r = vasprintf(&value, format, arguments);
	va_end(arguments);
	if (r < 0)
		return -ENOMEM;
	response->headers[response->n_headers].name = name;
	response->headers[response->n_headers++].value = value;
	return 0;
}

int response_json(struct response *response, unsigned status, const char *content_type, json_t *document)
{
	char *text = document ? json_dumps(document, JSON_COMPACT) : NULL;
	size_t length = text ? strlen(text) : 0;
	char *body = text ? realloc(text, length + 1) : NULL;

	json_decref(document);
	if (!body) {
		free(text);
		return -ENOMEM;
	}
	body[length] = '\n'; /* in place of the terminator: a body is counted */
	response_body(response, status, content_type, body, length + 1);
	return 0;
}

void response_body(struct response *response, unsigned status, const char *content_type, char *body, size_t length)
{
	response->status = status;
	response->content_type = content_type;
	response->body = body;
	response->length = length;
	response->is_static = false;
}

void response_static(
        struct response *response, unsigned status, const char *content_type, const char *body, size_t length)
{
	response_body(response, status, content_type, (char *)body, length);
	response->is_static = true;
}

void response_file(struct response *response, unsigned status, const char *content_type, int fd, uint64_t length)
{
	response->status = status;
	response->content_type = content_type;
	response->has_file = true;
	response->file = fd;
	response->length = length;
}

void response_clear(struct response *response)
{
	if (response->has_file)
		close(response->file);
	events_reader_free(response->stream);
	if (!response->is_static)
		free(response->body);
	for (size_t i = 0; i < response->n_headers; i++)
		free(response->headers[i].value);
	*response = (struct response){ 0 };
}
