/* One nft map per shape; see render_map.h. */
#include "rules/render_map.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "rules/render_nft.h"

const char *const map_verdict_chains[] = {
	[VERDICT_RELAY] = "act_relay",
	[VERDICT_RELAY_DIRECT] = "act_relay_direct",
	[VERDICT_REJECT] = "act_reject",
	[VERDICT_DROP] = "act_drop",
	[VERDICT_BYPASS] = "act_bypass",
};
static_assert(ARRAY_SIZE(map_verdict_chains) == VERDICTS, "a chain for each verdict");

static const char *const port_words[] = {
	[MATCH_PORT_EXACT] = "exact",
	[MATCH_PORT_RANGE] = "range",
	[MATCH_PORT_ANY] = "any",
};
static_assert(ARRAY_SIZE(port_words) == MATCH_PORT_KINDS, "a word for each kind");

bool map_is_interval(const struct match_shape *shape)
{
	return shape->port_kind == MATCH_PORT_RANGE;
}

/*
 * An empty key does not exist, so a shape without fields is keyed by the
 * protocol. So is an interval map of ports alone: as a concatenation it is a
 * pipapo set, where libnftables need not read all elements to add one, as it
 * does for the tree of a plain interval map.
 */
size_t map_fields(const struct match_shape *shape, enum map_field fields[MAP_FIELDS])
{
	bool port = shape->port_kind != MATCH_PORT_ANY;
	bool others = shape->dst_len > 0 || shape->src_len > 0 || shape->interface;
	size_t n = 0;

	if (!others && (!port || map_is_interval(shape)))
		fields[n++] = MAP_PROTOCOL;
	if (shape->dst_len > 0)
		fields[n++] = MAP_DST;
	if (shape->src_len > 0)
		fields[n++] = MAP_SRC;
	if (shape->interface)
		fields[n++] = MAP_INTERFACE;
	if (port)
		fields[n++] = MAP_PORT;
	return n;
}

void render_nft_map_name(const struct match_shape *shape, char buffer[32])
{
	snprintf(buffer, 32, "%s%s_d%u_s%u%s_%s", shape->protocol == IPPROTO_TCP ? "tcp" : "udp",
	        shape->family == AF_INET ? "4" : "6", shape->dst_len, shape->src_len, shape->interface ? "_i" : "",
	        port_words[shape->port_kind < MATCH_PORT_KINDS ? shape->port_kind : MATCH_PORT_ANY]);
}

static int kind_of_word(const char *word)
{
	for (int kind = 0; kind < MATCH_PORT_KINDS; kind++)
		if (strcmp(port_words[kind], word) == 0)
			return kind;
	return -EINVAL;
}

int map_shape_of_name(const char *name, struct match_shape *ret)
{
	char protocol[4], rest[12], again[32];
	unsigned family, dst, src;
	struct match_shape shape;
	int kind;

	if (sscanf(name, "%3[a-z]%1u_d%3u_s%3u_%11s", protocol, &family, &dst, &src, rest) != 5)
		return -EINVAL;
	kind = kind_of_word(strncmp(rest, "i_", 2) == 0 ? rest + 2 : rest);
	if (kind < 0 || dst > (family == 4 ? 32 : 128) || src > (family == 4 ? 32 : 128))
		return -EINVAL;
	shape = (struct match_shape){ .protocol = strcmp(protocol, "tcp") == 0 ? IPPROTO_TCP : IPPROTO_UDP,
		.family = family == 4 ? AF_INET : AF_INET6,
		.dst_len = (uint8_t)dst,
		.src_len = (uint8_t)src,
		.interface = strncmp(rest, "i_", 2) == 0,
		.port_kind = (uint8_t)kind };
	/* Whatever scanf was lenient about is not what we would have written. */
	render_nft_map_name(&shape, again);
	if (strcmp(again, name) != 0)
		return -EINVAL;
	*ret = shape;
	return 0;
}

const char *map_field_type(const struct match_shape *shape, enum map_field field)
{
	switch (field) {
	case MAP_PROTOCOL:
		return "inet_proto";
	case MAP_DST:
	case MAP_SRC:
		return shape->family == AF_INET ? "ipv4_addr" : "ipv6_addr";
	case MAP_INTERFACE:
		return "ifname";
	case MAP_PORT:
	case MAP_FIELDS:
		break;
	}
	return "inet_service";
}

