/* Plans and configurations as messages to the relay; see relay_config.h. */
#include "gatewayd/relay_config.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/first_route.h"
#include "gatewayd/shortcut.h"
#include "schema/prefixes.h"

/* One configuration on its way: the first error sticks, so that the senders below need no checks. */
struct sender {
	struct msg_channel *channel;
	struct meter *meter;
	int timeout_ms;
	int64_t base, generation;
	int error;
	uint32_t items;
};

static void send_message(struct sender *sender, const struct proto_message *message)
{
	if (sender->error == 0)
		sender->error = msg_send(sender->channel, message, -1, sender->timeout_ms);
}

static void send_begin(struct sender *sender)
{
	struct proto_message message = { .type = PROTO_CONFIG_BEGIN };

	message.config_begin.base = (uint64_t)sender->base;
	message.config_begin.generation = (uint64_t)sender->generation;
	send_message(sender, &message);
}

/* The first one begins the configuration: what has none is not sent at all. */
static void send_item(struct sender *sender, const struct proto_message *message)
{
	if (sender->items++ == 0)
		send_begin(sender);
	send_message(sender, message);
}

static int send_end(struct sender *sender)
{
	struct proto_message message = { .type = PROTO_CONFIG_END };

	message.config_end.items = sender->items;
	send_message(sender, &message);
	if (sender->error == 0)
		sender->error = msg_flush(sender->channel, sender->timeout_ms);
	return sender->error;
}

/* Whether the relay has anything to do for this listener. */
static bool is_relayed(const struct row *row)
{
	const struct listener *listener = (const struct listener *)row;

	return row && listener->enabled && listener->action == ACTION_RELAY;
}

static bool is_relay_element(const struct element *element)
{
	return element->verdict == VERDICT_RELAY || element->verdict == VERDICT_RELAY_DIRECT;
}

static void send_match(struct sender *sender, const struct element *element, bool put)
{
	struct proto_message message = { .type = put ? PROTO_MATCH_PUT : PROTO_MATCH_DEL };
	struct proto_match_del key;

	if (!is_relay_element(element))
		return;
	proto_from_key(&element->key, &key);
	if (put) {
		/* A put is a del's key and a value. */
		message.match_put = (struct proto_match_put){ .protocol = key.protocol,
			.family = key.family,
			.dst_len = key.dst_len,
			.src_len = key.src_len,
			.use_interface = key.use_interface,
			.port_kind = key.port_kind,
			.port_lo = key.port_lo,
			.port_hi = key.port_hi,
			.listener = element->listener };
		memcpy(message.match_put.dst, key.dst, sizeof(key.dst));
		memcpy(message.match_put.src, key.src, sizeof(key.src));
		memcpy(message.match_put.interface, key.interface, sizeof(key.interface));
	} else {
		message.match_del = key;
	}
	send_item(sender, &message);
}

/* The words of the schema and the numbers of the protocol have no reason to be equal. */
static uint8_t mover_number(enum mover mover)
{
	static const uint8_t numbers[] = { [MOVER_AUTO] = PROTO_MOVER_AUTO,
		[MOVER_COPY] = PROTO_MOVER_COPY,
		[MOVER_SPLICE] = PROTO_MOVER_SPLICE,
		[MOVER_SOCKMAP] = PROTO_MOVER_SOCKMAP,
		[MOVER_KERNEL] = PROTO_MOVER_KERNEL };

	static_assert(ARRAY_SIZE(numbers) == PROTO_MOVERS, "one number for each");
	return numbers[mover];
}

/* As it is called on the wire. */
static uint8_t proxy_version(enum proxy_protocol proxy)
{
	static const uint8_t versions[] = {
		[PROXY_PROTOCOL_OFF] = 0, [PROXY_PROTOCOL_V1] = 1, [PROXY_PROTOCOL_V2] = 2
	};

	static_assert(ARRAY_SIZE(versions) == PROXY_PROTOCOL_WORDS, "one version for each");
	return versions[proxy];
}

