/* The objects of rate limits, and what leads from some to others; see limits.h. */
#include "rules/limits.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rules/render_nft.h"
#include "schema/prefixes.h"

#define OBJECT " inet " NFT_TABLE " %s"

static const char *const kind_words[] = {
	[LIMITS_COUNTER] = "counter", [LIMITS_LIMIT] = "limit", [LIMITS_SET] = "set", [LIMITS_CHAIN] = "chain"
};
static_assert(ARRAY_SIZE(kind_words) == LIMITS_KINDS, "a word for each kind");

const char *limits_kind_word(enum limits_kind kind)
{
	return kind_words[kind];
}

bool ban_lengths_has(const struct ban_lengths *lengths, int family, unsigned length)
{
	const uint64_t *words = family == 4 ? &lengths->v4 : lengths->v6;

	return words[length / 64] >> (length % 64) & 1;
}

void ban_lengths_add(struct ban_lengths *lengths, int family, unsigned length)
{
	uint64_t *words = family == 4 ? &lengths->v4 : lengths->v6;

	words[length / 64] |= UINT64_C(1) << (length % 64);
}

void ban_lengths_unite(struct ban_lengths *lengths, const struct ban_lengths *more)
{
	lengths->v4 |= more->v4;
	for (size_t i = 0; i < ARRAY_SIZE(lengths->v6); i++)
		lengths->v6[i] |= more->v6[i];
}

bool ban_lengths_equal(const struct ban_lengths *a, const struct ban_lengths *b)
{
	return a->v4 == b->v4 && memcmp(a->v6, b->v6, sizeof(a->v6)) == 0;
}

/* Takes the text over, also on failure; NULL means that memory was out. */
int limits_add(struct limits *limits, enum limits_kind kind, const char *name, char *text)
{
	struct limits_object *items;
	size_t size = limits->size ? limits->size * 2 : 16;
	char *copy = text ? strdup(name) : NULL;

	if (copy && limits->n == limits->size) {
		items = reallocarray(limits->items, size, sizeof(*items));
		if (items) {
			limits->items = items;
			limits->size = size;
		}
	}
	if (!copy || limits->n == limits->size) {
		free(copy);
		free(text);
		return -ENOMEM;
	}
	limits->items[limits->n++] = (struct limits_object){ kind, copy, text };
	return 0;
}

static int compare_objects(const void *a, const void *b)
{
	const struct limits_object *one = a, *other = b;

	if (one->kind != other->kind)
		return one->kind < other->kind ? -1 : 1;
	return strcmp(one->name, other->name);
}

struct limits *limits_ref(struct limits *limits)
{
	if (limits)
		limits->references++;
	return limits;
}

void limits_unref(struct limits *limits)
{
	if (!limits || --limits->references > 0)
		return;
	for (size_t i = 0; i < limits->n; i++) {
		free(limits->items[i].name);
		free(limits->items[i].text);
	}
	free(limits->items);
	free(limits->exempt[0]);
	free(limits->exempt[1]);
	free(limits);
}

/* --- limits of key flow --- */

bool limits_is_of_flows(const struct rate_limit *limit)
{
	return limit->key == LIMIT_KEY_FLOW;
}

static unsigned count_of_flows(
        const struct snapshot *snapshot, const struct listener *listener, const struct rate_limit **ret_first)
{
	unsigned n = 0;

	for (size_t i = 0; i < listener->rate_limits.n; i++) {
		const struct rate_limit *limit = (const struct rate_limit *)snapshot_find(
		        snapshot, RESOURCE_RATE_LIMIT, listener->rate_limits.items[i]);

		if (limit && limits_is_of_flows(limit) && n++ == 0)
			*ret_first = limit;
	}
	return n;
}

const struct rate_limit *limits_of_flows(const struct snapshot *snapshot, const struct listener *listener)
{
	const struct rate_limit *limit = NULL;

	(void)count_of_flows(snapshot, listener, &limit);
	return limit;
}

uint64_t limits_flow_rate(const struct rate_limit *limit)
{
	return (uint64_t)(limit->per == PER_MINUTE ? limit->rate / 60 : limit->rate);
}

/* A listener that is not in force is told, too: it would be of no use. */
static int check_of_flows(const struct snapshot *snapshot, const struct listener *listener, struct errs *errs)
{
	const struct rate_limit *limit = NULL;
	unsigned n = count_of_flows(snapshot, listener, &limit);
	char pointer[128];

	snprintf(pointer, sizeof(pointer), "/listeners/%s/rate_limits", listener->name);
	if (n > 0 && (listener->protocol != PROTOCOL_TCP || listener->action != ACTION_RELAY)) {
		errs_add(errs, pointer, "not_applicable",
		        "listener \"%s\": rate limit \"%s\" has key flow, which is for TCP that is relayed",
		        listener->name, limit->name);
		return -EINVAL;
	}
	if (n > 1) {
		errs_add(errs, pointer, "not_applicable",
		        "listener \"%s\" names more than one rate limit of key flow: a flow has one rate",
		        listener->name);
		return -EINVAL;
	}
	return 0;
}

