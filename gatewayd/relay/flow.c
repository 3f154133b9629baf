/* The table of flows; see flow.h. */
#include "gatewayd/relay/flow.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "gatewayd/base/proto.h"

/* A cookie: generation in the upper half; index and, in the two lowest bits, the kind in the lower. */
#define COOKIE_KIND_BITS 2
#define COOKIE_OTHER     3U
static_assert((uint64_t)FLOW_TABLE_MAX << COOKIE_KIND_BITS <= (uint64_t)UINT32_MAX + 1, "index and kind fit");
static_assert((int)FLOW_STATES <= 1 << 2 && (int)PROTO_MOVERS <= 1 << 3, "flow.state and flow.mode are wide enough");
static_assert((int)FLOW_SIDES <= (int)FLOW_COOKIE_UDP && FLOW_COOKIE_UDP < COOKIE_OTHER, "kinds are distinct");

static int parts_init_all(struct flow_table *table)
{
	int r = parts_init(&table->shapes, table->size, sizeof(struct flow_shape));

	if (r == 0)
		r = parts_init(&table->maps, table->size, sizeof(struct flow_map));
	if (r == 0)
		r = parts_init(&table->stitches, table->size, sizeof(struct flow_stitch));
	if (r == 0)
		r = parts_init(&table->makings, table->size, sizeof(struct flow_making));
	if (r == 0)
		r = addr_pool_init(&table->addrs, table->size);
	if (r == 0)
		r = shared_init(&table->ways, table->size, sizeof(struct flow_way));
	if (r == 0)
		r = shared_init(&table->ledgers, table->size, sizeof(struct flow_ledger));
	return r;
}

