/* One nft set per group; see nftset.h. */
#include "rules/nftset.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "rules/render_nft.h"

/* Names of the action chains. */
static const char *const verdict_chains[] = {
	[VERDICT_RELAY] = "act_relay",
	[VERDICT_RELAY_DIRECT] = "act_relay_direct",
	[VERDICT_REJECT] = "act_reject",
	[VERDICT_DROP] = "act_drop",
	[VERDICT_BYPASS] = "act_bypass",
	[VERDICT_LIMITED] = NULL,
};
static_assert(ARRAY_SIZE(verdict_chains) == VERDICTS, "a chain for each verdict");

/* Words in names: short, so that the longest name fits. */
static const char *const verdict_words[] = {
	[VERDICT_RELAY] = "relay",
	[VERDICT_RELAY_DIRECT] = "direct",
	[VERDICT_REJECT] = "reject",
	[VERDICT_DROP] = "drop",
	[VERDICT_BYPASS] = "bypass",
	[VERDICT_LIMITED] = "limited",
};
static_assert(ARRAY_SIZE(verdict_words) == VERDICTS, "a word for each verdict");
static_assert(sizeof("udp6_d128_s128_i_p10000-65535_limited") <= NFTSET_NAME_MAX, "the longest name fits");

static const char *const port_words[] = {
	[MATCH_PORT_EXACT] = "exact",
	[MATCH_PORT_RANGE] = "range",
	[MATCH_PORT_ANY] = "any",
};
static_assert(ARRAY_SIZE(port_words) == MATCH_PORT_KINDS, "a word for each kind");

const char *nftset_kind(const struct group *group)
{
	return group->verdict == VERDICT_LIMITED ? "map" : "set";
}

const char *nftset_action_chain(enum verdict verdict)
{
	return verdict_chains[verdict];
}

/*
 * An empty key does not exist, so a shape without fields is keyed by the
 * protocol. So is an interval set of ports alone: as a concatenation it is a
 * pipapo set, where libnftables need not read all elements to add one, as it
 * does for the tree of a plain interval set.
 */
size_t nftset_fields(const struct group *group, enum nftset_field fields[NFTSET_FIELDS])
{
	const struct match_shape *shape = &group->shape;
	bool port = shape->port_kind == MATCH_PORT_EXACT || group_is_interval(group);
	bool others = shape->dst_len > 0 || shape->src_len > 0 || shape->interface;
	size_t n = 0;

	if (!others && (!port || group_is_interval(group)))
		fields[n++] = NFTSET_PROTOCOL;
	if (shape->dst_len > 0)
		fields[n++] = NFTSET_DST;
	if (shape->src_len > 0)
		fields[n++] = NFTSET_SRC;
	if (shape->interface)
		fields[n++] = NFTSET_INTERFACE;
	if (port)
		fields[n++] = NFTSET_PORT;
	return n;
}

void nftset_name(const struct group *group, char buffer[NFTSET_NAME_MAX])
{
	const struct match_shape *shape = &group->shape;
	char range[sizeof("p65535-65535")];

	snprintf(range, sizeof(range), "p%u-%u", group->port_lo, group->port_hi);
	snprintf(buffer, NFTSET_NAME_MAX, "%s%s_d%u_s%u%s_%s_%s", shape->protocol == IPPROTO_TCP ? "tcp" : "udp",
	        shape->family == AF_INET ? "4" : "6", shape->dst_len, shape->src_len, shape->interface ? "_i" : "",
	        group->port_hi ? range
	                       : port_words[shape->port_kind < MATCH_PORT_KINDS ? shape->port_kind : MATCH_PORT_ANY],
	        verdict_words[group->verdict < VERDICTS ? group->verdict : VERDICT_DROP]);
}

static int index_of(const char *const *words, int n, const char *word)
{
	for (int i = 0; i < n; i++)
		if (strcmp(words[i], word) == 0)
			return i;
	return -EINVAL;
}

