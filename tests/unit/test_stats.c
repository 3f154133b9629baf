/* Slots that change hands, sums over threads and banks, and rows that are read while they are written. */
#include "gatewayd/base/stats.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static struct stats_memory *memory;

static int setup(void **state)
{
	int fd = memfd_create("stats", MFD_CLOEXEC);

	(void)state;
	assert_int_equal(ftruncate(fd, sizeof(*memory)), 0);
	memory = mmap(NULL, sizeof(*memory), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(memory, MAP_FAILED);
	close(fd);
	for (unsigned bank = 0; bank < STATS_BANKS; bank++) {
		memory->bank[bank].threads = 2;
		memory->bank[bank].run = bank + 1;
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	munmap(memory, sizeof(*memory));
	return 0;
}

static struct stats_place place(unsigned bank, unsigned thread)
{
	return (struct stats_place){ .thread = &memory->bank[bank].thread[thread], .run = bank + 1 };
}

static void count(struct stats_place place, uint32_t slot, uint32_t id, uint64_t amount)
{
	struct stats_object *object = stats_claim(&place, slot, id);

	assert_non_null(object);
	stats_word_add(&object->counter[STATS_OBJECT_bytes_to_target], amount);
	stats_word_add(&object->active, 1);
}

static uint64_t bytes(uint32_t slot, uint32_t id)
{
	struct stats_object_sum sum;

	stats_object_read(memory, slot, id, &sum);
	return sum.counter[STATS_OBJECT_bytes_to_target];
}

static uint64_t active(uint32_t slot, uint32_t id)
{
	struct stats_object_sum sum;

	stats_object_read(memory, slot, id, &sum);
	return sum.active;
}

static void test_sums(void **state)
{
	(void)state;
	for (unsigned bank = 0; bank < STATS_BANKS; bank++)
		for (unsigned thread = 0; thread < 2; thread++) {
			count(place(bank, thread), 9, 77, 100);
			stats_add(&memory->bank[bank].thread[thread], STATS_flows_opened, 3);
			stats_word_add(&memory->bank[bank].thread[thread].active[STATS_CONNECTIONS], 2);
		}
	assert_true(bytes(9, 77) == 400);
	assert_true(stats_sum(memory, STATS_flows_opened) == 12);
	assert_true(active(9, 77) == 4);
	assert_true(stats_active_all(memory) == 8);
	/* Counters of a relay that is gone stay; its flows do not. */
	memory->bank[0].run = 0;
	assert_true(bytes(9, 77) == 400);
	assert_true(active(9, 77) == 2);
	assert_true(stats_active_all(memory) == 4);
}

static void test_slot_changes_hands(void **state)
{
	struct stats_place first = place(0, 0), second = place(0, 1);

	(void)state;
	count(first, 5, 1, 10);
	count(second, 5, 1, 20);
	assert_true(bytes(5, 1) == 30);
	/* The slot is another's now. Only one thread has noticed; what the other one holds does not count for the new.
	 */
	count(first, 5, 2, 1);
	assert_true(bytes(5, 2) == 1);
	assert_true(active(5, 2) == 1);
	assert_true(bytes(5, 1) == 20);
	/* A flow of the old object ends in the first thread: nobody's counters move. */
	assert_null(stats_object(&first, 5, 1));
	assert_non_null(stats_object(&second, 5, 1));
	assert_non_null(stats_object(&first, 5, 2));
}

static void test_next_run(void **state)
{
	struct stats_place again = place(0, 0);

	(void)state;
	count(again, 5, 1, 10);
	again.run = 3;
	memory->bank[0].run = 3;
	assert_true(active(5, 1) == 0); /* of the run before */
	count(again, 5, 1, 10);
	assert_true(active(5, 1) == 1);
	assert_true(bytes(5, 1) == 20);
}

static void test_no_slot(void **state)
{
	struct stats_place first = place(0, 0);

	(void)state;
	assert_null(stats_claim(&first, STATS_SLOT_NONE, 1));
	assert_null(stats_claim(&first, STATS_SLOTS_MAX, 1));
	assert_null(stats_claim(&first, 1, 0));
	assert_null(stats_object(&first, STATS_SLOT_NONE, 1));
	assert_null(stats_own(&first, STATS_SLOT_NONE));
	assert_null(stats_own(&first, STATS_OWN_MAX)); /* a listener's, one too many */
	assert_null(stats_own(&first, stats_slot_first(STATS_UPSTREAM) + STATS_OWN_MAX));
	assert_null(stats_own(&first, stats_slot_first(STATS_TARGET)));
	assert_true(stats_own(&first, 0) != stats_own(&first, stats_slot_first(STATS_UPSTREAM)));
	assert_true(bytes(STATS_SLOT_NONE, 1) == 0);
	assert_true(bytes(5, 1) == 0);
}

static void own_histograms(uint32_t slot)
{
	struct stats_place first = place(0, 0);
	struct histogram_sum sum;
	struct stats_own *own;

	count(first, slot, 1, 1);
	own = stats_own(&first, slot);
	histogram_record(&own->histogram[STATS_HISTOGRAM_duration], &own->sum[STATS_HISTOGRAM_duration], 50);
	assert_true(stats_own_read(memory, slot, 1, STATS_HISTOGRAM_duration, &sum));
	assert_true(sum.count == 1 && sum.sum == 50);
	assert_true(stats_own_read(memory, slot, 2, STATS_HISTOGRAM_duration, &sum));
	assert_true(sum.count == 0);
	count(first, slot, 2, 1); /* cleared with the slot */
	assert_true(stats_own_read(memory, slot, 2, STATS_HISTOGRAM_duration, &sum));
	assert_true(sum.count == 0);
	assert_false(stats_own_read(memory, slot + 1, 1, STATS_HISTOGRAM_duration, &sum));
}

static void test_own_histograms(void **state)
{
	(void)state;
	own_histograms(STATS_OWN_MAX - 1);
	own_histograms(stats_slot_first(STATS_UPSTREAM) + STATS_OWN_MAX - 1);
}

/* Reading what was never written must not give it memory: ten thousand listeners would cost a page each. */
static void test_reading_costs_no_memory(void **state)
{
	size_t size = sizeof(memory->bank[0].thread[0].object), pages = size / (size_t)getpagesize(), resident = 0;
	unsigned char *map = calloc(pages + 1, 1);
	char *begin = (char *)memory->bank[0].thread[0].object;

	(void)state;
	for (uint32_t slot = 0; slot < STATS_SLOTS_MAX; slot++)
		assert_true(bytes(slot, 1) == 0);
	begin += getpagesize() - (uintptr_t)begin % (uintptr_t)getpagesize();
	assert_int_equal(mincore(begin, size - (size_t)getpagesize(), map), 0);
	for (size_t i = 0; i + 1 < pages; i++)
		resident += map[i] & 1;
	assert_int_equal(resident, 0);
	free(map);
}

/* --- rows --- */

/* A flow of which every byte follows from its id, so that one that was torn shows. */
static void make_flow(uint64_t id, struct stats_flow *ret)
{
	memset(ret, 'a' + (int)(id % 26), sizeof(*ret));
	ret->id = id;
	ret->status.state = STATS_FLOW_RELAYING;
	ret->client.family = ret->original.family = ret->target.family = id % 2 ? AF_INET : AF_INET6;
	ret->sni[STATS_SNI_MAX - 1] = '\0';
	for (int i = 0; i < STATS_DIRECTIONS; i++)
		ret->mover[i][STATS_WORD_MAX - 1] = ret->reason[i][STATS_WORD_MAX - 1] = '\0';
}

struct writer {
	struct stats_row row;
	_Atomic bool stop;
};

static void *write_all_the_time(void *context)
{
	struct writer *writer = context;
	struct stats_flow flow;

	for (uint64_t id = 1; !atomic_load_explicit(&writer->stop, memory_order_relaxed); id++) {
		if (id % 8 == 0) {
			stats_row_clear(&writer->row);
			continue;
		}
		make_flow(id, &flow);
		stats_row_write(&writer->row, &flow);
	}
	return NULL;
}

static void test_torn_rows(void **state)
{
	static struct writer writer;
	unsigned whole = 0;
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, write_all_the_time, &writer), 0);
	for (unsigned i = 0; i < 2000000 && whole < 100000; i++) {
		struct stats_flow read, expected;

		if (!stats_row_read(&writer.row, &read))
			continue;
		make_flow(read.id, &expected);
		assert_memory_equal(&read, &expected, sizeof(read));
		whole++;
	}
	atomic_store(&writer.stop, true);
	pthread_join(thread, NULL);
	assert_true(whole > 0);
}

