/* Ejection by failed connections, and the count of a target's flows: limits first, then threads against one another. */
#include "gatewayd/relay/passive.h"

#include <pthread.h>

#include "balance_fixture.h"

#define FAILURES 3

static struct fixture with_targets(uint32_t n)
{
	struct fixture fixture = fixture_make(PROTO_ALGORITHM_ROUND_ROBIN);

	balance_configure(&fixture.balance, &(struct balance_rules){ .passive_failures = FAILURES });
	for (uint32_t id = 1; id <= n; id++)
		fixture_put(&fixture, fixture_target(id, 1));
	return fixture;
}

static bool fail_once(struct fixture *fixture, uint32_t id)
{
	return passive_failed(&fixture->balance, &fixture->place, id, fixture->now_ms);
}

static void succeed(struct fixture *fixture, uint32_t id)
{
	passive_succeeded(&fixture->place, fixture_slot(id), id, fixture->now_ms);
}

/* Whether that ejected it. */
static bool fail_in_a_row(struct fixture *fixture, uint32_t id)
{
	for (unsigned i = 1; i < FAILURES; i++)
		assert_false(fail_once(fixture, id));
	return fail_once(fixture, id);
}

static void test_what_cannot_be_ejected(void **state)
{
	struct fixture fixture = with_targets(2);

	(void)state;
	assert_false(fail_in_a_row(&fixture, 9)); /* it is none of the targets */
	fixture.place.memory->id[fixture_slot(1)] = 99;
	assert_false(fail_in_a_row(&fixture, 1)); /* its slot is another's */
	fixture.place.memory->id[fixture_slot(1)] = 1;
	balance_configure(&fixture.balance, &(struct balance_rules){ .passive_failures = 0 });
	assert_false(fail_in_a_row(&fixture, 1));
	assert_int_equal(fixture_state(&fixture, 1)->failing, 0);
	fixture.place.memory = NULL;
	assert_false(fail_in_a_row(&fixture, 1));
	succeed(&fixture, 1);
	balance_clear(&fixture.balance);
}

static void test_in_a_row(void **state)
{
	struct fixture fixture = with_targets(4);

	(void)state;
	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 1; i < FAILURES; i++)
			assert_false(fail_once(&fixture, 1));
		succeed(&fixture, 1);
	}
	assert_true(fail_in_a_row(&fixture, 1));
	assert_int_equal(fixture_state(&fixture, 1)->ejected_until_ms, fixture.now_ms + PASSIVE_EJECT_MS);
	/* What fails later, begun before or for want of others, makes it no longer. */
	assert_false(fail_in_a_row(&fixture, 1));
	assert_int_equal(fixture_state(&fixture, 1)->ejected_until_ms, fixture.now_ms + PASSIVE_EJECT_MS);
	balance_clear(&fixture.balance);
}

/* Twice as long each time, up to the cap; after a long time without failures it begins anew. */
static void test_times(void **state)
{
	struct fixture fixture = with_targets(2);
	uint64_t ms = PASSIVE_EJECT_MS;

	(void)state;
	for (unsigned i = 0; i < 40; i++) {
		assert_true(fail_in_a_row(&fixture, 1));
		assert_int_equal(fixture_state(&fixture, 1)->ejected_until_ms - fixture.now_ms, ms);
		fixture.now_ms += ms;
		succeed(&fixture, 1);
		ms = ms * 2 < PASSIVE_EJECT_MAX_MS ? ms * 2 : PASSIVE_EJECT_MAX_MS;
	}
	assert_int_equal(fixture_state(&fixture, 1)->ejections, 40);
	fixture.now_ms += PASSIVE_FORGET_MS;
	succeed(&fixture, 1);
	assert_true(fail_in_a_row(&fixture, 1));
	assert_int_equal(fixture_state(&fixture, 1)->ejected_until_ms - fixture.now_ms, PASSIVE_EJECT_MS);
	balance_clear(&fixture.balance);
}

/* At most half of the targets, rounded down, are ejected at a time; when one is back another may go. */
static void test_share(void **state)
{
	(void)state;
	for (uint32_t n = 1; n <= 7; n++) {
		struct fixture fixture = with_targets(n);

		for (uint32_t id = 1; id <= n; id++)
			assert_int_equal(fail_in_a_row(&fixture, id), id <= n / 2);
		fixture.now_ms += PASSIVE_EJECT_MS;
		assert_int_equal(fail_once(&fixture, n), n > 1); /* its row has gone on */
		balance_clear(&fixture.balance);
	}
}

#define FAILERS 2

struct failer {
	struct fixture *fixture;
	uint32_t id;
};

static _Atomic unsigned arrived, most_ejected;

