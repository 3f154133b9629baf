/* Batches of changes: illegal items first, then what a thread's tables look like afterwards. */
#include "gatewayd/relay/config.h"
#include "gatewayd/relay/flow.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct proto_message match_put(uint16_t lo, uint16_t hi, uint32_t listener)
{
	struct proto_message message = { .type = PROTO_MATCH_PUT,
		.match_put = { .protocol = IPPROTO_TCP,
		        .family = AF_INET,
		        .port_kind = MATCH_PORT_RANGE,
		        .port_lo = lo,
		        .port_hi = hi,
		        .listener = listener } };

	return message;
}

static struct proto_message target_put(uint32_t upstream, uint32_t id)
{
	struct proto_message message = { .type = PROTO_TARGET_PUT,
		.target_put = { .upstream = upstream, .id = id, .family = AF_INET, .weight = 1 } };

	return message;
}

static void assert_added(struct config_batch *batch, struct proto_message message, int expected)
{
	assert_int_equal(config_batch_add(batch, &message), expected);
}

static int apply(struct config **config, uint64_t base, const struct proto_message *messages, size_t n)
{
	struct config_batch *batch;
	int r;

	assert_int_equal(config_batch_new(base, base + 1, &batch), 0);
	for (size_t i = 0; i < n; i++)
		assert_added(batch, messages[i], 0);
	assert_int_equal(config_batch_count(batch), n);
	r = config_batch_apply(batch, config);
	config_batch_free(batch);
	return r;
}

static bool find(const struct config *config, uint16_t port, uint32_t *ret)
{
	struct match_packet packet = {
		.protocol = IPPROTO_TCP, .dst.family = AF_INET, .src.family = AF_INET, .dst_port = port
	};

	return match_table_find(config->match, &packet, ret) == 1;
}

static void test_illegal_items(void **state)
{
	struct config_batch *batch;
	struct proto_message message;

	(void)state;
	assert_int_equal(config_batch_new(0, 1, &batch), 0);
	message = match_put(10, 9, 1);
	assert_added(batch, message, -EBADMSG);
	message = match_put(1, 2, 1);
	message.match_put.dst[0] = 1;
	assert_added(batch, message, -EBADMSG);
	message.type = PROTO_MATCH_DEL; /* the same fields lie at the same places */
	assert_added(batch, message, -EBADMSG);
	message = target_put(1, 1);
	message.target_put.family = 0;
	assert_added(batch, message, -EBADMSG);
	message = target_put(1, 1);
	message.target_put.state = TARGET_STATES;
	assert_added(batch, message, -EBADMSG);
	message = (struct proto_message){ .type = PROTO_UPSTREAM_PUT, .upstream_put.algorithm = PROTO_ALGORITHMS };
	assert_added(batch, message, -EBADMSG);
	message =
	        (struct proto_message){ .type = PROTO_UPSTREAM_PUT, .upstream_put.max_retries = FLOW_RETRIES_MAX + 1 };
	assert_added(batch, message, -EBADMSG);
	message = (struct proto_message){ .type = PROTO_PING };
	assert_added(batch, message, -EINVAL);
	assert_int_equal(config_batch_count(batch), 0);
	config_batch_free(batch);
	config_batch_free(NULL);
}

static void test_change_of_nothing(void **state)
{
	const struct proto_message nothing[] = {
		{ .type = PROTO_LISTENER_DEL, .listener_del.id = 1 },
		{ .type = PROTO_UPSTREAM_DEL, .upstream_del.id = 1 },
		{ .type = PROTO_TARGET_DEL, .target_del = { 1, 1 } },
		target_put(1, 1),
	};
	struct config *config;

	(void)state;
	assert_int_equal(config_new(&config), 0);
	for (size_t i = 0; i < sizeof(nothing) / sizeof(nothing[0]); i++)
		assert_int_equal(apply(&config, 1, &nothing[i], 1), -ENOENT);
	config_free(config);
	config_free(NULL);
}

/* A batch from base 0 that cannot be applied leaves the tables as they were. */
static void test_whole_or_not_at_all(void **state)
{
	struct proto_message good = match_put(1, 100, 7);
	const struct proto_message bad[] = { match_put(1, 100, 8), match_put(50, 200, 9) };
	struct config *config;
	uint32_t value = 0;

	(void)state;
	assert_int_equal(config_new(&config), 0);
	assert_int_equal(apply(&config, 0, &good, 1), 0);
	assert_int_equal(apply(&config, 0, bad, 2), -EEXIST);
	assert_true(find(config, 60, &value));
	assert_int_equal(value, 7);
	assert_int_equal(apply(&config, 0, NULL, 0), 0);
	assert_false(find(config, 60, &value));
	config_free(config);
}

static void test_listeners_and_upstreams(void **state)
{
	struct proto_message listener = { .type = PROTO_LISTENER_PUT,
		.listener_put = { .id = 5, .name = "web", .upstream = 3, .idle_timeout_s = 60 } };
	struct proto_message first[] = { { .type = PROTO_UPSTREAM_PUT, .upstream_put = { .id = 3, .name = "pool" } },
		target_put(3, 30), target_put(3, 31), listener };
	struct proto_message second[] = { { .type = PROTO_TARGET_DEL, .target_del = { 3, 30 } }, listener };
	struct proto_message third[] = { { .type = PROTO_UPSTREAM_DEL, .upstream_del.id = 3 },
		{ .type = PROTO_LISTENER_DEL, .listener_del.id = 5 } };
	struct config *config;

	(void)state;
	assert_int_equal(config_new(&config), 0);
	assert_int_equal(apply(&config, 0, first, 4), 0);
	assert_string_equal(config_listener(config, 5)->name, "web");
	assert_int_equal(config_listener(config, 5)->idle_timeout_s, 60);
	assert_int_equal(config_upstream(config, 3)->balance.n, 2);
	second[1].listener_put.idle_timeout_s = 61;
	assert_int_equal(apply(&config, 1, second, 2), 0);
	assert_int_equal(config_listener(config, 5)->idle_timeout_s, 61);
	assert_int_equal(config_upstream(config, 3)->balance.n, 1);
	assert_int_equal(apply(&config, 2, third, 2), 0);
	assert_null(config_listener(config, 5));
	assert_null(config_upstream(config, 3));
	config_free(config);
}

