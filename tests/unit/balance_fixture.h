/* Upstreams for the tests of the choice: targets by number, and the memory in which their states lie. */
#ifndef GW_TEST_BALANCE_FIXTURE_H
#define GW_TEST_BALANCE_FIXTURE_H

#include "gatewayd/relay/balance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "gatewayd/relay/load.h"

#define FIXTURE_RUN   7
#define FIXTURE_PICKS 10000

struct fixture {
	struct balance balance;
	struct stats_place place;
	uint64_t now_ms;
	uint32_t client; /* the next pick's: 10.0.0.0 and so many */
};

static inline uint32_t fixture_slot(uint32_t id)
{
	return stats_slot_first(STATS_TARGET) + id;
}

static inline struct target_state *fixture_state(struct fixture *fixture, uint32_t id)
{
	return stats_target(fixture->place.memory, fixture_slot(id));
}

/* An empty upstream. The memory is the process's: each target's state is cleared when it is put. */
static inline struct fixture fixture_make(enum proto_algorithm algorithm)
{
	static struct stats_memory *memory;
	struct fixture fixture = { .place.run = FIXTURE_RUN, .now_ms = 1000000, .balance.random = 1 };

	if (!memory)
		memory = mmap(NULL, sizeof(*memory), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
		        -1, 0);
	assert_ptr_not_equal(memory, MAP_FAILED);
	fixture.place.memory = memory;
	balance_configure(&fixture.balance, &(struct balance_rules){ .algorithm = (uint8_t)algorithm });
	return fixture;
}

/* Target `id` is 192.0.2.id:80, or 2001:db8::id if its number is above 20000. */
static inline struct target fixture_target(uint32_t id, unsigned weight)
{
	struct target target = { .id = id, .port = 80, .weight = (uint16_t)weight, .slot = fixture_slot(id) };
	char text[ADDR_TEXT_MAX];

	if (id > 20000)
		snprintf(text, sizeof(text), "2001:db8::%x", id);
	else
		snprintf(text, sizeof(text), "192.0.%u.%u", 2 + id / 256, id % 256);
	assert_int_equal(addr_parse(text, &target.addr), 0);
	return target;
}

static inline void fixture_put(struct fixture *fixture, struct target target)
{
	if (fixture->place.memory && !balance_target(&fixture->balance, target.id)) {
		fixture->place.memory->id[target.slot] = target.id;
		memset(fixture_state(fixture, target.id), 0, sizeof(struct target_state));
	}
	assert_int_equal(balance_put(&fixture->balance, &target), 0);
}

static inline struct addr fixture_client(uint32_t number)
{
	struct addr client = { .family = AF_INET,
		.bytes = { 10, (uint8_t)(number >> 16), (uint8_t)(number >> 8), (uint8_t)number } };

	return client;
}

/* The id that is chosen, 0 if there is none. */
static inline uint32_t fixture_pick(struct fixture *fixture)
{
	struct addr client = fixture_client(fixture->client++);
	struct balance_ask ask = { .place = &fixture->place, .now_ms = fixture->now_ms, .client = &client };
	struct target *target;

	return balance_pick(&fixture->balance, &ask, &target) == 0 ? target->id : 0;
}

/* Counts FIXTURE_PICKS choices by id. */
static inline void fixture_count(struct fixture *fixture, unsigned *ret, size_t n)
{
	memset(ret, 0, n * sizeof(*ret));
	for (unsigned i = 0; i < FIXTURE_PICKS; i++) {
		uint32_t id = fixture_pick(fixture);

		assert_true(id < n);
		ret[id]++;
	}
}

/* Whether the count is what this part of FIXTURE_PICKS gives, within `most`. */
static inline void fixture_assert_part(unsigned count, double part, double most)
{
	double expected = FIXTURE_PICKS * part;

	if (count < expected - most || count > expected + most)
		fail_msg("%u choices, not %.0f within %.0f", count, expected, most);
}

#endif
