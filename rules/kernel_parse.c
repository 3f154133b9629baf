/*
 * Reading nft's JSON listings; pure. What another hand was in is not an error:
 * an element that is not of our making has no valid verdict, a map that cannot
 * be used any more and whatever we do not know is a stray, and what cannot even
 * be named leaves `compatible` false, whereupon the table is made anew.
 */
#include "rules/kernel_ops.h"

#include <ctype.h>
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

/* VERDICTS for one that we do not give. */
static void parse_verdict(json_t *value, enum verdict *ret)
{
	const char *target = text_of(json_object_get(value, "goto"), "target");

	*ret = 0;
	while (*ret < VERDICTS && strcmp(map_verdict_chains[*ret], target) != 0)
		++*ret;
}

static int parse_element(json_t *pair, const struct match_shape *shape, struct element *ret)
{
	json_t *key = json_array_get(pair, 0), *elem = json_object_get(key, "elem");
	struct element element = { 0 };

	if (elem)
		key = json_object_get(elem, "val");
	if (parse_key(key, shape, &element.key) < 0)
		return -EBADMSG;
	parse_verdict(json_array_get(pair, 1), &element.verdict);
	/* Ours have a counter and nothing else: no comment, say. */
	if (json_object_size(elem) > 2)
		element.verdict = VERDICTS;
	*ret = element;
	return 0;
}

/* nft's words for what a table may hold. */
static const char *const kinds[] = { "chain", "set", "map", "counter", "quota", "limit", "flowtable", "ct helper",
	"ct timeout", "ct expectation", "secmark", "synproxy" };

static int add_stray(struct kernel_state *state, const char *kind, const char *name)
{
	struct kernel_stray *strays;

	/* Names go into a command; others may have named things as they liked. */
	if (!isalpha((unsigned char)name[0]) ||
	        name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")] != '\0') {
		state->compatible = false;
		return 0;
	}
	strays = reallocarray(state->strays, state->n_strays + 1, sizeof(*strays));
	if (!strays)
		return -ENOMEM;
	state->strays = strays;
	strays[state->n_strays].kind = kind;
	strays[state->n_strays].name = strdup(name);
	return strays[state->n_strays].name ? (state->n_strays++, 0) : -ENOMEM;
}

static int keep_shape(struct kernel_state *state, const struct match_shape *shape)
{
	struct match_shape *shapes = reallocarray(state->shapes, state->n_shapes + 1, sizeof(*shapes));

	if (!shapes)
		return -ENOMEM;
	state->shapes = shapes;
	shapes[state->n_shapes++] = *shape;
	return 0;
}

/* -EBADMSG if an element cannot be told in our terms; the state's elements are then as before. */
static int parse_elements(json_t *elements, const struct match_shape *shape, struct kernel_state *state)
{
	size_t before = state->elements.n, i;
	struct element *items;
	json_t *pair;

	if (json_array_size(elements) == 0)
		return 0;
	items = reallocarray(state->elements.items, before + json_array_size(elements), sizeof(*items));
	if (!items)
		return -ENOMEM;
	state->elements.items = items;
	json_array_foreach(elements, i, pair)
	{
		if (parse_element(pair, shape, &items[state->elements.n]) < 0) {
			state->elements.n = before;
			return -EBADMSG;
		}
		state->elements.n++;
	}
	return 0;
}

/* A name that looks like ours does not make a map ours: it must be declared like ours, too. */
static bool is_declared_as_ours(json_t *map, const struct match_shape *shape)
{
	json_t *type = json_object_get(map, "type"), *flags = json_object_get(map, "flags");
	enum map_field fields[MAP_FIELDS];
	size_t n = map_fields(shape, fields);
	bool interval =
	        json_array_size(flags) == 1 && strcmp(json_string_value(json_array_get(flags, 0)), "interval") == 0;

	if (n == 1 ? !json_is_string(type) : json_array_size(type) != n)
		return false;
	for (size_t i = 0; i < n; i++) {
		const char *word = json_string_value(n == 1 ? type : json_array_get(type, i));

		if (!word || strcmp(word, map_field_type(shape, fields[i])) != 0)
			return false;
	}
	return strcmp(text_of(map, "map"), "verdict") == 0 && (map_is_interval(shape) ? interval : !flags) &&
	       json_object_get(map, "stmt") && !json_object_get(map, "size") && !json_object_get(map, "timeout");
}

