/* The stages of a packet, see explain.h. */
#include "rules/explain.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "rules/explain_route.h"
#include "rules/forward_fate.h"
#include "rules/kernel_intercept.h"
#include "rules/nftset.h"
#include "rules/snapshot.h"

/* Longest sentence about a stage. */
#define WHY_MAX 512
/* Targets told one by one, of each kind. */
#define TARGETS_MAX 100

static bool is_link_or_multicast(const struct addr *addr)
{
	if (addr->family == AF_INET)
		return false; /* the kernel's table knows, see destination_is_local */
	return addr->bytes[0] == 0xff || (addr->bytes[0] == 0xfe && (addr->bytes[1] & 0xc0) == 0x80);
}

/* 1 and the element that the kernel's rules find, 0 if none, 2 if the exemption of our own addresses comes first. */
static int find(const struct explain_facts *facts, const struct match_packet *packet, struct element *ret)
{
	return is_link_or_multicast(&packet->dst)
	               ? 0
	               : model_decide(facts->model, packet, facts->destination_is_local, ret);
}

static const struct row *row_of(const struct snapshot *snapshot, enum resource_id resource, uint32_t id)
{
	const struct rows *rows = &snapshot->rows[resource];

	for (size_t i = 0; i < rows->n; i++)
		if (rows->items[i]->id == id)
			return rows->items[i];
	return NULL;
}

/* Appends a stage, with what `more` has (taken over; may be NULL). */
static int add(json_t *stages, const char *stage, const char *verdict, const char *why, json_t *more)
{
	json_t *object = json_pack("{s:s, s:s, s:s}", "stage", stage, "verdict", verdict, "why", why);

	if (object && more && json_object_update(object, more) < 0) {
		json_decref(object);
		object = NULL;
	}
	json_decref(more);
	return json_array_append_new(stages, object) < 0 ? -ENOMEM : 0;
}

static const char *word_of(enum verdict verdict)
{
	switch (verdict) {
	case VERDICT_RELAY:
	case VERDICT_RELAY_DIRECT:
		return "relay";
	case VERDICT_REJECT:
		return "reject";
	case VERDICT_DROP:
		return "drop";
	case VERDICT_BYPASS:
		return "bypass";
	case VERDICT_LIMITED: /* an element says what follows its limits */
	case VERDICTS:
		break;
	}
	return "";
}

/* Sets the rule that looks the packet up in this set, as the kernel has it. */
static void tell_rule(json_t *stage, const struct explain_facts *facts, const char *chain, const char *set)
{
	uint64_t handle;
	const char *text = facts->rules ? trace_rules_lookup(facts->rules, chain, set, &handle) : NULL;

	if (text)
		json_object_set_new(stage, "rule",
		        json_pack("{s:s, s:I, s:s}", "chain", chain, "handle", (json_int_t)handle, "text", text));
}

static const char *chain_of(const struct match_shape *shape)
{
	if (shape->protocol == IPPROTO_TCP)
		return shape->family == AF_INET ? "tcp4" : "tcp6";
	return shape->family == AF_INET ? "udp4" : "udp6";
}

/* Until when, and in which set: members of a stage or of an item of one. */
static void tell_element(json_t *object, const struct explain_element *element)
{
	char text[ADDR_TEXT_MAX];

	json_object_set_new(object, "set", json_string(element->set));
	json_object_set_new(object, "element", json_string(prefix_format(&element->prefix, text)));
	json_object_set_new(
	        object, "expires_in_s", element->left_ms < 0 ? json_null() : json_integer(element->left_ms / 1000));
}

