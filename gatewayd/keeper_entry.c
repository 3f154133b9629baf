/* A flow in little room; see keeper_entry.h. */
#include "gatewayd/keeper_entry.h"

#include <string.h>

#include "gatewayd/base/addr.h"

static struct addr addr_of(uint8_t family, const uint8_t bytes[16])
{
	struct addr ret = { .family = family };

	memcpy(ret.bytes, bytes, addr_bits(family) / 8);
	return ret;
}

static void addr_put(const struct addr *addr, uint8_t *ret_family, uint8_t ret_bytes[16])
{
	*ret_family = addr->family;
	memcpy(ret_bytes, addr->bytes, sizeof(addr->bytes));
}

int keeper_pools_init(struct keeper_pools *pools, uint32_t entries)
{
	int r;

	*pools = (struct keeper_pools){ 0 };
	r = addr_pool_init(&pools->addrs, entries);
	if (r == 0)
		r = shared_init(&pools->ways, entries, sizeof(struct keeper_way));
	if (r == 0)
		r = shared_init(&pools->ledgers, entries, sizeof(struct keeper_ledger));
	return r;
}

void keeper_pools_destroy(struct keeper_pools *pools)
{
	addr_pool_destroy(&pools->addrs);
	shared_destroy(&pools->ways);
	shared_destroy(&pools->ledgers);
}

void keeper_entry_fill(struct keeper_entry *entry, struct keeper_pools *pools, const struct keep_flow *flow)
{
	const struct addr client = addr_of(flow->client_family, flow->client),
	                  original = addr_of(flow->original_family, flow->original),
	                  target = addr_of(flow->target_family, flow->target);
	const struct keeper_way way = { .listener = flow->listener,
		.upstream = flow->upstream,
		.target_id = flow->target_id,
		.idle_timeout_ms = flow->idle_timeout_ms };
	const struct keeper_ledger ledger = { .base_up = flow->base_up,
		.base_down = flow->base_down,
		.offset_up = (int32_t)flow->offset_up,
		.offset_down = (int32_t)flow->offset_down };

	*entry = (struct keeper_entry){ .id = flow->id,
		.started_ms = flow->started_ms,
		/* There is always room. */
		.way = shared_use(&pools->ways, &way),
		.ledger = shared_use(&pools->ledgers, &ledger),
		.client_port = flow->client_port,
		.original_port = flow->original_port,
		.target_port = flow->target_port,
		.mover_up = flow->mover_up & 3U,
		.mover_down = flow->mover_down & 3U,
		.ended = flow->ended & 3U,
		.mute = flow->mute };
	(void)addr_trio_put(&entry->addrs, &pools->addrs, &client, &original, &target);
}

void keeper_entry_leave(struct keeper_entry *entry, struct keeper_pools *pools)
{
	shared_leave(&pools->ways, entry->way);
	shared_leave(&pools->ledgers, entry->ledger);
	addr_trio_drop(&entry->addrs, &pools->addrs);
	entry->way = entry->ledger = 0;
}

struct keep_flow keeper_entry_flow(const struct keeper_entry *entry, const struct keeper_pools *pools)
{
	struct addr client, original, target;
	struct keep_flow flow = { .id = entry->id,
		.started_ms = entry->started_ms,
		.client_port = entry->client_port,
		.original_port = entry->original_port,
		.target_port = entry->target_port,
		.mover_up = entry->mover_up,
		.mover_down = entry->mover_down,
		.ended = entry->ended,
		.mute = entry->mute };
	struct keeper_way way;
	struct keeper_ledger ledger;

	memcpy(&way, shared_at(&pools->ways, entry->way), sizeof(way));
	memcpy(&ledger, shared_at(&pools->ledgers, entry->ledger), sizeof(ledger));
	flow.listener = way.listener;
	flow.upstream = way.upstream;
	flow.target_id = way.target_id;
	flow.idle_timeout_ms = way.idle_timeout_ms;
	flow.base_up = ledger.base_up;
	flow.base_down = ledger.base_down;
	flow.offset_up = (uint64_t)ledger.offset_up;
	flow.offset_down = (uint64_t)ledger.offset_down;
	addr_trio_get(&entry->addrs, &pools->addrs, &client, &original, &target);
	addr_put(&client, &flow.client_family, flow.client);
	addr_put(&original, &flow.original_family, flow.original);
	addr_put(&target, &flow.target_family, flow.target);
	return flow;
}
