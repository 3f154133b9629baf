/* Entries for SYN cookies and limits, made of the compiled listeners; see relayed.h. */
#include "rules/relayed.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/array.h"
#include "rules/plan.h"

/* What is being made. */
struct making {
	const char *interface;
	struct prefilter_params *params;
	struct relayed *relayed;
	size_t size;
	uint8_t protocol;
	uint32_t *excepted; /* of TCP: ids of listeners, sorted */
	size_t n_excepted;
	const struct relayed_owner *owners; /* of UDP */
	size_t n_owners;
	struct match_shape last; /* of the element before; family 0: there was none */
};

static int compare_ids(const void *a, const void *b)
{
	const uint32_t *one = a, *other = b;

	return (*one > *other) - (*one < *other);
}

/* Whether one of the listener's limits counts connections: it counts SYNs, which it would not see. */
static bool counts_connections(const struct snapshot *snapshot, const struct listener *listener)
{
	for (size_t i = 0; i < listener->rate_limits.n; i++) {
		const struct rate_limit *limit = (const struct rate_limit *)snapshot_find(
		        snapshot, RESOURCE_RATE_LIMIT, listener->rate_limits.items[i]);

		if (limit &&
		        (limit->metric == METRIC_NEW_CONNECTIONS || limit->metric == METRIC_CONCURRENT_CONNECTIONS))
			return true;
	}
	return false;
}

bool relayed_comes_in_at(const struct listener *listener, const char *interface)
{
	for (size_t i = 0; i < listener->interfaces.n; i++)
		if (strcmp(listener->interfaces.items[i], interface) == 0)
			return true;
	return listener->interfaces.n == 0;
}

static int find_excepted(const struct snapshot *snapshot, struct making *making)
{
	const struct rows *rows = &snapshot->rows[RESOURCE_LISTENER];

	making->excepted = calloc(rows->n + 1, sizeof(*making->excepted));
	if (!making->excepted)
		return -ENOMEM;
	for (size_t i = 0; i < rows->n; i++) {
		const struct listener *listener = (const struct listener *)rows->items[i];
		bool relays = listener->enabled && listener->protocol == PROTOCOL_TCP &&
		              listener->action == ACTION_RELAY && relayed_comes_in_at(listener, making->interface);

		if (!relays)
			continue;
		making->relayed->listeners++;
		if (listener_verdict(listener) == VERDICT_RELAY && !counts_connections(snapshot, listener))
			continue;
		making->relayed->excepted++;
		making->excepted[making->n_excepted++] = (uint32_t)listener->row.id;
	}
	qsort(making->excepted, making->n_excepted, sizeof(*making->excepted), compare_ids);
	return 0;
}

/* The number of the element's way: elements come in order of precedence. */
static int way_of(struct making *making, const struct match_shape *shape, uint8_t *ret)
{
	struct prefilter_params *params = making->params;
	bool is_v4 = shape->family == AF_INET, is_udp = shape->protocol == IPPROTO_UDP;
	struct prefilter_way *ways = is_udp  ? is_v4 ? params->udp_v4 : params->udp_v6
	                             : is_v4 ? params->ways_v4
	                                     : params->ways_v6;
	__u8 *n = is_udp  ? is_v4 ? &params->n_udp_v4 : &params->n_udp_v6
	          : is_v4 ? &params->n_ways_v4
	                  : &params->n_ways_v6;
	__u8 *by_source = is_v4 ? &params->by_source_v4 : &params->by_source_v6;
	struct match_shape here = *shape;

	here.port_kind = 0;
	if (match_shape_compare(&here, &making->last) != 0) {
		if (*n == PREFILTER_WAYS_MAX)
			return -E2BIG;
		ways[(*n)++] = (struct prefilter_way){ shape->dst_len, shape->src_len };
		*by_source |= !is_udp && shape->src_len > 0;
		making->last = here;
	}
	*ret = (uint8_t)(*n - 1 + (is_udp ? PREFILTER_WAYS_MAX : 0));
	return 0;
}

static int append(struct making *making, const struct relayed_entry *entry)
{
	struct relayed *relayed = making->relayed;

	if (relayed->n == PREFILTER_RELAYED_MAX)
		return -E2BIG;
	if (array_reserve(&relayed->items, &making->size, relayed->n + 1, sizeof(*entry)) < 0)
		return -ENOMEM;
	relayed->items[relayed->n++] = *entry;
	return 0;
}

static int compare_owner(const void *a, const void *b)
{
	return compare_ids(a, &((const struct relayed_owner *)b)->listener);
}

static uint32_t value_of(const struct making *making, const struct element *element)
{
	const struct relayed_owner *owner;

	if (making->protocol == IPPROTO_TCP)
		return element->verdict == VERDICT_RELAY &&
		       !bsearch(&element->listener, making->excepted, making->n_excepted, sizeof(*making->excepted),
		               compare_ids);
	owner = bsearch(&element->listener, making->owners, making->n_owners, sizeof(*making->owners), compare_owner);
	return owner ? owner->value : 0;
}

