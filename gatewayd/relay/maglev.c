/* The table of source_hash; see maglev.h. */
#include "gatewayd/relay/maglev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/siphash.h"

#define FREE UINT16_MAX
/* Family, address, port. */
#define NAME_BYTES 19

/* Stated, not secret: every gateway is to come to the same table. The keys are the first bytes of pi's fraction. */
static const uint64_t key_offset[2] = { UINT64_C(0x243f6a8885a308d3), UINT64_C(0x13198a2e03707344) };
static const uint64_t key_step[2] = { UINT64_C(0xa4093822299f31d0), UINT64_C(0x082efa98ec4e6c89) };
static const uint64_t key_client[2] = { UINT64_C(0x452821e638d01377), UINT64_C(0xbe5466cf34e90c6c) };

struct turn {
	uint32_t place, step; /* of its order of preference: the next place, and how far to the one after */
	uint32_t credit;      /* towards its next turn */
	uint16_t weight;
	uint16_t index; /* of the server */
};

/* "4" or "6", the address, the port, all in network order. Returns the length. */
static size_t name_of(const struct addr *addr, uint16_t port, uint8_t ret[NAME_BYTES])
{
	size_t length = addr_bits(addr->family) / 8;

	ret[0] = addr->family == AF_INET ? '4' : '6';
	memcpy(ret + 1, addr->bytes, length);
	ret[1 + length] = (uint8_t)(port >> 8);
	ret[2 + length] = (uint8_t)port;
	return length + 3;
}

uint64_t maglev_hash(const struct addr *client)
{
	uint8_t name[NAME_BYTES];

	return siphash(key_client, name, name_of(client, 0, name) - 2);
}

/* The order of turns, which decides who wins a place that two prefer: by name, for it must not be the configuration's.
 */
static int compare(const void *a, const void *b, void *context)
{
	const struct maglev_server *servers = context;
	uint8_t names[2][NAME_BYTES] = { 0 };
	const struct turn *turns[] = { a, b };

	for (unsigned i = 0; i < 2; i++) {
		const struct maglev_server *server = &servers[turns[i]->index];

		(void)name_of(&server->addr, server->port, names[i]);
	}
	return memcmp(names[0], names[1], NAME_BYTES);
}

/* Turns of the servers that have a weight, in order. Returns their number. */
static size_t turns_make(struct turn *turns, const struct maglev_server *servers, size_t n)
{
	size_t used = 0;

	for (size_t i = 0; i < n; i++) {
		uint8_t name[NAME_BYTES];
		size_t length = name_of(&servers[i].addr, servers[i].port, name);

		if (servers[i].weight == 0)
			continue;
		turns[used++] = (struct turn){ .place = (uint32_t)(siphash(key_offset, name, length) % MAGLEV_SIZE),
			.step = (uint32_t)(siphash(key_step, name, length) % (MAGLEV_SIZE - 1)) + 1,
			.weight = servers[i].weight,
			.index = (uint16_t)i };
	}
	qsort_r(turns, used, sizeof(*turns), compare, (void *)servers);
	return used;
}

/* Takes the first place of the server's order that is free; there must be one. */
static void take(struct turn *turn, uint16_t table[MAGLEV_SIZE])
{
	while (table[turn->place] != FREE)
		turn->place = (turn->place + turn->step) % MAGLEV_SIZE;
	table[turn->place] = turn->index;
}

/* In each round a server gains its weight and has a turn for each time that this makes up the greatest weight: the
 * heaviest has one in every round. */
static void fill(struct turn *turns, size_t n, uint16_t table[MAGLEV_SIZE])
{
	uint32_t greatest = 0, taken = 0;

	for (size_t i = 0; i < n; i++)
		greatest = turns[i].weight > greatest ? turns[i].weight : greatest;
	while (taken < MAGLEV_SIZE) {
		for (size_t i = 0; i < n && taken < MAGLEV_SIZE; i++) {
			turns[i].credit += turns[i].weight;
			if (turns[i].credit < greatest)
				continue;
			turns[i].credit -= greatest;
			take(&turns[i], table);
			taken++;
		}
	}
}

int maglev_build(const struct maglev_server *servers, size_t n, uint16_t table[MAGLEV_SIZE])
{
	_cleanup_free_ struct turn *turns = NULL;

	if (n > MAGLEV_SERVERS_MAX)
		return -E2BIG;
	turns = calloc(n ? n : 1, sizeof(*turns));
	if (!turns)
		return -ENOMEM;
	n = turns_make(turns, servers, n);
	if (n == 0)
		return -ENOENT;
	memset(table, 0xff, MAGLEV_SIZE * sizeof(*table));
	fill(turns, n, table);
	return 0;
}
