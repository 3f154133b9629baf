/* Words for traced packets, see trace.h. The names of chains are those of render_chains.c and limits_text.c. */
#include "rules/trace.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/array.h"
#include "gatewayd/base/cleanup.h"
#include "rules/render_nft.h"

/* --- what is armed --- */

static void put_rule(FILE *out, const struct trace_filter *filter, unsigned number, bool reply)
{
	const struct addr *src = reply ? &filter->dst : &filter->src, *dst = reply ? &filter->src : &filter->dst;
	uint16_t sport = reply ? filter->dst_port : filter->src_port,
	         dport = reply ? filter->src_port : filter->dst_port;
	const char *ip = src->family == AF_INET ? "ip" : "ip6",
	           *protocol = filter->protocol == IPPROTO_TCP ? "tcp" : "udp";
	char from[ADDR_TEXT_MAX], to[ADDR_TEXT_MAX];

	fprintf(out, "add rule inet " TRACE_TABLE "%u begin meta l4proto @armed %s saddr %s %s daddr %s", number, ip,
	        addr_format(src, from), ip, addr_format(dst, to));
	if (sport)
		fprintf(out, " %s sport %u", protocol, sport);
	if (dport)
		fprintf(out, " %s dport %u", protocol, dport);
	fprintf(out, " limit rate %u/second burst %u packets meta nftrace set 1\n", TRACE_PACKETS_PER_S,
	        TRACE_PACKETS_PER_S);
}

int trace_render(const struct trace_filter *filter, unsigned number, unsigned seconds, char **ret)
{
	const char *protocol = filter->protocol == IPPROTO_TCP ? "tcp" : "udp";
	size_t length;
	FILE *out = open_memstream(ret, &length);

	if (!out)
		return -ENOMEM;
	fprintf(out,
	        "add table inet " TRACE_TABLE "%u { flags owner; }\n"
	        "add set inet " TRACE_TABLE
	        "%u armed { type inet_proto; flags timeout; elements = { %s timeout %us }; }\n"
	        "add chain inet " TRACE_TABLE "%u begin { type filter hook prerouting priority raw; policy accept; }\n",
	        number, number, protocol, seconds, number);
	put_rule(out, filter, number, false);
	put_rule(out, filter, number, true);
	return fclose(out) == 0 ? 0 : -ENOMEM;
}

static bool goes(const struct trace_packet *packet, const struct addr *src, uint16_t sport, const struct addr *dst,
        uint16_t dport)
{
	return addr_equal(&packet->src, src) && addr_equal(&packet->dst, dst) &&
	       (!packet->protocol || ((!sport || packet->src_port == sport) && (!dport || packet->dst_port == dport)));
}

enum trace_way trace_way_of(const struct trace_filter *filter, const struct trace_packet *packet)
{
	if (packet->protocol && packet->protocol != filter->protocol)
		return TRACE_NONE;
	if (goes(packet, &filter->src, filter->src_port, &filter->dst, filter->dst_port))
		return TRACE_TO_SERVER;
	return goes(packet, &filter->dst, filter->dst_port, &filter->src, filter->src_port) ? TRACE_TO_CLIENT
	                                                                                    : TRACE_NONE;
}

