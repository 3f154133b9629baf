/* The choice of targets: when there is none first, then how the weights come out. */
#include "gatewayd/relay/balance.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void put(struct balance *balance, uint32_t id, const char *address, uint16_t weight, bool backup, uint8_t up)
{
	struct target target = { .id = id, .port = 80, .weight = weight, .backup = backup, .state = up };

	assert_int_equal(addr_parse(address, &target.addr), 0);
	assert_int_equal(balance_put(balance, &target), 0);
}

static uint32_t pick(struct balance *balance, uint8_t family)
{
	const struct target *target = balance_pick(balance, family);

	return target ? target->id : 0;
}

static void test_none(void **state)
{
	struct balance balance = { 0 };

	(void)state;
	assert_null(balance_pick(&balance, AF_UNSPEC));
	assert_int_equal(balance_remove(&balance, 1), -ENOENT);
	put(&balance, 1, "192.0.2.1", 0, false, TARGET_UP);
	put(&balance, 2, "192.0.2.2", 5, false, TARGET_DRAIN);
	put(&balance, 3, "192.0.2.3", 5, false, TARGET_DOWN);
	put(&balance, 4, "192.0.2.4", 5, true, TARGET_DOWN);
	assert_null(balance_pick(&balance, AF_INET));
	balance_clear(&balance);
}

static void test_family(void **state)
{
	struct balance balance = { 0 };
	bool seen[3] = { false };

	(void)state;
	put(&balance, 1, "192.0.2.1", 1, false, TARGET_UP);
	assert_null(balance_pick(&balance, AF_INET6));
	put(&balance, 2, "2001:db8::2", 1, false, TARGET_UP);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(pick(&balance, AF_INET), 1);
		assert_int_equal(pick(&balance, AF_INET6), 2);
	}
	for (int i = 0; i < 4; i++)
		seen[pick(&balance, AF_UNSPEC)] = true;
	assert_true(seen[1] && seen[2]);
	balance_clear(&balance);
}

static void test_backup(void **state)
{
	struct balance balance = { 0 };

	(void)state;
	put(&balance, 1, "192.0.2.1", 1, false, TARGET_UP);
	put(&balance, 2, "192.0.2.2", 100, true, TARGET_UP);
	for (int i = 0; i < 10; i++)
		assert_int_equal(pick(&balance, AF_INET), 1);
	put(&balance, 1, "192.0.2.1", 1, false, TARGET_DOWN);
	assert_int_equal(pick(&balance, AF_INET), 2);
	put(&balance, 1, "192.0.2.1", 1, false, TARGET_UP);
	assert_int_equal(pick(&balance, AF_INET), 1);
	balance_clear(&balance);
}

/* 5:1:1 gives a a b a c a a and not a a a a a b c. */
static void test_smooth(void **state)
{
	static const uint32_t expected[] = { 1, 1, 2, 1, 3, 1, 1 };
	struct balance balance = { 0 };

	(void)state;
	put(&balance, 1, "192.0.2.1", 5, false, TARGET_UP);
	put(&balance, 2, "192.0.2.2", 1, false, TARGET_UP);
	put(&balance, 3, "192.0.2.3", 1, false, TARGET_UP);
	for (int round = 0; round < 3; round++)
		for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
			assert_int_equal(pick(&balance, AF_INET), expected[i]);
	balance_clear(&balance);
}

/* In every stretch as long as the sum of the weights each target is taken exactly as often as it weighs. */
static void test_distribution(void **state)
{
	struct balance balance = { 0 };
	unsigned count[9], sum = 0;

	(void)state;
	srand(11);
	for (uint32_t id = 1; id <= 8; id++) {
		uint16_t weight = (uint16_t)(1 + rand() % 256);

		put(&balance, id, "192.0.2.1", weight, false, TARGET_UP);
		sum += weight;
	}
	for (int round = 0; round < 3; round++) {
		for (uint32_t id = 1; id <= 8; id++)
			count[id] = 0;
		for (unsigned i = 0; i < sum; i++)
			count[pick(&balance, AF_INET)]++;
		for (uint32_t id = 1; id <= 8; id++)
			assert_int_equal(count[id], balance.targets[id - 1].weight);
	}
	balance_clear(&balance);
}

static void test_changes(void **state)
{
	struct balance balance = { 0 };
	unsigned count[4] = { 0 };

	(void)state;
	put(&balance, 1, "192.0.2.1", 1, false, TARGET_UP);
	put(&balance, 2, "192.0.2.2", 1, false, TARGET_UP);
	put(&balance, 3, "192.0.2.3", 1, false, TARGET_UP);
	assert_int_equal(balance_remove(&balance, 2), 0);
	/* A target that is put again and again keeps its turn: the others are not starved. */
	for (int i = 0; i < 100; i++) {
		put(&balance, 1, "192.0.2.1", 1, false, TARGET_UP);
		count[pick(&balance, AF_INET)]++;
	}
	assert_int_equal(count[1], 50);
	assert_int_equal(count[3], 50);
	balance_clear(&balance);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_family),
		cmocka_unit_test(test_backup),
		cmocka_unit_test(test_smooth),
		cmocka_unit_test(test_distribution),
		cmocka_unit_test(test_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