/* --- compiling --- */

bool limits_concern(const struct row *old_row, const struct row *new_row)
{
	const struct row *rows[] = { old_row, new_row };

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (!rows[i])
			continue;
		if (rows[i]->resource == RESOURCE_RATE_LIMIT || rows[i]->resource == RESOURCE_SETTINGS ||
		        rows[i]->resource == RESOURCE_ADDRESS_SET)
			return true;
		if (rows[i]->resource == RESOURCE_LISTENER && ((const struct listener *)rows[i])->rate_limits.n > 0)
			return true;
	}
	return false;
}

/* Shared objects of each limit that is named by a listener in force: those of one name follow each other after sorting,
 * so a limit is done when its first counter is there. */
static int add_limits(struct limits *limits, const struct snapshot *snapshot)
{
	const struct rows *rows = &snapshot->rows[RESOURCE_RATE_LIMIT], *listeners = &snapshot->rows[RESOURCE_LISTENER];
	_cleanup_free_ bool *used = calloc(rows->n + 1, sizeof(*used));
	int r = used ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < listeners->n; i++) {
		const struct listener *listener = (const struct listener *)listeners->items[i];

		for (size_t k = 0; listener->enabled && k < listener->rate_limits.n; k++) {
			size_t after = snapshot_after(snapshot, RESOURCE_RATE_LIMIT, listener->rate_limits.items[k]);

			if (snapshot_find(snapshot, RESOURCE_RATE_LIMIT, listener->rate_limits.items[k]))
				used[after - 1] = true;
		}
	}
	for (size_t i = 0; r == 0 && i < rows->n; i++)
		if (used[i] && !limits_is_of_flows((const struct rate_limit *)rows->items[i]))
			r = limits_text_limit(limits, (const struct rate_limit *)rows->items[i]);
	return r;
}

static int add_listeners(struct limits *limits, const struct snapshot *snapshot, struct errs *errs)
{
	const struct rows *rows = &snapshot->rows[RESOURCE_LISTENER];
	char pointer[128];
	int r = 0;

	for (size_t i = 0; r == 0 && i < rows->n; i++) {
		const struct listener *listener = (const struct listener *)rows->items[i];

		if (listener->rate_limits.n == 0)
			continue;
		r = check_of_flows(snapshot, listener, errs);
		if (r < 0 || !listener->enabled)
			continue;
		limits->pairs += listener->rate_limits.n;
		if (limits->pairs > LIMITS_PAIRS_MAX) {
			snprintf(pointer, sizeof(pointer), "/listeners/%s/rate_limits", listener->name);
			errs_add(errs, pointer, "too_complex",
			        "listener \"%s\": all listeners together name rate limits more than %d times",
			        listener->name, LIMITS_PAIRS_MAX);
			return -EINVAL;
		}
		r = limits_text_listener(limits, snapshot, listener);
	}
	return r;
}

static int put_exempt(const struct prefixes *entries, uint8_t family, char **ret)
{
	struct prefixes_cursor cursor = prefixes_from(entries, 0);
	const struct prefix *prefix;
	size_t length, n = 0;
	char text[ADDR_TEXT_MAX + 4];
	FILE *out = open_memstream(ret, &length);

	if (!out)
		return -ENOMEM;
	while ((prefix = prefixes_next(&cursor)))
		if (prefix->addr.family == family)
			fprintf(out, "%s%s", n++ ? ",\n" : "", prefix_format(prefix, text));
	if (fclose(out) != 0)
		return -ENOMEM;
	if (n == 0) {
		free(*ret);
		*ret = NULL;
	}
	return 0;
}

static int add_exempt(struct limits *limits, const struct snapshot *snapshot, struct errs *errs)
{
	const struct settings *settings = snapshot_settings(snapshot);
	const struct address_set *set;
	int r;

	if (!settings)
		return -ENOMEM;
	set = settings->ban_exempt
	              ? (const struct address_set *)snapshot_find(snapshot, RESOURCE_ADDRESS_SET, settings->ban_exempt)
	              : NULL;
	if (!set)
		return 0;
	if (set->entries.n > LIMITS_EXEMPT_MAX) {
		errs_add(errs, "/settings/ban_exempt", "too_complex",
		        "address set \"%s\" has %zu entries; of what is never banned there may be %d", set->name,
		        set->entries.n, LIMITS_EXEMPT_MAX);
		return -EINVAL;
	}
	r = put_exempt(&set->entries, AF_INET, &limits->exempt[0]);
	return r < 0 ? r : put_exempt(&set->entries, AF_INET6, &limits->exempt[1]);
}

