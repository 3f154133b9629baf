/* The flow table at its limit, stale cookies, and the pools beside it. */
#include "gatewayd/relay/flow.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/relay/buffers.h"
#include "gatewayd/relay/limit.h"
#include "gatewayd/relay/pipes.h"

#define SIZE 100

static void test_full(void **state)
{
	struct flow *flows[SIZE];
	struct flow_table table;

	(void)state;
	assert_int_equal(flow_table_init(&table, SIZE), 0);
	for (int round = 0; round < 3; round++) {
		for (unsigned i = 0; i < SIZE; i++) {
			flows[i] = flow_alloc(&table);
			assert_non_null(flows[i]);
			assert_int_equal(flows[i]->state, FLOW_CONNECTING);
			assert_int_equal(flows[i]->end[FLOW_CLIENT].fd, -1);
		}
		assert_null(flow_alloc(&table));
		assert_int_equal(table.open, SIZE);
		for (unsigned i = 0; i < SIZE; i++)
			flow_free(&table, flows[(i * 37) % SIZE]);
		assert_int_equal(table.open, 0);
	}
	flow_table_destroy(&table);
}

static void test_stale_cookie(void **state)
{
	struct flow_table table;
	struct flow *flow;
	enum flow_side side;
	uint64_t client, target;

	(void)state;
	assert_int_equal(flow_table_init(&table, SIZE), 0);
	flow_alloc(&table);
	flow = flow_alloc(&table);
	client = flow_cookie(&table, flow, FLOW_CLIENT);
	target = flow_cookie(&table, flow, FLOW_TARGET);
	assert_ptr_equal(flow_from_cookie(&table, client, &side), flow);
	assert_int_equal(side, FLOW_CLIENT);
	assert_ptr_equal(flow_from_cookie(&table, target, &side), flow);
	assert_int_equal(side, FLOW_TARGET);
	flow_free(&table, flow);
	assert_null(flow_from_cookie(&table, client, &side));
	assert_ptr_equal(flow_alloc(&table), flow); /* the same place, another flow */
	assert_null(flow_from_cookie(&table, client, &side));
	assert_null(flow_from_cookie(&table, target, &side));
	flow_table_destroy(&table);
}

/* What flows have in common is there once, and exchanging one flow's leaves the others' alone. */
static void test_common(void **state)
{
	struct flow_way way = { .objects = { 4, 5, 6 }, .slot = { 1, 2, 3 }, .ifindex = 9, .idle_timeout_ms = 1000 };
	struct flow_ledger ledger = { .base = { 30, UINT64_MAX }, .offset = { -1, INT32_MAX } }, found;
	struct flow *flows[2], *other;
	struct flow_table table;

	(void)state;
	assert_int_equal(flow_table_init(&table, SIZE), 0);
	other = flow_alloc(&table);
	assert_int_equal(flow_way(&table, other)->objects.listener, 0);
	assert_true(flow_ledger(&table, other).base[0] == 0);
	for (unsigned i = 0; i < 2; i++) {
		flows[i] = flow_alloc(&table);
		flow_set_way(&table, flows[i], &way);
		flow_set_ledger(&table, flows[i], &ledger);
	}
	assert_int_equal(table.ways.parts.used, 1);
	assert_int_equal(table.ledgers.parts.used, 1);
	flow_set_way(&table, flows[0], flow_way(&table, flows[1]));
	assert_int_equal(table.ways.parts.used, 1);
	way.idle_timeout_ms = 2000;
	flow_set_way(&table, flows[0], &way);
	flow_set_way(&table, flows[0], flow_way(&table, flows[0])); /* its own, which nobody else has */
	assert_int_equal(table.ways.parts.used, 2);
	assert_int_equal(flow_way(&table, flows[0])->idle_timeout_ms, 2000);
	assert_int_equal(flow_way(&table, flows[1])->idle_timeout_ms, 1000);
	assert_int_equal(flow_way(&table, flows[1])->slot[2], 3);
	found = flow_ledger(&table, flows[1]);
	assert_memory_equal(&found, &ledger, sizeof(ledger));
	flow_free(&table, flows[0]);
	flow_free(&table, flows[1]);
	flow_free(&table, other);
	assert_int_equal(table.ways.parts.used + table.ledgers.parts.used, 0);
	assert_int_equal(flow_way(&table, flow_alloc(&table))->objects.listener, 0);
	flow_table_destroy(&table);
}

