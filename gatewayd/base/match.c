/*
 * Tuple-space classification; see match.h.
 *
 * Theory of operation: one `space` per shape in use, in order of precedence.
 * A space is an open hash table of cells; a cell is what the shape leaves of
 * an address pair, interface and (exact) port. Exact and any-port cells hold
 * one value; a range cell holds a sorted array of disjoint port ranges.
 */
#include "gatewayd/base/match.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/cleanup.h"

/* A space's first number of buckets; doubled when there are as many cells. Both are powers of two. */
#define BUCKETS_MIN 16U

/* Free of padding, so that it can be hashed and compared as words. */
struct cell_key {
	uint8_t dst[16], src[16];
	char interface[IFNAMSIZ];
	uint64_t port; /* exact shapes only */
};
#define CELL_WORDS (sizeof(struct cell_key) / sizeof(uint64_t))
static_assert(sizeof(struct cell_key) == 16 + 16 + IFNAMSIZ + 8, "no padding");

struct range {
	uint16_t lo, hi;
	uint32_t value;
};

struct cell {
	struct cell *next;
	struct cell_key key;
	struct range *ranges; /* sorted; a cell without ranges does not live */
	uint32_t n_ranges;
	struct range single; /* where ranges points to while there is only one */
};

struct space {
	struct match_shape shape;
	struct cell_key mask;
	struct cell **buckets;
	uint32_t n_buckets, n_cells;
};

struct match_table {
	struct space *spaces;
	size_t n_spaces;
	uint32_t count, with_interface;
};

int match_shape_compare(const struct match_shape *a, const struct match_shape *b)
{
	if (a->protocol != b->protocol)
		return a->protocol < b->protocol ? -1 : 1;
	if (a->family != b->family)
		return a->family < b->family ? -1 : 1;
	if (a->dst_len != b->dst_len)
		return a->dst_len > b->dst_len ? -1 : 1;
	if (a->src_len != b->src_len)
		return a->src_len > b->src_len ? -1 : 1;
	if (a->interface != b->interface)
		return a->interface > b->interface ? -1 : 1;
	if (a->port_kind != b->port_kind)
		return a->port_kind < b->port_kind ? -1 : 1;
	return 0;
}

int match_key_compare(const struct match_key *a, const struct match_key *b)
{
	int order = match_shape_compare(&a->shape, &b->shape);

	if (order == 0)
		order = addr_compare(&a->dst, &b->dst);
	if (order == 0)
		order = addr_compare(&a->src, &b->src);
	if (order == 0)
		order = memcmp(a->interface, b->interface, sizeof(a->interface));
	if (order == 0 && a->port_lo != b->port_lo)
		order = a->port_lo < b->port_lo ? -1 : 1;
	if (order == 0 && a->port_hi != b->port_hi)
		order = a->port_hi < b->port_hi ? -1 : 1;
	return order;
}

/* Whether the address is of the family and has no bits behind length, nor bytes behind its family's size. */
static bool addr_is_masked(const struct addr *addr, uint8_t family, unsigned length)
{
	struct addr masked = *addr;

	addr_mask(&masked, length);
	if (family == AF_INET)
		memset(masked.bytes + 4, 0, sizeof(masked.bytes) - 4);
	return addr->family == family && memcmp(masked.bytes, addr->bytes, sizeof(masked.bytes)) == 0;
}

static bool interface_is_good(const struct match_key *key)
{
	size_t length = strnlen(key->interface, sizeof(key->interface));

	if (key->shape.interface > 1 || length == sizeof(key->interface))
		return false;
	for (size_t i = length; i < sizeof(key->interface); i++)
		if (key->interface[i] != '\0')
			return false;
	return (length > 0) == (key->shape.interface == 1);
}

static bool ports_are_good(const struct match_key *key)
{
	switch (key->shape.port_kind) {
	case MATCH_PORT_EXACT:
		return key->port_lo == key->port_hi;
	case MATCH_PORT_RANGE:
		return key->port_lo <= key->port_hi;
	case MATCH_PORT_ANY:
		return key->port_lo == 0 && key->port_hi == UINT16_MAX;
	default:
		return false;
	}
}

int match_key_check(const struct match_key *key)
{
	const struct match_shape *shape = &key->shape;
	bool good = (shape->protocol == IPPROTO_TCP || shape->protocol == IPPROTO_UDP) &&
	            (shape->family == AF_INET || shape->family == AF_INET6) &&
	            shape->dst_len <= addr_bits(shape->family) && shape->src_len <= addr_bits(shape->family) &&
	            addr_is_masked(&key->dst, shape->family, shape->dst_len) &&
	            addr_is_masked(&key->src, shape->family, shape->src_len) && interface_is_good(key) &&
	            ports_are_good(key);

	return good ? 0 : -EBADMSG;
}

int match_table_new(struct match_table **ret)
{
	struct match_table *table = calloc(1, sizeof(*table));

	if (!table)
		return -ENOMEM;
	*ret = table;
	return 0;
}

static void cell_free(struct cell *cell)
{
	if (cell->ranges != &cell->single)
		free(cell->ranges);
	free(cell);
}