/* Closer together than a barrier that sleeps would let them go on. */
static void meet(unsigned *phase)
{
	atomic_fetch_add(&arrived, 1);
	*phase += FAILERS;
	for (unsigned spins = 1; atomic_load(&arrived) < *phase; spins++)
		if (spins % 100000 == 0)
			sched_yield(); /* there may be but one processor */
}

static void *fail_together(void *context)
{
	const struct failer *failer = context;
	struct fixture *fixture = failer->fixture;
	unsigned phase = 0;

	for (unsigned round = 0; round < 2000; round++) {
		unsigned ejected = 0;

		meet(&phase);
		(void)fail_once(fixture, failer->id);
		meet(&phase);
		for (uint32_t id = 1; id <= FAILERS; id++)
			ejected += fixture_state(fixture, id)->ejected_until_ms > fixture->now_ms;
		if (ejected > atomic_load(&most_ejected))
			atomic_store(&most_ejected, ejected);
		meet(&phase);
		fixture_state(fixture, failer->id)->ejected_until_ms = 0;
		fixture_state(fixture, failer->id)->failing = FAILURES;
	}
	return NULL;
}

/* The share, one of three, holds also when two fail at once, each seen by another thread. */
static void test_share_among_threads(void **state)
{
	struct fixture fixture = with_targets(3);
	struct failer failers[FAILERS];
	pthread_t threads[FAILERS];

	(void)state;
	for (uint32_t i = 0; i < FAILERS; i++) {
		failers[i] = (struct failer){ &fixture, i + 1 };
		fixture_state(&fixture, i + 1)->failing = FAILURES;
	}
	for (uint32_t i = 0; i < FAILERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, fail_together, &failers[i]), 0);
	for (uint32_t i = 0; i < FAILERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(most_ejected, 1);
	balance_clear(&fixture.balance);
}

/* --- flows --- */

static void test_flows_of_another_run(void **state)
{
	struct fixture fixture = with_targets(1);
	struct load_hold old, new;

	(void)state;
	assert_true(load_take(&fixture.place, fixture_slot(1), 1, 1, &old));
	fixture.place.run++;
	assert_int_equal(load_now(&fixture.place, fixture_state(&fixture, 1)), 0);
	assert_true(load_take(&fixture.place, fixture_slot(1), 1, 1, &new));
	load_give(&fixture.place, &old);
	assert_int_equal(load_now(&fixture.place, fixture_state(&fixture, 1)), 1);
	load_give(&fixture.place, &new);
	load_give(&fixture.place, &new);
	assert_int_equal(load_now(&fixture.place, fixture_state(&fixture, 1)), 0);
	balance_clear(&fixture.balance);
}

static void test_flows_of_another_target(void **state)
{
	struct fixture fixture = with_targets(1);
	struct load_hold old, new;

	(void)state;
	assert_true(load_take(&fixture.place, fixture_slot(1), 1, 0, &old));
	memset(fixture_state(&fixture, 1), 0, sizeof(struct target_state)); /* as the daemon does */
	fixture.place.memory->id[fixture_slot(1)] = 5;
	assert_true(load_take(&fixture.place, fixture_slot(1), 5, 0, &new));
	load_give(&fixture.place, &old);
	assert_int_equal(load_now(&fixture.place, fixture_state(&fixture, 1)), 1);
	assert_true(load_take(&fixture.place, fixture_slot(1), 1, 1, &old)); /* nobody counts: no limit either */
	assert_int_equal(old.run, 0);
	balance_clear(&fixture.balance);
}

#define THREADS 4
#define ROUNDS  20000
#define MOST    3

static _Atomic unsigned most_seen, inside;

static void *take_and_give(void *context)
{
	const struct stats_place *place = context;

	for (unsigned i = 0; i < ROUNDS; i++) {
		struct load_hold hold;
		unsigned now, most;

		if (!load_take(place, fixture_slot(1), 1, MOST, &hold))
			continue;
		now = atomic_fetch_add(&inside, 1) + 1;
		most = atomic_load(&most_seen);
		while (now > most && !atomic_compare_exchange_weak(&most_seen, &most, now))
			;
		atomic_fetch_sub(&inside, 1);
		load_give(place, &hold);
	}
	return NULL;
}

/* The limit holds to the one, and nothing is lost. */
static void test_threads(void **state)
{
	struct fixture fixture = with_targets(1);
	pthread_t threads[THREADS];

	(void)state;
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, &fixture.place), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_true(most_seen > 0 && most_seen <= MOST);
	assert_int_equal(load_now(&fixture.place, fixture_state(&fixture, 1)), 0);
	balance_clear(&fixture.balance);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_cannot_be_ejected),
		cmocka_unit_test(test_in_a_row),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_share),
		cmocka_unit_test(test_share_among_threads),
		cmocka_unit_test(test_flows_of_another_run),
		cmocka_unit_test(test_flows_of_another_target),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
