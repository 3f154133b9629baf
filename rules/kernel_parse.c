/*
 * Reading nft's JSON listings, without elements (kernel_dump.c); pure. What
 * another hand was in is not an error: a set that cannot be used any more and
 * whatever we do not know is a stray, and what cannot even be named leaves
 * `compatible` false, whereupon the table is made anew.
 */
#include "rules/kernel_ops.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rules/render_chains.h"
#include "rules/nftset.h"
#include "rules/words.h"

static const char *text_of(const json_t *value)
{
	const char *text = json_string_value(value);

	return text ? text : "";
}

/* nft's words for what a table may hold. */
static const char *const kinds[] = { "chain", "set", "map", "counter", "quota", "limit", "flowtable", "ct helper",
	"ct timeout", "ct expectation", "secmark", "synproxy" };

int kernel_state_stray(struct kernel_state *state, const char *kind, const char *name)
{
	struct kernel_stray *strays;

	/* Names go into a command; others may have named things as they liked. */
	if (!isalpha((unsigned char)name[0]) || !word_is_plain(name)) {
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

static int keep_group(struct kernel_state *state, const struct group *group)
{
	struct group *groups = reallocarray(state->groups, state->n_groups + 1, sizeof(*groups));

	if (!groups)
		return -ENOMEM;
	state->groups = groups;
	groups[state->n_groups++] = *group;
	return 0;
}

/* A name that looks like ours does not make a set ours: it must be declared like ours, too. */
static bool is_declared_as_ours(json_t *set, const char *kind, const struct group *group)
{
	const struct match_shape *shape = &group->shape;
	json_t *type = json_object_get(set, "type"), *flags = json_object_get(set, "flags");
	enum nftset_field fields[NFTSET_FIELDS];
	size_t n = nftset_fields(group, fields);
	bool interval = json_array_size(flags) == 1 && strcmp(text_of(json_array_get(flags, 0)), "interval") == 0;

	if (n == 1 ? !json_is_string(type) : json_array_size(type) != n)
		return false;
	for (size_t i = 0; i < n; i++)
		if (strcmp(text_of(n == 1 ? type : json_array_get(type, i)), nftset_field_type(shape, fields[i])) != 0)
			return false;
	if (strcmp(kind, nftset_kind(group)) != 0 ||
	        (strcmp(kind, "map") == 0 && strcmp(member_text(set, "map"), "verdict") != 0))
		return false;
	return (group_is_interval(group) ? interval : !flags) && json_array_size(json_object_get(set, "stmt")) == 1 &&
	       json_object_get(json_array_get(json_object_get(set, "stmt"), 0), "counter") &&
	       !json_object_get(set, "size") && !json_object_get(set, "timeout");
}

static int parse_set(json_t *set, const char *kind, struct kernel_state *state)
{
	const char *name = member_text(set, "name");
	struct group group;

	if (chains_own(kind, name))
		return 0;
	if (nftset_group_of_name(name, &group) < 0 || !is_declared_as_ours(set, kind, &group))
		return kernel_state_stray(state, kind, name);
	return keep_group(state, &group);
}

static int parse_body(const char *kind, json_t *body, struct kernel_state *state)
{
	const char *name = member_text(body, "name");

	if (strcmp(kind, "set") == 0 || strcmp(kind, "map") == 0)
		return parse_set(body, kind, state);
	return chains_own(kind, name) ? 0 : kernel_state_stray(state, kind, name);
}

static bool is_of_our_table(const char *kind, const json_t *body)
{
	const char *key = kind && strcmp(kind, "table") == 0 ? "name" : "table";

	return strcmp(member_text(body, "family"), "inet") == 0 && strcmp(member_text(body, key), NFT_TABLE) == 0;
}

static int parse_object(json_t *object, struct kernel_state *state)
{
	const char *kind = json_object_iter_key(json_object_iter(object));
	json_t *body = json_object_get(object, kind ? kind : "");
	size_t k = 0;

	if (!kind || !is_of_our_table(kind, body))
		return 0;
	while (k < ARRAY_SIZE(kinds) && strcmp(kinds[k], kind) != 0)
		k++;
	if (k < ARRAY_SIZE(kinds))
		return parse_body(kinds[k], body, state);
	/* Rules belong to their chains; anything else is of a kind that we cannot delete. */
	state->present |= strcmp(kind, "table") == 0;
	state->compatible &= strcmp(kind, "table") == 0 || strcmp(kind, "rule") == 0;
	return 0;
}

int kernel_parse_table(json_t *listing, struct kernel_state *ret)
{
	json_t *objects = json_object_get(listing, "nftables"), *object;
	size_t i;

	if (!json_is_array(objects))
		return -EBADMSG;
	ret->compatible = true;
	json_array_foreach(objects, i, object)
	{
		int r = parse_object(object, ret);

		if (r < 0)
			return r;
	}
	if (ret->n_groups > 1)
		qsort(ret->groups, ret->n_groups, sizeof(*ret->groups), group_compare_items);
	return 0;
}

/* The digest. */

static uint64_t mix(uint64_t hash, const char *text)
{
	for (; *text; text++) /* FNV-1a */
		hash = (hash ^ (unsigned char)*text) * 1099511628211ULL;
	return hash;
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
