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

static uint64_t repeated(uint64_t id)
{
	return (id % 26 + 'a') * UINT64_C(0x0101010101010101);
}

static struct addr make_addr(uint64_t id, unsigned which)
{
	struct addr addr = { .family = (id >> which) & 1 ? AF_INET : AF_INET6 };

	/* The target's may be what the client wanted. */
	if (which == 2 && id % 5 == 0)
		which = 1;
	memset(addr.bytes, (int)(repeated(id) & 0xff) + (int)which, addr.family == AF_INET ? 4 : 16);
	return addr;
}

/* A flow of which every member follows from its id, so that one that was torn shows. Some have a name, a sample and
 * IPv6 addresses, and some have not. */
static void make_flow(uint64_t id, struct stats_flow *ret)
{
	uint64_t all = repeated(id);

	*ret = (struct stats_flow){ .id = id,
		.started_ms = all,
		.active_ms = all,
		.bytes = { all, all },
		.status = { .state = STATS_FLOW_RELAYING,
		        .ended = { id % 2, id % 3 == 0 },
		        .at_rate = id % 5 == 0,
		        .mover = { (uint8_t)(id % STATS_MOVERS), (uint8_t)(id % 3) },
		        .reason = { (uint8_t)(id % STATS_REASONS), (uint8_t)(id % 5) },
		        .retries = (uint8_t)all,
		        .connect_us = (uint32_t)all },
		.listener = (uint32_t)all,
		.upstream = (uint32_t)all + 1,
		.target_id = (uint32_t)all + 2,
		.limit = (uint32_t)all + 3,
		.ifindex = (uint32_t)all + 4,
		.client_port = (uint16_t)all,
		.original_port = (uint16_t)(all + 1),
		.target_port = (uint16_t)(all + 2),
		.protocol = (uint8_t)all,
		.route = (uint8_t)(all + 1),
		.client = make_addr(id, 0),
		.original = make_addr(id, 1),
		.target = make_addr(id, 2) };
	if (id % 4 == 0) {
		ret->sampled_ms = all;
		ret->client_tcp = (struct stats_flow_tcp){ (uint32_t)all, (uint32_t)all + 1 };
		ret->target_tcp = (struct stats_flow_tcp){ (uint32_t)all + 2, (uint32_t)all + 3 };
	}
	if (id % 3 == 0)
		memset(ret->sni, 'a' + (int)(id % 26), STATS_SNI_MAX - 1);
}

static void assert_same(const struct stats_flow *a, const struct stats_flow *b)
{
	assert_true(a->id == b->id && a->started_ms == b->started_ms && a->active_ms == b->active_ms);
	assert_memory_equal(a->bytes, b->bytes, sizeof(a->bytes));
	assert_true(a->status.state == b->status.state && a->status.at_rate == b->status.at_rate &&
	            a->status.retries == b->status.retries && a->status.connect_us == b->status.connect_us);
	for (int i = 0; i < STATS_DIRECTIONS; i++)
		assert_true(a->status.ended[i] == b->status.ended[i] && a->status.mover[i] == b->status.mover[i] &&
		            a->status.reason[i] == b->status.reason[i]);
	assert_memory_equal(&a->client_tcp, &b->client_tcp, sizeof(a->client_tcp));
	assert_memory_equal(&a->target_tcp, &b->target_tcp, sizeof(a->target_tcp));
	assert_true(a->sampled_ms == b->sampled_ms && a->listener == b->listener && a->upstream == b->upstream &&
	            a->target_id == b->target_id && a->limit == b->limit && a->ifindex == b->ifindex &&
	            a->client_port == b->client_port && a->original_port == b->original_port &&
	            a->target_port == b->target_port && a->protocol == b->protocol && a->route == b->route);
	assert_memory_equal(&a->client, &b->client, sizeof(a->client));
	assert_memory_equal(&a->original, &b->original, sizeof(a->original));
	assert_memory_equal(&a->target, &b->target, sizeof(a->target));
	assert_memory_equal(a->sni, b->sni, sizeof(a->sni));
}

#define NUMBER 1234U /* of a row */

struct writer {
	struct stats_rows *rows;
	_Atomic bool stop;
};

