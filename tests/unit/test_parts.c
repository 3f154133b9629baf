/* Pools of parts at their limit and what they give back to the kernel, and addresses in little room. */
#include "gatewayd/base/parts.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/base/addr_trio.h"
#include "gatewayd/base/shared.h"

#define SIZE 48
#define MAX  2000
#define ROOM (MAX + PARTS_CHUNK_BYTES / SIZE)

/* Bytes of the pool that have pages. */
static size_t resident(const struct parts *parts)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), n = (size_t)parts->n_chunks * PARTS_CHUNK_BYTES / page, found = 0;
	unsigned char *pages = calloc(n, 1);

	assert_non_null(pages);
	assert_int_equal(mincore(parts->memory, n * page, pages), 0);
	for (size_t i = 0; i < n; i++)
		found += pages[i] & 1;
	free(pages);
	return found * page;
}

static bool is_zero(const uint8_t *part)
{
	static const uint8_t zero[SIZE];

	return memcmp(part, zero, SIZE) == 0;
}

/* All that there are, each of them its own. */
static uint32_t take_all(struct parts *parts, uint32_t numbers[ROOM])
{
	uint32_t n = 0;

	while ((numbers[n] = parts_take(parts)) != 0) {
		assert_true(is_zero(parts_at(parts, numbers[n])));
		memset(parts_at(parts, numbers[n]), (int)(n % 255 + 1), SIZE);
		assert_in_range(++n, 1, ROOM - 1);
	}
	return n;
}

static void test_limit(void **state)
{
	static uint32_t numbers[ROOM];
	struct parts parts;
	uint32_t n;

	(void)state;
	assert_int_equal(parts_init(&parts, MAX, SIZE), 0);
	assert_null(parts_at(&parts, 0));
	parts_give(&parts, 0);
	for (unsigned round = 0; round < 3; round++) {
		n = take_all(&parts, numbers);
		assert_in_range(n, MAX, ROOM - 1);
		assert_int_equal(parts.used, n);
		for (uint32_t i = 0; i < n; i++) {
			const uint8_t *part = parts_at(&parts, numbers[i]);

			assert_int_equal(part[0], i % 255 + 1);
			assert_int_equal(part[SIZE - 1], i % 255 + 1);
		}
		for (uint32_t i = 0; i < n; i++)
			parts_give(&parts, numbers[(i * 37U) % n]);
		assert_int_equal(parts.used, 0);
	}
	parts_destroy(&parts);
	parts_destroy(&parts);
}

static void test_memory_goes_back(void **state)
{
	static uint32_t numbers[ROOM];
	struct parts parts;
	uint32_t n, spare;

	(void)state;
	assert_int_equal(parts_init(&parts, MAX, SIZE), 0);
	n = take_all(&parts, numbers);
	assert_true(resident(&parts) >= (size_t)n * SIZE);
	for (uint32_t i = 1; i < n; i++)
		parts_give(&parts, numbers[i]);
	assert_true(resident(&parts) <= 2 * PARTS_CHUNK_BYTES);
	parts_give(&parts, numbers[0]);
	assert_true(resident(&parts) <= PARTS_CHUNK_BYTES);
	/* One at a time has the same place again, as long as there is one that has pages. */
	spare = parts_take(&parts);
	for (unsigned i = 0; i < 1000; i++) {
		parts_give(&parts, spare);
		assert_int_equal(parts_take(&parts), spare);
	}
	assert_true(resident(&parts) <= PARTS_CHUNK_BYTES);
	parts_destroy(&parts);
}

/* What is used is gathered in few chunks. */
static void test_few_chunks(void **state)
{
	struct parts parts;
	uint32_t numbers[100];

	(void)state;
	assert_int_equal(parts_init(&parts, MAX, SIZE), 0);
	for (unsigned round = 0; round < 50; round++) {
		for (unsigned i = 0; i < 100; i++)
			numbers[i] = parts_take(&parts);
		for (unsigned i = 0; i < 100; i++)
			parts_give(&parts, numbers[i]);
	}
	assert_int_equal(parts.touched, 1);
	parts_destroy(&parts);
}

/* Parts that are smaller than what a chunk has names for. */
static void test_tiny(void **state)
{
	struct parts parts;
	uint32_t n = 0, number;

	(void)state;
	assert_int_equal(parts_init(&parts, MAX, 1), 0);
	while ((number = parts_take(&parts)) != 0) {
		assert_int_equal(*(uint8_t *)parts_at(&parts, number), 0);
		*(uint8_t *)parts_at(&parts, number) = 1;
		n++;
	}
	assert_true(n >= MAX);
	parts_destroy(&parts);
}

