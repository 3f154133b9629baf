/* Reading a packet from words, see packet.h. */
#include "gatewayd/ctl/packet.h"

#include <stdlib.h>
#include <string.h>

#include "gatewayd/ctl/ctl.h"

/* "192.0.2.1:80", "[2001:db8::1]:80" or an address alone (port 0), into the packet's members. */
static bool set_end(json_t *packet, const char *text, const char *address_key, const char *port_key)
{
	const char *colon = strrchr(text, ':'), *bracket = strrchr(text, ']');
	bool has_port = colon && (bracket ? colon == bracket + 1 : strchr(text, ':') == colon);
	size_t length = has_port ? (size_t)(colon - text) : strlen(text);
	unsigned long port = 0;
	char *end = NULL;

	if (has_port) {
		port = strtoul(colon + 1, &end, 10);
		if (*end || end == colon + 1 || port > 65535)
			return false;
	}
	if (length > 1 && text[0] == '[' && text[length - 1] == ']') {
		text++;
		length -= 2;
	}
	return json_object_set_new(packet, address_key, json_stringn(text, length)) == 0 &&
	       (!has_port || json_object_set_new(packet, port_key, json_integer((json_int_t)port)) == 0);
}

json_t *packet_of(const struct args *args)
{
	_cleanup_json_ json_t *packet = json_pack("{s:s}", "protocol", args->words[0]);
	const char *interface = args->option[OPTION_interface];

	if (!set_end(packet, args->words[1], "source", "source_port") ||
	        !set_end(packet, args->words[2], "destination", "destination_port")) {
		ctl_say("a source or destination is ADDRESS or ADDRESS:PORT, an IPv6 address with a port in brackets");
		return NULL;
	}
	if (interface)
		json_object_set_new(packet, "interface", json_string(interface));
	if (args->option[OPTION_sni])
		json_object_set_new(packet, "sni", json_string(args->option[OPTION_sni]));
	if (args->option[OPTION_http_host])
		json_object_set_new(packet, "http_host", json_string(args->option[OPTION_http_host]));
	return TAKE_PTR(packet);
}