/* 1 if the prefilter drops it. */
static int add_prefilter(json_t *stages, const struct explain_facts *facts, const struct match_packet *packet)
{
	const struct explain_prefilter *prefilter = &facts->prefilter;
	char why[WHY_MAX];
	int r;

	switch (prefilter->verdict) {
	case EXPLAIN_PREFILTER_NONE:
		return 0;
	case EXPLAIN_PREFILTER_UNKNOWN:
		return add(stages, "prefilter", "unknown",
		        packet->interface ? "the program cannot be run here"
		                          : "there are prefilters, but it is not said where the packet comes in",
		        NULL);
	case EXPLAIN_PREFILTER_COOKIE:
		return add(stages, "prefilter", "answer",
		        "more requests come than the relay's listening socket takes: it is answered with a SYN cookie, "
		        "and "
		        "what follows becomes of the packet that brings the cookie back",
		        json_pack("{s:s}", "reason", prefilter->reason));
	case EXPLAIN_PREFILTER_PASS:
	case EXPLAIN_PREFILTER_DROP:
		break;
	}
	snprintf(why, sizeof(why), "a copy of the program of %s was run on the packet: %s%s%s", packet->interface,
	        prefilter->reason, prefilter->limit ? ", over rate limit " : "",
	        prefilter->limit ? prefilter->limit : "");
	r = add(stages, "prefilter", prefilter->verdict == EXPLAIN_PREFILTER_DROP ? "drop" : "pass", why,
	        prefilter->limit ? json_pack("{s:s, s:s}", "reason", prefilter->reason, "limit", prefilter->limit)
	                         : json_pack("{s:s}", "reason", prefilter->reason));
	return r < 0 ? r : prefilter->verdict == EXPLAIN_PREFILTER_DROP;
}

/* 1 if the source is banned. */
static int add_bans(json_t *stages, const struct explain_facts *facts)
{
	const struct explain_element *ban = facts->ban;
	char why[WHY_MAX], prefix[ADDR_TEXT_MAX];
	json_t *more;
	int r;

	if (!ban)
		return add(stages, "bans", "pass", "the source is not banned", NULL);
	more = json_object();
	if (!more)
		return -ENOMEM;
	tell_element(more, ban);
	tell_rule(more, facts, "bans", ban->set);
	snprintf(why, sizeof(why), "%s is banned%s%s%s%s%s", prefix_format(&ban->prefix, prefix),
	        *facts->ban_limit ? " by limit " : "", facts->ban_limit, *facts->ban_reason ? ": " : "",
	        facts->ban_reason,
	        facts->ban_exempt ? ", but the source is one that is never to be banned (ban_exempt)" : "");
	r = add(stages, "bans", facts->ban_exempt ? "pass" : "ban", why, more);
	return r < 0 ? r : !facts->ban_exempt;
}

static json_t *limit_item(const struct explain_facts *facts, const char *name)
{
	const struct rate_limit *limit =
	        (const struct rate_limit *)snapshot_find(facts->snapshot, RESOURCE_RATE_LIMIT, name);
	struct explain_element element;
	bool known = limit && facts->find_source && facts->find_source(facts->userdata, limit, &element);
	json_t *object = json_pack("{s:s, s:b}", "name", name, "known", known);

	if (object && known)
		tell_element(object, &element);
	return object;
}

static int add_limits(json_t *stages, const struct explain_facts *facts, const struct listener *listener)
{
	const struct rate_limit *of_flows = limits_of_flows(facts->snapshot, listener);
	json_t *items = json_array();
	bool failed = !items;

	for (size_t i = 0; i < listener->rate_limits.n && !failed; i++)
		if (!of_flows || strcmp(of_flows->name, listener->rate_limits.items[i]) != 0)
			failed = json_array_append_new(items, limit_item(facts, listener->rate_limits.items[i])) < 0;
	if (failed || json_array_size(items) == 0) {
		json_decref(items);
		return failed ? -ENOMEM : 0;
	}
	return add(stages, "limits", "counted",
	        "the listener's rate limits may refuse it; the kernel does not tell how much of its share a source has "
	        "used",
	        json_pack("{s:o}", "limits", items));
}

