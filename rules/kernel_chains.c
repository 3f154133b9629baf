/*
 * Others' chains, by nft's JSON listings: which of them stand in the way of
 * relayed flows, or judge what is forwarded, and whom their own rules exempt
 * from that. Pure; whether an exemption is ours is for rules/doctor.c to say,
 * which knows our mark, the relay's user and the listeners' interfaces.
 */
#include "rules/kernel_ops.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gatewayd/base/cleanup.h"
#include "rules/forward_fate.h"
#include "rules/render_chains.h"
#include "rules/words.h"

CLEANUP_DEFINE(json_t *, json_decref)
#define _cleanup_json_ _cleanup_(json_decref_p)

/* It judges what is delivered here. */
static bool is_input(const json_t *chain)
{
	return member_is(chain, "hook", "input");
}

/* It may rewrite sources. */
static bool is_source_nat(const json_t *chain)
{
	return member_is(chain, "hook", "postrouting") && member_is(chain, "type", "nat");
}

/* It judges what is forwarded, by the addresses of IP: a bridge's frames are another thing. */
static bool is_forward(const json_t *chain)
{
	return member_is(chain, "hook", "forward") &&
	       (member_is(chain, "family", "inet") || member_is(chain, "family", "ip") ||
	               member_is(chain, "family", "ip6"));
}

/* --- which tables are to be read --- */

/* The table of the chain in the list, or a new one at its end; NULL when memory is out. */
static json_t *entry_of(json_t *tables, const json_t *chain)
{
	json_t *table;
	size_t i;

	json_array_foreach(tables, i, table)
	{
		if (member_is(table, "family", member_text(chain, "family")) &&
		        member_is(table, "name", member_text(chain, "table")))
			return table;
	}
	table = json_pack("{s:s, s:s, s:[]}", "family", member_text(chain, "family"), "name",
	        member_text(chain, "table"), "chains");
	return json_array_append_new(tables, table) == 0 ? table : NULL;
}