void match_table_free(struct match_table *table)
{
	if (!table)
		return;
	for (size_t i = 0; i < table->n_spaces; i++) {
		struct space *space = &table->spaces[i];

		for (uint32_t b = 0; b < space->n_buckets; b++)
			for (struct cell *cell = space->buckets[b], *next; cell; cell = next) {
				next = cell->next;
				cell_free(cell);
			}
		free(space->buckets);
	}
	free(table->spaces);
	free(table);
}

/* Entries come from the administrator, not from packets: speed matters here, resistance to collisions does not. */
static uint32_t cell_hash(const struct cell_key *key)
{
	uint64_t words[CELL_WORDS], hash = 0x9e3779b97f4a7c15;

	memcpy(words, key, sizeof(words));
	for (size_t i = 0; i < CELL_WORDS; i++) {
		hash = (hash ^ words[i]) * 0xd6e8feb86659fd93;
		hash ^= hash >> 32;
	}
	return (uint32_t)hash;
}

static struct cell **bucket_of(const struct space *space, const struct cell_key *key)
{
	return &space->buckets[cell_hash(key) & (space->n_buckets - 1)];
}

static struct cell *cell_find(const struct space *space, const struct cell_key *key)
{
	struct cell *cell = *bucket_of(space, key);

	while (cell && memcmp(&cell->key, key, sizeof(*key)) != 0)
		cell = cell->next;
	return cell;
}

static void cell_key_from(const struct match_key *key, struct cell_key *ret)
{
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->dst, key->dst.bytes, sizeof(ret->dst));
	memcpy(ret->src, key->src.bytes, sizeof(ret->src));
	memcpy(ret->interface, key->interface, sizeof(ret->interface));
	if (key->shape.port_kind == MATCH_PORT_EXACT)
		ret->port = key->port_lo;
}

/* Index of the first space that does not come before the shape. */
static size_t space_position(const struct match_table *table, const struct match_shape *shape)
{
	size_t i = 0;

	while (i < table->n_spaces && match_shape_compare(&table->spaces[i].shape, shape) < 0)
		i++;
	return i;
}

static struct space *space_find(const struct match_table *table, const struct match_shape *shape)
{
	size_t i = space_position(table, shape);

	if (i < table->n_spaces && match_shape_compare(&table->spaces[i].shape, shape) == 0)
		return &table->spaces[i];
	return NULL;
}

static void mask_fill(uint8_t mask[16], uint8_t family, unsigned length)
{
	struct addr addr = { .family = family };

	memset(addr.bytes, 0xff, addr_bits(family) / 8);
	addr_mask(&addr, length);
	memcpy(mask, addr.bytes, sizeof(addr.bytes));
}

static int space_add(struct match_table *table, const struct match_shape *shape, struct space **ret)
{
	size_t at = space_position(table, shape);
	struct space *grown, space = { .shape = *shape, .n_buckets = BUCKETS_MIN };

	mask_fill(space.mask.dst, shape->family, shape->dst_len);
	mask_fill(space.mask.src, shape->family, shape->src_len);
	space.buckets = calloc(space.n_buckets, sizeof(*space.buckets));
	if (!space.buckets)
		return -ENOMEM;
	grown = realloc(table->spaces, (table->n_spaces + 1) * sizeof(*grown));
	if (!grown) {
		free(space.buckets);
		return -ENOMEM;
	}
	memmove(grown + at + 1, grown + at, (table->n_spaces - at) * sizeof(*grown));
	grown[at] = space;
	table->spaces = grown;
	table->n_spaces++;
	*ret = &grown[at];
	return 0;
}

static void space_remove(struct match_table *table, struct space *space)
{
	size_t at = (size_t)(space - table->spaces);

	free(space->buckets);
	table->n_spaces--;
	memmove(space, space + 1, (table->n_spaces - at) * sizeof(*space));
}

/* Doubles the buckets; without memory the space stays as it is, only slower. */
static void space_grow(struct space *space)
{
	uint32_t n_old = space->n_buckets;
	struct cell **old = space->buckets, **grown = calloc((size_t)n_old * 2, sizeof(*grown));

	if (!grown)
		return;
	space->buckets = grown;
	space->n_buckets = n_old * 2;
	for (uint32_t b = 0; b < n_old; b++)
		for (struct cell *cell = old[b], *next; cell; cell = next) {
			struct cell **bucket = bucket_of(space, &cell->key);

			next = cell->next;
			cell->next = *bucket;
			*bucket = cell;
		}
	free(old);
}

static int cell_add(struct space *space, const struct cell_key *key, const struct range *range)
{
	struct cell *cell = calloc(1, sizeof(*cell));
	struct cell **bucket;

	if (!cell)
		return -ENOMEM;
	if (space->n_cells >= space->n_buckets)
		space_grow(space);
	cell->key = *key;
	cell->single = *range;
	cell->ranges = &cell->single;
	cell->n_ranges = 1;
	bucket = bucket_of(space, key);
	cell->next = *bucket;
	*bucket = cell;
	space->n_cells++;
	return 0;
}

