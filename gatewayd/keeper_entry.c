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

void keeper_entry_fill(struct keeper_entry *entry, struct addr_pool *addrs, const struct keep_flow *flow)
{
	const struct addr client = addr_of(flow->client_family, flow->client),
	                  original = addr_of(flow->original_family, flow->original),
	                  target = addr_of(flow->target_family, flow->target);

	*entry = (struct keeper_entry){ .id = flow->id,
		.started_ms = flow->started_ms,
		.base_up = flow->base_up,
		.base_down = flow->base_down,
		.offset_up = (int32_t)flow->offset_up,
		.offset_down = (int32_t)flow->offset_down,
		.listener = flow->listener,
		.upstream = flow->upstream,
		.target_id = flow->target_id,
		.idle_timeout_ms = flow->idle_timeout_ms,
		.client_port = flow->client_port,
		.original_port = flow->original_port,
		.target_port = flow->target_port,
		.mover_up = flow->mover_up & 3U,
		.mover_down = flow->mover_down & 3U,
		.ended = flow->ended & 3U,
		.mute = flow->mute };
	/* There is always room. */
	(void)addr_trio_put(&entry->addrs, addrs, &client, &original, &target);
}

struct keep_flow keeper_entry_flow(const struct keeper_entry *entry, const struct addr_pool *addrs)
{
	struct keep_flow flow = { .id = entry->id,
		.started_ms = entry->started_ms,
		.base_up = entry->base_up,
		.base_down = entry->base_down,
		.offset_up = (uint64_t)entry->offset_up,
		.offset_down = (uint64_t)entry->offset_down,
		.listener = entry->listener,
		.upstream = entry->upstream,
		.target_id = entry->target_id,
		.idle_timeout_ms = entry->idle_timeout_ms,
		.client_port = entry->client_port,
		.original_port = entry->original_port,
		.target_port = entry->target_port,
		.mover_up = entry->mover_up,
		.mover_down = entry->mover_down,
		.ended = entry->ended,
		.mute = entry->mute };
	struct addr client, original, target;

	addr_trio_get(&entry->addrs, addrs, &client, &original, &target);
	addr_put(&client, &flow.client_family, flow.client);
	addr_put(&original, &flow.original_family, flow.original);
	addr_put(&target, &flow.target_family, flow.target);
	return flow;
}
