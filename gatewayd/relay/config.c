/* The thread's tables and batches of changes to them; see config.h. */
#include "gatewayd/relay/config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/relay/connect.h"
#include "gatewayd/relay/flow.h"

#define CHANGES_MIN 64
/* Versions of the PROXY protocol. */
#define PROXY_VERSION_MAX 2
static_assert(PROXY_VERSION_MAX < 1 << 2, "flow.proxy is wide enough");

/* One checked change, much smaller than the message it came in: a batch may hold a hundred thousand. */
struct change {
	enum proto_type type;
	uint32_t id; /* of the listener or upstream, or the target's upstream */
	union {
		struct {
			char name[CONFIG_NAME_MAX + 1];
			uint8_t source, mover, proxy;
			bool shortcut;
			uint32_t upstream, connect_timeout_ms, idle_timeout_s, slot;
			struct config_shape shape;
		} listener;
		struct {
			char name[CONFIG_NAME_MAX + 1];
			struct balance_rules rules;
			uint32_t slot;
		} upstream;
		struct prefix trust; /* id: the listener */
		struct {
			uint8_t action;
			uint32_t upstream;
		} route; /* id: its listener */
		struct {
			uint8_t condition;
			char *text;              /* owned: most changes have none */
		} value;                         /* id: the listener of the route */
		struct proto_health_put *health; /* owned; id: its upstream */
		struct target target;
		struct match_key key; /* id: the listener it leads to */
	};
};

struct config_batch {
	uint64_t base, generation;
	struct change *changes;
	uint32_t n, room;
};

static_assert(sizeof(((struct proto_listener_put *)0)->name) == CONFIG_NAME_MAX + 1, "as in proto.def");
static_assert(sizeof(((struct proto_route_value *)0)->value) == FIRST_ROUTE_VALUE_MAX + 1, "as in proto.def");
static_assert(sizeof(((struct proto_upstream_put *)0)->name) == CONFIG_NAME_MAX + 1, "as in proto.def");

int config_new(struct config **ret)
{
	struct config *config = calloc(1, sizeof(*config));

	if (!config)
		return -ENOMEM;
	if (match_table_new(&config->match) < 0) {
		free(config);
		return -ENOMEM;
	}
	*ret = config;
	return 0;
}

static void upstream_free(struct config_upstream *upstream)
{
	balance_clear(&upstream->balance);
	free(upstream);
}

static void listener_free(struct config_listener *listener)
{
	first_routes_clear(&listener->routes);
	trust_clear(&listener->trust);
	free(listener);
}

void config_free(struct config *config)
{
	if (!config)
		return;
	match_table_free(config->match);
	for (size_t i = 0; i < config->listeners.n; i++)
		listener_free(config->listeners.items[i].value);
	for (size_t i = 0; i < config->upstreams.n; i++)
		upstream_free(config->upstreams.items[i].value);
	idmap_clear(&config->listeners);
	idmap_clear(&config->upstreams);
	free(config);
}

struct config_listener *config_listener(const struct config *config, uint32_t id)
{
	return idmap_get(&config->listeners, id);
}

struct config_upstream *config_upstream(const struct config *config, uint32_t id)
{
	return idmap_get(&config->upstreams, id);
}

int config_batch_new(uint64_t base, uint64_t generation, struct config_batch **ret)
{
	struct config_batch *batch = calloc(1, sizeof(*batch));

	if (!batch)
		return -ENOMEM;
	batch->base = base;
	batch->generation = generation;
	*ret = batch;
	return 0;
}

static void change_clear(struct change *change)
{
	if (change->type == PROTO_ROUTE_VALUE)
		free(change->value.text);
	else if (change->type == PROTO_HEALTH_PUT)
		free(change->health);
}

void config_batch_free(struct config_batch *batch)
{
	if (!batch)
		return;
	for (uint32_t i = 0; i < batch->n; i++)
		change_clear(&batch->changes[i]);
	free(batch->changes);
	free(batch);
}

uint64_t config_batch_generation(const struct config_batch *batch)
{
	return batch->generation;
}

uint32_t config_batch_count(const struct config_batch *batch)
{
	return batch->n;
}

static struct config_shape shape_from(const struct proto_listener_put *put)
{
	if (put->flow_rate == 0)
		return (struct config_shape){ .slot = STATS_SLOT_NONE };
	return (struct config_shape){
		.rate = put->flow_rate, .limit = put->limit, .slot = put->limit_slot, .shadow = put->shadow != 0
	};
}