static struct proto_message value_put(uint8_t condition, const char *value)
{
	struct proto_message message = { .type = PROTO_ROUTE_VALUE,
		.route_value = { .listener = 5, .condition = condition } };

	snprintf(message.route_value.value, sizeof(message.route_value.value), "%s", value);
	return message;
}

static void test_illegal_routes(void **state)
{
	struct proto_message listener = { .type = PROTO_LISTENER_PUT, .listener_put.id = 5 };
	struct proto_message route = { .type = PROTO_ROUTE_PUT, .route_put.listener = 5 };
	struct proto_message value = value_put(FIRST_SNI, "a");
	struct proto_message too_many[FIRST_ROUTES_MAX + 2], without[] = { listener, value };
	struct config_batch *batch;
	struct config *config;

	(void)state;
	assert_int_equal(config_batch_new(0, 1, &batch), 0);
	route.route_put.action = FIRST_ACTIONS;
	assert_added(batch, route, -EBADMSG);
	assert_added(batch, value_put(FIRST_CONDITIONS, "a"), -EBADMSG);
	assert_added(batch, value_put(FIRST_SNI, "A"), -EBADMSG);
	config_batch_free(batch);
	route.route_put.action = FIRST_ACTION_REJECT;
	assert_int_equal(config_new(&config), 0);
	assert_int_equal(apply(&config, 0, &route, 1), -ENOENT);
	assert_int_equal(apply(&config, 0, &value, 1), -ENOENT);
	assert_int_equal(apply(&config, 0, without, 2), -ENOENT);
	too_many[0] = listener;
	for (size_t i = 1; i < FIRST_ROUTES_MAX + 2; i++)
		too_many[i] = route;
	assert_int_equal(apply(&config, 0, too_many, FIRST_ROUTES_MAX + 1), 0);
	assert_int_equal(apply(&config, 0, too_many, FIRST_ROUTES_MAX + 2), -E2BIG);
	assert_int_equal(config_listener(config, 5)->routes.n, FIRST_ROUTES_MAX);
	config_free(config);
}

/* Two routes and the rest; a listener that is put again begins without routes. */
static void test_routes(void **state)
{
	struct proto_message listener = { .type = PROTO_LISTENER_PUT, .listener_put.id = 5 };
	struct proto_message pool = { .type = PROTO_ROUTE_PUT, .route_put = { .listener = 5, .upstream = 3 } };
	struct proto_message refused = { .type = PROTO_ROUTE_PUT,
		.route_put = { .listener = 5, .action = FIRST_ACTION_REJECT } };
	struct proto_message messages[] = { listener, pool, value_put(FIRST_SNI, "*.example.com"),
		value_put(FIRST_SNI, "example.org"), pool, value_put(FIRST_SNI, "a.example.com"), refused };
	static struct first first = { .kind = FIRST_TLS, .host = "a.example.com" };
	const struct first_routes *routes;
	struct config *config;

	(void)state;
	assert_int_equal(config_new(&config), 0);
	assert_int_equal(apply(&config, 0, messages, 7), 0);
	routes = &config_listener(config, 5)->routes;
	assert_int_equal(routes->n, 3);
	assert_ptr_equal(first_routes_find(routes, &first), &routes->items[0]);
	assert_int_equal(routes->items[0].upstream, 3);
	assert_ptr_equal(first_routes_find(routes, NULL), &routes->items[2]);
	assert_int_equal(routes->items[2].action, FIRST_ACTION_REJECT);
	assert_int_equal(apply(&config, 1, messages, 2), 0);
	assert_int_equal(routes->n, 1);
	assert_int_equal(apply(&config, 2, &listener, 1), 0);
	assert_null(first_routes_find(routes, &first));
	config_free(config);
}

static void test_idmap_order(void **state)
{
	static int values[200];
	struct idmap map = { 0 };

	(void)state;
	for (uint32_t i = 0; i < 200; i++) /* 0, 77, 154, 31, ...: every number below 200 once */
		assert_int_equal(idmap_add(&map, i * 77 % 200, &values[i * 77 % 200]), 0);
	for (uint32_t i = 0; i < 200; i++)
		assert_ptr_equal(idmap_get(&map, i), &values[i]);
	assert_null(idmap_get(&map, 200));
	for (uint32_t i = 0; i < 200; i += 2)
		assert_ptr_equal(idmap_remove(&map, i), &values[i]);
	assert_null(idmap_remove(&map, 0));
	for (uint32_t i = 0; i < 200; i++)
		assert_ptr_equal(idmap_get(&map, i), i % 2 ? &values[i] : NULL);
	idmap_clear(&map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_illegal_items),
		cmocka_unit_test(test_change_of_nothing),
		cmocka_unit_test(test_whole_or_not_at_all),
		cmocka_unit_test(test_listeners_and_upstreams),
		cmocka_unit_test(test_illegal_routes),
		cmocka_unit_test(test_routes),
		cmocka_unit_test(test_idmap_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
