/* The table of UDP flows; see udp_table.h. */
#include "gatewayd/relay/udp_table.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

static uint32_t key_bucket(const struct udp_table *table, const struct udp_key *key)
{
	return table->mask &
	       udp_hash_pair(&table->hash, &key->client, key->client_port, &key->original, key->original_port);
}

static uint32_t tuple_bucket(const struct udp_table *table, const struct flow_origin *origin)
{
	return table->mask &
	       udp_hash_pair(&table->hash, &origin->client, origin->client_port, &origin->target, origin->target_port);
}

/* --- the table --- */

static void *map(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

int udp_table_init(struct udp_table *table, uint32_t size)
{
	uint32_t buckets = 1;

	while (buckets < size)
		buckets *= 2;
	*table = (struct udp_table){
		.size = size, .mask = buckets - 1, .free_head = FLOW_NONE, .oldest = FLOW_NONE, .newest = FLOW_NONE
	};
	table->flows = map(size * sizeof(*table->flows));
	table->by_key = map(buckets * sizeof(*table->by_key));
	table->by_tuple = map(buckets * sizeof(*table->by_tuple));
	if (!table->flows || !table->by_key || !table->by_tuple) {
		udp_table_destroy(table);
		return -ENOMEM;
	}
	udp_hash_init(&table->hash);
	return 0;
}

void udp_table_destroy(struct udp_table *table)
{
	if (table->flows)
		munmap(table->flows, table->size * sizeof(*table->flows));
	if (table->by_key)
		munmap(table->by_key, (table->mask + (size_t)1) * sizeof(*table->by_key));
	if (table->by_tuple)
		munmap(table->by_tuple, (table->mask + (size_t)1) * sizeof(*table->by_tuple));
	*table = (struct udp_table){ 0 };
}

uint32_t udp_table_index(const struct udp_table *table, const struct udp_flow *flow)
{
	return (uint32_t)(flow - table->flows);
}

static bool has_key(const struct udp_flow *flow, const struct udp_key *key)
{
	const struct flow_origin *origin = &flow->origin;

	return origin->client_port == key->client_port && origin->original_port == key->original_port &&
	       addr_equal(&origin->client, &key->client) && addr_equal(&origin->original, &key->original);
}

struct udp_flow *udp_table_find(const struct udp_table *table, const struct udp_key *key)
{
	uint32_t next = table->by_key[key_bucket(table, key)];

	while (next) {
		struct udp_flow *flow = &table->flows[next - 1];

		if (has_key(flow, key))
			return flow;
		next = flow->next_by_key;
	}
	return NULL;
}

/* --- the order of age --- */

static void age_unlink(struct udp_table *table, struct udp_flow *flow)
{
	if (flow->older == FLOW_NONE)
		table->oldest = flow->newer;
	else
		table->flows[flow->older].newer = flow->newer;
	if (flow->newer == FLOW_NONE)
		table->newest = flow->older;
	else
		table->flows[flow->newer].older = flow->older;
}

static void age_place(struct udp_table *table, struct udp_flow *flow)
{
	uint32_t index = udp_table_index(table, flow);

	flow->older = table->newest;
	flow->newer = FLOW_NONE;
	if (table->newest == FLOW_NONE)
		table->oldest = index;
	else
		table->flows[table->newest].newer = index;
	table->newest = index;
	flow->placed_ms = flow->active_ms;
}

struct udp_flow *udp_table_oldest(struct udp_table *table)
{
	struct udp_flow *best = NULL;

	for (unsigned i = 0; i < UDP_OLDEST_TRIES + UDP_HELD_MAX && table->oldest != FLOW_NONE; i++) {
		struct udp_flow *flow = &table->flows[table->oldest];

		if (!flow->held && flow->active_ms == flow->placed_ms)
			return flow;
		if (!flow->held && (!best || flow->active_ms < best->active_ms))
			best = flow;
		if (i >= UDP_OLDEST_TRIES && best)
			break;
		age_unlink(table, flow);
		age_place(table, flow);
	}
	return best;
}

/* --- adding and removing --- */

static struct udp_flow *take_free(struct udp_table *table)
{
	struct udp_flow *flow;

	if (table->free_head != FLOW_NONE) {
		flow = &table->flows[table->free_head];
		table->free_head = flow->next_by_key;
		return flow;
	}
	return table->touched < table->size ? &table->flows[table->touched++] : NULL;
}

struct udp_flow *udp_table_add(struct udp_table *table, const struct flow_origin *origin, uint64_t now_ms)
{
	struct udp_key key = { origin->client, origin->original, origin->client_port, origin->original_port };
	uint32_t *bucket = &table->by_key[key_bucket(table, &key)];
	struct udp_flow *flow = take_free(table);

	if (!flow)
		return NULL;
	*flow = (struct udp_flow){ .generation = flow->generation,
		.used = true,
		.fd = -1,
		.reply = FLOW_NONE,
		.next_by_key = *bucket,
		.gso_to_target = UINT16_MAX,
		.gso_to_client = UINT16_MAX,
		.active_ms = now_ms,
		.origin = *origin };
	*bucket = udp_table_index(table, flow) + 1;
	age_place(table, flow);
	table->open++;
	return flow;
}

bool udp_table_tuple_is_taken(const struct udp_table *table, const struct flow_origin *origin)
{
	uint32_t next = table->by_tuple[tuple_bucket(table, origin)];

	while (next) {
		const struct udp_flow *flow = &table->flows[next - 1];
		const struct flow_origin *other = &flow->origin;

		if (other->client_port == origin->client_port && other->target_port == origin->target_port &&
		        addr_equal(&other->client, &origin->client) && addr_equal(&other->target, &origin->target))
			return true;
		next = flow->next_by_tuple;
	}
	return false;
}

void udp_table_keep_port(struct udp_table *table, struct udp_flow *flow)
{
	uint32_t *bucket = &table->by_tuple[tuple_bucket(table, &flow->origin)];

	flow->keeps_port = true;
	flow->next_by_tuple = *bucket;
	*bucket = udp_table_index(table, flow) + 1;
}

void udp_table_remove(struct udp_table *table, struct udp_flow *flow)
{
	struct udp_key key = { flow->origin.client, flow->origin.original, flow->origin.client_port,
		flow->origin.original_port };
	uint32_t index = udp_table_index(table, flow), *link = &table->by_key[key_bucket(table, &key)];

	while (*link != index + 1)
		link = &table->flows[*link - 1].next_by_key;
	*link = flow->next_by_key;
	if (flow->keeps_port) {
		link = &table->by_tuple[tuple_bucket(table, &flow->origin)];
		while (*link != index + 1)
			link = &table->flows[*link - 1].next_by_tuple;
		*link = flow->next_by_tuple;
	}
	age_unlink(table, flow);
	flow->used = false;
	flow->generation++;
	flow->next_by_key = table->free_head;
	table->free_head = index;
	table->open--;
}

struct udp_flow *udp_table_at(struct udp_table *table, uint32_t index, uint64_t id)
{
	struct udp_flow *flow = index < table->touched ? &table->flows[index] : NULL;

	return flow && flow->used && flow->origin.id == id ? flow : NULL;
}

/* --- cookies --- */

uint64_t udp_table_cookie(const struct udp_table *table, const struct udp_flow *flow)
{
	return flow_cookie_make(flow->generation, udp_table_index(table, flow), FLOW_COOKIE_UDP);
}

bool udp_table_from_cookie(const struct udp_table *table, uint64_t cookie, struct udp_flow **ret)
{
	uint32_t generation, index;
	struct udp_flow *flow;

	if (!flow_cookie_split(cookie, FLOW_COOKIE_UDP, &generation, &index))
		return false;
	flow = &table->flows[index];
	*ret = flow->used && flow->generation == generation ? flow : NULL;
	return true;
}

struct udp_flow *udp_table_from_timer(const struct udp_table *table, struct wheel_entry *timer)
{
	uintptr_t first = (uintptr_t)table->flows, at = (uintptr_t)timer;

	if (at < first || at >= first + table->size * sizeof(*table->flows))
		return NULL;
	return (struct udp_flow *)((char *)timer - offsetof(struct udp_flow, timer));
}
