/*
 * The walk through the rules, see forward_fate.h. Conditions have three values:
 * a rule is obeyed only if all of its conditions certainly hold; one that cannot
 * be read, or that says more than where a packet comes from, is passed by.
 */
#include "rules/forward_fate.h"

#include <string.h>
#include <sys/socket.h>

#include "gatewayd/base/cleanup.h"
#include "rules/words.h"

/* As deep as the kernel lets chains jump. */
#define JUMPS_MAX 16

/* What is asked about: `answer` goes out at the interface, else it comes in there. */
struct question {
	const json_t *rules;
	const char *interface;
	bool answer;
	unsigned left; /* rules that may yet be looked at */
};

enum end { END_OPEN, END_ACCEPT, END_DROP };

/* What one rule does. */
struct action {
	bool applies; /* every condition certainly holds */
	bool ends, leaves, does_goto;
	enum end end;
	const char *target; /* of a jump; NULL: none */
};

/* An interface's name, or the beginning of one with "*" behind it. */
static bool is_name(const json_t *pattern, const char *name)
{
	const char *text = json_string_value(pattern);
	size_t length = text ? strlen(text) : 0;

	if (!text || !name)
		return false;
	return length > 0 && text[length - 1] == '*' ? strncmp(text, name, length - 1) == 0 : strcmp(text, name) == 0;
}

static bool is_state(const json_t *pattern, const char *state)
{
	const char *text = json_string_value(pattern);

	return text && strcmp(text, state) == 0;
}

/* Whether one of what nft writes at the right of a condition is the value: "a", ["a", "b"] or {"set": ["a", "b"]}. */
static bool is_among(const json_t *right, const char *value, bool (*is_it)(const json_t *pattern, const char *value))
{
	const json_t *list = json_is_object(right) ? json_object_get(right, "set") : right, *one;
	size_t i;

	if (!json_is_array(list))
		return is_it(list, value);
	json_array_foreach(list, i, one)
	{
		if (is_it(one, value))
			return true;
	}
	return false;
}

/* Whether a condition certainly holds. Without an interface, no rule that names one does. */
static bool holds(const struct question *question, const json_t *match)
{
	const json_t *left = json_object_get(match, "left"), *right = json_object_get(match, "right");
	const json_t *meta = json_object_get(left, "meta");
	bool in = member_is(meta, "key", "iifname") || member_is(meta, "key", "iif");
	bool out = member_is(meta, "key", "oifname") || member_is(meta, "key", "oif");
	bool differs = member_is(match, "op", "!=");

	if (member_is(json_object_get(left, "ct"), "key", "state"))
		return is_among(right, question->answer ? "established" : "new", is_state) != differs;
	if (!question->interface || !(question->answer ? out : in))
		return false;
	/* A set with a name is not listed. */
	if (json_is_string(right) && json_string_value(right)[0] == '@')
		return false;
	return is_among(right, question->interface, is_name) != differs;
}

/* iptables' own words, which nft's JSON only names. Of conntrack's states nothing is told: a rule about them that
 * speaks of nothing else than where answers go out is taken to be for answers. */
static void read_xt(const struct question *question, const json_t *xt, struct action *action)
{
	if (member_is(xt, "name", "REJECT")) {
		action->ends = true;
		action->end = END_DROP;
	} else if (member_is(xt, "name", "conntrack")) {
		action->applies &= question->answer;
	} else if (!member_is(xt, "name", "comment")) {
		action->applies = false;
	}
}

static void read_statement(const struct question *question, const json_t *statement, struct action *action)
{
	const json_t *body;

	if ((body = json_object_get(statement, "match"))) {
		action->applies &= holds(question, body);
	} else if ((body = json_object_get(statement, "xt"))) {
		read_xt(question, body, action);
	} else if (json_object_get(statement, "drop") || json_object_get(statement, "reject")) {
		action->ends = true;
		action->end = END_DROP;
	} else if (json_object_get(statement, "accept")) {
		action->ends = true;
		action->end = END_ACCEPT;
	} else if (json_object_get(statement, "return")) {
		action->leaves = true;
	} else if ((body = json_object_get(statement, "jump")) || (body = json_object_get(statement, "goto"))) {
		action->target = json_string_value(json_object_get(body, "target"));
		action->does_goto = json_object_get(statement, "goto");
	} else if (!json_object_get(statement, "counter") && !json_object_get(statement, "log")) {
		action->applies = false;
	}
}

static struct action read_rule(const struct question *question, const json_t *rule)
{
	struct action action = { .applies = true };
	json_t *statement;
	size_t i;

	json_array_foreach(rule, i, statement)
	{
		read_statement(question, statement, &action);
	}
	return action;
}

static enum end walk(struct question *question, const char *chain, unsigned jumps)
{
	const json_t *rules = json_object_get(question->rules, chain), *rule;
	size_t i;

	json_array_foreach(rules, i, rule)
	{
		struct action action = { .applies = false };
		enum end end;

		if (question->left == 0)
			return END_OPEN;
		question->left--;
		action = read_rule(question, rule);
		if (!action.applies)
			continue;
		if (action.ends)
			return action.end;
		if (action.leaves)
			return END_OPEN;
		if (!action.target || jumps == 0)
			continue;
		end = walk(question, action.target, jumps - 1);
		if (end != END_OPEN || action.does_goto)
			return end;
	}
	return END_OPEN;
}

static bool drops(const json_t *finding, const char *interface, bool answer)
{
	const char *chain = json_string_value(json_object_get(finding, "chain"));
	struct question question = { json_object_get(finding, "rules"), interface, answer, FATE_RULES_MAX };
	enum end end = chain ? walk(&question, chain, JUMPS_MAX) : END_OPEN;

	return end == END_DROP || (end == END_OPEN && member_is(finding, "policy", "drop"));
}

bool fate_drops_first(const json_t *finding, const char *interface)
{
	return drops(finding, interface, false);
}

bool fate_drops_answers(const json_t *finding, const char *interface)
{
	return drops(finding, interface, true);
}

bool fate_is_of_family(const json_t *finding, uint8_t family)
{
	return member_is(finding, "family", "inet") || member_is(finding, "family", family == AF_INET ? "ip" : "ip6");
}

json_t *fate_rules(const json_t *listing)
{
	json_t *rules = json_object(), *object, *chain;
	size_t i;
	int r = rules ? 0 : -1;

	json_array_foreach(json_object_get(listing, "nftables"), i, object)
	{
		const json_t *rule = json_object_get(object, "rule");
		const char *name = json_string_value(json_object_get(rule, "chain"));
		json_t *expr = json_object_get(rule, "expr");

		if (r < 0 || !name || !expr)
			continue;
		chain = json_object_get(rules, name);
		if (!chain) {
			chain = json_array();
			r = json_object_set_new(rules, name, chain);
		}
		if (r == 0)
			r = json_array_append(chain, expr);
	}
	if (r < 0) {
		json_decref(rules);
		return NULL;
	}
	return rules;
}
