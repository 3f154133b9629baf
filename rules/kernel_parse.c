/*
 * Reading nft's JSON listings; pure. What is of our own making but not as we
 * make it (another hand was in it, or another version) is not an error: it
 * leaves `compatible` false, and the core then makes the table anew.
 */
#include "rules/kernel_ops.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rules/render_chains.h"
#include "rules/render_map.h"

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static int parse_address(json_t *value, const struct match_shape *shape, struct addr *ret)
{
	const char *text = json_string_value(value);

	if (!text || addr_parse(text, ret) < 0 || ret->family != shape->family)
		return -EBADMSG;
	return 0;
}

static int parse_interface(json_t *value, struct match_key *key)
{
	const char *text = json_string_value(value);

	if (!text || strlen(text) >= sizeof(key->interface))
		return -EBADMSG;
	memcpy(key->interface, text, strlen(text));
	return 0;
}

static int parse_ports(json_t *value, struct match_key *key)
{
	json_t *range = json_object_get(value, "range");
	json_t *lo = range ? json_array_get(range, 0) : value, *hi = range ? json_array_get(range, 1) : value;

	if (!json_is_integer(lo) || !json_is_integer(hi))
		return -EBADMSG;
	key->port_lo = (uint16_t)json_integer_value(lo);
	key->port_hi = (uint16_t)json_integer_value(hi);
	return 0;
}

static int parse_field(json_t *value, enum map_field field, struct match_key *key)
{
	switch (field) {
	case MAP_DST:
		return parse_address(value, &key->shape, &key->dst);
	case MAP_SRC:
		return parse_address(value, &key->shape, &key->src);
	case MAP_INTERFACE:
		return parse_interface(value, key);
	case MAP_PORT:
		return parse_ports(value, key);
	case MAP_PROTOCOL: /* the shape says it */
	case MAP_FIELDS:
		break;
	}
	return 0;
}

static int parse_key(json_t *value, const struct match_shape *shape, struct match_key *ret)
{
	enum map_field fields[MAP_FIELDS];
	size_t n = map_fields(shape, fields);
	json_t *concat = json_object_get(value, "concat");
	struct match_key key = { .shape = *shape, .dst.family = shape->family, .src.family = shape->family };

	if (n > 1 ? json_array_size(concat) != n : concat != NULL)
		return -EBADMSG;
	if (shape->port_kind == MATCH_PORT_ANY)
		key.port_hi = UINT16_MAX;
	for (size_t i = 0; i < n; i++)
		if (parse_field(n > 1 ? json_array_get(concat, i) : value, fields[i], &key) < 0)
			return -EBADMSG;
	*ret = key;
	return match_key_check(ret);
}

static int parse_verdict(json_t *value, enum verdict *ret)
{
	const char *target = text_of(json_object_get(value, "goto"), "target");

	for (unsigned verdict = 0; verdict < VERDICTS; verdict++)
		if (strcmp(map_verdict_chains[verdict], target) == 0) {
			*ret = verdict;
			return 0;
		}
	return -EBADMSG;
}

static int parse_element(json_t *pair, const struct match_shape *shape, struct element *ret)
{
	json_t *key = json_array_get(pair, 0), *elem = json_object_get(key, "elem");
	struct element element = { 0 };

	if (elem)
		key = json_object_get(elem, "val");
	if (parse_key(key, shape, &element.key) < 0 || parse_verdict(json_array_get(pair, 1), &element.verdict) < 0)
		return -EBADMSG;
	*ret = element;
	return 0;
}

static int parse_map(json_t *map, struct kernel_state *state)
{
	json_t *elements = json_object_get(map, "elem"), *pair;
	struct match_shape shape, *shapes;
	struct element *items;
	size_t i;

	if (map_shape_of_name(text_of(map, "name"), &shape) < 0) {
		state->compatible = false;
		return 0;
	}
	shapes = reallocarray(state->shapes, state->n_shapes + 1, sizeof(*shapes));
	if (!shapes)
		return -ENOMEM;
	state->shapes = shapes;
	state->shapes[state->n_shapes++] = shape;
	if (json_array_size(elements) == 0)
		return 0;
	items = reallocarray(state->elements.items, state->elements.n + json_array_size(elements), sizeof(*items));
	if (!items)
		return -ENOMEM;
	state->elements.items = items;
	json_array_foreach(elements, i, pair)
	{
		if (parse_element(pair, &shape, &items[state->elements.n]) < 0)
			state->compatible = false;
		else
			state->elements.n++;
	}
	return 0;
}

/* The only element of a set of one number; 0 if it has none. */
static int64_t number_of(json_t *set)
{
	return json_integer_value(json_array_get(json_object_get(set, "elem"), 0));
}

static int parse_object(json_t *object, struct kernel_state *state, int64_t *version)
{
	json_t *map = json_object_get(object, "map"), *set = json_object_get(object, "set");

	if (map)
		return parse_map(map, state);
	if (set && strcmp(text_of(set, "name"), "generation") == 0)
		state->generation = number_of(set);
	if (set && strcmp(text_of(set, "name"), "skeleton") == 0)
		*version = number_of(set);
	return 0;
}

