/* The choice of targets by what is observed of them: states, limits, slow start, and load over 10,000 flows. */
#include "balance_fixture.h"

#include <errno.h>

static void put_some(struct fixture *fixture, uint32_t n, unsigned weight)
{
	for (uint32_t id = 1; id <= n; id++)
		fixture_put(fixture, fixture_target(id, weight));
}

/* --- states --- */

/* Each says so for itself: the operator, the checks, the operator's weight. */
static void test_out_of_service(void **state)
{
	(void)state;
	for (unsigned algorithm = 0; algorithm < PROTO_ALGORITHMS; algorithm++) {
		struct fixture fixture = fixture_make((enum proto_algorithm)algorithm);

		put_some(&fixture, 5, 1);
		fixture_state(&fixture, 1)->admin = TARGET_DRAIN + 1;
		fixture_state(&fixture, 2)->admin = TARGET_DOWN + 1;
		fixture_state(&fixture, 3)->health = TARGET_HEALTH_DOWN;
		fixture_state(&fixture, 4)->weight = 0 + 1;
		for (int i = 0; i < 50; i++)
			assert_int_equal(fixture_pick(&fixture), 5);
		fixture_state(&fixture, 5)->health = TARGET_HEALTH_DOWN;
		assert_int_equal(fixture_pick(&fixture), 0);
		balance_clear(&fixture.balance);
	}
}

/* The operator's word goes before the configuration, also for the better. */
static void test_operator_before_configuration(void **state)
{
	struct fixture fixture = fixture_make(PROTO_ALGORITHM_ROUND_ROBIN);
	struct target target = fixture_target(1, 0);

	(void)state;
	target.state = TARGET_DOWN;
	fixture_put(&fixture, target);
	assert_int_equal(fixture_pick(&fixture), 0);
	fixture_state(&fixture, 1)->admin = TARGET_UP + 1;
	assert_int_equal(fixture_pick(&fixture), 0);
	fixture_state(&fixture, 1)->weight = 3 + 1;
	assert_int_equal(fixture_pick(&fixture), 1);
	balance_clear(&fixture.balance);
}

/* What another target has left in the slot says nothing of this one. */
static void test_state_of_another(void **state)
{
	struct fixture fixture = fixture_make(PROTO_ALGORITHM_ROUND_ROBIN);

	(void)state;
	put_some(&fixture, 1, 1);
	fixture_state(&fixture, 1)->health = TARGET_HEALTH_DOWN;
	assert_int_equal(fixture_pick(&fixture), 0);
	fixture.place.memory->id[fixture_slot(1)] = 99;
	assert_int_equal(fixture_pick(&fixture), 1);
	balance_clear(&fixture.balance);
}

/* Others, then backups, then those that are ejected, then ejected backups, then nothing. */
static void test_kinds(void **state)
{
	(void)state;
	for (unsigned algorithm = 0; algorithm < PROTO_ALGORITHMS; algorithm++) {
		struct fixture fixture = fixture_make((enum proto_algorithm)algorithm);
		static const uint32_t order[] = { 4, 2, 3, 1 };

		for (uint32_t id = 1; id <= 4; id++) {
			struct target target = fixture_target(id, 1);

			target.backup = id <= 2;
			fixture_put(&fixture, target);
		}
		fixture_state(&fixture, 1)->ejected_until_ms = fixture.now_ms + 1;
		fixture_state(&fixture, 3)->ejected_until_ms = fixture.now_ms + 1;
		for (unsigned i = 0; i < 4; i++) {
			for (unsigned j = 0; j < 20; j++)
				assert_int_equal(fixture_pick(&fixture), order[i]);
			fixture_state(&fixture, order[i])->health = TARGET_HEALTH_DOWN;
		}
		assert_int_equal(fixture_pick(&fixture), 0);
		balance_clear(&fixture.balance);
	}
}

static void test_an_ejection_ends(void **state)
{
	struct fixture fixture = fixture_make(PROTO_ALGORITHM_ROUND_ROBIN);

	(void)state;
	put_some(&fixture, 2, 1);
	fixture_state(&fixture, 1)->ejected_until_ms = fixture.now_ms + 10;
	for (unsigned i = 0; i < 10; i++, fixture.now_ms++)
		assert_int_equal(fixture_pick(&fixture), 2);
	assert_int_not_equal(fixture_pick(&fixture), fixture_pick(&fixture));
	balance_clear(&fixture.balance);
}