static uint8_t algorithm_number(enum algorithm algorithm)
{
	static const uint8_t numbers[] = { [ALGORITHM_ROUND_ROBIN] = PROTO_ALGORITHM_ROUND_ROBIN,
		[ALGORITHM_LEAST_CONN] = PROTO_ALGORITHM_LEAST_CONN,
		[ALGORITHM_RANDOM_TWO] = PROTO_ALGORITHM_RANDOM_TWO,
		[ALGORITHM_SOURCE_HASH] = PROTO_ALGORITHM_SOURCE_HASH };

	static_assert(ARRAY_SIZE(numbers) == PROTO_ALGORITHMS, "one number for each");
	return numbers[algorithm];
}

static uint8_t source_of(const struct listener *listener)
{
	if (listener->source_address == SOURCE_ADDRESS_GATEWAY)
		return 2;
	return listener->source_port == SOURCE_PORT_KEEP ? 0 : 1;
}

/* 0: none. */
static uint32_t upstream_id(const struct snapshot *snapshot, const char *name)
{
	const struct row *row = name ? snapshot_find(snapshot, RESOURCE_UPSTREAM, name) : NULL;

	return row ? (uint32_t)row->id : 0;
}

static void send_values(
        struct sender *sender, const struct row *listener, enum first_condition condition, const struct strings *values)
{
	struct proto_message message = { .type = PROTO_ROUTE_VALUE };

	message.route_value.listener = (uint32_t)listener->id;
	message.route_value.condition = (uint8_t)condition;
	for (size_t i = 0; i < values->n; i++) {
		snprintf(message.route_value.value, sizeof(message.route_value.value), "%s", values->items[i]);
		send_item(sender, &message);
	}
}

static void send_route(struct sender *sender, const struct snapshot *snapshot, const struct row *listener,
        const struct listener_route *route)
{
	struct proto_message message = { .type = PROTO_ROUTE_PUT };

	message.route_put.listener = (uint32_t)listener->id;
	message.route_put.action = route->action == ROUTE_ACTION_REJECT;
	message.route_put.upstream = upstream_id(snapshot, route->upstream);
	send_item(sender, &message);
	send_values(sender, listener, FIRST_SNI, &route->sni);
	send_values(sender, listener, FIRST_ALPN, &route->alpn);
	send_values(sender, listener, FIRST_HTTP_HOST, &route->http_host);
	send_values(sender, listener, FIRST_HTTP_METHOD, &route->http_method);
	send_values(sender, listener, FIRST_HTTP_PATH, &route->http_path_prefix);
}

static void send_trust(struct sender *sender, const struct row *listener, const struct prefix *prefix)
{
	struct proto_message message = { .type = PROTO_TRUST_PUT };

	message.trust_put.listener = (uint32_t)listener->id;
	message.trust_put.family = prefix->addr.family;
	message.trust_put.length = prefix->length;
	memcpy(message.trust_put.address, prefix->addr.bytes, sizeof(message.trust_put.address));
	send_item(sender, &message);
}

/* NULL for an item that is not the name of a set. */
static const struct address_set *set_of(const struct snapshot *snapshot, const char *item)
{
	return item[0] == '@' ? (const struct address_set *)snapshot_find(snapshot, RESOURCE_ADDRESS_SET, item + 1)
	                      : NULL;
}

/* The proxies in front of us, sets put in. */
static void send_trusts(struct sender *sender, const struct snapshot *snapshot, const struct listener *listener)
{
	const struct strings *items = &listener->accept_proxy_protocol;
	struct prefix split[PREFIX_RANGE_MAX];
	struct prefixes_cursor cursor;
	const struct prefix *prefix;

	for (size_t i = 0; i < items->n; i++) {
		const struct address_set *set = set_of(snapshot, items->items[i]);
		int n = set ? 0 : prefix_range_parse(items->items[i], split);

		if (set)
			cursor = prefixes_from(&set->entries, 0);
		while (set && (prefix = prefixes_next(&cursor)))
			send_trust(sender, &listener->row, prefix);
		for (int k = 0; k < n; k++)
			send_trust(sender, &listener->row, &split[k]);
		if (n < 0) /* also a set that is not there, which references rule out */
			sender->error = -EINVAL;
	}
}

