/* POST /explain, see explain.h. */
#include "webapi/explain.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gatewayd/base/array.h"
#include "webapi/problem.h"
#include "webapi/write.h"

static const char *const known[] = { "protocol", "source", "source_port", "destination", "destination_port",
	"interface" };

static void refuse_unknown(const json_t *body, const char *const *more, size_t n_more, struct errs *errs)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)body, key, value)
	{
		if (!words_have(known, ARRAY_SIZE(known), key) && !words_have(more, n_more, key))
			errs_add(errs, "", "unknown_key", "A packet has no member \"%s\".", key);
	}
}

static void read_address(const json_t *body, const char *key, const char *pointer, struct addr *ret, struct errs *errs)
{
	const char *text = json_string_value(json_object_get(body, key));

	if (!text || addr_parse(text, ret) < 0)
		errs_add(errs, pointer, text ? "invalid" : "required", "A numeric IPv4 or IPv6 address is wanted.");
}

static void read_port(
        const json_t *body, const char *key, const char *pointer, bool required, uint16_t *ret, struct errs *errs)
{
	const json_t *value = json_object_get(body, key);
	json_int_t port = json_integer_value(value);

	if (!value && !required)
		return;
	if (!json_is_integer(value) || port < 1 || port > UINT16_MAX)
		errs_add(errs, pointer, value ? "out_of_range" : "required", "A port from 1 to 65535 is wanted.");
	else
		*ret = (uint16_t)port;
}

void explain_read_packet(const json_t *body, const char *const *more, size_t n_more, struct match_packet *packet,
        uint16_t *ret_port, struct errs *errs)
{
	const char *protocol = json_string_value(json_object_get(body, "protocol"));
	const json_t *interface = json_object_get(body, "interface");

	refuse_unknown(body, more, n_more, errs);
	packet->protocol = protocol && strcmp(protocol, "udp") == 0 ? IPPROTO_UDP : IPPROTO_TCP;
	if (!protocol || (strcmp(protocol, "tcp") != 0 && strcmp(protocol, "udp") != 0))
		errs_add(errs, "/protocol", protocol ? "invalid" : "required", "\"tcp\" or \"udp\" is wanted.");
	read_address(body, "source", "/source", &packet->src, errs);
	read_address(body, "destination", "/destination", &packet->dst, errs);
	read_port(body, "source_port", "/source_port", false, ret_port, errs);
	read_port(body, "destination_port", "/destination_port", true, &packet->dst_port, errs);
	packet->interface = json_string_value(interface);
	if (interface && (!packet->interface || !*packet->interface || strlen(packet->interface) >= IFNAMSIZ))
		errs_add(errs, "/interface", "invalid", "The name of an interface is wanted, at most 15 bytes.");
	if (packet->src.family && packet->dst.family && packet->src.family != packet->dst.family)
		errs_add(errs, "/source", "invalid", "Source and destination are of one family.");
}

/* --- what the client is to say first --- */

static const char *const saying[] = { "sni", "alpn", "http_host", "http_method", "http_path" };
enum saying { SAYING_SNI, SAYING_ALPN, SAYING_HOST, SAYING_METHOD, SAYING_PATH, SAYINGS };
static_assert(ARRAY_SIZE(saying) == SAYINGS, "one name for each");

/* The member's text, at most 255 bytes; NULL if it is not there, or no text, which is then a fault. */
static const char *read_saying(const json_t *body, enum saying which, struct errs *errs)
{
	const json_t *value = json_object_get(body, saying[which]);
	const char *text = json_string_value(value);
	size_t length = json_string_length(value);
	char pointer[32];

	if (!value)
		return NULL;
	if (text && length > 0 && length <= UINT8_MAX && strlen(text) == length)
		return text;
	snprintf(pointer, sizeof(pointer), "/%s", saying[which]);
	errs_add(errs, pointer, "invalid", "A text of 1 to 255 bytes is wanted.");
	return NULL;
}

static void read_host(const char *text, const char *pointer, struct first *first, struct errs *errs)
{
	if (text && !first_host((const uint8_t *)text, strlen(text), first->host))
		errs_add(errs, pointer, "invalid", "The name of a host is wanted, without a port.");
}

static struct first_span span_of(const char *text)
{
	return (struct first_span){ (const uint8_t *)text, text ? strlen(text) : 0 };
}

/* True if anything is said. first and its spans live as long as the body. */
static bool read_first(const json_t *body, struct first *first, struct errs *errs)
{
	const char *text[SAYINGS];
	size_t n_tls, n_http;

	for (size_t i = 0; i < SAYINGS; i++)
		text[i] = read_saying(body, (enum saying)i, errs);
	n_tls = (text[SAYING_SNI] != NULL) + (text[SAYING_ALPN] != NULL);
	n_http = (text[SAYING_HOST] != NULL) + (text[SAYING_METHOD] != NULL) + (text[SAYING_PATH] != NULL);
	if (n_tls && n_http)
		errs_add(errs, "/sni", "invalid", "A client begins with TLS (sni, alpn) or with HTTP, not with both.");
	first->kind = n_http ? FIRST_HTTP : FIRST_TLS;
	read_host(text[SAYING_SNI], "/sni", first, errs);
	read_host(text[SAYING_HOST], "/http_host", first, errs);
	if (text[SAYING_ALPN]) {
		first->hello[0] = (uint8_t)strlen(text[SAYING_ALPN]);
		memcpy(first->hello + 1, text[SAYING_ALPN], first->hello[0]);
		first->alpn = (struct first_span){ first->hello, 1U + first->hello[0] };
	}
	first->method = span_of(text[SAYING_METHOD]);
	first->path = span_of(text[SAYING_PATH]);
	return n_tls + n_http > 0;
}

int explain_post(const struct request *request, struct response *response)
{
	static struct first first; /* large; the API has one thread */
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_json_ json_t *body = NULL;
	struct match_packet packet = { 0 };
	uint16_t source_port = 0;
	bool said;
	int r = write_refuse_query(request, response);

	if (!r)
		r = write_parse_body(request, response, &body);
	if (r)
		return r < 0 ? r : 0;
	explain_read_packet(body, saying, SAYINGS, &packet, &source_port, &errs);
	first = (struct first){ 0 };
	said = read_first(body, &first, &errs);
	if (errs_count(&errs))
		return problem_answer(response, PROBLEM_INVALID, request, &errs, "%s",
		        errs.n ? errs.items[0].detail : "The packet is not understood.");
	return response_json(
	        response, 200, CONTENT_JSON, core_explain(request->core, &packet, source_port, said ? &first : NULL));
}