void map_put_declaration(FILE *out, const struct match_shape *shape)
{
	enum map_field fields[MAP_FIELDS];
	size_t n = map_fields(shape, fields);
	char name[32];

	render_nft_map_name(shape, name);
	fprintf(out, "add map inet " NFT_TABLE " %s { type ", name);
	for (size_t i = 0; i < n; i++) {
		fputs(i ? " . " : "", out);
		fputs(map_field_type(shape, fields[i]), out);
	}
	fprintf(out, " : verdict; %scounter; }\n", map_is_interval(shape) ? "flags interval; " : "");
}

/* "ip daddr", or with the mask of a shorter prefix "ip daddr & 255.255.0.0". */
static void put_address(FILE *out, const struct match_shape *shape, const char *which, unsigned length)
{
	struct addr mask = { .family = shape->family };
	char text[ADDR_TEXT_MAX];

	fprintf(out, "%s %s", shape->family == AF_INET ? "ip" : "ip6", which);
	if (length == addr_bits(shape->family))
		return;
	memset(mask.bytes, 0xff, addr_bits(shape->family) / 8);
	addr_mask(&mask, length);
	fprintf(out, " & %s", addr_format(&mask, text));
}

static void put_field_expression(FILE *out, const struct match_shape *shape, enum map_field field)
{
	switch (field) {
	case MAP_PROTOCOL:
		fputs("meta l4proto", out);
		break;
	case MAP_DST:
		put_address(out, shape, "daddr", shape->dst_len);
		break;
	case MAP_SRC:
		put_address(out, shape, "saddr", shape->src_len);
		break;
	case MAP_INTERFACE:
		fputs("iifname", out);
		break;
	case MAP_PORT:
		fputs("th dport", out); /* the chain is of one protocol already */
		break;
	case MAP_FIELDS:
		break;
	}
}

void map_put_lookup(FILE *out, const char *chain, const struct match_shape *shape)
{
	enum map_field fields[MAP_FIELDS];
	size_t n = map_fields(shape, fields);
	char name[32];

	render_nft_map_name(shape, name);
	fprintf(out, "add rule inet " NFT_TABLE " %s ", chain);
	for (size_t i = 0; i < n; i++) {
		fputs(i ? " . " : "", out);
		put_field_expression(out, shape, fields[i]);
	}
	fprintf(out, " vmap @%s\n", name);
}

/* The only text in a ruleset that began as somebody's text. */
static bool interface_is_harmless(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:@";

	return name[0] != '\0' && name[strspn(name, allowed)] == '\0';
}

static void put_field_value(FILE *out, const struct match_key *key, enum map_field field)
{
	char text[ADDR_TEXT_MAX];

	switch (field) {
	case MAP_PROTOCOL:
		fputs(key->shape.protocol == IPPROTO_TCP ? "tcp" : "udp", out);
		break;
	case MAP_DST:
		fputs(addr_format(&key->dst, text), out);
		break;
	case MAP_SRC:
		fputs(addr_format(&key->src, text), out);
		break;
	case MAP_INTERFACE:
		fprintf(out, "\"%s\"", key->interface);
		break;
	case MAP_PORT:
		fprintf(out, "%u", key->port_lo);
		if (key->port_hi != key->port_lo)
			fprintf(out, "-%u", key->port_hi);
		break;
	case MAP_FIELDS:
		break;
	}
}

static int put_element(FILE *out, const struct element *element, bool with_verdict)
{
	enum map_field fields[MAP_FIELDS];
	size_t n = map_fields(&element->key.shape, fields);

	if (match_key_check(&element->key) < 0 || (with_verdict && (unsigned)element->verdict >= VERDICTS))
		return -EINVAL;
	if (element->key.shape.interface && !interface_is_harmless(element->key.interface))
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		fputs(i ? " . " : " ", out);
		put_field_value(out, &element->key, fields[i]);
	}
	if (with_verdict)
		fprintf(out, " : goto %s", map_verdict_chains[element->verdict]);
	return 0;
}

int map_put_elements(FILE *out, const char *verb, const struct element *elements, size_t n)
{
	bool with_verdict = strcmp(verb, "add") == 0;
	char name[32];

	if (n == 0)
		return 0;
	render_nft_map_name(&elements[0].key.shape, name);
	fprintf(out, "%s element inet " NFT_TABLE " %s {\n", verb, name);
	for (size_t i = 0; i < n; i++) {
		int r = put_element(out, &elements[i], with_verdict);

		if (r < 0)
			return r;
		fputs(i + 1 < n ? ",\n" : "\n", out);
	}
	fputs("}\n", out);
	return 0;
}

size_t map_run(const struct elements *elements, size_t at)
{
	size_t end = at;

	while (end < elements->n &&
	        match_shape_compare(&elements->items[end].key.shape, &elements->items[at].key.shape) == 0)
		end++;
	return end - at;
}