/* --- max_connections --- */

static int pick(struct fixture *fixture, struct target **ret)
{
	struct addr client = fixture_client(fixture->client++);
	struct balance_ask ask = { .place = &fixture->place, .now_ms = fixture->now_ms, .client = &client };

	return balance_pick(&fixture->balance, &ask, ret);
}

static void take(struct fixture *fixture, uint32_t id, struct load_hold *ret)
{
	const struct target *target = balance_target(&fixture->balance, id);

	assert_true(load_take(&fixture->place, target->slot, id, target->max_connections, ret));
}

static void test_limits(void **state)
{
	(void)state;
	for (unsigned algorithm = 0; algorithm < PROTO_ALGORITHMS; algorithm++) {
		struct fixture fixture = fixture_make((enum proto_algorithm)algorithm);
		struct load_hold holds[8], more;
		struct target *target = NULL;
		unsigned count[4] = { 0 };

		for (uint32_t id = 1; id <= 3; id++) {
			struct target one = fixture_target(id, id);

			one.max_connections = id;
			one.backup = id == 2;
			fixture_put(&fixture, one);
		}
		for (unsigned i = 0; i < 6; i++) {
			assert_int_equal(pick(&fixture, &target), 0);
			assert_int_equal(target->backup, i >= 4); /* which takes what the others cannot */
			take(&fixture, target->id, &holds[i]);
			count[target->id]++;
		}
		for (uint32_t id = 1; id <= 3; id++)
			assert_int_equal(count[id], id);
		assert_int_equal(pick(&fixture, &target), -EBUSY);
		assert_false(load_take(&fixture.place, fixture_slot(3), 3, 3, &more));
		load_give(&fixture.place, &holds[5]);
		assert_int_equal(pick(&fixture, &target), 0);
		assert_int_equal(target->id, 2);
		balance_clear(&fixture.balance);
	}
}

/* --- slow start --- */

/* Three targets, one of which has come back: at a quarter of the time it has a quarter of its share, and so on. */
static void test_slow_start(void **state)
{
	struct fixture fixture = fixture_make(PROTO_ALGORITHM_ROUND_ROBIN);
	const uint64_t since = fixture.now_ms;
	unsigned count[4];

	(void)state;
	balance_configure(&fixture.balance, &(struct balance_rules){ .slow_start_ms = 8000 });
	put_some(&fixture, 3, 10);
	fixture_state(&fixture, 1)->since_ms = since;
	fixture_state(&fixture, 1)->health = TARGET_HEALTH_UP;
	for (unsigned eighth = 0; eighth <= 8; eighth++) {
		double share = eighth == 0 ? 1.0 / BALANCE_SLOW_PART : eighth / 8.0;

		fixture.now_ms = since + eighth * 1000;
		fixture_count(&fixture, count, 4);
		fixture_assert_part(count[1], share / (share + 2), 2);
		fixture_assert_part(count[2], 1 / (share + 2), 2);
	}
	/* From an ejection it comes back the same way. */
	fixture_state(&fixture, 2)->ejected_until_ms = fixture.now_ms;
	fixture.now_ms += 4000;
	fixture_count(&fixture, count, 4);
	fixture_assert_part(count[2], 0.5 / 2.5, 2);
	balance_clear(&fixture.balance);
}

/* The clients that a target in slow start has are those it will have, ever more of them; the others keep their
 * target. */