/* --- addresses --- */

static void put(struct addr_pool *pool, struct addr_trio *trio, const char *const text[3])
{
	struct addr addr[3] = { 0 }, found[3];

	for (unsigned i = 0; i < 3; i++)
		if (*text[i])
			assert_int_equal(addr_parse(text[i], &addr[i]), 0);
	assert_int_equal(addr_trio_put(trio, pool, &addr[0], &addr[1], &addr[2]), 0);
	addr_trio_get(trio, pool, &found[0], &found[1], &found[2]);
	assert_memory_equal(found, addr, sizeof(addr));
}

/* Twice: what was held before is given back. */
static void check_trio(struct addr_pool *pool, const char *const text[3], uint32_t parts)
{
	struct addr_trio trio = { 0 };
	struct addr found[3];

	put(pool, &trio, text);
	put(pool, &trio, text);
	assert_int_equal(pool->shared.parts.used, parts);
	addr_trio_drop(&trio, pool);
	assert_int_equal(pool->shared.parts.used, 0);
	addr_trio_get(&trio, pool, &found[0], &found[1], &found[2]);
	assert_int_equal(found[0].family + found[1].family + found[2].family, 0);
}

static void test_trio(void **state)
{
	struct addr_pool pool;

	(void)state;
	assert_int_equal(addr_pool_init(&pool, 10), 0);
	check_trio(&pool, (const char *const[]){ "192.0.2.1", "198.51.100.2", "203.0.113.3" }, 0);
	check_trio(&pool, (const char *const[]){ "192.0.2.1", "198.51.100.2", "" }, 0);
	check_trio(&pool, (const char *const[]){ "2001:db8::1", "2001:db8::2", "2001:db8::3" }, 3);
	check_trio(&pool, (const char *const[]){ "2001:db8::1", "2001:db8::2", "2001:db8::2" }, 2);
	check_trio(&pool, (const char *const[]){ "2001:db8::1", "2001:db8::2", "" }, 2);
	check_trio(&pool, (const char *const[]){ "192.0.2.1", "198.51.100.2", "2001:db8::3" }, 1);
	addr_pool_destroy(&pool);
}

/* Thousands of flows of many clients to one server, in whatever order they end: each has what it had. */
static void test_shared_addresses(void **state)
{
	enum { TRIOS = 3000 };
	static struct addr_trio trios[TRIOS];
	struct addr client = { .family = AF_INET6, .bytes = { 0x20 } },
	            server = { .family = AF_INET6, .bytes = { 0x30 } };
	struct addr_pool pool;

	(void)state;
	assert_int_equal(addr_pool_init(&pool, TRIOS), 0);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < TRIOS; i++) {
			memcpy(client.bytes + 12, &i, sizeof(i));
			assert_int_equal(addr_trio_put(&trios[i], &pool, &client, &server, &server), 0);
		}
		assert_in_range(pool.shared.parts.used, TRIOS + 1, TRIOS + TRIOS / 50);
		for (unsigned n = 0; n < TRIOS; n++) {
			unsigned i = n * 7 % TRIOS, number;
			struct addr found[3];

			addr_trio_get(&trios[i], &pool, &found[0], &found[1], &found[2]);
			memcpy(&number, found[0].bytes + 12, sizeof(number));
			assert_int_equal(number, i);
			assert_true(addr_equal(&found[1], &server) && addr_equal(&found[2], &server));
			addr_trio_drop(&trios[i], &pool);
		}
		assert_int_equal(pool.shared.parts.used, 0);
	}
	addr_pool_destroy(&pool);
}

/* An address that nobody has any more is not found where it was: another one is there. */
static void test_forgotten_address(void **state)
{
	struct addr_trio trio = { 0 }, again = { 0 }, other = { 0 };
	struct addr loopback, found[3];
	struct addr_pool pool;

	(void)state;
	assert_int_equal(addr_pool_init(&pool, 10), 0);
	assert_int_equal(addr_parse("::1", &loopback), 0);
	put(&pool, &trio, (const char *const[]){ "::1", "", "" });
	addr_trio_drop(&trio, &pool);
	put(&pool, &again, (const char *const[]){ "::1", "", "" });
	put(&pool, &other, (const char *const[]){ "2001:db8::1", "", "" });
	addr_trio_get(&again, &pool, &found[0], &found[1], &found[2]);
	assert_true(addr_equal(&found[0], &loopback));
	assert_int_equal(pool.shared.parts.used, 2);
	addr_pool_destroy(&pool);
}

