/* Counting at a flow's listener, upstream and target; see account_object.h. */
#include "gatewayd/relay/account_object.h"

#include "gatewayd/relay/loop.h"

static uint32_t object_id(const struct flow_objects *objects, enum stats_kind kind)
{
	return kind == STATS_LISTENER   ? objects->listener
	       : kind == STATS_UPSTREAM ? objects->upstream
	                                : objects->target;
}

void account_slots(const struct loop *loop, const struct flow_objects *objects, uint32_t ret[STATS_KINDS])
{
	const struct config_listener *listener = config_listener(loop->config, objects->listener);
	const struct config_upstream *upstream = config_upstream(loop->config, objects->upstream);
	const struct target *target = upstream ? balance_target(&upstream->balance, objects->target) : NULL;

	ret[STATS_LISTENER] = listener ? listener->slot : STATS_SLOT_NONE;
	ret[STATS_UPSTREAM] = upstream ? upstream->slot : STATS_SLOT_NONE;
	ret[STATS_TARGET] = target ? target->slot : STATS_SLOT_NONE;
}

struct stats_object *account_object(const struct loop *loop, const struct flow_objects *objects,
        const uint32_t slot[STATS_KINDS], enum stats_kind kind)
{
	return stats_object(&loop->place, slot[kind], object_id(objects, kind));
}

struct stats_object *account_object_claim(const struct loop *loop, const struct flow_objects *objects,
        const uint32_t slot[STATS_KINDS], enum stats_kind kind)
{
	return stats_claim(&loop->place, slot[kind], object_id(objects, kind));
}

void account_objects_count(const struct loop *loop, const struct flow_objects *objects,
        const uint32_t slot[STATS_KINDS], enum stats_object_counter counter, uint64_t amount)
{
	for (unsigned kind = 0; kind < STATS_KINDS; kind++) {
		struct stats_object *object = account_object(loop, objects, slot, (enum stats_kind)kind);

		if (object)
			stats_word_add(&object->counter[counter], amount);
	}
}

void account_objects_enter(const struct loop *loop, enum stats_table table, const struct flow_objects *objects,
        const uint32_t slot[STATS_KINDS])
{
	stats_word_add(&loop->stats->active[table], 1);
	for (unsigned kind = 0; kind < STATS_KINDS; kind++) {
		struct stats_object *object = account_object_claim(loop, objects, slot, (enum stats_kind)kind);

		if (object)
			stats_word_add(&object->active, 1);
	}
}

void account_objects_leave(const struct loop *loop, enum stats_table table, const struct flow_objects *objects,
        const uint32_t slot[STATS_KINDS])
{
	stats_word_add(&loop->stats->active[table], (uint64_t)-1);
	for (unsigned kind = 0; kind < STATS_KINDS; kind++) {
		struct stats_object *object = account_object(loop, objects, slot, (enum stats_kind)kind);

		if (object)
			stats_word_add(&object->active, (uint64_t)-1);
	}
}

void account_hold(const struct loop *loop, const struct flow_objects *objects, const uint32_t slot[STATS_KINDS],
        struct load_hold *hold)
{
	if (hold->run != loop->place.run || hold->run == 0)
		(void)load_take(&loop->place, slot[STATS_TARGET], objects->target, 0, hold);
}

struct stats_flow account_row_of(const struct flow_origin *origin, uint8_t protocol)
{
	return (struct stats_flow){ .id = origin->id,
		.started_ms = origin->started_ms,
		.active_ms = origin->started_ms,
		.listener = origin->objects.listener,
		.upstream = origin->objects.upstream,
		.target_id = origin->objects.target,
		.ifindex = origin->ifindex,
		.client_port = origin->client_port,
		.original_port = origin->original_port,
		.target_port = origin->target_port,
		.protocol = protocol,
		.route = origin->route,
		.client = origin->client,
		.original = origin->original,
		.target = origin->target };
}

void account_row_touched(const struct loop *loop, enum stats_table table, uint32_t number)
{
	_Atomic uint32_t *touched = &loop->stats->rows_touched[table];

	if (number >= atomic_load_explicit(touched, memory_order_relaxed))
		atomic_store_explicit(touched, number + 1, memory_order_release);
}