int kernel_parse_chains(json_t *listing, json_t *tables)
{
	json_t *object;
	size_t i;

	json_array_foreach(json_object_get(listing, "nftables"), i, object)
	{
		json_t *chain = json_object_get(object, "chain"), *table;

		if ((member_is(chain, "family", "inet") && member_is(chain, "table", NFT_TABLE)) ||
		        (!is_input(chain) && !is_source_nat(chain) && !is_forward(chain)))
			continue;
		table = entry_of(tables, chain);
		if (!table || json_array_append(json_object_get(table, "chains"), chain) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* --- what a rule does, in so far as it matters here --- */

struct judgement {
	bool rewrites; /* the source, by masquerade or snat */
	bool drops;    /* or rejects */
	bool leaves;   /* the chain, in peace: accept or return */
	unsigned conditions;
	/* Of the last condition: mark & mask == value, or the socket's owner == value. */
	bool by_mark, by_owner;
	json_int_t mask, value;
};

/* A mask of leading ones nft tells as {"prefix": {"addr": 16777216, "len": 8}} on the right, any other with "&" on the
 * left. */
static void judge_match(const json_t *match, struct judgement *found)
{
	const json_t *left = json_object_get(match, "left"), *right = json_object_get(match, "right");
	const json_t *masked = json_object_get(left, "&"), *prefix = json_object_get(right, "prefix");
	const json_t *meta = json_object_get(masked ? json_array_get(masked, 0) : left, "meta");
	const json_t *value = prefix ? json_object_get(prefix, "addr") : right;
	json_int_t length = json_integer_value(json_object_get(prefix, "len"));
	bool equal = member_is(match, "op", "==") && json_is_integer(value);

	found->conditions++;
	found->by_mark = equal && member_is(meta, "key", "mark");
	found->by_owner = equal && !masked && !prefix && member_is(meta, "key", "skuid");
	found->mask = UINT32_MAX;
	if (masked)
		found->mask = json_integer_value(json_array_get(masked, 1));
	else if (length > 0 && length < 32)
		found->mask = (json_int_t)(UINT32_MAX << (32 - length));
	found->value = json_integer_value(value);
}

/* What iptables-nft has put there and nft has no word for: {"xt": {"type": "target", "name": "MASQUERADE"}}. */
static void judge_xt(const json_t *xt, struct judgement *found)
{
	if (member_is(xt, "name", "MASQUERADE") || member_is(xt, "name", "SNAT"))
		found->rewrites = true;
	else if (member_is(xt, "name", "REJECT"))
		found->drops = true;
	else if (!member_is(xt, "name", "comment"))
		found->conditions++;
}

/* What is not known counts as a condition. */
static void judge_statement(const json_t *statement, struct judgement *found)
{
	const json_t *body;

	if ((body = json_object_get(statement, "match")))
		judge_match(body, found);
	else if ((body = json_object_get(statement, "xt")))
		judge_xt(body, found);
	else if (json_object_get(statement, "masquerade") || json_object_get(statement, "snat"))
		found->rewrites = true;
	else if (json_object_get(statement, "drop") || json_object_get(statement, "reject"))
		found->drops = true;
	else if (json_object_get(statement, "accept") || json_object_get(statement, "return"))
		found->leaves = true;
	else if (!json_object_get(statement, "counter") && !json_object_get(statement, "log"))
		found->conditions++;
}

static struct judgement judge(const json_t *rule)
{
	struct judgement found = { 0 };
	json_t *statement;
	size_t i;

	json_array_foreach(json_object_get(rule, "expr"), i, statement)
	{
		judge_statement(statement, &found);
	}
	return found;
}

/* --- what is found --- */

/* The names of a table's base chains, a new object. */
static json_t *base_chains(const json_t *listing)
{
	json_t *names = json_object(), *object;
	size_t i;

	json_array_foreach(json_object_get(listing, "nftables"), i, object)
	{
		const json_t *chain = json_object_get(object, "chain");

		if (json_object_get(chain, "hook"))
			json_object_set_new(names, member_text(chain, "name"), json_true());
	}
	return names;
}

/* What a walk over the rules that a base chain may come to has seen: its own, and those of chains without a hook, for
 * it is not followed who jumps where. */
struct walk {
	bool drops;    /* a rule of its own, whatever the packet */
	bool rewrites; /* a rule without an exemption before it */
	json_t *marks, *owners;
};

static void walk_rule(const json_t *rule, bool own, struct walk *walk)
{
	struct judgement found = judge(rule);

	if (found.conditions == 0 && found.drops && own)
		walk->drops = true;
	if (found.rewrites)
		walk->rewrites = true;
	if (found.conditions != 1 || !found.leaves)
		return;
	if (found.by_mark)
		json_array_append_new(walk->marks, json_pack("[I, I]", found.mask, found.value));
	/* Behind the rule that rewrites, in the same chain, it comes too late. */
	if (found.by_owner && (!own || !walk->rewrites))
		json_array_append_new(walk->owners, json_integer(found.value));
}

static void walk_chain(const json_t *listing, const json_t *chain, const json_t *bases, struct walk *walk)
{
	json_t *object;
	size_t i;

	json_array_foreach(json_object_get(listing, "nftables"), i, object)
	{
		const json_t *rule = json_object_get(object, "rule");
		bool own = member_is(rule, "chain", member_text(chain, "name"));

		if (rule && (own || !json_object_get(bases, member_text(rule, "chain"))))
			walk_rule(rule, own, walk);
	}
}

static int add_finding(
        json_t *findings, const char *code, const json_t *chain, const char *what, const char *key, json_t *exempt)
{
	char detail[512];

	snprintf(detail, sizeof(detail), "chain %s %s %s %s", member_text(chain, "family"), member_text(chain, "table"),
	        member_text(chain, "name"), what);
	return json_array_append_new(
	               findings, json_pack("{s:s, s:s, s:s, s:s, s:s, s:O}", "code", code, "detail", detail, "family",
	                                 member_text(chain, "family"), "table", member_text(chain, "table"), "chain",
	                                 member_text(chain, "name"), key, exempt))
	               ? -ENOMEM
	               : 0;
}

/* What it drops depends on where packets come in, which is not known here: its rules go along. */
static int add_forward(const json_t *chain, const json_t *listing, json_t *findings)
{
	_cleanup_json_ json_t *rules = fate_rules(listing);
	const char *policy = member_text(chain, "policy");
	int r;

	if (!rules)
		return -ENOMEM;
	r = add_finding(findings, FATE_CODE, chain, "drops by default what is forwarded", "rules", rules);
	return r < 0 ? r
	       : json_object_set_new(
	                 json_array_get(findings, json_array_size(findings) - 1), "policy", json_string(policy))
	               ? -ENOMEM
	               : 0;
}

static int look_at_chain(const json_t *chain, const json_t *listing, const json_t *bases, json_t *findings)
{
	_cleanup_json_ json_t *marks = json_array(), *owners = json_array();
	struct walk walk = { .marks = marks, .owners = owners };

	if (!marks || !owners)
		return -ENOMEM;
	if (is_forward(chain))
		return add_forward(chain, listing, findings);
	walk_chain(listing, chain, bases, &walk);
	if (is_input(chain) && (walk.drops || member_is(chain, "policy", "drop")))
		return add_finding(findings, "input_drop", chain,
		        "drops by default what is delivered locally, and so packets of relayed flows, which "
		        "keep their original destination; it must accept our mark",
		        "marks", marks);
	if (is_source_nat(chain) && walk.rewrites)
		return add_finding(findings, "source_nat", chain,
		        "rewrites source addresses (masquerade or snat); where that matches relayed flows, "
		        "targets do not see the client's address",
		        "owners", owners);
	return 0;
}

int kernel_parse_foreign(const json_t *table, const json_t *listing, json_t *findings)
{
	_cleanup_json_ json_t *bases = base_chains(listing);
	json_t *chain;
	size_t i;
	int r = bases ? 0 : -ENOMEM;

	json_array_foreach(json_object_get(table, "chains"), i, chain)
	{
		if (r == 0)
			r = look_at_chain(chain, listing, bases, findings);
	}
	return r;
}