static bool trusts_differ(const struct listener *listener, const struct snapshot *from, const struct snapshot *to)
{
	const struct strings *items = &listener->accept_proxy_protocol;

	for (size_t i = 0; i < items->n; i++)
		if (set_of(from, items->items[i]) != set_of(to, items->items[i]))
			return true;
	return false;
}

/* What the listener's limit of key flow says. */
static void put_shaping(struct sender *sender, const struct snapshot *snapshot, const struct listener *listener,
        struct proto_listener_put *put)
{
	const struct rate_limit *limit = limits_of_flows(snapshot, listener);

	put->limit_slot = STATS_SLOT_NONE;
	if (!limit)
		return;
	put->flow_rate = limits_flow_rate(limit);
	put->limit = (uint32_t)limit->row.id;
	put->limit_slot = meter_slot(sender->meter, STATS_LIMIT, limit->row.id);
	put->shadow = limit->mode == LIMIT_MODE_SHADOW;
}

static void send_listener(struct sender *sender, const struct snapshot *snapshot, const struct listener *listener)
{
	struct proto_message message = { .type = PROTO_LISTENER_PUT };

	message.listener_put.id = (uint32_t)listener->row.id;
	memcpy(message.listener_put.name, listener->name, sizeof(message.listener_put.name));
	message.listener_put.source = source_of(listener);
	message.listener_put.upstream = upstream_id(snapshot, listener->upstream);
	message.listener_put.connect_timeout_ms = (uint32_t)listener->connect_timeout_ms;
	message.listener_put.idle_timeout_s = (uint32_t)listener->idle_timeout_s;
	message.listener_put.mover = mover_number((enum mover)listener->mover);
	message.listener_put.shortcut = shortcut_suits(listener);
	message.listener_put.proxy = proxy_version((enum proxy_protocol)listener->proxy_protocol);
	message.listener_put.slot = meter_slot(sender->meter, STATS_LISTENER, listener->row.id);
	put_shaping(sender, snapshot, listener, &message.listener_put);
	send_item(sender, &message);
	send_trusts(sender, snapshot, listener);
	for (size_t i = 0; i < listener->routes.n; i++)
		send_route(sender, snapshot, &listener->row, (const struct listener_route *)listener->routes.items[i]);
}

static void send_listener_del(struct sender *sender, const struct row *row)
{
	struct proto_message message = { .type = PROTO_LISTENER_DEL };

	message.listener_del.id = (uint32_t)row->id;
	send_item(sender, &message);
}

static void send_target(struct sender *sender, const struct upstream *upstream, const struct target *target)
{
	struct proto_message message = { .type = PROTO_TARGET_PUT };
	struct addr addr;

	if (addr_parse(target->address, &addr) < 0) {
		sender->error = -EINVAL;
		return;
	}
	message.target_put.upstream = (uint32_t)upstream->row.id;
	message.target_put.id = (uint32_t)target->row.id;
	message.target_put.family = addr.family;
	memcpy(message.target_put.address, addr.bytes, sizeof(message.target_put.address));
	message.target_put.port = (uint16_t)target->port;
	message.target_put.weight = (uint16_t)target->weight;
	message.target_put.backup = target->backup;
	message.target_put.state = (uint8_t)target->admin_state;
	message.target_put.max_connections = (uint32_t)target->max_connections;
	message.target_put.slot = meter_slot(sender->meter, STATS_TARGET, target->row.id);
	send_item(sender, &message);
}

