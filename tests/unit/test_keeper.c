/* What holds the flows, played against relays made of socket pairs: nonsense first, then deaths and their heirs. */
#include "gatewayd/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/base/keep.h"
#include "gatewayd/base/keep_memory.h"
#include "gatewayd/keeper_entry.h"

#define MAX 20

struct world {
	sd_event *event;
	struct keeper *keeper;
	unsigned nonsense, hangups, settled;
};

static void on_nonsense(void *userdata, const char *why)
{
	struct world *world = userdata;

	*(why ? &world->nonsense : &world->hangups) += 1;
}

static void on_settled(void *userdata)
{
	((struct world *)userdata)->settled++;
}

static int setup(void **state)
{
	static struct world world;
	struct keeper_owner owner = { &world, on_nonsense, on_settled };

	world = (struct world){ 0 };
	assert_true(sd_event_new(&world.event) >= 0);
	assert_int_equal(keeper_new(world.event, 2, MAX, &owner, &world.keeper), 0);
	*state = &world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;

	keeper_free(world->keeper);
	sd_event_unref(world->event);
	return 0;
}

/* All that waits is handled. */
static void run(struct world *world)
{
	while (sd_event_run(world->event, 0) > 0)
		;
}

static int channel(struct world *world, unsigned thread)
{
	int fd;

	assert_int_equal(keeper_channel(world->keeper, thread, &fd), 0);
	return fd;
}

static struct keeper_counts counts(const struct world *world)
{
	struct keeper_counts counts;

	keeper_get_counts(world->keeper, &counts);
	return counts;
}

static struct keep_message flow_message(uint64_t id)
{
	return (struct keep_message){ .type = KEEP_FLOW,
		.flow = { .id = id, .client_family = AF_INET, .original_family = AF_INET, .target_family = AF_INET6 } };
}

static void tell(int fd, const struct keep_message *message, const int *fds)
{
	struct keep_record record;

	keep_record_init(&record);
	assert_int_equal(keep_record_put(&record, message, fds), 0);
	assert_int_equal(keep_record_send(&record, fd), 0);
}

/* A flow whose "sockets" are the two ends of a pair, of which the peer's end is left to the caller. */
static int tell_flow(int fd, uint64_t id)
{
	struct keep_message message = flow_message(id);
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	tell(fd, &message, (int[]){ pair[0], pair[0] });
	close(pair[0]);
	return pair[1];
}

static bool is_closed(int peer)
{
	char byte;

	return recv(peer, &byte, 1, MSG_DONTWAIT) == 0;
}

static void tell_stores(int fd, struct keep_memory *memory)
{
	struct keep_message message = { .type = KEEP_STORES,
		.stores = { .layout = KEEP_LAYOUT, .buffers = 2, .buffer_size = 4096, .pipes = 3 } };
	int memory_fd;

	assert_int_equal(keep_memory_make(2, 4096, 3, memory, &memory_fd), 0);
	tell(fd, &message, &memory_fd);
	close(memory_fd);
}

/* Messages that must be nonsense, each on a channel of its own. */
static void test_nonsense(void **state)
{
	struct world *world = *state;
	struct keep_message wrong[] = { flow_message(0), flow_message(1), flow_message(2), flow_message(3),
		flow_message(4), flow_message(5), flow_message(6), flow_message(7),
		{ .type = KEEP_PIPE, .pipe.number = 0 },        /* before any memory */
		{ .type = KEEP_END },                           /* nothing was offered */
		{ .type = KEEP_STORES, .stores.buffers = 1 } }; /* the descriptor is no sealed memory */

	wrong[1].flow.client_family = AF_UNIX;
	wrong[2].flow.target_family = 0;
	wrong[3].flow.mover_up = KEEP_MOVERS;
	wrong[4].flow.ended = 4;
	wrong[5].flow.original_family = 99;
	wrong[6].flow.offset_up = UINT64_C(1) << 31;
	wrong[7].flow.offset_down = (uint64_t)INT32_MIN - 1;
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		int fd = channel(world, 0);

		tell(fd, &wrong[i], (int[]){ STDIN_FILENO, STDIN_FILENO });
		run(world);
		assert_int_equal(world->nonsense, i + 1);
		assert_int_equal(counts(world).kept, 0);
		close(fd);
	}
	assert_int_equal(world->hangups, 0);
}

static void test_nonsense_bytes(void **state)
{
	struct world *world = *state;
	int fd = channel(world, 0);

	assert_int_equal(send(fd, "what?", 5, 0), 5);
	run(world);
	assert_int_equal(world->nonsense, 1);
	close(fd);
}