static void cell_remove(struct space *space, struct cell *cell)
{
	struct cell **link = bucket_of(space, &cell->key);

	while (*link != cell)
		link = &(*link)->next;
	*link = cell->next;
	space->n_cells--;
	cell_free(cell);
}

/* Index of the first range that ends at or behind the port. */
static uint32_t range_position(const struct cell *cell, uint16_t port)
{
	uint32_t low = 0, high = cell->n_ranges;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (cell->ranges[middle].hi < port)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Adds a range to a living cell. 1: added, 0: an equal one got the value, -EEXIST, -ENOMEM. */
static int range_put(struct cell *cell, const struct range *range)
{
	uint32_t at = range_position(cell, range->lo);
	struct range *old = cell->ranges == &cell->single ? NULL : cell->ranges, *grown;

	if (at < cell->n_ranges && cell->ranges[at].lo <= range->hi) {
		if (cell->ranges[at].lo != range->lo || cell->ranges[at].hi != range->hi)
			return -EEXIST;
		cell->ranges[at].value = range->value;
		return 0;
	}
	grown = realloc(old, (cell->n_ranges + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	if (!old)
		grown[0] = cell->single;
	memmove(grown + at + 1, grown + at, (cell->n_ranges - at) * sizeof(*grown));
	grown[at] = *range;
	cell->ranges = grown;
	cell->n_ranges++;
	return 1;
}

static int entry_put(struct space *space, const struct cell_key *key, const struct range *range)
{
	struct cell *cell = cell_find(space, key);
	int r;

	if (cell)
		return range_put(cell, range);
	r = cell_add(space, key, range);
	return r < 0 ? r : 1;
}

int match_table_put(struct match_table *table, const struct match_key *key, uint32_t value)
{
	struct range range = { key->port_lo, key->port_hi, value };
	struct cell_key cell_key;
	struct space *space;
	int r;

	if (match_key_check(key) < 0)
		return -EINVAL;
	cell_key_from(key, &cell_key);
	space = space_find(table, &key->shape);
	r = space ? 0 : space_add(table, &key->shape, &space);
	if (r < 0)
		return r;
	r = entry_put(space, &cell_key, &range);
	if (space->n_cells == 0)
		space_remove(table, space);
	if (r <= 0)
		return r;
	table->count++;
	table->with_interface += key->shape.interface;
	return 0;
}

int match_table_remove(struct match_table *table, const struct match_key *key)
{
	struct space *space = space_find(table, &key->shape);
	struct cell_key cell_key;
	struct cell *cell;
	uint32_t at;

	cell_key_from(key, &cell_key);
	cell = space ? cell_find(space, &cell_key) : NULL;
	if (!cell)
		return -ENOENT;
	at = range_position(cell, key->port_lo);
	if (at == cell->n_ranges || cell->ranges[at].lo != key->port_lo || cell->ranges[at].hi != key->port_hi)
		return -ENOENT;
	cell->n_ranges--;
	memmove(cell->ranges + at, cell->ranges + at + 1, (cell->n_ranges - at) * sizeof(*cell->ranges));
	if (cell->n_ranges == 0)
		cell_remove(space, cell);
	if (space->n_cells == 0)
		space_remove(table, space);
	table->count--;
	table->with_interface -= key->shape.interface;
	return 0;
}

static void packet_cell(
        const struct space *space, const struct match_packet *packet, const char *interface, struct cell_key *ret)
{
	uint64_t addresses[4], masks[4];

	memcpy(addresses, packet->dst.bytes, 16);
	memcpy(addresses + 2, packet->src.bytes, 16);
	memcpy(masks, &space->mask, sizeof(masks));
	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++)
		addresses[i] &= masks[i];
	memcpy(ret, addresses, sizeof(addresses));
	if (space->shape.interface)
		memcpy(ret->interface, interface, sizeof(ret->interface));
	else
		memset(ret->interface, 0, sizeof(ret->interface));
	ret->port = space->shape.port_kind == MATCH_PORT_EXACT ? packet->dst_port : 0;
}

int match_table_find(const struct match_table *table, const struct match_packet *packet, uint32_t *ret_value)
{
	char interface[IFNAMSIZ] = { 0 };

	if (packet->interface)
		memcpy(interface, packet->interface, strnlen(packet->interface, sizeof(interface) - 1));
	for (size_t i = 0; i < table->n_spaces; i++) {
		const struct space *space = &table->spaces[i];
		struct cell_key cell_key;
		const struct cell *cell;
		uint32_t at;

		if (space->shape.protocol != packet->protocol || space->shape.family != packet->dst.family)
			continue;
		packet_cell(space, packet, interface, &cell_key);
		cell = cell_find(space, &cell_key);
		if (!cell)
			continue;
		at = range_position(cell, packet->dst_port);
		if (at < cell->n_ranges && cell->ranges[at].lo <= packet->dst_port) {
			*ret_value = cell->ranges[at].value;
			return 1;
		}
	}
	return 0;
}

bool match_table_uses_interface(const struct match_table *table)
{
	return table->with_interface > 0;
}

uint32_t match_table_count(const struct match_table *table)
{
	return table->count;
}