int flow_table_init(struct flow_table *table, uint32_t size)
{
	void *memory = mmap(NULL, (size_t)size * sizeof(struct flow), PROT_READ | PROT_WRITE,
	        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int r;

	if (memory == MAP_FAILED)
		return -ENOMEM;
	*table = (struct flow_table){ .flows = memory, .size = size, .free_head = FLOW_NONE };
	r = parts_init_all(table);
	if (r < 0)
		flow_table_destroy(table);
	return r;
}

void flow_table_destroy(struct flow_table *table)
{
	if (table->flows)
		munmap(table->flows, (size_t)table->size * sizeof(struct flow));
	parts_destroy(&table->shapes);
	parts_destroy(&table->maps);
	parts_destroy(&table->stitches);
	parts_destroy(&table->makings);
	addr_pool_destroy(&table->addrs);
	shared_destroy(&table->ways);
	shared_destroy(&table->ledgers);
	*table = (struct flow_table){ 0 };
}

uint32_t flow_index(const struct flow_table *table, const struct flow *flow)
{
	return (uint32_t)(flow - table->flows);
}

struct flow *flow_alloc(struct flow_table *table)
{
	struct flow *flow;
	uint32_t generation;

	if (table->free_head != FLOW_NONE) {
		flow = &table->flows[table->free_head];
		table->free_head = flow->next;
	} else if (table->touched < table->size) {
		flow = &table->flows[table->touched++];
	} else {
		return NULL;
	}
	generation = flow->generation;
	*flow = (struct flow){ .generation = generation, .state = FLOW_CONNECTING, .next = FLOW_NONE };
	flow->end[FLOW_CLIENT].fd = -1;
	flow->end[FLOW_TARGET].fd = -1;
	table->open++;
	return flow;
}

void flow_made(struct flow_table *table, struct flow *flow)
{
	parts_give(&table->makings, flow->making);
	flow->making = 0;
}

void flow_free(struct flow_table *table, struct flow *flow)
{
	flow_made(table, flow);
	parts_give(&table->shapes, flow->shape);
	parts_give(&table->maps, flow->map);
	parts_give(&table->stitches, flow->stitch);
	addr_trio_drop(&flow->addrs, &table->addrs);
	shared_leave(&table->ways, flow->way);
	shared_leave(&table->ledgers, flow->kept.ledger);
	flow->way = flow->kept.ledger = 0;
	flow->shape = flow->map = flow->stitch = 0;
	flow->state = FLOW_FREE;
	flow->generation++;
	flow->next = table->free_head;
	table->free_head = flow_index(table, flow);
	table->open--;
}

const struct flow_way *flow_way(const struct flow_table *table, const struct flow *flow)
{
	static const struct flow_way none;

	return flow->way ? (const struct flow_way *)shared_at(&table->ways, flow->way) : &none;
}

/* There is always room: each flow has at most one, and none while it is exchanged. */
void flow_set_way(struct flow_table *table, struct flow *flow, const struct flow_way *way)
{
	const struct flow_way kept = *way; /* it may be the flow's own */

	shared_leave(&table->ways, flow->way);
	flow->way = shared_use(&table->ways, &kept);
}

struct flow_ledger flow_ledger(const struct flow_table *table, const struct flow *flow)
{
	struct flow_ledger ledger = { 0 };

	if (flow->kept.ledger) /* aligned to no more than four bytes */
		memcpy(&ledger, shared_at(&table->ledgers, flow->kept.ledger), sizeof(ledger));
	return ledger;
}

void flow_set_ledger(struct flow_table *table, struct flow *flow, const struct flow_ledger *ledger)
{
	shared_leave(&table->ledgers, flow->kept.ledger);
	flow->kept.ledger = shared_use(&table->ledgers, ledger);
}

void flow_put_origin(struct flow_table *table, struct flow *flow, const struct flow_origin *origin)
{
	struct flow_way way = *flow_way(table, flow);

	way.objects = origin->objects;
	way.ifindex = origin->ifindex;
	flow_set_way(table, flow, &way);
	flow->id = origin->id;
	flow->route = origin->route;
	flow->client_port = origin->client_port;
	flow->original_port = origin->original_port;
	flow->target_port = origin->target_port;
	/* There is always room. */
	(void)addr_trio_put(&flow->addrs, &table->addrs, &origin->client, &origin->original, &origin->target);
}

struct flow_origin flow_get_origin(const struct flow_table *table, const struct flow *flow)
{
	const struct flow_way *way = flow_way(table, flow);
	struct flow_origin origin = { .id = flow->id,
		.started_ms = flow->account.started_us / 1000 - flow->lag_ms,
		.objects = way->objects,
		.ifindex = way->ifindex,
		.route = flow->route,
		.client_port = flow->client_port,
		.original_port = flow->original_port,
		.target_port = flow->target_port };

	addr_trio_get(&flow->addrs, &table->addrs, &origin.client, &origin.original, &origin.target);
	return origin;
}

uint64_t flow_cookie_make(uint32_t generation, uint32_t index, uint32_t kind)
{
	return (uint64_t)generation << 32 | index << COOKIE_KIND_BITS | kind;
}

bool flow_cookie_split(uint64_t cookie, uint32_t kind, uint32_t *ret_generation, uint32_t *ret_index)
{
	if ((cookie & COOKIE_OTHER) != kind)
		return false;
	*ret_generation = (uint32_t)(cookie >> 32);
	*ret_index = (uint32_t)cookie >> COOKIE_KIND_BITS;
	return true;
}

uint64_t flow_cookie(const struct flow_table *table, const struct flow *flow, enum flow_side side)
{
	return flow_cookie_make(flow->generation, flow_index(table, flow), (uint32_t)side);
}

uint64_t flow_cookie_other(uint32_t number)
{
	return (uint64_t)number << COOKIE_KIND_BITS | COOKIE_OTHER;
}

bool flow_cookie_is_other(uint64_t cookie, uint32_t *ret_number)
{
	if ((cookie & COOKIE_OTHER) != COOKIE_OTHER)
		return false;
	*ret_number = (uint32_t)(cookie >> COOKIE_KIND_BITS);
	return true;
}

struct flow *flow_from_cookie(const struct flow_table *table, uint64_t cookie, enum flow_side *ret_side)
{
	struct flow *flow = &table->flows[(uint32_t)cookie >> COOKIE_KIND_BITS];

	if (flow->generation != (uint32_t)(cookie >> 32) || flow->state == FLOW_FREE)
		return NULL;
	*ret_side = (enum flow_side)(cookie & COOKIE_OTHER);
	return flow;
}