static void test_the_same_flow_twice(void **state)
{
	struct world *world = *state;
	int fd = channel(world, 0), peer = tell_flow(fd, 7), again = tell_flow(fd, 7);

	run(world);
	assert_int_equal(world->nonsense, 1);
	assert_false(is_closed(peer));
	assert_true(is_closed(again));
	close(fd);
	close(peer);
	close(again);
}

static void test_another_threads_flow(void **state)
{
	struct world *world = *state;
	int fd = channel(world, 0), other = channel(world, 1), peer = tell_flow(fd, 7);
	struct keep_message gone = { .type = KEEP_GONE, .gone.id = 7 };

	run(world);
	tell(other, &gone, NULL);
	run(world);
	assert_int_equal(world->nonsense, 1);
	assert_false(is_closed(peer));
	close(fd);
	close(other);
	close(peer);
}

static void test_full(void **state)
{
	struct world *world = *state;
	int fd = channel(world, 0), peers[MAX + 3];

	for (unsigned i = 0; i < MAX + 3; i++)
		peers[i] = tell_flow(fd, i + 1);
	run(world);
	assert_int_equal(counts(world).kept, MAX);
	assert_int_equal(counts(world).refused, 3);
	for (unsigned i = 0; i < MAX + 3; i++) {
		struct keep_message gone = { .type = KEEP_GONE, .gone.id = i + 1 };

		assert_int_equal(is_closed(peers[i]), i >= MAX);
		tell(fd, &gone, NULL);
		close(peers[i]);
	}
	run(world);
	assert_int_equal(counts(world).kept, 0);
	assert_int_equal(world->nonsense, 0);
	close(fd);
}

/* Everything that an heir is sent; returns the number of flows. Descriptors are closed again. */
static unsigned hear(int fd, unsigned *ret_stores, unsigned *ret_pipes, bool *ret_end)
{
	struct keep_record record;
	struct keep_message message;
	int fds[KEEP_DESCRIPTORS_EACH];
	unsigned n[KEEP_TYPES] = { 0 };

	while (keep_record_receive(&record, fd) == 0)
		while (keep_record_next(&record, &message, fds) == 1) {
			n[message.type]++;
			for (unsigned i = 0; i < KEEP_DESCRIPTORS_EACH; i++)
				if (fds[i] >= 0)
					close(fds[i]);
		}
	*ret_stores = n[KEEP_STORES];
	*ret_pipes = n[KEEP_PIPE];
	*ret_end = n[KEEP_END] == 1;
	return n[KEEP_FLOW];
}

