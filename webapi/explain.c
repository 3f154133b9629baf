/* POST /explain, see explain.h. */
#include "webapi/explain.h"

#include <errno.h>
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

int explain_post(const struct request *request, struct response *response)
{
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_json_ json_t *body = NULL;
	struct match_packet packet = { 0 };
	uint16_t source_port = 0;
	int r = write_refuse_query(request, response);

	if (!r)
		r = write_parse_body(request, response, &body);
	if (r)
		return r < 0 ? r : 0;
	explain_read_packet(body, NULL, 0, &packet, &source_port, &errs);
	if (errs_count(&errs))
		return problem_answer(response, PROBLEM_INVALID, request, &errs, "%s",
		        errs.n ? errs.items[0].detail : "The packet is not understood.");
	return response_json(response, 200, CONTENT_JSON, core_explain(request->core, &packet, source_port));
}
