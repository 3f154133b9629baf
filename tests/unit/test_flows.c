/* Walking rows with a budget, filters, and the first of many against a plain sort. */
#include "gatewayd/flows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/base/cleanup.h"

static struct stats_memory *memory;

static int setup(void **state)
{
	int fd = memfd_create("stats", MFD_CLOEXEC);

	(void)state;
	assert_int_equal(ftruncate(fd, sizeof(*memory)), 0);
	memory = mmap(NULL, sizeof(*memory), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(memory, MAP_FAILED);
	close(fd);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	munmap(memory, sizeof(*memory));
	return 0;
}

/* A thread with `n` rows of which each second one is a flow, with ids from `id` on. */
static void fill(unsigned bank, unsigned thread, uint32_t first, uint32_t n, uint64_t id)
{
	struct stats_bank *its = &memory->bank[bank];

	its->run = bank + 1;
	its->threads = its->threads > thread ? its->threads : thread + 1;
	its->thread[thread].rows_first[STATS_CONNECTIONS] = first;
	its->thread[thread].rows_touched[STATS_CONNECTIONS] = n;
	for (uint32_t i = 0; i < n; i += 2) {
		struct stats_flow flow = { .id = id++, .listener = 3, .protocol = IPPROTO_TCP };

		stats_row_write(&memory->rows[bank], first + i, &flow);
	}
}

static void test_walk(void **state)
{
	struct flows_place place = { 0 };
	struct flows_found found;
	size_t budget = 1000, seen = 0;

	(void)state;
	fill(0, 0, 0, 20, 100);
	fill(0, 1, 20, 7, 200);
	fill(1, 2, 5, 3, 300);
	while (flows_next(memory, &place, &budget, &found))
		seen++;
	assert_int_equal(seen, 10 + 4 + 2);
	assert_int_equal(place.bank, STATS_BANKS);
	assert_int_equal(budget, 1000 - 30);
	memory->bank[0].run = 0; /* that relay is gone */
	place = (struct flows_place){ 0 };
	assert_true(flows_next(memory, &place, &budget, &found));
	assert_true(found.flow.id == 300);
	assert_true(found.place.bank == 1 && found.place.table == 2 * STATS_TABLES && found.place.row == 0);
}

/* In slices of any size each flow comes once. */
static void test_budget(void **state)
{
	(void)state;
	fill(0, 0, 0, 20, 100);
	fill(0, 1, 20, 7, 200);
	for (size_t slice = 1; slice < 30; slice++) {
		struct flows_place place = { 0 };
		uint64_t ids = 0;
		unsigned seen = 0;

		while (place.bank < STATS_BANKS) {
			struct flows_found found;
			size_t budget = slice;

			while (flows_next(memory, &place, &budget, &found)) {
				ids += found.flow.id;
				seen++;
			}
		}
		assert_int_equal(seen, 14);
		assert_true(ids == 100 * 10 + 45 + 200 * 4 + 6);
	}
}

static void test_find(void **state)
{
	struct flows_found found;

	(void)state;
	fill(0, 1, 20, 7, 200);
	assert_true(flows_find(memory, 202, &found));
	assert_true(found.place.table == 1 * STATS_TABLES && found.place.row == 4 && found.flow.id == 202);
	assert_false(flows_find(memory, 204, &found));
	assert_false(flows_find(memory, 0xffffffffffffffff, &found));
	stats_row_clear(&memory->rows[0].row[24]);
	assert_false(flows_find(memory, 202, &found));
}

static void test_filter(void **state)
{
	struct stats_flow flow = { .id = 1, .listener = 3, .upstream = 4, .protocol = IPPROTO_TCP, .target_port = 80 };
	static const struct {
		const char *client, *target;
		uint16_t port;
		bool matches;
	} cases[] = {
		{ "10.1.2.3", NULL, 0, true },
		{ "10.1.2.4", NULL, 0, false },
		{ "10.1.0.0/16", NULL, 0, true },
		{ "0.0.0.0/0", NULL, 0, true },
		{ "::/0", NULL, 0, false },
		{ "::ffff:10.1.2.3", NULL, 0, false },
		{ NULL, "fd00::9", 0, true },
		{ NULL, "fd00::9", 80, true },
		{ NULL, "fd00::9", 81, false },
		{ NULL, "fd00::8", 0, false },
		{ "10.1.2.3", "fd00::9", 80, true },
	};

	(void)state;
	assert_int_equal(addr_parse("10.1.2.3", &flow.client), 0);
	assert_int_equal(addr_parse("fd00::9", &flow.target), 0);
	assert_true(flows_match(&(struct flows_filter){ 0 }, &flow));
	assert_true(flows_match(&(struct flows_filter){ .listener = 3, .upstream = 4 }, &flow));
	assert_false(flows_match(&(struct flows_filter){ .listener = 4 }, &flow));
	assert_false(flows_match(&(struct flows_filter){ .upstream = 3 }, &flow));
	assert_false(flows_match(&(struct flows_filter){ .protocol = IPPROTO_UDP }, &flow));
	assert_false(flows_match(&(struct flows_filter){ .sni = "a.example.com" }, &flow)); /* it has no name */
	strcpy(flow.sni, "a.example.com");
	assert_true(flows_match(&(struct flows_filter){ .sni = "a.example.com" }, &flow));
	assert_true(flows_match(&(struct flows_filter){ .sni = "*.example.com" }, &flow));
	assert_false(flows_match(&(struct flows_filter){ .sni = "*.a.example.com" }, &flow));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct flows_filter filter = { .has_client = cases[i].client != NULL,
			.has_target = cases[i].target != NULL,
			.target_port = cases[i].port };

		if (filter.has_client && prefix_parse(cases[i].client, &filter.client) < 0)
			continue; /* a mapped address is none of ours */
		if (filter.has_target)
			assert_int_equal(addr_parse(cases[i].target, &filter.target), 0);
		assert_int_equal(flows_match(&filter, &flow), cases[i].matches);
	}
}

static int compare(const void *a, const void *b)
{
	const struct flows_found *x = a, *y = b;

	return flows_before(x->rank, x->flow.id, y->rank, y->flow.id) ? -1 : 1;
}

static void test_top(void **state)
{
	static struct flows_found all[500];
	unsigned seed = 5;

	(void)state;
	for (size_t room = 1; room <= 600; room += room < 10 ? 1 : 97)
		for (size_t n = 0; n <= ARRAY_SIZE(all); n += 125) {
			struct flows_top top;

			assert_int_equal(flows_top_init(&top, room), 0);
			for (size_t i = 0; i < n; i++) {
				all[i].flow.id = i + 1;
				all[i].rank = (uint64_t)rand_r(&seed) % 50; /* many are equal */
				flows_top_offer(&top, &all[i]);
			}
			flows_top_sort(&top);
			qsort(all, n, sizeof(all[0]), compare);
			assert_int_equal(top.n, n < room ? n : room);
			for (size_t i = 0; i < top.n; i++)
				assert_true(top.heap[i]->flow.id == all[i].flow.id);
			flows_top_clear(&top);
		}
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_walk),
		CASE(test_budget),
		CASE(test_find),
		CASE(test_filter),
		CASE(test_top),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