static int parse_map(json_t *map, struct kernel_state *state)
{
	const char *name = text_of(map, "name");
	struct match_shape shape;
	int r = -EBADMSG;

	if (map_shape_of_name(name, &shape) == 0 && is_declared_as_ours(map, &shape))
		r = parse_elements(json_object_get(map, "elem"), &shape, state);
	return r == -EBADMSG ? add_stray(state, "map", name) : r < 0 ? r : keep_shape(state, &shape);
}

/* The only element of a set of one number; 0 if it has none, -1 if it has several. */
static int64_t number_of(json_t *set)
{
	json_t *elements = json_object_get(set, "elem");

	return json_array_size(elements) > 1 ? -1 : json_integer_value(json_array_get(elements, 0));
}

static bool has_number(json_t *set, int64_t number)
{
	json_t *elements = json_object_get(set, "elem"), *element;
	size_t i;

	json_array_foreach(elements, i, element)
	{
		if (json_integer_value(element) == number)
			return true;
	}
	return false;
}

static int parse_object(json_t *object, struct kernel_state *state, bool *versioned)
{
	json_t *body = NULL;
	const char *name;
	size_t k = 0;

	while (k < ARRAY_SIZE(kinds) && !(body = json_object_get(object, kinds[k])))
		k++;
	if (!body) {
		/* Rules belong to their chains; anything else is of a kind that we cannot delete. */
		state->compatible &= json_object_get(object, "rule") || json_object_get(object, "table") ||
		                     json_object_get(object, "metainfo");
		return 0;
	}
	name = text_of(body, "name");
	if (strcmp(kinds[k], "map") == 0)
		return parse_map(body, state);
	if (!chains_own(kinds[k], name))
		return add_stray(state, kinds[k], name);
	if (strcmp(name, "generation") == 0)
		state->generation = number_of(body);
	if (strcmp(name, "skeleton") == 0) {
		*versioned = has_number(body, NFT_SKELETON_VERSION);
		state->chains_differ |= number_of(body) != NFT_SKELETON_VERSION;
	}
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
	bool versioned = false;
	size_t i;

	if (!json_is_array(objects))
		return -EBADMSG;
	ret->present = true;
	ret->compatible = true;
	json_array_foreach(objects, i, object)
	{
		int r = parse_object(object, ret, &versioned);

		if (r < 0)
			return r;
	}
	ret->compatible &= versioned;
	if (ret->n_shapes > 1)
		qsort(ret->shapes, ret->n_shapes, sizeof(*ret->shapes), compare_shapes);
	if (ret->elements.n > 1)
		qsort(ret->elements.items, ret->elements.n, sizeof(*ret->elements.items), compare_elements);
	return 0;
}

/* The digest. */

static uint64_t mix(uint64_t hash, const char *text)
{
	for (; *text; text++) /* FNV-1a */
		hash = (hash ^ (unsigned char)*text) * 1099511628211ULL;
	return hash;
}

static bool is_of_our_table(const char *kind, const json_t *body)
{
	const char *key = kind && strcmp(kind, "table") == 0 ? "name" : "table";

	return strcmp(text_of(body, "family"), "inet") == 0 && strcmp(text_of(body, key), NFT_TABLE) == 0;
}

/* Without what differs from one listing to the next: handles, elements, values of counters. */
static int mix_object(json_t *object, uint64_t *hash)
{
	const char *kind = json_object_iter_key(json_object_iter(object));
	json_t *body = json_object_get(object, kind ? kind : "");
	char *text;

	if (!is_of_our_table(kind, body))
		return 0;
	body = json_copy(body);
	if (!body)
		return -ENOMEM;
	json_object_del(body, "handle");
	json_object_del(body, "elem");
	if (strcmp(kind, "counter") == 0) {
		json_object_del(body, "packets");
		json_object_del(body, "bytes");
	}
	text = json_dumps(body, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(body);
	if (!text)
		return -ENOMEM;
	*hash = mix(mix(*hash, kind), text);
	free(text);
	return 0;
}

int kernel_parse_digest(json_t *listing, uint64_t *ret)
{
	uint64_t hash = 14695981039346656037ULL;
	json_t *object;
	size_t i;
	int r = 0;

	json_array_foreach(json_object_get(listing, "nftables"), i, object)
	{
		if (r == 0)
			r = mix_object(object, &hash);
	}
	if (r == 0)
		*ret = hash;
	return r;
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
