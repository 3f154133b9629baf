/* Slots of objects from plan to plan and from daemon to daemon, and the banks of relays. */
#include "gatewayd/meter.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define UNUSED_ID 999999

static int setup(void **state)
{
	struct meter *meter;

	assert_int_equal(meter_new(&meter), 0);
	*state = meter;
	return 0;
}

static int teardown(void **state)
{
	meter_free(*state);
	return 0;
}

static struct row *listener(int64_t id)
{
	struct listener *made = (struct listener *)row_new(RESOURCE_LISTENER);

	snprintf(made->name, sizeof(made->name), "l%lld", (long long)id);
	made->row.id = id;
	return &made->row;
}

static struct row *limit(int64_t id)
{
	struct rate_limit *made = (struct rate_limit *)row_new(RESOURCE_RATE_LIMIT);

	snprintf(made->name, sizeof(made->name), "r%lld", (long long)id);
	made->row.id = id;
	return &made->row;
}

static struct row *upstream(int64_t id, int64_t first_target, unsigned targets)
{
	struct upstream *made = (struct upstream *)row_new(RESOURCE_UPSTREAM);

	snprintf(made->name, sizeof(made->name), "u%lld", (long long)id);
	made->row.id = id;
	for (unsigned i = 0; i < targets; i++) {
		struct row *target = row_new(RESOURCE_TARGET);

		target->id = first_target + i;
		assert_int_equal(rows_append(&made->targets, target), 0);
	}
	return &made->row;
}

static void test_slots(void **state)
{
	struct meter *meter = *state;
	uint32_t first = meter_slot(meter, STATS_LISTENER, 70), second = meter_slot(meter, STATS_LISTENER, 5);

	assert_int_equal(first, 0);
	assert_int_equal(second, 1);
	assert_int_equal(meter_slot(meter, STATS_LISTENER, 70), first);
	assert_int_equal(meter_find(meter, STATS_LISTENER, 5), second);
	assert_int_equal(meter_find(meter, STATS_LISTENER, UNUSED_ID), STATS_SLOT_NONE);
	/* Ids of different kinds have nothing to do with each other. */
	assert_int_equal(meter_find(meter, STATS_TARGET, 5), STATS_SLOT_NONE);
	assert_int_equal(meter_slot(meter, STATS_UPSTREAM, 5), stats_slot_first(STATS_UPSTREAM));
	assert_int_equal(meter_slot(meter, STATS_TARGET, 5), stats_slot_first(STATS_TARGET));
	assert_int_equal(meter_slot(meter, STATS_LIMIT, 5), stats_slot_first(STATS_LIMIT));
	assert_int_equal(stats_slot_first(STATS_LIMIT) + stats_slot_count(STATS_LIMIT), STATS_SLOTS_MAX);
}

static void test_full(void **state)
{
	struct meter *meter = *state;
	struct row *gone = listener(17);
	struct row_change change = { gone, NULL };
	struct plan plan = { .changes = &change, .n_changes = 1 };
	uint32_t freed;

	for (unsigned i = 1; i <= STATS_LISTENERS_MAX; i++)
		assert_int_equal(meter_slot(meter, STATS_LISTENER, i), i - 1);
	assert_int_equal(meter_slot(meter, STATS_LISTENER, UNUSED_ID), STATS_SLOT_NONE);
	assert_int_equal(meter_slot(meter, STATS_UPSTREAM, 1), stats_slot_first(STATS_UPSTREAM));
	freed = meter_find(meter, STATS_LISTENER, 17);
	meter_planned(meter, &plan, true);
	assert_int_equal(meter_slot(meter, STATS_LISTENER, UNUSED_ID), freed);
	row_unref(gone);
}