/* The kind of ports that a word in a name says, and the range if it says one. */
static int parse_ports(const char *word, struct group *group)
{
	int kind = index_of(port_words, MATCH_PORT_KINDS, word);

	if (kind < 0 && sscanf(word, "p%5hu-%5hu", &group->port_lo, &group->port_hi) == 2 &&
	        group->port_lo < group->port_hi)
		kind = MATCH_PORT_RANGE;
	return kind;
}

int nftset_group_of_name(const char *name, struct group *ret)
{
	char protocol[4], rest[28], again[NFTSET_NAME_MAX], *kind_word = rest, *verdict_word;
	unsigned family, dst, src;
	struct group group = { 0 };
	int kind, verdict;

	if (sscanf(name, "%3[a-z]%1u_d%3u_s%3u_%27s", protocol, &family, &dst, &src, rest) != 5)
		return -EINVAL;
	if (strncmp(rest, "i_", 2) == 0)
		kind_word += 2;
	verdict_word = strchr(kind_word, '_');
	if (!verdict_word)
		return -EINVAL;
	*verdict_word++ = '\0';
	kind = parse_ports(kind_word, &group);
	verdict = index_of(verdict_words, VERDICTS, verdict_word);
	if (kind < 0 || verdict < 0 || dst > (family == 4 ? 32 : 128) || src > (family == 4 ? 32 : 128))
		return -EINVAL;
	group.shape = (struct match_shape){ .protocol = strcmp(protocol, "tcp") == 0 ? IPPROTO_TCP : IPPROTO_UDP,
		.family = family == 4 ? AF_INET : AF_INET6,
		.dst_len = (uint8_t)dst,
		.src_len = (uint8_t)src,
		.interface = kind_word != rest,
		.port_kind = (uint8_t)kind };
	group.verdict = (uint8_t)verdict;
	/* Whatever scanf was lenient about is not what we would have written. */
	nftset_name(&group, again);
	if (strcmp(again, name) != 0)
		return -EINVAL;
	*ret = group;
	return 0;
}

const char *nftset_field_type(const struct match_shape *shape, enum nftset_field field)
{
	switch (field) {
	case NFTSET_PROTOCOL:
		return "inet_proto";
	case NFTSET_DST:
	case NFTSET_SRC:
		return shape->family == AF_INET ? "ipv4_addr" : "ipv6_addr";
	case NFTSET_INTERFACE:
		return "ifname";
	case NFTSET_PORT:
	case NFTSET_FIELDS:
		break;
	}
	return "inet_service";
}

void nftset_put_declaration(FILE *out, const struct group *group)
{
	enum nftset_field fields[NFTSET_FIELDS];
	size_t n = nftset_fields(group, fields);
	char name[NFTSET_NAME_MAX];

	nftset_name(group, name);
	fprintf(out, "add %s inet " NFT_TABLE " %s { type ", nftset_kind(group), name);
	for (size_t i = 0; i < n; i++) {
		fputs(i ? " . " : "", out);
		fputs(nftset_field_type(&group->shape, fields[i]), out);
	}
	fprintf(out, "%s; %scounter; }\n", group->verdict == VERDICT_LIMITED ? " : verdict" : "",
	        group_is_interval(group) ? "flags interval; " : "");
}

void nftset_put_address(FILE *out, uint8_t family, const char *which, unsigned length)
{
	struct addr mask = { .family = family };
	char text[ADDR_TEXT_MAX];

	fprintf(out, "%s %s", family == AF_INET ? "ip" : "ip6", which);
	if (length == addr_bits(family))
		return;
	memset(mask.bytes, 0xff, addr_bits(family) / 8);
	addr_mask(&mask, length);
	fprintf(out, " & %s", addr_format(&mask, text));
}

static void put_field_expression(FILE *out, const struct match_shape *shape, enum nftset_field field)
{
	switch (field) {
	case NFTSET_PROTOCOL:
		fputs("meta l4proto", out);
		break;
	case NFTSET_DST:
		nftset_put_address(out, shape->family, "daddr", shape->dst_len);
		break;
	case NFTSET_SRC:
		nftset_put_address(out, shape->family, "saddr", shape->src_len);
		break;
	case NFTSET_INTERFACE:
		fputs("iifname", out);
		break;
	case NFTSET_PORT:
		fputs("th dport", out); /* the chain is of one protocol already */
		break;
	case NFTSET_FIELDS:
		break;
	}
}

