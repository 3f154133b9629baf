/*
 * The table of source_hash: against a second implementation, which writes the orders of preference down and reckons
 * turns by fractions; shares, disruption, and what the table must not depend on.
 */
#include "gatewayd/relay/maglev.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gatewayd/base/siphash.h"

#define SERVERS_MAX 1024

static uint16_t table[MAGLEV_SIZE], other[MAGLEV_SIZE];
static struct maglev_server servers[SERVERS_MAX];

/* Of the paper by Aumasson and Bernstein: key 00 01 ... 0f, bytes 00 01 ... 0e. */
static void test_siphash_vectors(void **state)
{
	const uint64_t key[2] = { UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908) };
	uint8_t bytes[15];

	(void)state;
	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)i;
	assert_true(siphash(key, bytes, 15) == UINT64_C(0xa129ca6149be45e5));
	assert_true(siphash(key, bytes, 0) == UINT64_C(0x726fdb47dd0e0e31));
	assert_true(siphash(key, bytes, 8) == UINT64_C(0x93f5f5799a932462));
}

static struct maglev_server server(unsigned number, unsigned weight)
{
	struct maglev_server made = { .port = (uint16_t)(8000 + number % 7), .weight = (uint16_t)weight };
	char text[ADDR_TEXT_MAX];

	snprintf(text, sizeof(text), number % 3 ? "10.1.%u.%u" : "2001:db8:%x::%x", number / 256, number % 256);
	assert_int_equal(addr_parse(text, &made.addr), 0);
	return made;
}

static void make(size_t n, unsigned weights)
{
	srand(5);
	for (unsigned i = 0; i < n; i++)
		servers[i] = server(i, weights ? (unsigned)rand() % (weights + 1) : 1);
}

static void test_bounds(void **state)
{
	static struct maglev_server many[MAGLEV_SERVERS_MAX + 1];

	(void)state;
	memset(table, 7, sizeof(table));
	assert_int_equal(maglev_build(servers, 0, table), -ENOENT);
	make(3, 0);
	servers[0].weight = servers[1].weight = servers[2].weight = 0;
	assert_int_equal(maglev_build(servers, 3, table), -ENOENT);
	many[0] = server(1, 1);
	for (unsigned i = 0; i <= MAGLEV_SERVERS_MAX; i++)
		many[i] = server(i, 1);
	assert_int_equal(maglev_build(many, MAGLEV_SERVERS_MAX + 1, table), -E2BIG);
	for (unsigned i = 0; i < MAGLEV_SIZE; i++)
		assert_int_equal(table[i], 0x0707);
	for (unsigned i = 2; i * i <= MAGLEV_SIZE; i++)
		assert_int_not_equal(MAGLEV_SIZE % i, 0);
}

/* --- the reference --- */

static size_t name(const struct maglev_server *of, uint8_t ret[19])
{
	size_t length = of->addr.family == AF_INET ? 4 : 16;

	ret[0] = of->addr.family == AF_INET ? '4' : '6';
	memcpy(&ret[1], of->addr.bytes, length);
	ret[length + 1] = (uint8_t)(of->port / 256);
	ret[length + 2] = (uint8_t)(of->port % 256);
	return length + 3;
}

static int by_name(const void *a, const void *b)
{
	uint8_t names[2][19] = { 0 };

	name(&servers[*(const unsigned *)a], names[0]);
	name(&servers[*(const unsigned *)b], names[1]);
	return memcmp(names[0], names[1], 19);
}

static uint16_t *preferences(unsigned number)
{
	static const uint64_t keys[2][2] = { { UINT64_C(0x243f6a8885a308d3), UINT64_C(0x13198a2e03707344) },
		{ UINT64_C(0xa4093822299f31d0), UINT64_C(0x082efa98ec4e6c89) } };
	uint16_t *order = malloc(MAGLEV_SIZE * sizeof(*order));
	uint8_t text[19];
	size_t length = name(&servers[number], text);
	uint64_t offset = siphash(keys[0], text, length) % MAGLEV_SIZE;
	uint64_t skip = siphash(keys[1], text, length) % (MAGLEV_SIZE - 1) + 1;

	for (uint64_t j = 0; j < MAGLEV_SIZE; j++)
		order[j] = (uint16_t)((offset + j * skip) % MAGLEV_SIZE);
	return order;
}

/* As the paper has it: round after round, each server in order of names, the first place of its list that is free. In
 * round r a server has had floor(r * weight / greatest) turns. */
static void reference(size_t n, uint16_t *ret)
{
	static uint16_t *orders[SERVERS_MAX];
	static unsigned next[SERVERS_MAX], sorted[SERVERS_MAX];
	unsigned greatest = 0, filled = 0;

	for (unsigned i = 0; i < n; i++) {
		orders[i] = preferences(i);
		next[i] = 0;
		sorted[i] = i;
		greatest = servers[i].weight > greatest ? servers[i].weight : greatest;
	}
	qsort(sorted, n, sizeof(*sorted), by_name);
	memset(ret, 0xff, MAGLEV_SIZE * sizeof(*ret));
	for (uint64_t round = 0; filled < MAGLEV_SIZE; round++)
		for (unsigned k = 0; k < n && filled < MAGLEV_SIZE; k++) {
			unsigned i = sorted[k];
			uint64_t weight = servers[i].weight;

			if ((round + 1) * weight / greatest == round * weight / greatest)
				continue;
			while (ret[orders[i][next[i]]] != UINT16_MAX)
				next[i]++;
			ret[orders[i][next[i]]] = (uint16_t)i;
			filled++;
		}
	for (unsigned i = 0; i < n; i++)
		free(orders[i]);
}