/* What the dead relay still said is heard; its heir gets memory, the pipe with bytes in it, and the flows. */
static void test_death(void **state)
{
	struct world *world = *state;
	struct keep_message pipe_message = { .type = KEEP_PIPE }, gone = { .type = KEEP_GONE, .gone.id = 2 };
	struct keep_message end = { .type = KEEP_END, .end = { 1, 1 } };
	int fd = channel(world, 0), heir, peers[3], full[2], empty[2];
	unsigned stores, pipes;
	struct keep_memory memory;
	bool ended;

	tell_stores(fd, &memory);
	assert_int_equal(pipe2(full, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(pipe2(empty, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(write(full[1], "bytes", 5), 5);
	tell(fd, &pipe_message, full);
	pipe_message.pipe.number = 1;
	tell(fd, &pipe_message, empty);
	for (unsigned i = 0; i < 3; i++)
		peers[i] = tell_flow(fd, i + 1);
	tell(fd, &gone, NULL);
	close(fd); /* nothing of this has been read yet */
	assert_int_equal(keeper_orphan(world->keeper, false), 2);
	assert_int_equal(counts(world).pipes, 2);
	assert_true(is_closed(peers[1]));
	heir = channel(world, 0);
	keeper_offer(world->keeper, 1);
	run(world);
	assert_int_equal(hear(heir, &stores, &pipes, &ended), 2);
	assert_int_equal(stores, 1);
	assert_int_equal(pipes, 1);
	assert_true(ended);
	assert_int_equal(world->settled, 0);
	tell(heir, &end, NULL);
	run(world);
	assert_int_equal(world->settled, 1);
	assert_int_equal(counts(world).pipes, 0); /* of the dead one */
	assert_int_equal(counts(world).adopted, 1);
	assert_int_equal(counts(world).over, 1);
	assert_int_equal(counts(world).kept, 2);
	assert_int_equal(world->nonsense, 0);
	close(heir);
	for (unsigned i = 0; i < 3; i++)
		close(peers[i]);
	close(full[0]), close(full[1]), close(empty[0]), close(empty[1]);
	keep_memory_unmap(&memory);
}

/* Flows of two threads go to the only thread of the next relay; those of one that dies while adopting are offered
 * again, with both lots, but not for ever. */
static void test_heirs_that_die(void **state)
{
	struct world *world = *state;
	int first = channel(world, 0), second = channel(world, 1);
	int peers[] = { tell_flow(first, 1), tell_flow(second, 2), tell_flow(second, 3) };
	struct keep_memory memory[2];
	unsigned stores, pipes;
	bool ended;

	tell_stores(first, &memory[0]);
	tell_stores(second, &memory[1]);
	run(world);
	close(first);
	close(second);
	assert_int_equal(keeper_orphan(world->keeper, true), 3); /* nothing was being taken over */
	for (unsigned i = 1; i <= 2 * KEEPER_CRASHES_MAX; i++) {
		int heir = channel(world, 0);

		keeper_offer(world->keeper, 1);
		run(world);
		assert_int_equal(hear(heir, &stores, &pipes, &ended), 3);
		assert_int_equal(stores, 2);
		assert_true(ended);
		close(heir);
		/* Killed again and again by somebody else: that is no fault of the flows. */
		assert_int_equal(
		        keeper_orphan(world->keeper, i > KEEPER_CRASHES_MAX), i < 2 * KEEPER_CRASHES_MAX ? 3 : 0);
	}
	for (unsigned i = 0; i < 3; i++) {
		assert_true(is_closed(peers[i]));
		close(peers[i]);
	}
	keep_memory_unmap(&memory[0]);
	keep_memory_unmap(&memory[1]);
}

/* Kept descriptors stay out of the way of select(), and a relay that hangs up is no nonsense. */
static void test_high_numbers(void **state)
{
	struct world *world = *state;
	int fd = channel(world, 0), peer = tell_flow(fd, 1), low;

	run(world);
	assert_true(fcntl(KEEPER_FD_LEAST, F_GETFD) >= 0);
	low = dup(STDIN_FILENO);
	assert_true(low >= 0 && low < 100);
	close(low);
	close(fd);
	run(world);
	assert_int_equal(world->hangups, 1);
	assert_int_equal(world->nonsense, 0);
	assert_int_equal(counts(world).kept, 1);
	close(peer);
}

/* Whatever a flow's message says is said to the next relay. */
static void test_entry(void **state)
{
	struct keep_message before = { .type = KEEP_FLOW,
		.flow = { .id = UINT64_MAX - 1,
		        .started_ms = UINT64_MAX - 2,
		        .client_family = AF_INET6,
		        .client = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 },
		        .client_port = 65531,
		        .original_family = AF_INET,
		        .original = { 21, 22, 23, 24 },
		        .original_port = 65532,
		        .target_family = AF_INET6,
		        .target = { 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46 },
		        .target_port = 65533,
		        .listener = UINT32_MAX - 1,
		        .upstream = UINT32_MAX - 2,
		        .target_id = UINT32_MAX - 3,
		        .idle_timeout_ms = UINT32_MAX - 4,
		        .base_up = UINT64_MAX - 3,
		        .base_down = UINT64_MAX - 4,
		        .offset_up = (uint64_t)INT32_MIN,
		        .offset_down = INT32_MAX,
		        .mover_up = KEEP_MOVER_SPLICE,
		        .mover_down = KEEP_MOVER_COPY,
		        .ended = 3,
		        .mute = 1 } };
	struct keep_message after = { .type = KEEP_FLOW };
	struct keep_record records[2];
	struct keeper_entry entry;
	struct keeper_pools pools;

	(void)state;
	assert_int_equal(keeper_pools_init(&pools, 1), 0);
	keeper_entry_fill(&entry, &pools, &before.flow);
	after.flow = keeper_entry_flow(&entry, &pools);
	keep_record_init(&records[0]);
	keep_record_init(&records[1]);
	assert_int_equal(keep_record_put(&records[0], &before, (int[]){ 0, 0 }), 0);
	assert_int_equal(keep_record_put(&records[1], &after, (int[]){ 0, 0 }), 0);
	assert_int_equal(records[0].wire.offset, records[1].wire.offset);
	assert_memory_equal(records[0].data, records[1].data, records[0].wire.offset);
	keeper_entry_leave(&entry, &pools);
	assert_int_equal(pools.addrs.shared.parts.used + pools.ways.parts.used + pools.ledgers.parts.used, 0);
	keeper_pools_destroy(&pools);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nonsense, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nonsense_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_same_flow_twice, setup, teardown),
		cmocka_unit_test_setup_teardown(test_another_threads_flow, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_death, setup, teardown),
		cmocka_unit_test_setup_teardown(test_heirs_that_die, setup, teardown),
		cmocka_unit_test_setup_teardown(test_high_numbers, setup, teardown),
		cmocka_unit_test(test_entry),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