int limits_compile(const struct snapshot *snapshot, struct errs *errs, struct limits **ret)
{
	struct limits *limits = calloc(1, sizeof(*limits));
	int r;

	if (!limits)
		return -ENOMEM;
	limits->references = 1;
	r = add_exempt(limits, snapshot, errs);
	if (r == 0)
		r = add_limits(limits, snapshot);
	if (r == 0)
		r = add_listeners(limits, snapshot, errs);
	if (r < 0) {
		limits_unref(limits);
		return r;
	}
	if (limits->n > 1)
		qsort(limits->items, limits->n, sizeof(*limits->items), compare_objects);
	*ret = limits;
	return 0;
}

/* --- comparing --- */

const struct limits_object *limits_find(const struct limits *limits, enum limits_kind kind, const char *name)
{
	struct limits_object wanted = { kind, (char *)(uintptr_t)name, NULL };

	return limits && limits->n ? bsearch(&wanted, limits->items, limits->n, sizeof(wanted), compare_objects) : NULL;
}

static bool same_text(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") == 0;
}

static bool same_exempt(const struct limits *a, const struct limits *b)
{
	for (size_t i = 0; i < ARRAY_SIZE(a->exempt); i++)
		if (!same_text(a ? a->exempt[i] : NULL, b ? b->exempt[i] : NULL))
			return false;
	return true;
}

/* The object of the other that is of the same kind and name; different: its text is another one. */
static const struct limits_object *other_of(
        const struct limits *other, const struct limits_object *object, bool *ret_different)
{
	const struct limits_object *found = limits_find(other, object->kind, object->name);

	*ret_different = !found || !same_text(found->text, object->text);
	return found;
}

bool limits_equal(const struct limits *a, const struct limits *b)
{
	static const struct ban_lengths none;
	bool different = (a ? a->n : 0) != (b ? b->n : 0) || !same_exempt(a, b) ||
	                 (a && a->metered) != (b && b->metered) ||
	                 !ban_lengths_equal(a ? &a->bans : &none, b ? &b->bans : &none);

	if (a == b)
		return true;
	for (size_t i = 0; a && i < a->n && !different; i++)
		(void)other_of(b, &a->items[i], &different);
	return !different;
}

/* --- text --- */

static void put_declaration(FILE *out, const struct limits_object *object)
{
	bool is_chain = object->kind == LIMITS_CHAIN;

	fprintf(out, "add %s" OBJECT "%s%s\n", kind_words[object->kind], object->name,
	        is_chain || !object->text[0] ? "" : " ", is_chain ? "" : object->text);
}

void limits_put_new(FILE *out, const struct limits *before, const struct limits *after)
{
	bool different;

	for (size_t i = 0; after && i < after->n; i++)
		if (!other_of(before, &after->items[i], &different))
			put_declaration(out, &after->items[i]);
}

static void put_flush(FILE *out, const struct limits_object *object)
{
	fprintf(out, "flush chain" OBJECT "\n", object->name);
}

void limits_put_emptied(FILE *out, const struct limits *before, const struct limits *after)
{
	bool different;

	for (size_t i = 0; before && i < before->n; i++) {
		if (before->items[i].kind != LIMITS_CHAIN)
			continue;
		(void)other_of(after, &before->items[i], &different);
		if (different)
			put_flush(out, &before->items[i]);
	}
	for (size_t i = 0; !before && after && i < after->n; i++)
		if (after->items[i].kind == LIMITS_CHAIN)
			put_flush(out, &after->items[i]);
}

void limits_put_rules(FILE *out, const struct limits *before, const struct limits *after)
{
	bool different;

	for (size_t i = 0; after && i < after->n; i++) {
		const struct limits_object *object = &after->items[i];

		if (object->kind != LIMITS_CHAIN)
			continue;
		(void)other_of(before, object, &different);
		for (const char *line = object->text; different && *line; line += strcspn(line, "\n") + 1)
			fprintf(out, "add rule" OBJECT " %.*s\n", object->name, (int)strcspn(line, "\n"), line);
	}
}

/* Chains first: they hold on to the others. */
void limits_put_gone(FILE *out, const struct limits *before, const struct limits *after)
{
	bool different;

	for (size_t i = before ? before->n : 0; i-- > 0;)
		if (!other_of(after, &before->items[i], &different))
			fprintf(out, "delete %s" OBJECT "\n", kind_words[before->items[i].kind], before->items[i].name);
}

void limits_put_exempt(FILE *out, const struct limits *limits)
{
	for (int i = 0; i < 2; i++) {
		fprintf(out, "flush set inet " NFT_TABLE " exempt%c\n", i ? '6' : '4');
		if (limits && limits->exempt[i])
			fprintf(out, "add element inet " NFT_TABLE " exempt%c {\n%s\n}\n", i ? '6' : '4',
			        limits->exempt[i]);
	}
}