static void test_against_the_reference(void **state)
{
	static const struct {
		size_t n;
		unsigned weights;
	} cases[] = { { 1, 0 }, { 2, 0 }, { 3, 5 }, { 10, 256 }, { 100, 0 }, { 100, 256 }, { 1024, 3 } };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		make(cases[i].n, cases[i].weights);
		servers[0].weight = 1;
		reference(cases[i].n, other);
		assert_int_equal(maglev_build(servers, cases[i].n, table), 0);
		assert_memory_equal(table, other, sizeof(table));
	}
}

/* --- properties --- */

/* Gateways may have the same servers in another order, and under other ids. */
static void test_order_does_not_matter(void **state)
{
	struct maglev_server first;

	(void)state;
	make(20, 9);
	assert_int_equal(maglev_build(servers, 20, table), 0);
	first = servers[0];
	memmove(servers, servers + 1, 19 * sizeof(*servers));
	servers[19] = first;
	assert_int_equal(maglev_build(servers, 20, other), 0);
	for (unsigned i = 0; i < MAGLEV_SIZE; i++)
		assert_int_equal(other[i], (table[i] + 19) % 20);
}

/* Places are dealt out in turns, so a share is off by the last round at most: two places for each 1 of the greatest
 * weight. */
static void test_shares(void **state)
{
	static unsigned count[SERVERS_MAX];
	unsigned sum = 0;

	(void)state;
	make(30, 20);
	assert_int_equal(maglev_build(servers, 30, table), 0);
	for (unsigned i = 0; i < MAGLEV_SIZE; i++)
		count[table[i]]++;
	for (unsigned i = 0; i < 30; i++)
		sum += servers[i].weight;
	for (unsigned i = 0; i < 30; i++) {
		double expected = (double)MAGLEV_SIZE * servers[i].weight / sum;

		assert_true(count[i] > expected - 2 && count[i] < expected + 2);
	}
}

/* When one of n goes, at most 1/n of the places and 2 % more change hands. */
static void test_disruption(void **state)
{
	static const size_t sizes[] = { 2, 3, 5, 10, 30, 100 };

	(void)state;
	for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
		for (unsigned gone = 0; gone < sizes[k] && gone < 5; gone++) {
			unsigned changed = 0;

			make(sizes[k], 0);
			assert_int_equal(maglev_build(servers, sizes[k], table), 0);
			servers[gone].weight = 0;
			assert_int_equal(maglev_build(servers, sizes[k], other), 0);
			for (unsigned i = 0; i < MAGLEV_SIZE; i++) {
				changed += table[i] != other[i];
				assert_int_not_equal(other[i], gone);
			}
			if (changed > MAGLEV_SIZE / sizes[k] + MAGLEV_SIZE / 50)
				fail_msg("%u of %u places with %zu servers", changed, MAGLEV_SIZE, sizes[k]);
		}
	}
}

/* Neighbours' addresses are spread: with a client in each place of a /16, no share is off by a tenth. */
static void test_clients_are_spread(void **state)
{
	unsigned count[4] = { 0 };

	(void)state;
	make(4, 0);
	assert_int_equal(maglev_build(servers, 4, table), 0);
	for (unsigned i = 0; i < 65536; i++) {
		struct addr client = { .family = AF_INET, .bytes = { 10, 0, (uint8_t)(i >> 8), (uint8_t)i } };

		count[table[maglev_hash(&client) % MAGLEV_SIZE]]++;
	}
	for (unsigned i = 0; i < 4; i++)
		assert_true(count[i] > 16384 * 9 / 10 && count[i] < 16384 * 11 / 10);
}

/* Whoever changes this changes where every client of every gateway goes: old and new ones would disagree. */
static void test_is_the_same_forever(void **state)
{
	struct addr v4, v6;

	(void)state;
	assert_int_equal(addr_parse("192.0.2.1", &v4), 0);
	assert_int_equal(addr_parse("2001:db8::1", &v6), 0);
	make(10, 0);
	assert_int_equal(maglev_build(servers, 10, table), 0);
	assert_int_equal(maglev_hash(&v4) % MAGLEV_SIZE, 24200);
	assert_int_equal(maglev_hash(&v6) % MAGLEV_SIZE, 26449);
	assert_int_equal(table[24200], 2);
	assert_int_equal(table[26449], 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_siphash_vectors),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_against_the_reference),
		cmocka_unit_test(test_order_does_not_matter),
		cmocka_unit_test(test_shares),
		cmocka_unit_test(test_disruption),
		cmocka_unit_test(test_clients_are_spread),
		cmocka_unit_test(test_is_the_same_forever),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