static void put_look(FILE *out, const char *chain, const struct group *group, const char *other)
{
	enum nftset_field fields[NFTSET_FIELDS];
	size_t n = nftset_fields(group, fields);
	char name[NFTSET_NAME_MAX];

	nftset_name(group, name);
	fprintf(out, "add rule inet " NFT_TABLE " %s ", chain);
	if (group->port_hi)
		fprintf(out, "th dport %u-%u ", group->port_lo, group->port_hi);
	for (size_t i = 0; i < n; i++) {
		fputs(i ? " . " : "", out);
		put_field_expression(out, &group->shape, fields[i]);
	}
	if (group->verdict == VERDICT_LIMITED)
		fprintf(out, " vmap @%s\n", name);
	else
		fprintf(out, " @%s %s\n", name, other);
}

void nftset_put_lookup(FILE *out, const char *chain, const struct group *group)
{
	char other[32] = "";

	if (group->verdict != VERDICT_LIMITED)
		snprintf(other, sizeof(other), "goto %s", verdict_chains[group->verdict]);
	put_look(out, chain, group, other);
}

void nftset_put_meter(FILE *out, const char *chain, const struct group *group)
{
	put_look(out, chain, group, "return");
}

/* The only text in a ruleset that began as somebody's text. */
static bool interface_is_harmless(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:@";

	return name[0] != '\0' && name[strspn(name, allowed)] == '\0';
}

static void put_field_value(FILE *out, const struct match_key *key, enum nftset_field field)
{
	char text[ADDR_TEXT_MAX];

	switch (field) {
	case NFTSET_PROTOCOL:
		fputs(key->shape.protocol == IPPROTO_TCP ? "tcp" : "udp", out);
		break;
	case NFTSET_DST:
		fputs(addr_format(&key->dst, text), out);
		break;
	case NFTSET_SRC:
		fputs(addr_format(&key->src, text), out);
		break;
	case NFTSET_INTERFACE:
		fprintf(out, "\"%s\"", key->interface);
		break;
	case NFTSET_PORT:
		fprintf(out, "%u", key->port_lo);
		if (key->port_hi != key->port_lo)
			fprintf(out, "-%u", key->port_hi);
		break;
	case NFTSET_FIELDS:
		break;
	}
}

int nftset_put_element(FILE *out, const struct element *element, bool leads)
{
	char chain[LIMITS_CHAIN_NAME_MAX];
	struct group group = element_group(element);
	enum nftset_field fields[NFTSET_FIELDS];
	size_t n = nftset_fields(&group, fields);

	if (match_key_check(&element->key) < 0)
		return -EINVAL;
	if (element->key.shape.interface && !interface_is_harmless(element->key.interface))
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		fputs(i ? " . " : "", out);
		put_field_value(out, &element->key, fields[i]);
	}
	if (leads && element->limited)
		fprintf(out, " : goto %s", limits_listener_chain(element->listener, chain));
	return 0;
}

int nftset_put_elements(FILE *out, const char *verb, const struct element *elements, size_t n)
{
	struct group group;
	char name[NFTSET_NAME_MAX];

	if (n == 0)
		return 0;
	group = element_group(&elements[0]);
	if (group.verdict >= VERDICTS)
		return -EINVAL;
	nftset_name(&group, name);
	fprintf(out, "%s element inet " NFT_TABLE " %s {\n", verb, name);
	for (size_t i = 0; i < n; i++) {
		int r;

		fputc(' ', out);
		r = nftset_put_element(out, &elements[i], strcmp(verb, "add") == 0);
		if (r < 0)
			return r;
		fputs(i + 1 < n ? ",\n" : "\n", out);
	}
	fputs("}\n", out);
	return 0;
}
