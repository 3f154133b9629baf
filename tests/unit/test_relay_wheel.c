/* The timer wheel: never early by more than its span allows, never lost, never late by more than a tick. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gatewayd/relay/wheel.h"

#define ENTRIES 500
#define SPAN_MS ((uint64_t)WHEEL_TICK_MS * (WHEEL_SLOTS - 1))

struct timed {
	struct wheel_entry entry;
	uint64_t due_ms, fired_ms;
};

struct run {
	struct wheel wheel;
	uint64_t now_ms;
	unsigned fired, early;
	struct timed timed[ENTRIES];
};

/* What an owner does: sets what came early again. */
static void fire(struct wheel_entry *entry, void *context)
{
	struct timed *timed = (struct timed *)(void *)((char *)entry - offsetof(struct timed, entry));
	struct run *run = context;

	assert_false(wheel_is_set(entry));
	if (run->now_ms < timed->due_ms) {
		run->early++;
		wheel_set(&run->wheel, entry, timed->due_ms);
		return;
	}
	timed->fired_ms = run->now_ms;
	run->fired++;
}

static struct run *run_new(uint64_t now_ms)
{
	struct run *run = calloc(1, sizeof(*run));

	run->now_ms = now_ms;
	wheel_init(&run->wheel, now_ms);
	return run;
}

static void run_until(struct run *run, uint64_t end_ms)
{
	while (run->now_ms < end_ms) {
		int timeout = wheel_timeout(&run->wheel, run->now_ms);

		run->now_ms += timeout < 0 ? end_ms : (uint64_t)timeout;
		if (run->now_ms > end_ms)
			run->now_ms = end_ms;
		wheel_advance(&run->wheel, run->now_ms, fire, run);
	}
}

static void test_empty(void **state)
{
	struct run *run = run_new(12345);

	(void)state;
	assert_int_equal(wheel_timeout(&run->wheel, run->now_ms), -1);
	run->now_ms += 1000000000;
	wheel_advance(&run->wheel, run->now_ms, fire, run);
	assert_int_equal(run->fired, 0);
	wheel_clear(&run->wheel, &run->timed[0].entry);
	free(run);
}

static void test_past_and_cleared(void **state)
{
	struct run *run = run_new(1000000);

	(void)state;
	wheel_set(&run->wheel, &run->timed[0].entry, 5); /* long past: fires at the next tick */
	wheel_set(&run->wheel, &run->timed[1].entry, 1000100);
	wheel_clear(&run->wheel, &run->timed[1].entry);
	assert_false(wheel_is_set(&run->timed[1].entry));
	run_until(run, 1000000 + 2 * WHEEL_TICK_MS);
	assert_int_equal(run->fired, 1);
	assert_int_equal(wheel_timeout(&run->wheel, run->now_ms), -1);
	free(run);
}

static void test_far_away(void **state)
{
	struct run *run = run_new(777);

	(void)state;
	run->timed[0].due_ms = 777 + 5 * SPAN_MS;
	wheel_set(&run->wheel, &run->timed[0].entry, run->timed[0].due_ms);
	run_until(run, run->timed[0].due_ms - 1);
	assert_int_equal(run->fired, 0);
	assert_in_range(run->early, 4, 6);
	run_until(run, run->timed[0].due_ms + WHEEL_TICK_MS);
	assert_int_equal(run->fired, 1);
	free(run);
}

static void test_random(void **state)
{
	struct run *run = run_new(99);

	(void)state;
	srand(3);
	for (unsigned i = 0; i < ENTRIES; i++) {
		run->timed[i].due_ms = 100 + (uint64_t)rand() % (2 * SPAN_MS);
		wheel_set(&run->wheel, &run->timed[i].entry, (uint64_t)rand() % SPAN_MS);
		wheel_set(&run->wheel, &run->timed[i].entry, run->timed[i].due_ms);
	}
	run_until(run, 2 * SPAN_MS + 1000);
	assert_int_equal(run->fired, ENTRIES);
	for (unsigned i = 0; i < ENTRIES; i++)
		assert_in_range(run->timed[i].fired_ms, run->timed[i].due_ms, run->timed[i].due_ms + WHEEL_TICK_MS);
	free(run);
}

/* After a pause longer than the span everything that is due fires, once. */
static void test_long_pause(void **state)
{
	struct run *run = run_new(0);

	(void)state;
	for (unsigned i = 0; i < ENTRIES; i++) {
		run->timed[i].due_ms = 64 * i;
		wheel_set(&run->wheel, &run->timed[i].entry, run->timed[i].due_ms);
	}
	run->now_ms = 10 * SPAN_MS;
	wheel_advance(&run->wheel, run->now_ms, fire, run);
	assert_int_equal(run->fired, ENTRIES);
	free(run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_past_and_cleared),
		cmocka_unit_test(test_far_away),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_long_pause),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