/* What a flow has besides goes back with it, and the rest of its making before. */
static void test_parts(void **state)
{
	struct flow_origin origin = { .id = 7,
		.ifindex = 3,
		.client_port = 1,
		.original_port = 2,
		.target_port = 3,
		.objects = { 4, 5, 6 },
		.route = 9 };
	struct flow_origin again;
	struct flow_table table;
	struct flow *flow;

	(void)state;
	assert_int_equal(addr_parse("192.0.2.1", &origin.client), 0);
	assert_int_equal(addr_parse("2001:db8::1", &origin.original), 0);
	assert_int_equal(flow_table_init(&table, SIZE), 0);
	flow = flow_alloc(&table);
	assert_null(flow_making(&table, flow));
	flow->making = parts_take(&table.makings);
	flow->map = parts_take(&table.maps);
	flow->stitch = parts_take(&table.stitches);
	flow->shape = parts_take(&table.shapes);
	flow->account.started_us = 5999;
	flow_put_origin(&table, flow, &origin);
	assert_int_equal(table.addrs.shared.parts.used, 1);
	origin.started_ms = 5;
	again = flow_get_origin(&table, flow);
	assert_memory_equal(&again.client, &origin.client, sizeof(origin.client));
	assert_memory_equal(&again.original, &origin.original, sizeof(origin.original));
	assert_memory_equal(&again.target, &origin.target, sizeof(origin.target));
	assert_memory_equal(&again.objects, &origin.objects, sizeof(origin.objects));
	assert_true(again.id == 7 && again.started_ms == 5 && again.ifindex == 3 && again.route == 9);
	assert_true(again.client_port == 1 && again.original_port == 2 && again.target_port == 3);
	flow_made(&table, flow);
	assert_null(flow_making(&table, flow));
	assert_int_equal(table.makings.used, 0);
	flow_made(&table, flow);
	flow_free(&table, flow);
	assert_int_equal(table.maps.used + table.stitches.used + table.shapes.used + table.addrs.shared.parts.used, 0);
	flow_table_destroy(&table);
}

static void test_other_cookies(void **state)
{
	struct flow_table table;
	uint32_t number;

	(void)state;
	assert_int_equal(flow_table_init(&table, SIZE), 0);
	for (uint32_t i = 0; i < SIZE; i++) {
		struct flow *flow = flow_alloc(&table);

		assert_false(flow_cookie_is_other(flow_cookie(&table, flow, FLOW_CLIENT), &number));
		assert_false(flow_cookie_is_other(flow_cookie(&table, flow, FLOW_TARGET), &number));
		assert_true(flow_cookie_is_other(flow_cookie_other(i), &number));
		assert_int_equal(number, i);
	}
	flow_table_destroy(&table);
}

static void test_buffers(void **state)
{
	struct keep_memory memory, seen;
	struct buffers buffers;
	uint32_t taken[3];
	int fd = -1;

	(void)state;
	assert_int_equal(keep_memory_make(4, BUFFER_SIZE, 0, &memory, &fd), 0);
	assert_int_equal(buffers_init(&buffers, &memory), 0);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 3; i++) {
			assert_true(buffers_available(&buffers));
			buffers_own(&buffers, 70 + i, i % 2, 1000 * i);
			taken[i] = buffers_take_scratch(&buffers);
			memset(buffers_data(&buffers, taken[i]), (int)i + 1, BUFFER_SIZE);
		}
		assert_false(buffers_available(&buffers));
		memset(buffers_data(&buffers, buffers.scratch), 0xff, BUFFER_SIZE); /* is none of those given away */
		for (unsigned i = 0; i < 3; i++) {
			assert_int_equal(buffers_data(&buffers, taken[i])[0], i + 1);
			assert_int_equal(buffers_data(&buffers, taken[i])[BUFFER_SIZE - 1], i + 1);
		}
		/* Another process sees the same, and whose it is. */
		assert_int_equal(keep_memory_map(fd, 4, BUFFER_SIZE, 0, &seen), 0);
		for (unsigned i = 0; i < 3; i++) {
			assert_int_equal(seen.buffer_owner[taken[i]].flow, 70 + i);
			assert_int_equal(seen.buffer_owner[taken[i]].side, i % 2);
			assert_int_equal(seen.buffer_owner[taken[i]].position, 1000 * i);
			assert_int_equal(seen.data[(size_t)taken[i] * BUFFER_SIZE + 7], i + 1);
			buffers_put(&buffers, taken[i]);
			assert_int_equal(seen.buffer_owner[taken[i]].flow, 0);
		}
		keep_memory_unmap(&seen);
	}
	buffers_destroy(&buffers);
	keep_memory_unmap(&memory);
	close(fd);
}

