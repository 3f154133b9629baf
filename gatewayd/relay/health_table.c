/* Upstreams and targets as they are checked; see health_table.h. */
#include "gatewayd/relay/health_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct health_upstream *upstream_of(const struct health_table *table, uint32_t id)
{
	return idmap_get(&table->upstreams, id);
}

static void target_free(struct health_table *table, struct health_target *target)
{
	if (table->gone)
		table->gone(table->userdata, target);
	free(target->request);
	free(target);
}

static void upstream_free(struct health_table *table, struct health_upstream *upstream)
{
	for (size_t i = 0; i < upstream->targets.n; i++)
		target_free(table, upstream->targets.items[i].value);
	idmap_clear(&upstream->targets);
	free(upstream);
}

static void tell_changed(struct health_table *table, struct health_target *target)
{
	free(target->request);
	target->request = NULL;
	if (table->changed)
		table->changed(table->userdata, target);
}

void health_table_begin(struct health_table *table, bool whole)
{
	for (size_t i = 0; whole && i < table->upstreams.n; i++) {
		struct health_upstream *upstream = table->upstreams.items[i].value;

		upstream->stale = true;
		for (size_t j = 0; j < upstream->targets.n; j++)
			((struct health_target *)upstream->targets.items[j].value)->stale = true;
	}
}

/* From the end, so that what is taken out moves nothing that is still to be looked at. */
void health_table_end(struct health_table *table, bool whole)
{
	for (size_t i = table->upstreams.n; whole && i-- > 0;) {
		struct health_upstream *upstream = table->upstreams.items[i].value;

		for (size_t j = upstream->targets.n; !upstream->stale && j-- > 0;) {
			struct health_target *target = upstream->targets.items[j].value;

			if (target->stale)
				target_free(table, idmap_remove(&upstream->targets, target->id));
		}
		if (upstream->stale)
			upstream_free(table, idmap_remove(&table->upstreams, upstream->id));
	}
}

int health_table_put_upstream(struct health_table *table, uint32_t id)
{
	struct health_upstream *upstream = upstream_of(table, id);

	if (!upstream) {
		upstream = calloc(1, sizeof(*upstream));
		if (!upstream || idmap_add(&table->upstreams, id, upstream) < 0) {
			free(upstream);
			return -ENOMEM;
		}
	}
	upstream->id = id;
	upstream->stale = false;
	return 0;
}

int health_table_remove_upstream(struct health_table *table, uint32_t id)
{
	struct health_upstream *upstream = idmap_remove(&table->upstreams, id);

	if (!upstream)
		return -ENOENT;
	upstream_free(table, upstream);
	return 0;
}

static bool is_checked_alike(const struct proto_health_put *a, const struct proto_health_put *b)
{
	return a->type == b->type && a->head == b->head && a->port == b->port && a->status_from == b->status_from &&
	       a->status_to == b->status_to && a->interval_ms == b->interval_ms && !strcmp(a->path, b->path) &&
	       !strcmp(a->host, b->host) && !strcmp(a->text, b->text);
}

int health_table_put_rules(struct health_table *table, const struct proto_health_put *rules)
{
	struct health_upstream *upstream = upstream_of(table, rules->upstream);
	bool alike;

	if (!upstream)
		return -ENOENT;
	alike = is_checked_alike(&upstream->rules, rules);
	upstream->rules = *rules;
	if (alike)
		return 0;
	upstream->want = (struct health_http_want){
		.status_from = rules->status_from, .status_to = rules->status_to, .head = rules->head
	};
	health_http_want_text(&upstream->want, rules->text);
	for (size_t i = 0; i < upstream->targets.n; i++)
		tell_changed(table, upstream->targets.items[i].value);
	return 0;
}

int health_table_put_target(struct health_table *table, uint32_t upstream_id, const struct health_target *target)
{
	struct health_upstream *upstream = upstream_of(table, upstream_id);
	struct health_target *kept = upstream ? idmap_get(&upstream->targets, target->id) : NULL;
	bool alike;

	if (!upstream)
		return -ENOENT;
	if (!kept) {
		kept = calloc(1, sizeof(*kept));
		if (!kept || idmap_add(&upstream->targets, target->id, kept) < 0) {
			free(kept);
			return -ENOMEM;
		}
		kept->upstream = upstream;
		kept->id = target->id;
	}
	alike = addr_equal(&kept->addr, &target->addr) && kept->port == target->port && kept->slot == target->slot;
	kept->addr = target->addr;
	kept->port = target->port;
	kept->slot = target->slot;
	kept->stale = false;
	if (!alike)
		tell_changed(table, kept);
	return 0;
}

int health_table_remove_target(struct health_table *table, uint32_t upstream_id, uint32_t id)
{
	struct health_upstream *upstream = upstream_of(table, upstream_id);
	struct health_target *target = upstream ? idmap_remove(&upstream->targets, id) : NULL;

	if (!target)
		return -ENOENT;
	target_free(table, target);
	return 0;
}

void health_table_clear(struct health_table *table)
{
	for (size_t i = 0; i < table->upstreams.n; i++)
		upstream_free(table, table->upstreams.items[i].value);
	idmap_clear(&table->upstreams);
}

uint16_t health_table_port(const struct health_target *target)
{
	const struct proto_health_put *rules = &target->upstream->rules;

	if (rules->type == PROTO_HEALTH_NONE)
		return 0;
	return rules->port ? rules->port : target->port;
}