static int listener_change(const struct proto_listener_put *put, struct change *ret)
{
	if (put->source >= CONNECT_SOURCES || put->mover >= PROTO_MOVERS || put->proxy > PROXY_VERSION_MAX)
		return -EBADMSG;
	ret->id = put->id;
	memcpy(ret->listener.name, put->name, sizeof(ret->listener.name));
	ret->listener.source = put->source;
	ret->listener.upstream = put->upstream;
	ret->listener.connect_timeout_ms = put->connect_timeout_ms;
	ret->listener.idle_timeout_s = put->idle_timeout_s;
	ret->listener.mover = put->mover;
	ret->listener.shortcut = put->shortcut != 0;
	ret->listener.proxy = put->proxy;
	ret->listener.slot = put->slot;
	ret->listener.shape = shape_from(put);
	return 0;
}

static int trust_change(const struct proto_trust_put *put, struct change *ret)
{
	struct addr masked = { .family = put->family };

	if ((put->family != AF_INET && put->family != AF_INET6) || put->length > addr_bits(put->family))
		return -EBADMSG;
	memcpy(masked.bytes, put->address, addr_bits(put->family) / 8);
	ret->trust = (struct prefix){ masked, put->length };
	addr_mask(&masked, put->length);
	if (!addr_equal(&masked, &ret->trust.addr))
		return -EBADMSG;
	ret->id = put->listener;
	return 0;
}

static int route_change(const struct proto_route_put *put, struct change *ret)
{
	if (put->action >= FIRST_ACTIONS)
		return -EBADMSG;
	ret->id = put->listener;
	ret->route.action = put->action;
	ret->route.upstream = put->upstream;
	return 0;
}

static int value_change(const struct proto_route_value *put, struct change *ret)
{
	if (!first_route_takes((enum first_condition)put->condition, put->value))
		return -EBADMSG;
	ret->id = put->listener;
	ret->value.condition = put->condition;
	ret->value.text = strdup(put->value);
	return ret->value.text ? 0 : -ENOMEM;
}

/* A mad daemon could otherwise have us check without a pause, or put lines into requests. */
static bool health_is_sound(const struct proto_health_put *put)
{
	if (put->type >= PROTO_HEALTH_TYPES || put->head > 1 || put->reset > 1)
		return false;
	if (put->type == PROTO_HEALTH_NONE)
		return true;
	return put->rise > 0 && put->fall > 0 && put->interval_ms > 0 && put->timeout_ms > 0 &&
	       put->interval_ms <= CONFIG_HEALTH_MS_MAX && put->timeout_ms <= CONFIG_HEALTH_MS_MAX &&
	       put->path[strcspn(put->path, "\r\n")] == '\0' && put->host[strcspn(put->host, "\r\n")] == '\0';
}

static int health_change(const struct proto_health_put *put, struct change *ret)
{
	if (!health_is_sound(put))
		return -EBADMSG;
	ret->id = put->upstream;
	ret->health = malloc(sizeof(*ret->health));
	if (!ret->health)
		return -ENOMEM;
	*ret->health = *put;
	return 0;
}

static int upstream_change(const struct proto_upstream_put *put, struct change *ret)
{
	if (put->algorithm >= PROTO_ALGORITHMS || put->max_retries > FLOW_RETRIES_MAX)
		return -EBADMSG;
	ret->id = put->id;
	memcpy(ret->upstream.name, put->name, sizeof(ret->upstream.name));
	ret->upstream.rules = (struct balance_rules){ .algorithm = put->algorithm,
		.max_retries = put->max_retries,
		.passive_failures = put->passive_failures,
		.slow_start_ms = put->slow_start_ms };
	ret->upstream.slot = put->slot;
	return 0;
}

static int target_change(const struct proto_target_put *put, struct change *ret)
{
	struct target *target = &ret->target;

	if ((put->family != AF_INET && put->family != AF_INET6) || put->state >= TARGET_STATES)
		return -EBADMSG;
	ret->id = put->upstream;
	*target = (struct target){ .id = put->id,
		.addr.family = put->family,
		.port = put->port,
		.weight = put->weight,
		.backup = put->backup,
		.state = put->state,
		.max_connections = put->max_connections,
		.slot = put->slot };
	memcpy(target->addr.bytes, put->address, addr_bits(put->family) / 8);
	return 0;
}

