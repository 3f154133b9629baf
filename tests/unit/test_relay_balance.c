/* The choice of targets as they are configured: when there is none first, then how the weights come out. */
#include "balance_fixture.h"

#include <errno.h>

static uint32_t pick_of(struct fixture *fixture, uint8_t family, const uint32_t *tried, size_t n)
{
	struct addr client = fixture_client(1);
	struct balance_ask ask = { .place = &fixture->place,
		.now_ms = fixture->now_ms,
		.client = &client,
		.family = family,
		.tried = tried,
		.n_tried = n };
	struct target *target = NULL;
	int r = balance_pick(&fixture->balance, &ask, &target);

	assert_int_equal(r, target ? 0 : -ENOENT);
	return target ? target->id : 0;
}

static void put(struct fixture *fixture, uint32_t id, unsigned weight, bool backup, uint8_t state)
{
	struct target target = fixture_target(id, weight);

	target.backup = backup;
	target.state = state;
	fixture_put(fixture, target);
}

static void test_none(void **state)
{
	(void)state;
	for (unsigned i = 0; i < PROTO_ALGORITHMS; i++) {
		struct fixture fixture = fixture_make((enum proto_algorithm)i);

		assert_int_equal(pick_of(&fixture, AF_UNSPEC, NULL, 0), 0);
		assert_int_equal(balance_remove(&fixture.balance, 1), -ENOENT);
		put(&fixture, 1, 0, false, TARGET_UP);
		put(&fixture, 2, 5, false, TARGET_DRAIN);
		put(&fixture, 3, 5, false, TARGET_DOWN);
		put(&fixture, 4, 5, true, TARGET_DOWN);
		assert_int_equal(pick_of(&fixture, AF_INET, NULL, 0), 0);
		balance_clear(&fixture.balance);
	}
}

static void test_family(void **state)
{
	(void)state;
	for (unsigned algorithm = 0; algorithm < PROTO_ALGORITHMS; algorithm++) {
		struct fixture fixture = fixture_make((enum proto_algorithm)algorithm);
		unsigned v4 = 0, v6 = 0;

		put(&fixture, 1, 1, false, TARGET_UP);
		assert_int_equal(pick_of(&fixture, AF_INET6, NULL, 0), 0);
		put(&fixture, 20001, 1, false, TARGET_UP);
		for (int i = 0; i < 100; i++) {
			assert_int_equal(pick_of(&fixture, AF_INET, NULL, 0), 1);
			assert_int_equal(pick_of(&fixture, AF_INET6, NULL, 0), 20001);
			*(fixture_pick(&fixture) == 1 ? &v4 : &v6) += 1;
		}
		assert_true(v4 > 20 && v6 > 20);
		balance_clear(&fixture.balance);
	}
}

static void test_backup(void **state)
{
	(void)state;
	for (unsigned algorithm = 0; algorithm < PROTO_ALGORITHMS; algorithm++) {
		struct fixture fixture = fixture_make((enum proto_algorithm)algorithm);

		put(&fixture, 1, 1, false, TARGET_UP);
		put(&fixture, 2, 100, true, TARGET_UP);
		put(&fixture, 3, 0, false, TARGET_UP);
		for (int i = 0; i < 10; i++)
			assert_int_equal(fixture_pick(&fixture), 1);
		put(&fixture, 1, 1, false, TARGET_DOWN);
		assert_int_equal(fixture_pick(&fixture), 2);
		put(&fixture, 1, 1, false, TARGET_UP);
		assert_int_equal(fixture_pick(&fixture), 1);
		balance_clear(&fixture.balance);
	}
}

/* What was tried is not chosen again; then backups, then nothing. */
static void test_tried(void **state)
{
	(void)state;
	for (unsigned algorithm = 0; algorithm < PROTO_ALGORITHMS; algorithm++) {
		struct fixture fixture = fixture_make((enum proto_algorithm)algorithm);
		uint32_t tried[4];

		put(&fixture, 1, 1, false, TARGET_UP);
		put(&fixture, 2, 9, false, TARGET_UP);
		put(&fixture, 3, 1, false, TARGET_UP);
		put(&fixture, 4, 5, true, TARGET_UP);
		for (size_t n = 0; n < 4; n++) {
			tried[n] = pick_of(&fixture, AF_INET, tried, n);
			assert_int_equal(tried[n] == 4, n == 3);
			for (size_t i = 0; i < n; i++)
				assert_int_not_equal(tried[i], tried[n]);
		}
		assert_int_equal(pick_of(&fixture, AF_INET, tried, 4), 0);
		balance_clear(&fixture.balance);
	}
}