static void test_slow_start_of_source_hash(void **state)
{
	struct fixture fixture = fixture_make(PROTO_ALGORITHM_SOURCE_HASH);
	static uint32_t whole[FIXTURE_PICKS];
	const uint64_t since = fixture.now_ms;
	unsigned before = 0, of_it = 0;

	(void)state;
	balance_configure(&fixture.balance,
	        &(struct balance_rules){ .algorithm = PROTO_ALGORITHM_SOURCE_HASH, .slow_start_ms = 8000 });
	put_some(&fixture, 4, 1);
	for (uint32_t i = 0; i < FIXTURE_PICKS; i++) {
		whole[i] = fixture_pick(&fixture);
		of_it += whole[i] == 1;
	}
	fixture_state(&fixture, 1)->since_ms = since;
	fixture_state(&fixture, 1)->health = TARGET_HEALTH_UP;
	for (unsigned quarter = 1; quarter <= 4; quarter++) {
		unsigned has = 0;

		fixture.now_ms = since + quarter * 2000;
		fixture.client = 0;
		for (uint32_t i = 0; i < FIXTURE_PICKS; i++) {
			uint32_t id = fixture_pick(&fixture);

			has += id == 1;
			assert_true(id == whole[i] || (whole[i] == 1 && quarter < 4));
		}
		assert_true(has >= before && has > of_it * quarter / 4 - 150 && has < of_it * quarter / 4 + 150);
		before = has;
	}
	balance_clear(&fixture.balance);
}

/* With all in slow start each client has one of those that can be used. */
static void test_all_in_slow_start(void **state)
{
	struct fixture fixture = fixture_make(PROTO_ALGORITHM_SOURCE_HASH);
	unsigned count[4];

	(void)state;
	balance_configure(&fixture.balance,
	        &(struct balance_rules){ .algorithm = PROTO_ALGORITHM_SOURCE_HASH, .slow_start_ms = 8000 });
	put_some(&fixture, 3, 1);
	for (uint32_t id = 1; id <= 3; id++) {
		fixture_state(&fixture, id)->since_ms = fixture.now_ms;
		fixture_state(&fixture, id)->health = id == 2 ? TARGET_HEALTH_DOWN : TARGET_HEALTH_UP;
	}
	fixture_count(&fixture, count, 4);
	assert_int_equal(count[2], 0);
	fixture_assert_part(count[1], 0.5, 250);
	balance_clear(&fixture.balance);
}

/* --- source_hash and targets that come and go --- */

/* A target out of service takes along its own clients' choice and no other's; they are spread over the rest. */
static void test_disruption(void **state)
{
	struct fixture fixture = fixture_make(PROTO_ALGORITHM_SOURCE_HASH);
	static uint32_t whole[FIXTURE_PICKS];
	unsigned moved[11] = { 0 }, of_it = 0;

	(void)state;
	put_some(&fixture, 10, 1);
	for (uint32_t i = 0; i < FIXTURE_PICKS; i++)
		whole[i] = fixture_pick(&fixture);
	fixture_state(&fixture, 4)->health = TARGET_HEALTH_DOWN;
	fixture.client = 0;
	for (uint32_t i = 0; i < FIXTURE_PICKS; i++) {
		uint32_t id = fixture_pick(&fixture);

		assert_int_not_equal(id, 4);
		of_it += whole[i] == 4;
		if (whole[i] == 4)
			moved[id]++;
		else
			assert_int_equal(id, whole[i]);
	}
	fixture_assert_part(of_it, 0.1, 150);
	for (uint32_t id = 1; id <= 10; id++)
		assert_true(id == 4 || (moved[id] > of_it / 9 - 60 && moved[id] < of_it / 9 + 60));
	/* Deleted for good: of the others' clients at most 2 % go elsewhere. */
	of_it = 0;
	assert_int_equal(balance_remove(&fixture.balance, 4), 0);
	fixture.client = 0;
	for (uint32_t i = 0; i < FIXTURE_PICKS; i++)
		of_it += fixture_pick(&fixture) != whole[i];
	assert_true(of_it <= FIXTURE_PICKS / 10 + FIXTURE_PICKS / 50 + 150);
	balance_clear(&fixture.balance);
}

/* A weight that an operator has changed is in force, though not more often than once in BALANCE_TABLE_MS. */
static void test_weight_at_runtime(void **state)
{
	struct fixture fixture = fixture_make(PROTO_ALGORITHM_SOURCE_HASH);
	unsigned count[3];

	(void)state;
	put_some(&fixture, 2, 1);
	fixture_count(&fixture, count, 3);
	fixture_assert_part(count[1], 0.5, 250);
	fixture_state(&fixture, 1)->weight = 3 + 1;
	fixture_count(&fixture, count, 3);
	fixture_assert_part(count[1], 0.5, 250);
	fixture.now_ms += BALANCE_TABLE_MS;
	fixture_count(&fixture, count, 3);
	fixture_assert_part(count[1], 0.75, 250);
	fixture_state(&fixture, 2)->weight = 0 + 1;
	fixture_count(&fixture, count, 3);
	assert_int_equal(count[1], FIXTURE_PICKS);
	balance_clear(&fixture.balance);
}

