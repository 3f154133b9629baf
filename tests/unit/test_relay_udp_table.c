/* The table of UDP flows: keys against a plain list, its limit, ports that are kept, age, stale cookies. */
#include "gatewayd/relay/udp_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SIZE 64

/* Few enough addresses and ports that most keys differ in one thing only. */
static struct flow_origin random_origin(void)
{
	struct flow_origin origin = { .client_port = (uint16_t)(1000 + rand() % 4),
		.original_port = (uint16_t)(50 + rand() % 4) };
	uint8_t family = rand() % 2 ? AF_INET : AF_INET6;
	unsigned last = addr_bits(family) / 8 - 1;

	origin.client = (struct addr){ .family = family };
	origin.original = origin.client;
	origin.client.bytes[last] = (uint8_t)(rand() % 4);
	origin.original.bytes[0] = (uint8_t)(rand() % 3);
	origin.target = origin.original;
	origin.target_port = origin.original_port;
	return origin;
}

static struct udp_key key_of(const struct flow_origin *origin)
{
	return (struct udp_key){ origin->client, origin->original, origin->client_port, origin->original_port };
}

static bool same(const struct flow_origin *a, const struct flow_origin *b)
{
	return addr_equal(&a->client, &b->client) && addr_equal(&a->original, &b->original) &&
	       a->client_port == b->client_port && a->original_port == b->original_port;
}

/* Adds and removes at random; what is found is what a plain list has. */
static void test_against_a_list(void **state)
{
	struct udp_flow *list[SIZE];
	struct udp_table table;
	unsigned n = 0, found = 0, full = 0;

	(void)state;
	srand(7);
	assert_int_equal(udp_table_init(&table, SIZE), 0);
	for (unsigned round = 0; round < 20000; round++) {
		struct flow_origin origin = random_origin();
		struct udp_key key = key_of(&origin);
		struct udp_flow *flow = udp_table_find(&table, &key), *expected = NULL;

		for (unsigned i = 0; i < n; i++)
			if (same(&list[i]->origin, &origin))
				expected = list[i];
		assert_ptr_equal(flow, expected);
		assert_int_equal(table.open, n);
		if (flow) {
			found++;
		} else if (n < SIZE) {
			list[n] = udp_table_add(&table, &origin, round);
			assert_non_null(list[n]);
			assert_int_equal(list[n]->fd, -1);
			if (!udp_table_tuple_is_taken(&table, &origin))
				udp_table_keep_port(&table, list[n]);
			n++;
		} else {
			assert_null(udp_table_add(&table, &origin, round));
			full++;
		}
		if (n > 0 && rand() % 3 == 0) {
			unsigned gone = (unsigned)rand() % n;

			udp_table_remove(&table, list[gone]);
			list[gone] = list[--n];
		}
	}
	assert_true(found > 100 && full > 100);
	udp_table_destroy(&table);
}

static struct flow_origin numbered(unsigned number)
{
	struct flow_origin origin = { .client.family = AF_INET, .original.family = AF_INET, .original_port = 53 };

	memcpy(origin.client.bytes, &number, 4);
	origin.client_port = 1;
	origin.target = origin.original;
	origin.target_port = 53;
	return origin;
}

/* A target sees one flow of a client's port; when that ends, another can have it. */
static void test_kept_ports(void **state)
{
	struct flow_origin one = numbered(1), two = one;
	struct udp_table table;
	struct udp_flow *first;

	(void)state;
	assert_int_equal(udp_table_init(&table, SIZE), 0);
	two.original_port = 54; /* another destination, and the same target */
	first = udp_table_add(&table, &one, 0);
	assert_false(udp_table_tuple_is_taken(&table, &one));
	udp_table_keep_port(&table, first);
	assert_true(udp_table_tuple_is_taken(&table, &two));
	two.client_port = 2;
	assert_false(udp_table_tuple_is_taken(&table, &two));
	two.client_port = 1;
	assert_non_null(udp_table_add(&table, &two, 0)); /* it does not keep the port */
	assert_true(udp_table_tuple_is_taken(&table, &two));
	udp_table_remove(&table, first);
	assert_false(udp_table_tuple_is_taken(&table, &two));
	udp_table_destroy(&table);
}

/* The oldest is the one that was not used for longest, whatever the order in which they began. */
static void test_age(void **state)
{
	struct udp_flow *flows[8];
	struct udp_table table;

	(void)state;
	assert_int_equal(udp_table_init(&table, SIZE), 0);
	assert_null(udp_table_oldest(&table));
	for (unsigned i = 0; i < 8; i++) {
		struct flow_origin origin = numbered(i);

		flows[i] = udp_table_add(&table, &origin, i);
	}
	assert_ptr_equal(udp_table_oldest(&table), flows[0]);
	flows[0]->active_ms = 100;
	flows[1]->active_ms = 90;
	assert_ptr_equal(udp_table_oldest(&table), flows[2]);
	udp_table_remove(&table, flows[2]);
	flows[3]->held = true; /* has to stay, so it counts as used */
	assert_ptr_equal(udp_table_oldest(&table), flows[4]);
	for (unsigned i = 0; i < 8; i++)
		flows[i]->held = i != 5;
	flows[5]->active_ms = 200; /* used lately, but the only one that can go */
	assert_ptr_equal(udp_table_oldest(&table), flows[5]);
	flows[5]->held = true;
	assert_null(udp_table_oldest(&table));
	udp_table_destroy(&table);
}

/* However many were used lately, looking for the oldest ends. */
static void test_age_is_bounded(void **state)
{
	struct udp_table table;
	struct udp_flow *oldest;

	(void)state;
	assert_int_equal(udp_table_init(&table, SIZE), 0);
	for (unsigned i = 0; i < SIZE; i++) {
		struct flow_origin origin = numbered(i);

		udp_table_add(&table, &origin, 0)->active_ms = 50 + (i + 7) % 10;
	}
	oldest = udp_table_oldest(&table);
	assert_non_null(oldest);
	assert_int_equal(oldest - table.flows, 3); /* of those that were looked at */
	udp_table_destroy(&table);
}

static void test_cookies(void **state)
{
	struct flow_origin origin = numbered(1);
	struct udp_table table;
	struct udp_flow *flow, *got;
	struct wheel_entry foreign;
	uint64_t cookie;
	uint32_t number;

	(void)state;
	assert_int_equal(udp_table_init(&table, SIZE), 0);
	flow = udp_table_add(&table, &origin, 0);
	cookie = udp_table_cookie(&table, flow);
	assert_false(flow_cookie_is_other(cookie, &number));
	assert_true(udp_table_from_cookie(&table, cookie, &got));
	assert_ptr_equal(got, flow);
	assert_false(udp_table_from_cookie(&table, flow_cookie_other(3), &got));
	assert_false(udp_table_from_cookie(&table, flow_cookie_make(0, 0, FLOW_TARGET), &got));
	udp_table_remove(&table, flow);
	assert_true(udp_table_from_cookie(&table, cookie, &got));
	assert_null(got);
	assert_ptr_equal(udp_table_add(&table, &origin, 0), flow);
	assert_true(udp_table_from_cookie(&table, cookie, &got));
	assert_null(got); /* the same place, another flow */
	assert_ptr_equal(udp_table_from_timer(&table, &flow->timer), flow);
	assert_null(udp_table_from_timer(&table, &foreign));
	udp_table_destroy(&table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_a_list),
		cmocka_unit_test(test_kept_ports),
		cmocka_unit_test(test_age),
		cmocka_unit_test(test_age_is_bounded),
		cmocka_unit_test(test_cookies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