/* Ports that share so many of their first bits. */
static int append_ports(struct making *making, const struct element *element, uint8_t way, uint16_t port, unsigned bits)
{
	const struct match_key *key = &element->key;
	const uint8_t bytes[2] = { (uint8_t)(port >> 8), (uint8_t)port };
	struct relayed_entry entry;

	memset(&entry, 0, sizeof(entry));
	entry.family = key->shape.family;
	entry.kind = key->shape.port_kind;
	entry.value = value_of(making, element);
	if (entry.family == AF_INET) {
		entry.v4 =
		        (struct prefilter_relayed_v4){ .length = PREFILTER_RELAYED_BITS(v4) - 16 + bits, .way = way };
		memcpy(entry.v4.dst, key->dst.bytes, sizeof(entry.v4.dst));
		memcpy(entry.v4.src, key->src.bytes, sizeof(entry.v4.src));
		memcpy(entry.v4.port, bytes, sizeof(bytes));
	} else {
		entry.v6 =
		        (struct prefilter_relayed_v6){ .length = PREFILTER_RELAYED_BITS(v6) - 16 + bits, .way = way };
		memcpy(entry.v6.dst, key->dst.bytes, sizeof(entry.v6.dst));
		memcpy(entry.v6.src, key->src.bytes, sizeof(entry.v6.src));
		memcpy(entry.v6.port, bytes, sizeof(bytes));
	}
	return append(making, &entry);
}

/* Cuts the element's ports into prefixes. */
static int append_element(struct making *making, const struct element *element)
{
	uint32_t port = element->key.port_lo, last = element->key.port_hi;
	uint8_t way;
	int r = way_of(making, &element->key.shape, &way);

	if (element->key.shape.port_kind == MATCH_PORT_ANY)
		return r < 0 ? r : append_ports(making, element, way, 0, 0);
	while (r == 0 && port <= last) {
		unsigned bits = port_block_bits(port, last);

		r = append_ports(making, element, way, (uint16_t)port, 16 - bits);
		port += 1U << bits;
	}
	return r;
}

static int append_elements(struct making *making, const struct elements *elements)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < elements->n; i++) {
		const struct match_key *key = &elements->items[i].key;

		if (key->shape.protocol != making->protocol)
			continue;
		if (key->shape.interface && making->protocol == IPPROTO_TCP)
			making->params->untagged_only = 1;
		if (!key->shape.interface || strncmp(key->interface, making->interface, IFNAMSIZ) == 0)
			r = append_element(making, &elements->items[i]);
	}
	return r;
}

static int compare_keys(const struct relayed_entry *one, const struct relayed_entry *other)
{
	if (one->family != other->family)
		return one->family < other->family ? -1 : 1;
	return one->family == AF_INET ? memcmp(&one->v4, &other->v4, sizeof(one->v4))
	                              : memcmp(&one->v6, &other->v6, sizeof(one->v6));
}

static int compare_entries(const void *a, const void *b)
{
	const struct relayed_entry *one = a, *other = b;
	int order = compare_keys(one, other);

	return order ? order : (one->kind > other->kind) - (one->kind < other->kind);
}

/* A single port may be an element, and a prefix of a range as well: the element comes first, as everywhere. */
static void sort_entries(struct relayed *relayed)
{
	size_t n = 0;

	if (relayed->n > 0)
		qsort(relayed->items, relayed->n, sizeof(*relayed->items), compare_entries);
	for (size_t i = 0; i < relayed->n; i++)
		if (n == 0 || compare_keys(&relayed->items[n - 1], &relayed->items[i]) != 0)
			relayed->items[n++] = relayed->items[i];
	relayed->n = n;
}

/* The listeners of the snapshot, compiled as the plan does it. */
static int compile(struct making *making, struct snapshot *snapshot)
{
	_cleanup_errs_ struct errs errs = { 0 };
	_cleanup_(snapshot_unref_p) struct snapshot *empty = snapshot_new();
	struct model *model = NULL;
	struct plan *plan;
	int r = empty ? model_new(&model) : -ENOMEM;

	if (r == 0)
		r = plan_new(model, empty, snapshot, &errs, &plan);
	if (r == 0) {
		r = append_elements(making, &plan->added);
		plan_abort(model, plan);
	}
	model_free(model);
	return r == -EEXIST ? -EINVAL : r;
}

int relayed_of(
        const struct snapshot *snapshot, const char *interface, struct prefilter_params *params, struct relayed *ret)
{
	struct making making = { .interface = interface, .params = params, .relayed = ret, .protocol = IPPROTO_TCP };
	int r = find_excepted(snapshot, &making);

	/* A plan takes references and gives them back. */
	if (r == 0)
		r = compile(&making, (struct snapshot *)snapshot);
	free(making.excepted);
	if (r < 0) {
		relayed_clear(ret);
		return r;
	}
	sort_entries(ret);
	return 0;
}

int relayed_add_limited(const struct snapshot *snapshot, const char *interface, const struct relayed_owner *owners,
        size_t n_owners, struct prefilter_params *params, struct relayed *relayed)
{
	struct making making = { .interface = interface,
		.params = params,
		.relayed = relayed,
		.size = relayed->n,
		.protocol = IPPROTO_UDP,
		.owners = owners,
		.n_owners = n_owners };
	size_t before = relayed->n;
	int r = compile(&making, (struct snapshot *)snapshot);

	if (r < 0)
		relayed->n = before;
	else
		sort_entries(relayed);
	return r;
}

void relayed_clear(struct relayed *relayed)
{
	free(relayed->items);
	*relayed = (struct relayed){ 0 };
}

int relayed_differences(const struct relayed *from, const struct relayed *to,
        int (*visit)(void *userdata, const struct relayed_entry *entry, bool added), void *userdata)
{
	size_t i = 0, k = 0;
	int r = 0;

	while (r == 0 && (i < from->n || k < to->n)) {
		int order = i == from->n ? 1 : k == to->n ? -1 : compare_keys(&from->items[i], &to->items[k]);

		if (order < 0)
			r = visit(userdata, &from->items[i], false);
		else if (order > 0 || from->items[i].value != to->items[k].value)
			r = visit(userdata, &to->items[k], true);
		i += order <= 0;
		k += order >= 0;
	}
	return r;
}