static void test_row_words(void **state)
{
	struct stats_row row = { 0 };
	struct stats_flow flow, read;

	(void)state;
	assert_false(stats_row_read(&row, &read));
	make_flow(3, &flow);
	stats_row_write(&row, &flow);
	stats_row_set(&row, bytes[STATS_TO_CLIENT], 99);
	stats_row_set_bytes(&row, mover[STATS_TO_TARGET], "splice\0\0");
	assert_true(stats_row_read(&row, &read));
	assert_true(read.bytes[STATS_TO_CLIENT] == 99 && read.bytes[STATS_TO_TARGET] == flow.bytes[0]);
	assert_string_equal(read.mover[STATS_TO_TARGET], "splice");
	assert_true(stats_row_id(&row) == 3);
	/* A writer that died in the middle leaves a row that is passed over, and that the next one can use. */
	atomic_fetch_add(&row.sequence, 1);
	assert_false(stats_row_read(&row, &read));
	stats_row_write(&row, &flow);
	assert_true(stats_row_read(&row, &read));
	stats_row_clear(&row);
	assert_false(stats_row_read(&row, &read));
}

/* What another process wrote is not trusted. */
static void test_row_rubbish(void **state)
{
	struct stats_row row = { 0 };
	struct stats_flow flow, read;

	(void)state;
	memset(&flow, 0xff, sizeof(flow));
	stats_row_write(&row, &flow);
	assert_true(stats_row_read(&row, &read));
	assert_int_equal(read.client.family, 0);
	assert_string_equal(read.sni, "");
	assert_string_equal(read.mover[0], "");
	assert_int_equal(read.status.state, STATS_FLOW_NONE);
}