static int compare_shapes(const void *a, const void *b)
{
	return match_shape_compare(a, b);
}

static int compare_elements(const void *a, const void *b)
{
	return match_key_compare(&((const struct element *)a)->key, &((const struct element *)b)->key);
}

int kernel_parse_table(json_t *listing, struct kernel_state *ret)
{
	json_t *objects = json_object_get(listing, "nftables"), *object;
	int64_t version = 0;
	size_t i;

	if (!json_is_array(objects))
		return -EBADMSG;
	ret->present = true;
	ret->compatible = true;
	json_array_foreach(objects, i, object)
	{
		int r = parse_object(object, ret, &version);

		if (r < 0)
			return r;
	}
	ret->compatible &= version == NFT_SKELETON_VERSION;
	if (ret->n_shapes > 1)
		qsort(ret->shapes, ret->n_shapes, sizeof(*ret->shapes), compare_shapes);
	if (ret->elements.n > 1)
		qsort(ret->elements.items, ret->elements.n, sizeof(*ret->elements.items), compare_elements);
	return 0;
}

/* Others' chains. */

static int add_finding(json_t *findings, const char *code, const json_t *chain, const char *key, const char *what)
{
	char detail[512];

	snprintf(detail, sizeof(detail), "chain %s %s %s %s", text_of(chain, "family"), text_of(chain, "table"),
	        text_of(chain, key), what);
	return json_array_append_new(findings, json_pack("{s:s, s:s}", "code", code, "detail", detail)) ? -ENOMEM : 0;
}

static bool is_ours(const json_t *object)
{
	return strcmp(text_of(object, "family"), "inet") == 0 && strcmp(text_of(object, "table"), NFT_TABLE) == 0;
}

static int note_nat_table(json_t *nat_tables, const json_t *chain)
{
	json_t *table = json_pack("{s:s, s:s}", "family", text_of(chain, "family"), "name", text_of(chain, "table"));
	json_t *other;
	size_t i;

	if (!table)
		return -ENOMEM;
	json_array_foreach(nat_tables, i, other)
	{
		if (json_equal(other, table)) {
			json_decref(table);
			return 0;
		}
	}
	return json_array_append_new(nat_tables, table) ? -ENOMEM : 0;
}

int kernel_parse_chains(json_t *listing, json_t *findings, json_t *nat_tables)
{
	json_t *object, *chain;
	size_t i;
	int r = 0;

	json_array_foreach(json_object_get(listing, "nftables"), i, object)
	{
		chain = json_object_get(object, "chain");
		if (r < 0 || !chain || is_ours(chain))
			continue;
		if (strcmp(text_of(chain, "hook"), "input") == 0 && strcmp(text_of(chain, "policy"), "drop") == 0)
			r = add_finding(findings, "input_drop", chain, "name",
			        "drops by default what is delivered locally, and so packets of relayed flows, which "
			        "keep their original destination; it must accept our mark");
		else if (strcmp(text_of(chain, "type"), "nat") == 0 &&
		         strcmp(text_of(chain, "hook"), "postrouting") == 0)
			r = note_nat_table(nat_tables, chain);
	}
	return r;
}

/* iptables-nft's targets appear as {"xt": {"type": "target", "name": "MASQUERADE"}}. */
static bool rewrites_source(json_t *rule)
{
	json_t *statement;
	size_t i;

	json_array_foreach(json_object_get(rule, "expr"), i, statement)
	{
		const char *xt = text_of(json_object_get(statement, "xt"), "name");

		if (json_object_get(statement, "masquerade") || json_object_get(statement, "snat") ||
		        strcmp(xt, "MASQUERADE") == 0 || strcmp(xt, "SNAT") == 0)
			return true;
	}
	return false;
}

int kernel_parse_nat_rules(json_t *listing, json_t *findings)
{
	json_t *object, *rule;
	size_t i;
	int r = 0;

	json_array_foreach(json_object_get(listing, "nftables"), i, object)
	{
		rule = json_object_get(object, "rule");
		if (r == 0 && rule && rewrites_source(rule))
			r = add_finding(findings, "source_nat", rule, "chain",
			        "rewrites source addresses (masquerade or snat); where that matches relayed flows, "
			        "targets do not see the client's address");
	}
	return r;
}

int kernel_parse_counters(json_t *listing, json_t **ret)
{
	json_t *counters = json_object(), *object, *counter;
	size_t i;
	int r = counters ? 0 : -ENOMEM;

	json_array_foreach(json_object_get(listing, "nftables"), i, object)
	{
		counter = json_object_get(object, "counter");
		if (r == 0 && counter && is_ours(counter) &&
		        json_object_set_new(counters, text_of(counter, "name"),
		                json_pack("{s:I, s:I}", "packets",
		                        json_integer_value(json_object_get(counter, "packets")), "bytes",
		                        json_integer_value(json_object_get(counter, "bytes")))))
			r = -ENOMEM;
	}
	if (r < 0)
		json_decref(counters);
	else
		*ret = counters;
	return r;
}