void limits_put_exempt_change(FILE *out, const struct limits *before, const struct limits *after)
{
	if (!same_exempt(before, after))
		limits_put_exempt(out, after);
}

/* --- names --- */

const char *limits_listener_chain(uint32_t listener, char buffer[LIMITS_CHAIN_NAME_MAX])
{
	snprintf(buffer, LIMITS_CHAIN_NAME_MAX, "listener.%u", listener);
	return buffer;
}

int limits_listener_of_chain(const char *chain, uint32_t *ret)
{
	char again[LIMITS_CHAIN_NAME_MAX];
	uint32_t listener;

	if (sscanf(chain, "listener.%u", &listener) != 1 || strcmp(limits_listener_chain(listener, again), chain) != 0)
		return -EINVAL;
	*ret = listener;
	return 0;
}

const char *limits_counter(const char *limit, const char *what, char buffer[LIMITS_NAME_MAX])
{
	snprintf(buffer, LIMITS_NAME_MAX, "limit.%s.%s", limit, what);
	return buffer;
}

const char *limits_listener_counter(
        uint32_t listener, const char *limit, const char *what, char buffer[LIMITS_NAME_MAX])
{
	snprintf(buffer, LIMITS_NAME_MAX, "listener.%u.%s.%s", listener, limit, what);
	return buffer;
}

const char *limits_banned_set(const char *limit, int family, char buffer[LIMITS_NAME_MAX])
{
	snprintf(buffer, LIMITS_NAME_MAX, "limit.%s.banned%d", limit, family);
	return buffer;
}

const char *limits_fresh_set(const char *limit, int family, char buffer[LIMITS_NAME_MAX])
{
	snprintf(buffer, LIMITS_NAME_MAX, "limit.%s.fresh%d", limit, family);
	return buffer;
}

const char *limits_ban_set(int family, unsigned length, char buffer[LIMITS_NAME_MAX])
{
	snprintf(buffer, LIMITS_NAME_MAX, "ban%d_%u", family, length);
	return buffer;
}

/* An element keeps the rate it was made with, so another threshold is another set. */
const char *limits_excess_set(const struct rate_limit *limit, int family, char buffer[LIMITS_NAME_MAX])
{
	snprintf(buffer, LIMITS_NAME_MAX, "limit.%s.excess%u.%d", limit->name, (unsigned)limit->escalate_after, family);
	return buffer;
}

bool limits_owns_counter(const char *name)
{
	return strncmp(name, "limit.", strlen("limit.")) == 0 || strncmp(name, "listener.", strlen("listener.")) == 0;
}

void limits_drop_counters(json_t *counters)
{
	json_t *value;
	const char *name;
	void *next;

	json_object_foreach_safe(counters, next, name, value)
	{
		if (limits_owns_counter(name))
			json_object_del(counters, name);
	}
}

unsigned limits_length(const struct rate_limit *limit, int family)
{
	switch ((enum limit_key)limit->key) {
	case LIMIT_KEY_SOURCE:
		return family == 4 ? 32 : 128;
	case LIMIT_KEY_SOURCE_PREFIX:
		return (unsigned)(family == 4 ? limit->prefix_v4 : limit->prefix_v6);
	case LIMIT_KEY_LISTENER:
	case LIMIT_KEY_FLOW:
	case LIMIT_KEY_WORDS:
		break;
	}
	return 0;
}

struct limits_placement limits_placement(const struct rate_limit *limit, bool used, bool at_prefilters)
{
	static const char *const reasons[] = {
		[METRIC_NEW_CONNECTIONS] = "the first packet of a connection is judged before the relay hears of it",
		[METRIC_CONCURRENT_CONNECTIONS] =
		        "connections are counted by the kernel's connection tracking, which the limit turns on",
		[METRIC_PACKETS] = "every packet from the client is judged before it reaches a socket",
		[METRIC_BYTES] = "every packet from the client is judged before it reaches a socket",
	};

	static_assert(ARRAY_SIZE(reasons) == METRIC_WORDS, "a reason for each metric");
	if (!used)
		return (struct limits_placement){ "none", "no enabled listener names it" };
	if (limits_is_of_flows(limit))
		return (struct limits_placement){ "relay", "the sockets of a relayed flow can be told to send no "
			                                   "faster, so that nothing is dropped and no "
			                                   "byte costs more" };
	if (at_prefilters)
		return (struct limits_placement){ "xdp",
			"what is over is dropped by the prefilters of `interfaces`, before "
			"the stack; nft counts what they let through by the same limit, "
			"with what comes in elsewhere" };
	return (struct limits_placement){ "nft", reasons[limit->metric] };
}
