/*
 * Who wins a packet, by brute force over the contract's order of precedence,
 * and random packets for fixture_random_listener's universe: what model and
 * kernel are held against.
 */
#ifndef GW_TESTS_RULES_REFERENCE_H
#define GW_TESTS_RULES_REFERENCE_H

#include "rules_fixture.h"

/* How well a listener matches a packet, the reference: brute force over the contract's order of precedence. */
struct reference_rank {
	int dst_len, src_len, named, width;
	int64_t priority;
};

FIXTURE bool reference_better(const struct reference_rank *a, const struct reference_rank *b)
{
	if (a->dst_len != b->dst_len)
		return a->dst_len > b->dst_len;
	if (a->src_len != b->src_len)
		return a->src_len > b->src_len;
	if (a->named != b->named)
		return a->named > b->named;
	if (a->width != b->width)
		return a->width < b->width;
	return a->priority < b->priority;
}

/* The longest prefix of the list that holds the address; 0 for an empty list, -1 for none. */
FIXTURE int reference_longest(const struct strings *texts, const struct addr *addr)
{
	struct prefix prefixes[PREFIX_RANGE_MAX];
	int best = texts->n ? -1 : 0;

	for (size_t i = 0; i < texts->n; i++) {
		int n = prefix_range_parse(texts->items[i], prefixes);

		for (int k = 0; k < n; k++)
			if (prefixes[k].addr.family == addr->family && prefix_contains(&prefixes[k], addr) &&
			        prefixes[k].length > best)
				best = prefixes[k].length;
	}
	return best;
}

FIXTURE int reference_narrowest(const struct strings *texts, uint16_t port)
{
	int best = texts->n ? INT32_MAX : 65536;

	for (size_t i = 0; i < texts->n; i++) {
		struct port_range range;

		assert_int_equal(port_range_parse(texts->items[i], &range), 0);
		if (range.lo <= port && port <= range.hi && range.hi - range.lo + 1 < best)
			best = range.hi - range.lo + 1;
	}
	return best;
}

FIXTURE bool reference_matches(
        const struct listener *listener, const struct match_packet *packet, struct reference_rank *ret)
{
	bool named = false;

	*ret = (struct reference_rank){ reference_longest(&listener->destinations, &packet->dst),
		reference_longest(&listener->sources, &packet->src), listener->interfaces.n > 0,
		reference_narrowest(&listener->ports, packet->dst_port), listener->priority };
	for (size_t i = 0; i < listener->interfaces.n; i++)
		named |= strcmp(listener->interfaces.items[i], packet->interface) == 0;
	return listener->enabled && (listener->protocol == PROTOCOL_TCP) == (packet->protocol == IPPROTO_TCP) &&
	       ret->dst_len >= 0 && ret->src_len >= 0 && (!ret->named || named) && ret->width <= 65536;
}

FIXTURE uint32_t reference_winner(const struct snapshot *snapshot, const struct match_packet *packet)
{
	const struct rows *rows = &snapshot->rows[RESOURCE_LISTENER];
	struct reference_rank best = { 0 }, rank;
	uint32_t winner = 0;

	for (size_t i = 0; i < rows->n; i++) {
		const struct listener *listener = (const struct listener *)rows->items[i];

		if (!reference_matches(listener, packet, &rank) || (winner && !reference_better(&rank, &best)))
			continue;
		best = rank;
		winner = (uint32_t)listener->row.id;
	}
	return winner;
}

FIXTURE struct match_packet reference_packet(void)
{
	static const char *const v4[][2] = { { "10.1.1.1", "10.9.1.7" }, { "10.1.1.2", "10.9.1.8" },
		{ "10.1.1.99", "10.9.2.1" }, { "10.1.1.200", "10.8.1.1" }, { "10.1.7.1", "10.9.1.7" },
		{ "8.8.8.8", "1.1.1.1" } };
	static const char *const v6[][2] = { { "fd00:1::1", "fd00:9::1" }, { "fd00:1:2::1", "fd00:9::2" },
		{ "2001:db8::1", "fd00:8::1" } };
	static const char *const interfaces[] = { "eth0", "eth1", "lan.5", "wan" };
	static const uint16_t ports[] = { 1, 79, 80, 81, 85, 86, 88, 90, 95, 100, 101, 400, 430, 443, 450, 500, 501,
		65535 };
	struct match_packet packet = { .protocol = fixture_random(4) ? IPPROTO_TCP : IPPROTO_UDP,
		.dst_port = ports[fixture_random(ARRAY_SIZE(ports))],
		.interface = fixture_pick(interfaces, ARRAY_SIZE(interfaces)) };
	bool six = fixture_random(3) == 0;

	addr_parse(six ? v6[fixture_random(3)][0] : v4[fixture_random(6)][0], &packet.dst);
	addr_parse(six ? v6[fixture_random(3)][1] : v4[fixture_random(6)][1], &packet.src);
	return packet;
}

#endif