static const struct target *find_target(const struct upstream *upstream, int64_t id)
{
	for (size_t i = 0; i < upstream->targets.n; i++)
		if (upstream->targets.items[i]->id == id)
			return (const struct target *)upstream->targets.items[i];
	return NULL;
}

static void send_target_changes(struct sender *sender, const struct upstream *old, const struct upstream *upstream)
{
	struct proto_message message = { .type = PROTO_TARGET_DEL };

	for (size_t i = 0; old && i < old->targets.n; i++) {
		if (find_target(upstream, old->targets.items[i]->id))
			continue;
		message.target_del.upstream = (uint32_t)old->row.id;
		message.target_del.id = (uint32_t)old->targets.items[i]->id;
		send_item(sender, &message);
	}
	for (size_t i = 0; i < upstream->targets.n; i++) {
		const struct target *target = (const struct target *)upstream->targets.items[i];
		const struct target *before = old ? find_target(old, target->row.id) : NULL;

		if (!before || !row_equal(&before->row, &target->row))
			send_target(sender, upstream, target);
	}
}

static uint8_t health_number(enum health_type type)
{
	static const uint8_t numbers[] = { [HEALTH_TYPE_NONE] = PROTO_HEALTH_NONE,
		[HEALTH_TYPE_TCP] = PROTO_HEALTH_TCP,
		[HEALTH_TYPE_HTTP] = PROTO_HEALTH_HTTP };

	static_assert(ARRAY_SIZE(numbers) == PROTO_HEALTH_TYPES, "one number for each");
	return numbers[type];
}

/* The statuses that are wanted, as a range. */
static void wanted_statuses(const struct upstream *upstream, struct proto_health_put *put)
{
	uint16_t last = (uint16_t)upstream->health_http_status_max;

	if (upstream->health_http_status == 0) {
		put->status_from = 200;
		put->status_to = last ? last : 399;
	} else {
		put->status_from = (uint16_t)upstream->health_http_status;
		put->status_to = last ? last : put->status_from;
	}
}

static void send_health(struct sender *sender, const struct upstream *upstream)
{
	struct proto_message message = { .type = PROTO_HEALTH_PUT };
	struct proto_health_put *put = &message.health_put;

	*put = (struct proto_health_put){ .upstream = (uint32_t)upstream->row.id,
		.type = health_number((enum health_type)upstream->health_type),
		.head = upstream->health_http_method == HEALTH_METHOD_HEAD,
		.rise = (uint8_t)upstream->health_rise,
		.fall = (uint8_t)upstream->health_fall,
		.reset = upstream->on_down == ON_DOWN_RESET,
		.port = (uint16_t)upstream->health_port,
		.interval_ms = (uint32_t)upstream->health_interval_ms,
		.timeout_ms = (uint32_t)upstream->health_timeout_ms };
	wanted_statuses(upstream, put);
	snprintf(put->path, sizeof(put->path), "%s", upstream->health_http_path);
	snprintf(put->host, sizeof(put->host), "%s", upstream->health_http_host);
	snprintf(put->text, sizeof(put->text), "%s", upstream->health_http_body);
	send_item(sender, &message);
}

static void send_upstream(struct sender *sender, const struct upstream *old, const struct upstream *upstream)
{
	struct proto_message message = { .type = PROTO_UPSTREAM_PUT };

	message.upstream_put.id = (uint32_t)upstream->row.id;
	memcpy(message.upstream_put.name, upstream->name, sizeof(message.upstream_put.name));
	message.upstream_put.algorithm = algorithm_number((enum algorithm)upstream->algorithm);
	message.upstream_put.max_retries = (uint8_t)upstream->max_retries;
	message.upstream_put.passive_failures = (uint32_t)upstream->passive_failures;
	message.upstream_put.slow_start_ms = (uint32_t)upstream->slow_start_s * 1000;
	message.upstream_put.slot = meter_slot(sender->meter, STATS_UPSTREAM, upstream->row.id);
	send_item(sender, &message);
	send_health(sender, upstream);
	send_target_changes(sender, old, upstream);
}