static void test_plans(void **state)
{
	struct meter *meter = *state;
	struct row *before = upstream(3, 100, 3), *after = upstream(3, 101, 3);
	struct row_change change = { before, after };
	struct plan plan = { .changes = &change, .n_changes = 1 };
	uint32_t kept;

	meter_slot(meter, STATS_UPSTREAM, 3);
	for (unsigned id = 100; id < 104; id++)
		meter_slot(meter, STATS_TARGET, id); /* 103 is the new one */
	kept = meter_find(meter, STATS_TARGET, 101);
	meter_planned(meter, &plan, false); /* taken back: only the new target had not been there */
	assert_int_equal(meter_find(meter, STATS_TARGET, 103), STATS_SLOT_NONE);
	assert_int_not_equal(meter_find(meter, STATS_TARGET, 100), STATS_SLOT_NONE);
	meter_slot(meter, STATS_TARGET, 103);
	meter_planned(meter, &plan, true); /* done: the first target is gone */
	assert_int_equal(meter_find(meter, STATS_TARGET, 100), STATS_SLOT_NONE);
	assert_int_not_equal(meter_find(meter, STATS_TARGET, 103), STATS_SLOT_NONE);
	assert_int_equal(meter_find(meter, STATS_TARGET, 101), kept);
	assert_int_not_equal(meter_find(meter, STATS_UPSTREAM, 3), STATS_SLOT_NONE);
	change.new_row = NULL;
	change.old_row = after;
	meter_planned(meter, &plan, true);
	assert_int_equal(meter_find(meter, STATS_UPSTREAM, 3), STATS_SLOT_NONE);
	assert_int_equal(meter_find(meter, STATS_TARGET, 101), STATS_SLOT_NONE);
	row_unref(before);
	row_unref(after);
}

static void put(struct snapshot *snapshot, struct row *row)
{
	assert_int_equal(snapshot_put(snapshot, row), 0);
	row_unref(row);
}

static void test_sweep(void **state)
{
	struct snapshot *snapshot = snapshot_new();
	struct meter *meter = *state;

	put(snapshot, listener(8));
	put(snapshot, upstream(4, 40, 2));
	put(snapshot, limit(12));
	for (unsigned id = 1; id < 100; id++) {
		meter_slot(meter, STATS_LISTENER, id);
		meter_slot(meter, STATS_UPSTREAM, id);
		meter_slot(meter, STATS_TARGET, id);
		meter_slot(meter, STATS_LIMIT, id);
	}
	meter_sweep(meter, snapshot);
	for (unsigned id = 1; id < 100; id++) {
		assert_int_equal(meter_find(meter, STATS_LISTENER, id) != STATS_SLOT_NONE, id == 8);
		assert_int_equal(meter_find(meter, STATS_UPSTREAM, id) != STATS_SLOT_NONE, id == 4);
		assert_int_equal(meter_find(meter, STATS_TARGET, id) != STATS_SLOT_NONE, id == 40 || id == 41);
		assert_int_equal(meter_find(meter, STATS_LIMIT, id) != STATS_SLOT_NONE, id == 12);
	}
	assert_int_equal(meter_slot(meter, STATS_LISTENER, UNUSED_ID), 0); /* the lowest is free again */
	snapshot_unref(snapshot);
}

/* The daemon died, its relay has the memory. */
static void test_next_daemon(void **state)
{
	struct meter *meter = *state, *next;
	unsigned bank;
	uint32_t run;

	assert_int_equal(meter_bank_open(meter, 2, &bank, &run), 0);
	meter_slot(meter, STATS_LISTENER, 3);
	meter_slot(meter, STATS_LISTENER, 1);
	meter_slot(meter, STATS_TARGET, 9);
	assert_int_equal(meter_new(&next), 0);
	meter_slot(next, STATS_LISTENER, 50);
	assert_int_equal(meter_take(next, fcntl(meter_fd(meter), F_DUPFD_CLOEXEC, 0), bank, run), 0);
	assert_int_equal(meter_find(next, STATS_LISTENER, 3), 0);
	assert_int_equal(meter_find(next, STATS_LISTENER, 1), 1);
	assert_int_equal(meter_find(next, STATS_TARGET, 9), stats_slot_first(STATS_TARGET));
	assert_int_equal(meter_find(next, STATS_LISTENER, 50), STATS_SLOT_NONE);
	assert_int_equal(meter_slot(next, STATS_LISTENER, 50), 2);
	assert_int_equal(meter_memory(next)->bank[bank].run, run);
	assert_int_equal(meter_memory(next)->bank[!bank].run, 0);
	/* The next relay gets the other bank and another number. */
	assert_int_equal(meter_bank_open(next, 2, &bank, &run), 0);
	assert_int_equal(meter_memory(next)->bank[bank].run, run);
	assert_int_not_equal(meter_memory(next)->bank[!bank].run, run);
	assert_int_not_equal(meter_memory(next)->bank[!bank].run, 0);
	meter_free(next);
}

