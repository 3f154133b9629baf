/* The match table against a plain list that is searched from one end to the other. */
#include "gatewayd/base/match.h"

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gatewayd/base/cleanup.h"

#define ENTRIES 400
#define ROUNDS  40
#define PACKETS 500

static const char *const interfaces[] = { "eth0", "eth1", "averylongname15" };

static struct match_key key_any(void)
{
	return (struct match_key){
		.shape = { IPPROTO_TCP, AF_INET, 0, 0, 0, MATCH_PORT_ANY },
		.dst.family = AF_INET,
		.src.family = AF_INET,
		.port_hi = UINT16_MAX,
	};
}

static void test_faulty_keys(void **state)
{
	struct match_key key;

	(void)state;
#define FAULT(change)                                                                                                  \
	do {                                                                                                           \
		key = key_any();                                                                                       \
		assert_int_equal(match_key_check(&key), 0);                                                            \
		change;                                                                                                \
		assert_int_equal(match_key_check(&key), -EBADMSG);                                                     \
	} while (0)
	FAULT(key.shape.protocol = IPPROTO_ICMP);
	FAULT(key.shape.family = AF_UNIX);
	FAULT(key.shape.family = AF_INET6);
	FAULT(key.shape.dst_len = 33);
	FAULT(key.shape.src_len = 129);
	FAULT(key.dst.bytes[0] = 1);
	FAULT(key.src.bytes[3] = 1);
	FAULT(key.src.bytes[15] = 1);
	FAULT(key.shape.interface = 1);
	FAULT(key.shape.interface = 2);
	FAULT(strcpy(key.interface, "eth0"));
	FAULT(key.shape.interface = 1; memset(key.interface, 'a', sizeof(key.interface)));
	FAULT(key.shape.interface = 1; memcpy(key.interface, "a\0b", 3));
	FAULT(key.shape.port_kind = MATCH_PORT_KINDS);
	FAULT(key.port_lo = 1);
	FAULT(key.port_hi = 1);
	FAULT(key.shape.port_kind = MATCH_PORT_EXACT);
	FAULT(key.shape.port_kind = MATCH_PORT_RANGE; key.port_lo = 2; key.port_hi = 1);
#undef FAULT
}

static void test_put_remove(void **state)
{
	struct match_key key = key_any(), range = key_any();
	struct match_packet packet = {
		.protocol = IPPROTO_TCP, .dst.family = AF_INET, .src.family = AF_INET, .dst_port = 150
	};
	struct match_table *table;
	uint32_t value = 0;

	(void)state;
	assert_int_equal(match_table_new(&table), 0);
	range.shape.port_kind = MATCH_PORT_RANGE;
	range.port_lo = 100;
	range.port_hi = 200;
	assert_int_equal(match_table_remove(table, &key), -ENOENT);
	assert_int_equal(match_table_put(table, &range, 1), 0);
	range.port_lo = 200;
	range.port_hi = 300;
	assert_int_equal(match_table_put(table, &range, 2), -EEXIST);
	assert_int_equal(match_table_remove(table, &range), -ENOENT);
	range.port_lo = 201;
	assert_int_equal(match_table_put(table, &range, 2), 0);
	assert_int_equal(match_table_put(table, &key, 3), 0);
	assert_int_equal(match_table_put(table, &key, 4), 0); /* another value, no new entry */
	assert_int_equal(match_table_count(table), 3);
	assert_int_equal(match_table_find(table, &packet, &value), 1);
	assert_int_equal(value, 1);
	packet.dst_port = 301;
	assert_int_equal(match_table_find(table, &packet, &value), 1);
	assert_int_equal(value, 4);
	assert_int_equal(match_table_remove(table, &key), 0);
	assert_int_equal(match_table_find(table, &packet, &value), 0);
	assert_int_equal(match_table_remove(table, &range), 0);
	assert_int_equal(match_table_remove(table, &range), -ENOENT);
	assert_int_equal(match_table_count(table), 1);
	match_table_free(table);
	match_table_free(NULL);
}

/* The shapes in their documented order; each row comes before all that follow. */
static void test_precedence(void **state)
{
	static const struct match_shape order[] = {
		{ IPPROTO_TCP, AF_INET, 32, 0, 0, MATCH_PORT_ANY },
		{ IPPROTO_TCP, AF_INET, 24, 16, 0, MATCH_PORT_ANY },
		{ IPPROTO_TCP, AF_INET, 24, 8, 1, MATCH_PORT_ANY },
		{ IPPROTO_TCP, AF_INET, 24, 8, 0, MATCH_PORT_EXACT },
		{ IPPROTO_TCP, AF_INET, 24, 8, 0, MATCH_PORT_RANGE },
		{ IPPROTO_TCP, AF_INET, 24, 8, 0, MATCH_PORT_ANY },
		{ IPPROTO_TCP, AF_INET, 24, 0, 1, MATCH_PORT_EXACT },
		{ IPPROTO_TCP, AF_INET, 0, 32, 1, MATCH_PORT_EXACT },
		{ IPPROTO_TCP, AF_INET6, 128, 128, 1, MATCH_PORT_EXACT },
		{ IPPROTO_UDP, AF_INET, 32, 32, 1, MATCH_PORT_EXACT },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(order); i++)
		for (size_t j = 0; j < ARRAY_SIZE(order); j++) {
			int found = match_shape_compare(&order[i], &order[j]);

			assert_int_equal((found > 0) - (found < 0), (i > j) - (i < j));
		}
}