static int match_put_change(const struct proto_match_put *put, struct change *ret)
{
	struct proto_match_del key = { .protocol = put->protocol,
		.family = put->family,
		.dst_len = put->dst_len,
		.src_len = put->src_len,
		.use_interface = put->use_interface,
		.port_kind = put->port_kind,
		.port_lo = put->port_lo,
		.port_hi = put->port_hi };

	memcpy(key.dst, put->dst, sizeof(key.dst));
	memcpy(key.src, put->src, sizeof(key.src));
	memcpy(key.interface, put->interface, sizeof(key.interface));
	ret->id = put->listener;
	return proto_to_key(&key, &ret->key);
}

/* The change that an item's message stands for. */
static int change_from(const struct proto_message *message, struct change *ret)
{
	*ret = (struct change){ .type = message->type };
	switch (message->type) { /* only some types are items */
	case PROTO_LISTENER_PUT:
		return listener_change(&message->listener_put, ret);
	case PROTO_TRUST_PUT:
		return trust_change(&message->trust_put, ret);
	case PROTO_ROUTE_PUT:
		return route_change(&message->route_put, ret);
	case PROTO_ROUTE_VALUE:
		return value_change(&message->route_value, ret);
	case PROTO_LISTENER_DEL:
		ret->id = message->listener_del.id;
		return 0;
	case PROTO_UPSTREAM_PUT:
		return upstream_change(&message->upstream_put, ret);
	case PROTO_HEALTH_PUT:
		return health_change(&message->health_put, ret);
	case PROTO_UPSTREAM_DEL:
		ret->id = message->upstream_del.id;
		return 0;
	case PROTO_TARGET_PUT:
		return target_change(&message->target_put, ret);
	case PROTO_TARGET_DEL:
		ret->id = message->target_del.upstream;
		ret->target.id = message->target_del.id;
		return 0;
	case PROTO_MATCH_PUT:
		return match_put_change(&message->match_put, ret);
	case PROTO_MATCH_DEL:
		return proto_to_key(&message->match_del, &ret->key);
	default:
		return -EINVAL;
	}
}