static void test_trio_without_room(void **state)
{
	struct addr_trio trio = { 0 };
	struct addr addr, found;
	struct addr_pool pool;

	(void)state;
	assert_int_equal(addr_pool_init(&pool, 0), 0);
	while (parts_take(&pool.shared.parts) != 0)
		;
	assert_int_equal(addr_parse("2001:db8::1", &addr), 0);
	assert_int_equal(addr_trio_put(&trio, &pool, &addr, &addr, &addr), -ENOMEM);
	addr_trio_get(&trio, &pool, &found, &found, &found);
	assert_int_equal(found.family, 0);
	addr_pool_destroy(&pool);
}

/* --- values --- */

struct value {
	uint32_t a, b;
	uint64_t c;
};

/* So many users of so few values, in whatever order they come and go: each value is there once, and as long as it is
 * used. */
static void test_shared_values(void **state)
{
	enum { USERS = 2000, VALUES = 5 };
	static uint32_t numbers[USERS];
	struct shared shared;

	(void)state;
	assert_int_equal(shared_init(&shared, USERS, sizeof(struct value)), 0);
	assert_null(shared_at(&shared, 0));
	shared_leave(&shared, 0);
	for (uint32_t i = 0; i < USERS; i++) {
		struct value value = { i % VALUES, 7, i % VALUES };

		numbers[i] = shared_use(&shared, &value);
		assert_int_not_equal(numbers[i], 0);
	}
	assert_int_equal(shared.parts.used, VALUES);
	for (uint32_t i = 0; i < USERS - 1; i++) {
		struct value value;

		memcpy(&value, shared_at(&shared, numbers[i]), sizeof(value));
		assert_true(value.a == i % VALUES && value.b == 7 && value.c == i % VALUES);
		shared_leave(&shared, numbers[i]);
	}
	assert_int_equal(shared.parts.used, 1);
	shared_leave(&shared, numbers[USERS - 1]);
	assert_int_equal(shared.parts.used, 0);
	shared_destroy(&shared);
}

/* As many different values as there are users have room, beyond all that is remembered. */
static void test_different_values(void **state)
{
	enum { USERS = 4 * SHARED_RECENT };
	static uint32_t numbers[USERS];
	struct shared shared;

	(void)state;
	assert_int_equal(shared_init(&shared, USERS, sizeof(struct value)), 0);
	for (uint32_t i = 0; i < USERS; i++) {
		numbers[i] = shared_use(&shared, &(struct value){ i, i, i });
		assert_int_not_equal(numbers[i], 0);
	}
	assert_int_equal(shared.parts.used, USERS);
	for (uint32_t i = 0; i < USERS; i++) {
		struct value value;

		memcpy(&value, shared_at(&shared, numbers[i]), sizeof(value));
		assert_true(value.a == i && value.b == i && value.c == i);
		shared_leave(&shared, numbers[i]);
	}
	assert_int_equal(shared.parts.used, 0);
	shared_destroy(&shared);
}

/* A few hundred values that take turns are shared, nearly all of them. */
static void test_values_take_turns(void **state)
{
	enum { VALUES = 300, TURNS = 20 };
	struct shared shared;

	(void)state;
	assert_int_equal(shared_init(&shared, VALUES * TURNS, sizeof(struct value)), 0);
	for (uint32_t i = 0; i < VALUES * TURNS; i++)
		assert_int_not_equal(shared_use(&shared, &(struct value){ i % VALUES, 1, 2 }), 0);
	assert_in_range(shared.parts.used, VALUES, VALUES * 4);
	shared_destroy(&shared);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shared_values),
		cmocka_unit_test(test_different_values),
		cmocka_unit_test(test_values_take_turns),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_memory_goes_back),
		cmocka_unit_test(test_few_chunks),
		cmocka_unit_test(test_tiny),
		cmocka_unit_test(test_trio),
		cmocka_unit_test(test_shared_addresses),
		cmocka_unit_test(test_forgotten_address),
		cmocka_unit_test(test_trio_without_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