/* Few distinct bits, so that random packets hit. */
static struct addr random_addr(uint8_t family)
{
	struct addr addr = { .family = family };

	for (unsigned i = 0; i < addr_bits(family) / 8; i++)
		addr.bytes[i] = (uint8_t)(rand() % 2 ? 0x80 : 0);
	return addr;
}

static struct match_key random_key(void)
{
	static const uint8_t lengths[] = { 0, 1, 8, 9, 24, 32 };
	struct match_key key = { .shape = { rand() % 4 ? IPPROTO_TCP : IPPROTO_UDP, rand() % 2 ? AF_INET : AF_INET6,
		                         lengths[rand() % 6], lengths[rand() % 3], rand() % 3 == 0,
		                         (uint8_t)(rand() % MATCH_PORT_KINDS) } };

	key.dst = random_addr(key.shape.family);
	key.src = random_addr(key.shape.family);
	addr_mask(&key.dst, key.shape.dst_len);
	addr_mask(&key.src, key.shape.src_len);
	if (key.shape.interface)
		strcpy(key.interface, interfaces[(size_t)rand() % ARRAY_SIZE(interfaces)]);
	key.port_lo = (uint16_t)(rand() % 40);
	key.port_hi = key.port_lo;
	if (key.shape.port_kind == MATCH_PORT_RANGE)
		key.port_hi = (uint16_t)(key.port_lo + rand() % 5);
	if (key.shape.port_kind == MATCH_PORT_ANY) {
		key.port_lo = 0;
		key.port_hi = UINT16_MAX;
	}
	return key;
}

struct reference {
	struct match_key key;
	uint32_t value;
};

static bool matches(const struct match_key *key, const struct match_packet *packet)
{
	struct prefix dst = { key->dst, key->shape.dst_len }, src = { key->src, key->shape.src_len };

	return key->shape.protocol == packet->protocol && key->shape.family == packet->dst.family &&
	       prefix_contains(&dst, &packet->dst) && prefix_contains(&src, &packet->src) &&
	       (!key->shape.interface || strcmp(key->interface, packet->interface) == 0) &&
	       key->port_lo <= packet->dst_port && packet->dst_port <= key->port_hi;
}

static const struct reference *reference_find(const struct reference *list, size_t n, const struct match_packet *packet)
{
	const struct reference *best = NULL;

	for (size_t i = 0; i < n; i++)
		if (matches(&list[i].key, packet) &&
		        (!best || match_shape_compare(&list[i].key.shape, &best->key.shape) < 0))
			best = &list[i];
	return best;
}

static void compare_all(const struct match_table *table, const struct reference *list, size_t n)
{
	for (int i = 0; i < PACKETS; i++) {
		uint8_t family = rand() % 2 ? AF_INET : AF_INET6;
		struct match_packet packet = { rand() % 4 ? IPPROTO_TCP : IPPROTO_UDP, random_addr(family),
			random_addr(family), (uint16_t)(rand() % 48),
			interfaces[(size_t)rand() % ARRAY_SIZE(interfaces)] };
		const struct reference *expected = reference_find(list, n, &packet);
		uint32_t value = 0;

		assert_int_equal(match_table_find(table, &packet, &value), expected != NULL);
		if (expected)
			assert_int_equal(value, expected->value);
	}
}

/* Puts random keys, of which some are refused as overlapping; the list holds those that were taken. */
static size_t fill(struct match_table *table, struct reference *list)
{
	size_t n = 0;

	for (uint32_t i = 0; i < ENTRIES; i++) {
		struct match_key key = random_key();
		size_t same = 0;
		int r = match_table_put(table, &key, i + 1);

		if (r == -EEXIST)
			continue;
		assert_int_equal(r, 0);
		while (same < n && match_key_compare(&list[same].key, &key) != 0)
			same++;
		list[same] = (struct reference){ key, i + 1 };
		if (same == n)
			n++;
	}
	return n;
}

static void test_against_list(void **state)
{
	struct reference list[ENTRIES];

	(void)state;
	srand(20260);
	for (int round = 0; round < ROUNDS; round++) {
		struct match_table *table;
		size_t n;

		assert_int_equal(match_table_new(&table), 0);
		n = fill(table, list);
		assert_int_equal(match_table_count(table), n);
		compare_all(table, list, n);
		while (n > 0) {
			size_t gone = (size_t)rand() % n;

			assert_int_equal(match_table_remove(table, &list[gone].key), 0);
			list[gone] = list[--n];
			if (n == ENTRIES / 4)
				compare_all(table, list, n);
		}
		assert_int_equal(match_table_count(table), 0);
		assert_false(match_table_uses_interface(table));
		match_table_free(table);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_faulty_keys),
		cmocka_unit_test(test_put_remove),
		cmocka_unit_test(test_precedence),
		cmocka_unit_test(test_against_list),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