/* The element as nft writes it, new. */
static char *element_text(const struct element *element)
{
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);
	int r;

	if (!out)
		return NULL;
	r = nftset_put_element(out, element, true);
	if (fclose(out) != 0 || r < 0) {
		free(text);
		return NULL;
	}
	return text;
}

/* Who hands it to the relay's listening socket. */
static bool is_handed_over(const struct explain_facts *facts, const struct element *element)
{
	enum intercept_verdict verdict = intercept_verdict(element);

	return facts->ebpf && facts->relay_runs &&
	       (verdict == INTERCEPT_RELAY || (verdict == INTERCEPT_RELAY_DIRECT && !facts->gate_open));
}

static int add_nft(json_t *stages, const struct explain_facts *facts, const struct element *element,
        const struct listener *listener)
{
	_cleanup_free_ char *text = element_text(element);
	struct group group = element_group(element);
	char dst[ADDR_TEXT_MAX], src[ADDR_TEXT_MAX], ports[24], set[NFTSET_NAME_MAX], why[WHY_MAX];
	const struct match_key *key = &element->key;
	json_t *more;

	nftset_name(&group, set);
	if (key->port_lo == key->port_hi)
		snprintf(ports, sizeof(ports), "port %u", key->port_lo);
	else
		snprintf(ports, sizeof(ports), "ports %u-%u", key->port_lo, key->port_hi);
	snprintf(why, sizeof(why), "listener %s matches by destination %s/%u, source %s/%u%s%s, %s", listener->name,
	        addr_format(&key->dst, dst), key->shape.dst_len, addr_format(&key->src, src), key->shape.src_len,
	        *key->interface ? ", interface " : "", key->interface, ports);
	more = json_pack("{s:s, s:s, s:s?, s:s}", "listener", listener->name, "set", set, "element", text, "engine",
	        is_handed_over(facts, element) ? "ebpf" : "nft");
	if (!more)
		return -ENOMEM;
	tell_rule(more, facts, chain_of(&key->shape), set);
	return add(stages, "nft", word_of(element->verdict), why, more);
}

/* The targets of an upstream, by what they are for a flow. */
struct rotation {
	json_t *candidates; /* that it can be given */
	json_t *left_out;   /* others, with why */
	size_t n_candidates, n_left_out;
};

static int rotation_add(json_t *array, const struct target *target, const struct explain_target *found)
{
	if (json_array_size(array) >= TARGETS_MAX)
		return 0;
	return json_array_append_new(
	        array, json_pack("{s:s, s:I, s:I, s:s}", "address", target->address, "port", (json_int_t)target->port,
	                       "weight", (json_int_t)found->weight, "state", found->state));
}

/* Whether a flow of this family can be given the target, as it is now. */
static bool may_be_chosen(const struct explain_facts *facts, const struct upstream *upstream,
        const struct target *target, bool same_family, uint8_t family, struct explain_target *ret)
{
	struct addr addr;

	*ret = (struct explain_target){ .usable = target->weight != 0 && target->admin_state == ADMIN_STATE_UP,
		.weight = target->weight };
	if (facts->look_at_target)
		facts->look_at_target(facts->userdata, upstream, target, ret);
	if (!ret->usable)
		return false;
	if (addr_parse(target->address, &addr) < 0 || (same_family && addr.family != family)) {
		snprintf(ret->state, sizeof(ret->state),
		        "of another family than the client, whose address it is to see");
		return false;
	}
	return true;
}

/* Those with or without `backup`. While there are others, backups are left out. */
static int rotation_look(struct rotation *rotation, const struct explain_facts *facts, const struct upstream *upstream,
        bool same_family, uint8_t family, int backup)
{
	bool needed = !backup || rotation->n_candidates == 0;
	int r = 0;

	for (size_t i = 0; i < upstream->targets.n && r == 0; i++) {
		const struct target *target = (const struct target *)upstream->targets.items[i];
		struct explain_target found;
		bool chosen;

		if (target->backup != backup)
			continue;
		chosen = may_be_chosen(facts, upstream, target, same_family, family, &found);
		if (chosen && !needed)
			snprintf(found.state, sizeof(found.state), "a backup, and there are others");
		chosen = chosen && needed;
		rotation->n_candidates += chosen;
		rotation->n_left_out += !chosen;
		r = rotation_add(chosen ? rotation->candidates : rotation->left_out, target, &found);
	}
	return r;
}

