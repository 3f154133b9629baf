/* Pools of shared values; see shared.h. */
#include "gatewayd/base/shared.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

static_assert((SHARED_RECENT & (SHARED_RECENT - 1)) == 0 && SHARED_RECENT >= 2, "a power of two, of pairs");

int shared_init(struct shared *shared, uint32_t max, size_t size)
{
	*shared = (struct shared){ .size = (uint32_t)size };
	/* A value, and behind it how many have it. */
	return parts_init(&shared->parts, max, size + sizeof(uint32_t));
}

void shared_destroy(struct shared *shared)
{
	parts_destroy(&shared->parts);
}

static uint32_t *users_of(const struct shared *shared, uint32_t number)
{
	return (uint32_t *)((uint8_t *)parts_at(&shared->parts, number) + shared->size);
}

/* The pair of places for this value. */
static uint32_t *recent_of(struct shared *shared, const uint8_t *value)
{
	uint64_t hash = 0;

	for (uint32_t i = 0; i < shared->size; i += 4) {
		uint32_t word;

		memcpy(&word, value + i, sizeof(word));
		hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
		hash ^= hash >> 32;
	}
	return &shared->recent[hash & (SHARED_RECENT - 2)];
}

static bool is_at(const struct shared *shared, uint32_t number, const void *value)
{
	return number != 0 && memcmp(shared_at(shared, number), value, shared->size) == 0;
}

uint32_t shared_use(struct shared *shared, const void *value)
{
	uint32_t *recent = recent_of(shared, value), number = recent[0];

	if (!is_at(shared, number, value))
		number = recent[1];
	if (!is_at(shared, number, value)) {
		number = parts_take(&shared->parts);
		if (number == 0)
			return 0;
		memcpy(parts_at(&shared->parts, number), value, shared->size);
		recent[1] = recent[0];
		recent[0] = number;
	}
	++*users_of(shared, number);
	return number;
}

void shared_leave(struct shared *shared, uint32_t number)
{
	uint32_t *recent;

	if (number == 0 || --*users_of(shared, number) > 0)
		return;
	recent = recent_of(shared, shared_at(shared, number));
	for (unsigned i = 0; i < 2; i++)
		if (recent[i] == number)
			recent[i] = 0;
	parts_give(&shared->parts, number);
}