static void send_upstream_del(struct sender *sender, const struct row *row)
{
	struct proto_message message = { .type = PROTO_UPSTREAM_DEL };

	message.upstream_del.id = (uint32_t)row->id;
	send_item(sender, &message);
}

int relay_config_send_full(struct msg_channel *channel, const struct snapshot *snapshot, const struct model *model,
        struct meter *meter, int timeout_ms)
{
	struct sender sender = {
		.channel = channel, .meter = meter, .timeout_ms = timeout_ms, .generation = snapshot->revision
	};
	const struct rows *upstreams = &snapshot->rows[RESOURCE_UPSTREAM];
	const struct rows *listeners = &snapshot->rows[RESOURCE_LISTENER];
	struct elements elements = { 0 };
	int r;

	r = model_elements(model, &elements);
	if (r < 0)
		return r;
	for (size_t i = 0; i < upstreams->n; i++)
		send_upstream(&sender, NULL, (const struct upstream *)upstreams->items[i]);
	for (size_t i = 0; i < listeners->n; i++)
		if (is_relayed(listeners->items[i]))
			send_listener(&sender, snapshot, (const struct listener *)listeners->items[i]);
	for (size_t i = 0; i < elements.n; i++)
		send_match(&sender, &elements.items[i], true);
	free(elements.items);
	/* Also an empty one: it takes the place of what is in force. */
	if (sender.items == 0)
		send_begin(&sender);
	return send_end(&sender);
}

/* Listeners that did not change, but trust an address set, or name a limit of key flow, that did. */
static void send_changed_references(struct sender *sender, const struct plan *plan)
{
	const struct rows *listeners = &plan->to->rows[RESOURCE_LISTENER];

	for (size_t i = 0; i < listeners->n; i++) {
		const struct listener *listener = (const struct listener *)listeners->items[i];

		if (is_relayed(&listener->row) &&
		        (trusts_differ(listener, plan->from, plan->to) ||
		                limits_of_flows(plan->from, listener) != limits_of_flows(plan->to, listener)))
			send_listener(sender, plan->to, listener);
	}
}

/* Additions before what refers to them, deletions after. */
int relay_config_send_plan(
        struct msg_channel *channel, const struct plan *plan, int64_t base, struct meter *meter, int timeout_ms)
{
	struct sender sender = { .channel = channel,
		.meter = meter,
		.timeout_ms = timeout_ms,
		.base = base,
		.generation = plan->to_revision };
	int r;

	for (size_t i = 0; i < plan->removed.n; i++)
		send_match(&sender, &plan->removed.items[i], false);
	for (size_t i = 0; i < plan->n_changes; i++) {
		const struct row *new_row = plan->changes[i].new_row;

		if (new_row && new_row->resource == RESOURCE_UPSTREAM)
			send_upstream(&sender, (const struct upstream *)plan->changes[i].old_row,
			        (const struct upstream *)new_row);
	}
	for (size_t i = 0; i < plan->n_changes; i++) {
		const struct row *old_row = plan->changes[i].old_row, *new_row = plan->changes[i].new_row;
		const struct row *any = new_row ? new_row : old_row;

		if (any->resource != RESOURCE_LISTENER)
			continue;
		if (is_relayed(new_row))
			send_listener(&sender, plan->to, (const struct listener *)new_row);
		else if (is_relayed(old_row))
			send_listener_del(&sender, old_row);
	}
	send_changed_references(&sender, plan);
	for (size_t i = 0; i < plan->added.n; i++)
		send_match(&sender, &plan->added.items[i], true);
	for (size_t i = 0; i < plan->n_changes; i++)
		if (!plan->changes[i].new_row && plan->changes[i].old_row->resource == RESOURCE_UPSTREAM)
			send_upstream_del(&sender, plan->changes[i].old_row);
	if (sender.items == 0)
		return sender.error;
	r = send_end(&sender);
	return r < 0 ? r : 1;
}