static int add_rotation(json_t *stages, const struct upstream *upstream, const struct rotation *rotation)
{
	size_t n = rotation->n_candidates;
	char why[WHY_MAX];

	if (n == 0)
		snprintf(why, sizeof(why), "none of the %zu targets of upstream %s may be used: the client is reset",
		        rotation->n_left_out, upstream->name);
	else
		snprintf(why, sizeof(why), "one of %zu of the %zu targets of upstream %s, by its algorithm", n,
		        n + rotation->n_left_out, upstream->name);
	return add(stages, "upstream", n == 0 ? "none" : "chosen", why,
	        json_pack("{s:s, s:O, s:O}", "upstream", upstream->name, "candidates", rotation->candidates, "left_out",
	                rotation->left_out));
}

/* name: of the upstream; NULL or "": none. */
static int add_upstream(json_t *stages, const struct explain_facts *facts, const struct listener *listener,
        const char *name, const struct match_packet *packet)
{
	bool same_family = listener->source_address == SOURCE_ADDRESS_CLIENT;
	struct rotation rotation = { .candidates = json_array(), .left_out = json_array() };
	const struct upstream *upstream;
	int r = rotation.candidates && rotation.left_out ? 0 : -ENOMEM;

	if (r == 0 && name && *name) {
		upstream = (const struct upstream *)snapshot_find(facts->snapshot, RESOURCE_UPSTREAM, name);
		r = upstream ? 0 : -ENOENT;
		for (int backup = 0; backup < 2 && r == 0; backup++)
			r = rotation_look(&rotation, facts, upstream, same_family, packet->dst.family, backup);
		if (r == 0)
			r = add_rotation(stages, upstream, &rotation);
	} else if (r == 0) {
		r = add(stages, "upstream", "original", "no upstream: to the packet's own destination", NULL);
	}
	json_decref(rotation.candidates);
	json_decref(rotation.left_out);
	return r;
}

/* Which way the first bytes lead: the upstream's name, which may be NULL. 1: they are refused. */
static int add_routes(json_t *stages, const struct explain_facts *facts, const struct listener *listener,
        const struct match_packet *packet, const char **ret_upstream)
{
	const struct listener_route *route;
	char why[WHY_MAX];
	size_t at = 0;
	int r;

	*ret_upstream = listener->upstream;
	if (listener->routes.n == 0 || packet->protocol != IPPROTO_TCP)
		return 0;
	if (!facts->first)
		return add(stages, "routes", "first_bytes",
		        "a route may decide otherwise by what the client says first, which is not said here", NULL);
	route = explain_route(listener, facts->first, &at);
	if (!route)
		return add(stages, "routes", "default", "no route matches: the listener's own way", NULL);
	*ret_upstream = route->upstream;
	snprintf(why, sizeof(why), "route %zu of %zu is the first that matches what the client says", at + 1,
	        listener->routes.n);
	r = add(stages, "routes", route->action == ROUTE_ACTION_REJECT ? "reject" : "relay", why,
	        json_pack("{s:I}", "route", (json_int_t)at));
	return r < 0 ? r : route->action == ROUTE_ACTION_REJECT;
}