static void test_rows_of_threads(void **state)
{
	struct stats_thread *thread = &memory->bank[1].thread[1];
	const struct stats_row *rows;

	(void)state;
	assert_int_equal(stats_rows(memory, 1, 2, &rows), 0);
	thread->rows_first[STATS_CONNECTIONS] = 50;
	thread->rows_touched[STATS_CONNECTIONS] = 3;
	assert_int_equal(stats_rows(memory, 1, 2, &rows), 3);
	assert_ptr_equal(rows, &memory->row[1][50]);
	thread->rows_first[STATS_CONNECTIONS] = STATS_ROWS_MAX - 2; /* would lead out of the memory */
	assert_int_equal(stats_rows(memory, 1, 2, &rows), 0);
	thread->rows_first[STATS_CONNECTIONS] = 50;
	assert_int_equal(stats_rows(memory, 1, 3, &rows), 0); /* UDP: none */
	assert_int_equal(stats_rows(memory, 1, 4, &rows), 0); /* no such thread */
	memory->bank[1].run = 0;
	assert_int_equal(stats_rows(memory, 1, 2, &rows), 0);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_sums),
		CASE(test_slot_changes_hands),
		CASE(test_next_run),
		CASE(test_no_slot),
		CASE(test_own_histograms),
		CASE(test_reading_costs_no_memory),
		CASE(test_torn_rows),
		CASE(test_row_words),
		CASE(test_row_rubbish),
		CASE(test_rows_of_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