static void *write_all_the_time(void *context)
{
	struct writer *writer = context;
	struct stats_flow flow;

	for (uint64_t id = 1; !atomic_load_explicit(&writer->stop, memory_order_relaxed); id++) {
		/* Free now and then; and all have a name, which is read last. */
		if (id % 64 == 0)
			stats_row_clear(&writer->rows->row[NUMBER]);
		make_flow(3 * id, &flow);
		stats_row_write(writer->rows, NUMBER, &flow);
	}
	return NULL;
}

static void test_torn_rows(void **state)
{
	struct writer writer = { .rows = &memory->rows[0] };
	unsigned whole = 0;
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, write_all_the_time, &writer), 0);
	for (unsigned i = 0; i < 4000000 && whole < 200000; i++) {
		struct stats_flow read, expected;

		if (!stats_row_read(writer.rows, NUMBER, &read))
			continue;
		make_flow(read.id, &expected);
		assert_same(&read, &expected);
		whole++;
	}
	atomic_store(&writer.stop, true);
	pthread_join(thread, NULL);
	assert_true(whole > 0);
}

/* All that a flow can have comes back, and nothing that an earlier flow of the row has had. */
static void test_row_holds_all(void **state)
{
	struct stats_rows *rows = &memory->rows[1];
	uint32_t last = STATS_ROWS_MAX - 1;
	struct stats_flow flow, read;

	(void)state;
	for (uint64_t id = 1; id < 100; id++) {
		make_flow(id, &flow);
		stats_row_write(rows, last, &flow);
		assert_true(stats_row_read(rows, last, &read));
		assert_same(&read, &flow);
		stats_row_copy(rows, last, &read);
		assert_same(&read, &flow);
		memset(read.sni, 'x', sizeof(read.sni));
		stats_row_get_name(rows, last, read.sni);
		assert_string_equal(read.sni, flow.sni);
	}
}

static void test_row_words(void **state)
{
	struct stats_rows *rows = &memory->rows[0];
	struct stats_row *row = &rows->row[NUMBER];
	struct stats_flow flow, read;

	(void)state;
	assert_false(stats_row_read(rows, NUMBER, &read));
	make_flow(3, &flow);
	stats_row_write(rows, NUMBER, &flow);
	stats_row_set(row, bytes[STATS_TO_CLIENT], 99);
	stats_row_set(row, active_ms, 100);
	flow.bytes[STATS_TO_CLIENT] = 99;
	flow.active_ms = 100;
	/* What changes of the status leaves alone that there is a name, and what was sampled. */
	stats_row_set_sample(rows, NUMBER, (struct stats_flow_tcp){ 1, 2 }, (struct stats_flow_tcp){ 3, 4 }, 5);
	flow.client_tcp = (struct stats_flow_tcp){ 1, 2 };
	flow.target_tcp = (struct stats_flow_tcp){ 3, 4 };
	flow.sampled_ms = 5;
	flow.status = (struct stats_flow_status){ .state = STATS_FLOW_CONNECTING, .retries = 7, .connect_us = 8 };
	stats_row_set_status(row, &flow.status);
	stats_row_set_mover(row, STATS_MOVER_SPLICE);
	flow.status.mover[0] = flow.status.mover[1] = STATS_MOVER_SPLICE;
	assert_true(stats_row_read(rows, NUMBER, &read));
	assert_same(&read, &flow);
	assert_string_equal(stats_mover_name(read.status.mover[STATS_TO_TARGET]), "splice");
	assert_true(stats_row_id(row) == 3);
	/* A writer that died in the middle leaves a row that is passed over, and that the next one can use. */
	atomic_fetch_add(&row->sequence, 1);
	assert_false(stats_row_read(rows, NUMBER, &read));
	stats_row_write(rows, NUMBER, &flow);
	assert_true(stats_row_read(rows, NUMBER, &read));
	stats_row_clear(row);
	assert_false(stats_row_read(rows, NUMBER, &read));
}

static size_t resident(const void *begin, size_t size)
{
	size_t page = (size_t)getpagesize(), pages = size / page + 1, n = 0;
	unsigned char *map = calloc(pages, 1);

	begin = (const char *)begin - (uintptr_t)begin % page;
	assert_int_equal(mincore((void *)begin, size, map), 0);
	for (size_t i = 0; i < pages; i++)
		n += map[i] & 1;
	free(map);
	return n;
}