/* Room for one more change. */
static int batch_reserve(struct config_batch *batch)
{
	uint32_t room = batch->room ? batch->room * 2 : CHANGES_MIN;
	struct change *grown;

	if (batch->n == CONFIG_CHANGES_MAX)
		return -E2BIG;
	if (batch->n < batch->room)
		return 0;
	grown = realloc(batch->changes, room * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	batch->changes = grown;
	batch->room = room;
	return 0;
}

int config_batch_add(struct config_batch *batch, const struct proto_message *message)
{
	struct change change;
	int r = change_from(message, &change);

	if (r < 0)
		return r;
	r = batch_reserve(batch);
	if (r < 0)
		change_clear(&change);
	else
		batch->changes[batch->n++] = change;
	return r;
}

static int listener_put(struct config *config, const struct change *change)
{
	struct config_listener *listener = config_listener(config, change->id);

	if (!listener) {
		listener = calloc(1, sizeof(*listener));
		if (!listener)
			return -ENOMEM;
		if (idmap_add(&config->listeners, change->id, listener) < 0) {
			free(listener);
			return -ENOMEM;
		}
	}
	first_routes_clear(&listener->routes);
	trust_clear(&listener->trust);
	*listener = (struct config_listener){ .id = change->id,
		.source = change->listener.source,
		.upstream = change->listener.upstream,
		.connect_timeout_ms = change->listener.connect_timeout_ms,
		.idle_timeout_s = change->listener.idle_timeout_s,
		.mover = change->listener.mover,
		.shortcut = change->listener.shortcut,
		.proxy = change->listener.proxy,
		.shape = change->listener.shape,
		.slot = change->listener.slot };
	memcpy(listener->name, change->listener.name, sizeof(listener->name));
	return 0;
}

static int listener_del(struct config *config, const struct change *change)
{
	struct config_listener *listener = idmap_remove(&config->listeners, change->id);

	if (!listener)
		return -ENOENT;
	listener_free(listener);
	return 0;
}

static int trust_put(struct config *config, const struct change *change)
{
	struct config_listener *listener = config_listener(config, change->id);

	return listener ? trust_add(&listener->trust, &change->trust) : -ENOENT;
}

static int route_put(struct config *config, const struct change *change)
{
	struct config_listener *listener = config_listener(config, change->id);

	return listener ? first_routes_add(&listener->routes, change->route.action, change->route.upstream) : -ENOENT;
}

static int value_put(struct config *config, const struct change *change)
{
	struct config_listener *listener = config_listener(config, change->id);

	if (!listener)
		return -ENOENT;
	return first_routes_value(&listener->routes, (enum first_condition)change->value.condition, change->value.text);
}

static int upstream_put(struct config *config, const struct change *change)
{
	struct config_upstream *upstream = config_upstream(config, change->id);

	if (!upstream) {
		upstream = calloc(1, sizeof(*upstream));
		if (!upstream)
			return -ENOMEM;
		upstream->id = change->id;
		if (idmap_add(&config->upstreams, change->id, upstream) < 0) {
			free(upstream);
			return -ENOMEM;
		}
	}
	memcpy(upstream->name, change->upstream.name, sizeof(upstream->name));
	balance_configure(&upstream->balance, &change->upstream.rules);
	upstream->slot = change->upstream.slot;
	return 0;
}

static int health_put(struct config *config, const struct change *change)
{
	struct config_upstream *upstream = config_upstream(config, change->id);

	if (!upstream)
		return -ENOENT;
	upstream->reset_on_down = change->health->reset;
	return 0;
}

static int upstream_del(struct config *config, const struct change *change)
{
	struct config_upstream *upstream = idmap_remove(&config->upstreams, change->id);

	if (!upstream)
		return -ENOENT;
	upstream_free(upstream);
	return 0;
}

static int target_put(struct config *config, const struct change *change)
{
	struct config_upstream *upstream = config_upstream(config, change->id);

	return upstream ? balance_put(&upstream->balance, &change->target) : -ENOENT;
}

static int target_del(struct config *config, const struct change *change)
{
	struct config_upstream *upstream = config_upstream(config, change->id);

	return upstream ? balance_remove(&upstream->balance, change->target.id) : -ENOENT;
}

static int change_apply(struct config *config, const struct change *change)
{
	switch (change->type) { /* change_from makes no others */
	case PROTO_LISTENER_PUT:
		return listener_put(config, change);
	case PROTO_TRUST_PUT:
		return trust_put(config, change);
	case PROTO_ROUTE_PUT:
		return route_put(config, change);
	case PROTO_ROUTE_VALUE:
		return value_put(config, change);
	case PROTO_LISTENER_DEL:
		return listener_del(config, change);
	case PROTO_UPSTREAM_PUT:
		return upstream_put(config, change);
	case PROTO_HEALTH_PUT:
		return health_put(config, change);
	case PROTO_UPSTREAM_DEL:
		return upstream_del(config, change);
	case PROTO_TARGET_PUT:
		return target_put(config, change);
	case PROTO_TARGET_DEL:
		return target_del(config, change);
	case PROTO_MATCH_PUT:
		return match_table_put(config->match, &change->key, change->id);
	case PROTO_MATCH_DEL:
		return match_table_remove(config->match, &change->key);
	default:
		return -EINVAL;
	}
}

static int health_apply(struct health_table *table, const struct change *change)
{
	struct health_target target = { .id = change->target.id,
		.addr = change->target.addr,
		.port = change->target.port,
		.slot = change->target.slot };

	switch (change->type) { /* the rest is not the checks' concern */
	case PROTO_UPSTREAM_PUT:
		return health_table_put_upstream(table, change->id);
	case PROTO_UPSTREAM_DEL:
		return health_table_remove_upstream(table, change->id);
	case PROTO_HEALTH_PUT:
		return health_table_put_rules(table, change->health);
	case PROTO_TARGET_PUT:
		return health_table_put_target(table, change->id, &target);
	case PROTO_TARGET_DEL:
		return health_table_remove_target(table, change->id, change->target.id);
	default:
		return 0;
	}
}

int config_batch_apply_health(const struct config_batch *batch, struct health_table *table)
{
	int r = 0;

	health_table_begin(table, batch->base == 0);
	for (uint32_t i = 0; r == 0 && i < batch->n; i++)
		r = health_apply(table, &batch->changes[i]);
	health_table_end(table, batch->base == 0);
	return r;
}

int config_batch_apply(const struct config_batch *batch, struct config **config)
{
	struct config *changed = *config;
	int r = batch->base == 0 ? config_new(&changed) : 0;

	for (uint32_t i = 0; r == 0 && i < batch->n; i++)
		r = change_apply(changed, &batch->changes[i]);
	if (changed != *config) {
		struct config *useless = r == 0 ? *config : changed;

		*config = r == 0 ? changed : *config;
		config_free(useless);
	}
	return r;
}