/* Numbers that do not fit the memory, a memory that could shrink, and what is none at all. */
static void test_memory_of_others(void **state)
{
	struct keep_memory memory, seen;
	int fd = -1, open_end = memfd_create("open", MFD_CLOEXEC);

	(void)state;
	assert_int_equal(keep_memory_make(4, BUFFER_SIZE, 3, &memory, &fd), 0);
	assert_int_equal(keep_memory_map(fd, 5, BUFFER_SIZE, 3, &seen), -EBADMSG);
	assert_int_equal(keep_memory_map(fd, 4, BUFFER_SIZE + 1, 3, &seen), -EBADMSG);
	assert_int_equal(keep_memory_map(fd, 0, BUFFER_SIZE, 3, &seen), -EBADMSG);
	assert_int_equal(keep_memory_map(fd, KEEP_MEMORY_BUFFERS_MAX + 1, BUFFER_SIZE, 3, &seen), -EBADMSG);
	assert_int_equal(keep_memory_map(fd, 4, 0, 3, &seen), -EBADMSG);
	assert_int_equal(keep_memory_map(fd, 4, BUFFER_SIZE, KEEP_MEMORY_PIPES_MAX + 1, &seen), -EBADMSG);
	assert_int_equal(keep_memory_map(open_end, 4, BUFFER_SIZE, 3, &seen), -EBADMSG);
	assert_true(keep_memory_is_sealed(fd));
	assert_false(keep_memory_is_sealed(open_end));
	assert_false(keep_memory_is_sealed(STDIN_FILENO));
	assert_int_equal(ftruncate(fd, 0), -1);
	keep_memory_unmap(&memory);
	close(fd);
	close(open_end);
}

static void test_pipes(void **state)
{
	static struct pipes pipes;
	struct keep_memory memory;
	uint32_t pipe, other;
	int fd = -1, fds[2];
	char text[8];

	(void)state;
	assert_int_equal(keep_memory_make(1, BUFFER_SIZE, PIPES_MAX, &memory, &fd), 0);
	pipes_init(&pipes, &memory);
	pipe = pipes_take(&pipes, 0);
	assert_int_not_equal(pipe, PIPE_NONE);
	pipes_put(&pipes, pipe);
	assert_int_equal(pipes_take(&pipes, 0), pipe);
	assert_int_equal(write(pipes.pair[pipe].write_fd, "x", 1), 1);
	pipes_discard(&pipes, pipe);
	other = pipes_take(&pipes, 0);
	pipes_own(&pipes, other, 77, 1);
	assert_int_equal(memory.pipe_owner[other].flow, 77);
	assert_int_equal(memory.pipe_owner[other].side, 1);
	assert_int_equal(write(pipes.pair[other].write_fd, "y", 1), 1);
	assert_int_equal(read(pipes.pair[other].read_fd, text, sizeof(text)), 1); /* it was empty before */
	pipes_discard(&pipes, other);
	assert_int_equal(memory.pipe_owner[other].flow, 0);
	assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	other = pipes_adopt(&pipes, &(struct pipe_pair){ fds[0], fds[1] });
	assert_int_equal(pipes.pair[other].read_fd, fds[0]);
	assert_true(pipes_is_open(&pipes, other));
	assert_false(pipes_is_open(&pipes, other + 1));
	pipes_discard(&pipes, other);
	pipes_destroy(&pipes);
	assert_false(pipes_is_open(&pipes, other));
	pipes_init(&pipes, &memory);
	pipes.n_closed = 0; /* as if all were in use */
	assert_int_equal(pipes_take(&pipes, 0), PIPE_NONE);
	pipes_init(&pipes, &memory);
	pipes.retry_ms = 100; /* as if one had been refused */
	assert_int_equal(pipes_take(&pipes, 99), PIPE_NONE);
	pipe = pipes_take(&pipes, 100);
	assert_int_not_equal(pipe, PIPE_NONE);
	pipes_put(&pipes, pipe);
	pipes_destroy(&pipes);
	keep_memory_unmap(&memory);
	close(fd);
}

static void test_limit(void **state)
{
	struct limit limit = { 0 };
	uint64_t left_out = 77;

	(void)state;
	assert_true(limit_pass(&limit, 5, &left_out));
	assert_int_equal(left_out, 0);
	for (int i = 0; i < 9; i++)
		assert_false(limit_pass(&limit, 5 + LIMIT_INTERVAL_MS - 1, &left_out));
	assert_true(limit_pass(&limit, 5 + LIMIT_INTERVAL_MS, &left_out));
	assert_int_equal(left_out, 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_stale_cookie),
		cmocka_unit_test(test_common),
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_other_cookies),
		cmocka_unit_test(test_buffers),
		cmocka_unit_test(test_memory_of_others),
		cmocka_unit_test(test_pipes),
		cmocka_unit_test(test_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