/* 5:1:1 gives a a b a c a a and not a a a a a b c. */
static void test_smooth(void **state)
{
	static const uint32_t expected[] = { 1, 1, 2, 1, 3, 1, 1 };
	struct fixture fixture = fixture_make(PROTO_ALGORITHM_ROUND_ROBIN);

	(void)state;
	put(&fixture, 1, 5, false, TARGET_UP);
	put(&fixture, 2, 1, false, TARGET_UP);
	put(&fixture, 3, 1, false, TARGET_UP);
	for (int round = 0; round < 3; round++)
		for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
			assert_int_equal(fixture_pick(&fixture), expected[i]);
	balance_clear(&fixture.balance);
}

/* In every stretch as long as the sum of the weights each target is taken exactly as often as it weighs; any other
 * stretch is within two choices of that. */
static void test_round_robin_is_exact(void **state)
{
	struct fixture fixture = fixture_make(PROTO_ALGORITHM_ROUND_ROBIN);
	unsigned count[9] = { 0 }, weight[9], sum = 0;

	(void)state;
	srand(11);
	for (uint32_t id = 1; id <= 8; id++) {
		weight[id] = (unsigned)(1 + rand() % 256);
		put(&fixture, id, weight[id], false, TARGET_UP);
		sum += weight[id];
	}
	for (unsigned i = 0; i < sum; i++)
		count[fixture_pick(&fixture)]++;
	for (uint32_t id = 1; id <= 8; id++)
		assert_int_equal(count[id], weight[id]);
	fixture_count(&fixture, count, 9);
	for (uint32_t id = 1; id <= 8; id++)
		fixture_assert_part(count[id], (double)weight[id] / sum, 2);
	balance_clear(&fixture.balance);
}

/* Without load two draws of equals are as good as one: within five standard deviations. */
static void test_random_two_without_load(void **state)
{
	struct fixture fixture = fixture_make(PROTO_ALGORITHM_RANDOM_TWO);
	unsigned count[11];

	(void)state;
	for (uint32_t id = 1; id <= 10; id++)
		put(&fixture, id, 3, false, TARGET_UP);
	fixture_count(&fixture, count, 11);
	for (uint32_t id = 1; id <= 10; id++)
		fixture_assert_part(count[id], 0.1, 150);
	balance_clear(&fixture.balance);
}

/* Clients, of whom each comes once, by weight, within five standard deviations. */
static void test_source_hash_by_weight(void **state)
{
	static const unsigned weight[] = { 0, 1, 2, 3, 4 };
	static const double most[] = { 0, 150, 200, 230, 245 };
	struct fixture fixture = fixture_make(PROTO_ALGORITHM_SOURCE_HASH);
	unsigned count[5];

	(void)state;
	for (uint32_t id = 1; id <= 4; id++)
		put(&fixture, id, weight[id], false, TARGET_UP);
	fixture_count(&fixture, count, 5);
	for (uint32_t id = 1; id <= 4; id++)
		fixture_assert_part(count[id], weight[id] / 10.0, most[id]);
	balance_clear(&fixture.balance);
}

static void test_changes(void **state)
{
	struct fixture fixture = fixture_make(PROTO_ALGORITHM_ROUND_ROBIN);
	unsigned count[4] = { 0 };

	(void)state;
	for (uint32_t id = 1; id <= 3; id++)
		put(&fixture, id, 1, false, TARGET_UP);
	assert_int_equal(balance_remove(&fixture.balance, 2), 0);
	/* A target that is put again and again keeps its turn: the others are not starved. */
	for (int i = 0; i < 100; i++) {
		put(&fixture, 1, 1, false, TARGET_UP);
		count[fixture_pick(&fixture)]++;
	}
	assert_int_equal(count[1], 50);
	assert_int_equal(count[3], 50);
	balance_clear(&fixture.balance);
}

/* As many targets as an upstream may have, with each algorithm. */
static void test_most_targets(void **state)
{
	static unsigned count[1025];

	(void)state;
	for (unsigned algorithm = 0; algorithm < PROTO_ALGORITHMS; algorithm++) {
		struct fixture fixture = fixture_make((enum proto_algorithm)algorithm);
		unsigned chosen = 0;

		for (uint32_t id = 1; id <= 1024; id++)
			put(&fixture, id, 1 + id % 3, false, TARGET_UP);
		memset(count, 0, sizeof(count));
		for (unsigned i = 0; i < 6000; i++)
			count[fixture_pick(&fixture)]++;
		assert_int_equal(count[0], 0);
		for (uint32_t id = 1; id <= 1024; id++)
			chosen += count[id] > 0;
		/* The lightest targets have nothing to do as long as the heavy ones have no flows. */
		assert_true(chosen >= 341);
		balance_clear(&fixture.balance);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_family),
		cmocka_unit_test(test_backup),
		cmocka_unit_test(test_tried),
		cmocka_unit_test(test_smooth),
		cmocka_unit_test(test_round_robin_is_exact),
		cmocka_unit_test(test_random_two_without_load),
		cmocka_unit_test(test_source_hash_by_weight),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_most_targets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