static int add_source(json_t *stages, const struct listener *listener, const struct match_packet *packet, uint16_t port)
{
	char client[ADDR_TEXT_MAX], why[WHY_MAX];

	if (listener->source_address == SOURCE_ADDRESS_GATEWAY)
		return add(stages, "source", "gateway", "the target sees an address of the gateway", NULL);
	addr_format(&packet->src, client);
	if (listener->source_port != SOURCE_PORT_KEEP)
		snprintf(why, sizeof(why), "the target sees %s, with a port that the kernel chooses", client);
	else if (port)
		snprintf(why, sizeof(why), "the target sees %s, port %u where it can be had", client, port);
	else
		snprintf(
		        why, sizeof(why), "the target sees %s, with the client's own port where it can be had", client);
	return add(stages, "source", "client", why, NULL);
}

/* What becomes of a flow that the relay has taken. */
static int add_shaping(json_t *stages, const struct explain_facts *facts, const struct listener *listener)
{
	const struct rate_limit *limit = limits_of_flows(facts->snapshot, listener);
	bool shadow = limit && limit->mode == LIMIT_MODE_SHADOW;
	uint64_t rate = limit ? limits_flow_rate(limit) : 0;
	char why[WHY_MAX];

	if (!limit)
		return 0;
	snprintf(why, sizeof(why),
	        shadow ? "limit %s would let each direction of the flow have %llu bytes per second; it only counts "
	                 "(mode shadow)"
	               : "limit %s lets each direction of the flow have %llu bytes per second; more waits",
	        limit->name, (unsigned long long)rate);
	return add(stages, "shaping", shadow ? "counted" : "shape", why,
	        json_pack("{s:s, s:I}", "rate_limit", limit->name, "bytes_per_second", (json_int_t)rate));
}

/* What comes after the listener's verdict: relay. */
static int add_relay(json_t *stages, const struct explain_facts *facts, const struct listener *listener,
        const struct match_packet *packet, uint16_t source_port)
{
	const char *upstream = NULL;
	char why[WHY_MAX];
	int r;

	snprintf(why, sizeof(why), "mark 0x%08x leads to table %u, where everything is local%s", facts->mark,
	        facts->table, facts->routing_right ? "" : "; but our rules are not complete (see doctor)");
	r = add(stages, "routing", facts->routing_right ? "local" : "broken", why, NULL);
	if (r == 0)
		r = add(stages, "relay", facts->relay_runs ? "accepts" : "waits",
		        facts->relay_runs ? "the relay runs" : "no relay runs: the packet waits for the next one",
		        NULL);
	if (r == 0)
		r = add_routes(stages, facts, listener, packet, &upstream);
	if (r != 0)
		return r < 0 ? r : 0;
	r = add_upstream(stages, facts, listener, upstream, packet);
	if (r == 0)
		r = add_source(stages, listener, packet, source_port);
	return r < 0 ? r : add_shaping(stages, facts, listener);
}

/* One stage for each chain of others that drops by default what is forwarded there. What else their rules say of the
 * packet, this cannot tell. */
static int add_forward(json_t *stages, const struct explain_facts *facts, const struct match_packet *packet)
{
	json_t *findings = facts->look_at_foreign ? facts->look_at_foreign(facts->userdata) : NULL, *finding;
	char why[WHY_MAX];
	size_t i;
	int r = 0;

	json_array_foreach(findings, i, finding)
	{
		const char *code = "", *table = "", *chain = "", *family = "";

		json_unpack(finding, "{s:s, s:s, s:s, s:s}", "code", &code, "family", &family, "table", &table, "chain",
		        &chain);
		if (r < 0 || strcmp(code, FATE_CODE) != 0 || !fate_is_of_family(finding, packet->dst.family) ||
		        !fate_drops_first(finding, packet->interface))
			continue;
		snprintf(why, sizeof(why),
		        "chain %s of table %s %s may drop it: it does so by default, and what its rules say of this "
		        "packet is not found out here (see doctor)",
		        chain, family, table);
		r = add(stages, "forward", "may_drop", why, NULL);
	}
	json_decref(findings);
	return r;
}