static uint16_t number16(const uint8_t *bytes)
{
	return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

static void parse_transport(const uint8_t *bytes, size_t length, struct trace_packet *packet)
{
	if ((packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP) || length < 4) {
		packet->protocol = 0;
		return;
	}
	packet->src_port = number16(bytes);
	packet->dst_port = number16(bytes + 2);
	if (packet->protocol == IPPROTO_TCP && length > 13)
		packet->flags = bytes[13];
}

int trace_packet_parse(const uint8_t *network, size_t network_length, const uint8_t *transport, size_t transport_length,
        struct trace_packet *ret)
{
	struct trace_packet packet = { 0 };

	if (network_length >= sizeof(struct iphdr) && network[0] >> 4 == 4) {
		packet.src.family = packet.dst.family = AF_INET;
		packet.protocol = network[9];
		packet.length = number16(network + 2);
		memcpy(packet.src.bytes, network + 12, 4);
		memcpy(packet.dst.bytes, network + 16, 4);
	} else if (network_length >= sizeof(struct ip6_hdr) && network[0] >> 4 == 6) {
		packet.src.family = packet.dst.family = AF_INET6;
		packet.protocol = network[6];
		packet.length = number16(network + 4) + (unsigned)sizeof(struct ip6_hdr);
		memcpy(packet.src.bytes, network + 8, 16);
		memcpy(packet.dst.bytes, network + 24, 16);
	} else {
		return -EBADMSG;
	}
	parse_transport(transport, transport_length, &packet);
	*ret = packet;
	return 0;
}

/* --- the rules by their handles --- */

struct rule {
	uint64_t handle;
	char *text;
	uint32_t chain; /* number of its chain in the listing */
};

struct chain {
	char name[TRACE_NAME_MAX];
};

struct trace_rules {
	struct chain *chains;
	size_t n_chains, chains_size;
	struct rule *items;
	size_t n, size;
};

static int compare_rules(const void *a, const void *b)
{
	const struct rule *x = a, *y = b;

	return x->handle < y->handle ? -1 : x->handle > y->handle;
}

void trace_rules_free(struct trace_rules *rules)
{
	if (!rules)
		return;
	for (size_t i = 0; i < rules->n; i++)
		free(rules->items[i].text);
	free(rules->items);
	free(rules->chains);
	free(rules);
}

static int add_rule(struct trace_rules *rules, const char *text, size_t length, uint64_t handle)
{
	char *copy;

	if (array_reserve(&rules->items, &rules->size, rules->n + 1, sizeof(*rules->items)) < 0)
		return -ENOMEM;
	copy = strndup(text, length);
	if (!copy)
		return -ENOMEM;
	rules->items[rules->n++] = (struct rule){ handle, copy, (uint32_t)rules->n_chains };
	return 0;
}

static int add_chain(struct trace_rules *rules, const char *name)
{
	size_t length = strcspn(name, " \n");

	if (length >= TRACE_NAME_MAX)
		length = TRACE_NAME_MAX - 1;
	if (array_reserve(&rules->chains, &rules->chains_size, rules->n_chains + 1, sizeof(*rules->chains)) < 0)
		return -ENOMEM;
	memcpy(rules->chains[rules->n_chains].name, name, length);
	rules->chains[rules->n_chains++].name[length] = '\0';
	return 0;
}

/* A rule stands two steps in, and has its handle behind it. */
static int take_line(struct trace_rules *rules, const char *line, size_t length)
{
	static const char mark[] = " # handle ";
	const char *found = length > 2 && strncmp(line, "\t\t", 2) == 0 && line[2] != '\t'
	                            ? memmem(line, length, mark, sizeof(mark) - 1)
	                            : NULL;

	if (length > 7 && strncmp(line, "\tchain ", 7) == 0)
		return add_chain(rules, line + 7);
	if (!found)
		return 0;
	return add_rule(rules, line + 2, (size_t)(found - line) - 2, strtoull(found + sizeof(mark) - 1, NULL, 10));
}

int trace_rules_parse(const char *listing, struct trace_rules **ret)
{
	static const char ours[] = "table inet " NFT_TABLE " ";
	struct trace_rules *rules = calloc(1, sizeof(*rules));
	bool inside = false;
	int r = rules ? 0 : -ENOMEM;

	for (const char *line = listing; r == 0 && *line; line += strcspn(line, "\n"), line += *line == '\n') {
		if (strncmp(line, "table ", 6) == 0)
			inside = strncmp(line, ours, sizeof(ours) - 1) == 0;
		else if (inside)
			r = take_line(rules, line, strcspn(line, "\n"));
	}
	if (r < 0) {
		trace_rules_free(rules);
		return r;
	}
	if (rules->n > 0)
		qsort(rules->items, rules->n, sizeof(*rules->items), compare_rules);
	*ret = rules;
	return 0;
}

const char *trace_rules_find(const struct trace_rules *rules, uint64_t handle)
{
	const struct rule wanted = { .handle = handle };
	const struct rule *found =
	        rules->n ? bsearch(&wanted, rules->items, rules->n, sizeof(wanted), compare_rules) : NULL;

	return found ? found->text : NULL;
}

static bool looks_up(const char *text, const char *set)
{
	size_t length = strlen(set);

	for (const char *at = strchr(text, '@'); at; at = strchr(at + 1, '@'))
		if (strncmp(at + 1, set, length) == 0 && (at[1 + length] == ' ' || at[1 + length] == '\0'))
			return true;
	return false;
}

const char *trace_rules_lookup(
        const struct trace_rules *rules, const char *chain, const char *set, uint64_t *ret_handle)
{
	for (size_t i = 0; i < rules->n; i++) {
		const struct rule *rule = &rules->items[i];

		if (rule->chain == 0 || strcmp(rules->chains[rule->chain - 1].name, chain) != 0 ||
		        !looks_up(rule->text, set))
			continue;
		*ret_handle = rule->handle;
		return rule->text;
	}
	return NULL;
}

bool trace_rule_set(const char *rule, char *ret, size_t size)
{
	const char *at = rule ? strrchr(rule, '@') : NULL;
	size_t length = at ? strcspn(at + 1, " ") : 0;

	if (length == 0 || length >= size)
		return false;
	memcpy(ret, at + 1, length);
	ret[length] = '\0';
	return true;
}

/* --- what it came to --- */

const char *trace_verdict_name(enum trace_verdict verdict)
{
	static const char *const names[] = { "continue", "accept", "drop", "jump", "goto", "return", "stolen" };

	static_assert(ARRAY_SIZE(names) == TRACE_OTHER + 1, "a word for each");
	return names[verdict];
}

bool trace_step_is_ours(const struct trace_step *step)
{
	return strcmp(step->table, NFT_TABLE) == 0 && strcmp(step->family, "inet") == 0;
}

bool trace_step_counts(const struct trace_step *step)
{
	return trace_step_is_ours(step) && strncmp(step->chain, "ledger_", 7) == 0;
}

/* What the end in a chain of ours means. */
static const struct {
	const char *chain;
	enum trace_verdict verdict;
	const char *words;
} ends[] = {
	{ "take_tcp", TRACE_ACCEPT, "relay" },
	{ "take_udp", TRACE_ACCEPT, "relay" },
	{ "act_relay", TRACE_DROP, "no_socket" },
	{ "act_reject", TRACE_DROP, "reject" },
	{ "act_drop", TRACE_DROP, "drop" },
	{ "act_bypass", TRACE_ACCEPT, "bypass" },
	{ "banned", TRACE_DROP, "ban" },
	{ "go_direct", TRACE_ACCEPT, "direct" },
	{ "go_reply", TRACE_ACCEPT, "direct" },
	{ "go_reset", TRACE_ACCEPT, "direct" },
	{ "go_known", TRACE_ACCEPT, "direct" },
};

static const char *end_of(const struct trace_step *step)
{
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		if (strcmp(step->chain, ends[i].chain) == 0 && step->verdict == ends[i].verdict)
			return ends[i].words;
	if (step->verdict == TRACE_DROP)
		return "limit";
	/* By its socket; the flows that pass by are the other reason. */
	return strcmp(step->chain, "pre_tcp") == 0 || strcmp(step->chain, "pre_udp") == 0 ? "established" : "pass";
}

/* "listener.8.few": 8; "limit.few": the limit's name, which has no dot. */
static void note_chain(const char *chain, struct trace_outcome *outcome)
{
	if (strncmp(chain, "listener.", 9) == 0)
		outcome->listener = (uint32_t)strtoul(chain + 9, NULL, 10);
	else if (strncmp(chain, "limit.", 6) == 0)
		snprintf(outcome->limit, sizeof(outcome->limit), "%s", chain + 6);
}

void trace_judge(const struct trace_step *steps, size_t n, struct trace_outcome *ret)
{
	*ret = (struct trace_outcome){ .verdict = "pass" };
	for (size_t i = 0; i < n; i++) {
		const struct trace_step *step = &steps[i];
		bool ends_here =
		        step->verdict == TRACE_ACCEPT || step->verdict == TRACE_DROP || step->verdict == TRACE_OTHER;

		if (trace_step_is_ours(step)) {
			note_chain(step->chain, ret);
			if (ends_here && step->kind == TRACE_RULE)
				ret->verdict = end_of(step);
		} else if (step->verdict == TRACE_DROP) {
			ret->verdict = "foreign_drop";
		}
	}
	if (*ret->limit && strcmp(ret->verdict, "ban") != 0)
		ret->verdict = "limit";
}