/* --- load --- */

#define OPEN 400

/* FIXTURE_PICKS flows, of which OPEN are open at a time and one at random ends for each that begins. *ret: the flows
 * of each target in the end. */
static void run_flows(struct fixture *fixture, uint32_t *ret, uint32_t n)
{
	static struct load_hold holds[OPEN];

	memset(holds, 0, sizeof(holds));
	srand(3);
	for (unsigned i = 0; i < FIXTURE_PICKS; i++) {
		struct load_hold *hold = &holds[i < OPEN ? i : (unsigned)rand() % OPEN];
		struct target *target;

		load_give(&fixture->place, hold);
		assert_int_equal(pick(fixture, &target), 0);
		take(fixture, target->id, hold);
	}
	for (uint32_t id = 1; id <= n; id++)
		ret[id] = load_now(&fixture->place, fixture_state(fixture, id));
}

/* Open flows by weight, within one: whatever flows have ended, the next ones go where they are missing. Where more have
 * ended at one target than have begun since, it is a few more. */
static void test_least_conn(void **state)
{
	static const unsigned weight[] = { 0, 1, 2, 3, 4, 10 };
	struct fixture fixture = fixture_make(PROTO_ALGORITHM_LEAST_CONN);
	uint32_t open[6];

	(void)state;
	for (uint32_t id = 1; id <= 5; id++)
		fixture_put(&fixture, fixture_target(id, weight[id]));
	run_flows(&fixture, open, 5);
	for (uint32_t id = 1; id <= 5; id++)
		assert_in_range(open[id], OPEN * weight[id] / 20 - 2, OPEN * weight[id] / 20 + 2);
	/* One that comes back without any flows gets all, until it has its share. */
	fixture_put(&fixture, fixture_target(6, 1));
	for (unsigned i = 0; i < OPEN / 20 - 2; i++) {
		struct load_hold hold;

		assert_int_equal(fixture_pick(&fixture), 6);
		take(&fixture, 6, &hold);
	}
	balance_clear(&fixture.balance);
}

/* Equals without flows take turns. */
static void test_least_conn_without_load(void **state)
{
	struct fixture fixture = fixture_make(PROTO_ALGORITHM_LEAST_CONN);
	unsigned count[5];

	(void)state;
	put_some(&fixture, 4, 1);
	fixture_count(&fixture, count, 5);
	for (uint32_t id = 1; id <= 4; id++)
		assert_int_equal(count[id], FIXTURE_PICKS / 4);
	balance_clear(&fixture.balance);
}

/* The better of two keeps all near their share of 40 flows; one drawn at random would be off by twice as much. */
static void test_random_two(void **state)
{
	struct fixture fixture = fixture_make(PROTO_ALGORITHM_RANDOM_TWO);
	uint32_t open[21];

	(void)state;
	for (uint32_t id = 1; id <= 10; id++)
		fixture_put(&fixture, fixture_target(id, id <= 5 ? 1 : 3));
	run_flows(&fixture, open, 10);
	for (uint32_t id = 1; id <= 10; id++)
		assert_in_range(open[id], (id <= 5 ? 20 : 60) - 6, (id <= 5 ? 20 : 60) + 6);
	balance_clear(&fixture.balance);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_out_of_service),
		cmocka_unit_test(test_operator_before_configuration),
		cmocka_unit_test(test_state_of_another),
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_an_ejection_ends),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_slow_start),
		cmocka_unit_test(test_slow_start_of_source_hash),
		cmocka_unit_test(test_all_in_slow_start),
		cmocka_unit_test(test_disruption),
		cmocka_unit_test(test_weight_at_runtime),
		cmocka_unit_test(test_least_conn),
		cmocka_unit_test(test_least_conn_without_load),
		cmocka_unit_test(test_random_two),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