/* What a flow does not have costs nothing, neither when its row is written nor when it is read. */
static void test_row_costs_what_it_has(void **state)
{
	const size_t first = 4096, n = 4096; /* rows, none of which shares a page with those before */
	struct stats_rows *rows = &memory->rows[0];
	struct stats_flow flow = { .id = 1, .client.family = AF_INET, .target.family = AF_INET }, read;

	(void)state;
	for (uint32_t i = 0; i < n; i++) {
		stats_row_write(rows, (uint32_t)first + i, &flow);
		assert_true(stats_row_read(rows, (uint32_t)first + i, &read));
	}
	assert_true(resident(&rows->row[first], n * sizeof(rows->row[0])) >= n * sizeof(rows->row[0]) / 4096);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(resident(&rows->ipv6[i][first], n * sizeof(rows->ipv6[i][0])), 0);
	assert_int_equal(resident(&rows->name[first], n * sizeof(rows->name[0])), 0);
	assert_int_equal(resident(&rows->sample[first], n * sizeof(rows->sample[0])), 0);
	flow.original.family = flow.target.family = AF_INET6;
	flow.sni[0] = 'a';
	stats_row_write(rows, (uint32_t)(first + n / 2), &flow);
	stats_row_set_sample(
	        rows, (uint32_t)(first + n / 2), (struct stats_flow_tcp){ 1, 2 }, (struct stats_flow_tcp){ 3, 4 }, 5);
	assert_int_equal(resident(&rows->ipv6[0][first], n * sizeof(rows->ipv6[0][0])), 0);
	assert_in_range(resident(&rows->ipv6[1][first], n * sizeof(rows->ipv6[1][0])), 1, 2);
	assert_int_equal(resident(&rows->ipv6[2][first], n * sizeof(rows->ipv6[2][0])), 0);
	assert_in_range(resident(&rows->name[first], n * sizeof(rows->name[0])), 1, 2);
	assert_in_range(resident(&rows->sample[first], n * sizeof(rows->sample[0])), 1, 2);
}

/* What another process wrote is not trusted. */
static void test_row_rubbish(void **state)
{
	struct stats_rows *rows = &memory->rows[0];
	struct stats_flow read;

	(void)state;
	memset(&rows->row[NUMBER], 0xff, sizeof(rows->row[NUMBER]));
	memset(&rows->name[NUMBER], 0xff, sizeof(rows->name[NUMBER]));
	rows->row[NUMBER].sequence = 2;
	assert_true(stats_row_read(rows, NUMBER, &read));
	assert_int_equal(read.client.family, 0);
	assert_string_equal(read.sni, "");
	assert_int_equal(read.status.mover[0], STATS_MOVER_NONE);
	assert_int_equal(read.status.reason[1], STATS_REASON_NONE);
	assert_int_equal(read.status.state, STATS_FLOW_NONE);
}

static void test_rows_of_threads(void **state)
{
	struct stats_thread *thread = &memory->bank[1].thread[1];
	uint32_t first;

	(void)state;
	assert_int_equal(stats_rows(memory, 1, 2, &first), 0);
	thread->rows_first[STATS_CONNECTIONS] = 50;
	thread->rows_touched[STATS_CONNECTIONS] = 3;
	assert_int_equal(stats_rows(memory, 1, 2, &first), 3);
	assert_int_equal(first, 50);
	thread->rows_first[STATS_CONNECTIONS] = STATS_ROWS_MAX - 2; /* would lead out of the memory */
	assert_int_equal(stats_rows(memory, 1, 2, &first), 0);
	thread->rows_first[STATS_CONNECTIONS] = 50;
	assert_int_equal(stats_rows(memory, 1, 3, &first), 0); /* UDP: none */
	assert_int_equal(stats_rows(memory, 1, 4, &first), 0); /* no such thread */
	memory->bank[1].run = 0;
	assert_int_equal(stats_rows(memory, 1, 2, &first), 0);
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
		CASE(test_row_holds_all),
		CASE(test_row_words),
		CASE(test_row_costs_what_it_has),
		CASE(test_row_rubbish),
		CASE(test_rows_of_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