static int add_unmatched(
        json_t *stages, const struct explain_facts *facts, const struct match_packet *packet, bool local)
{
	int r;

	if (local)
		return add(stages, "nft", "local",
		        "an address of the gateway's own, or a broadcast or multicast one, which no listener names in "
		        "full",
		        NULL);
	if (add(stages, "nft", "none", "no listener matches", NULL) < 0)
		return -ENOMEM;
	r = add(stages, "routing", facts->forwarding ? "forward" : "drop",
	        facts->forwarding ? "forwarded as if there were no gateway" : "this machine does not forward", NULL);
	return r == 0 && facts->forwarding ? add_forward(stages, facts, packet) : r;
}

/* A packet that a listener matches. Bans come before everything but a mere drop. */
static int add_matched(json_t *stages, const struct explain_facts *facts, const struct match_packet *packet,
        uint16_t source_port, const struct element *element, const struct listener *listener, const char **ret_verdict)
{
	int r = add_nft(stages, facts, element, listener);

	*ret_verdict = word_of(element->verdict);
	if (r == 0 && (element->verdict != VERDICT_DROP || element->limited))
		r = add_bans(stages, facts);
	if (r != 0) {
		if (r == 1)
			*ret_verdict = "ban";
		return r < 0 ? r : 0;
	}
	if (listener->rate_limits.n > 0)
		r = add_limits(stages, facts, listener);
	if (r == 0 && element->verdict == VERDICT_RELAY_DIRECT && facts->gate_open) {
		*ret_verdict = "direct";
		r = add(stages, "gate", "direct", "no relay serves: forwarded, as on_worker_down says", NULL);
		return r < 0 ? r : add_forward(stages, facts, packet);
	}
	if (r == 0 && element->verdict == VERDICT_BYPASS)
		return add_forward(stages, facts, packet);
	return r == 0 && strcmp(*ret_verdict, "relay") == 0 ? add_relay(stages, facts, listener, packet, source_port)
	                                                    : r;
}

/* A name that was misspelt, or of one that comes and goes: what listeners say of it is told as if it was there. */
static int add_no_interface(json_t *stages, const char *interface)
{
	char why[WHY_MAX];

	snprintf(why, sizeof(why),
	        "there is no interface %s now: no packet comes in there; what follows is for when there is one",
	        interface);
	return add(stages, "interface", "none", why, NULL);
}

static int add_stages(json_t *stages, const struct explain_facts *facts, const struct match_packet *packet,
        uint16_t source_port, const struct listener **ret_listener, const char **ret_verdict)
{
	struct element element;
	int r = facts->no_interface ? add_no_interface(stages, facts->no_interface) : 0;

	if (r == 0)
		r = add_prefilter(stages, facts, packet);
	if (r != 0) {
		*ret_verdict = "prefilter";
		return r < 0 ? r : 0;
	}
	r = find(facts, packet, &element);
	if (r < 0)
		return r;
	if (r == 1) {
		*ret_listener = (const struct listener *)row_of(facts->snapshot, RESOURCE_LISTENER, element.listener);
		return *ret_listener
		               ? add_matched(stages, facts, packet, source_port, &element, *ret_listener, ret_verdict)
		               : -ENOENT;
	}
	*ret_verdict = r == 2 ? "local" : facts->forwarding ? "forward" : "drop";
	return add_unmatched(stages, facts, packet, r == 2);
}

json_t *explain_packet(const struct explain_facts *facts, const struct match_packet *packet, uint16_t source_port)
{
	json_t *stages = json_array();
	const struct listener *listener = NULL;
	const char *verdict = "";
	int r = stages ? add_stages(stages, facts, packet, source_port, &listener, &verdict) : -ENOMEM;

	if (r < 0) {
		json_decref(stages);
		return NULL;
	}
	return json_pack(
	        "{s:s, s:s?, s:o}", "verdict", verdict, "listener", listener ? listener->name : NULL, "stages", stages);
}