static void refuse(struct meter *meter, int fd, unsigned bank, uint32_t run)
{
	assert_int_equal(meter_take(meter, fd, bank, run), -EINVAL);
	assert_int_equal(fcntl(fd, F_GETFD), -1); /* closed */
	assert_int_equal(meter_find(meter, STATS_LISTENER, 4), 0);
}

static void test_takes_no_rubbish(void **state)
{
	struct meter *meter = *state, *other;
	int fd;

	meter_slot(meter, STATS_LISTENER, 4);
	assert_int_equal(meter_new(&other), 0);
	refuse(meter, fcntl(meter_fd(other), F_DUPFD_CLOEXEC, 0), STATS_BANKS, 1);
	refuse(meter, fcntl(meter_fd(other), F_DUPFD_CLOEXEC, 0), 0, 0);
	fd = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(fd, sizeof(struct stats_memory)), 0);
	refuse(meter, fd, 0, 1);
	fd = memfd_create("short", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(fd, 4096), 0);
	fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
	refuse(meter, fd, 0, 1);
	fd = memfd_create("other layout", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(fd, sizeof(struct stats_memory)), 0);
	fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
	refuse(meter, fd, 0, 1);
	fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	refuse(meter, fd, 0, 1);
	meter_free(other);
}

static void test_id_twice(void **state)
{
	struct meter *meter = *state, *next;
	struct stats_memory *memory = (struct stats_memory *)meter_memory(meter);

	memory->id[3] = memory->id[7] = 77;
	assert_int_equal(meter_new(&next), 0);
	assert_int_equal(meter_take(next, fcntl(meter_fd(meter), F_DUPFD_CLOEXEC, 0), 0, 1), 0);
	assert_int_not_equal(meter_find(next, STATS_LISTENER, 77), STATS_SLOT_NONE);
	assert_int_equal(!!memory->id[3] + !!memory->id[7], 1);
	meter_free(next);
}

static void test_bank_is_empty(void **state)
{
	struct meter *meter = *state;
	struct stats_memory *memory = (struct stats_memory *)meter_memory(meter);
	struct stats_flow flow = { .id = 1 };
	unsigned bank, other;
	uint32_t run;

	assert_int_equal(meter_bank_open(meter, 1, &bank, &run), 0);
	stats_row_write(&memory->rows[bank], 0, &flow);
	memory->bank[bank].thread[0].rows_touched[STATS_CONNECTIONS] = 1;
	memory->bank[bank].thread[0].active[STATS_CONNECTIONS] = 1;
	assert_true(stats_active_all(memory) == 1);
	meter_bank_close(meter, bank);
	assert_true(stats_active_all(memory) == 0);
	for (unsigned i = 1; i < STATS_BANKS; i++)
		assert_int_equal(meter_bank_open(meter, 1, &other, &run), 0);
	assert_true(stats_row_id(&memory->rows[bank].row[0]) == 1);
	assert_int_equal(meter_bank_open(meter, 1, &other, &run), 0);
	assert_int_equal(other, bank);
	assert_true(stats_row_id(&memory->rows[bank].row[0]) == 0);
	assert_true(stats_active_all(memory) == 0);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_slots),
		CASE(test_full),
		CASE(test_plans),
		CASE(test_sweep),
		CASE(test_next_daemon),
		CASE(test_takes_no_rubbish),
		CASE(test_id_twice),
		CASE(test_bank_is_empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
