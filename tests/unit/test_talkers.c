/* Who talked to whom: sums, the bound, who makes room, and another number of places. */
#include "gatewayd/talkers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gatewayd/base/cleanup.h"

static struct stats_flow flow(const char *client, const char *original, const char *sni)
{
	struct stats_flow made = { .id = 1,
		.started_ms = 1000,
		.bytes = { 10, 20 },
		.status.state = STATS_FLOW_RELAYING,
		.listener = 1,
		.client_port = 4000,
		.original_port = 443,
		.protocol = IPPROTO_TCP };

	addr_parse(client, &made.client);
	addr_parse(original, &made.original);
	snprintf(made.sni, sizeof(made.sni), "%s", sni);
	return made;
}

static const struct talker *find(const struct talkers *talkers, const char *client, const char *sni)
{
	const struct talker *talker = talkers_newest(talkers);
	struct addr addr;

	addr_parse(client, &addr);
	while (talker && (!addr_equal(&talker->flow.client, &addr) || strcmp(talker->flow.sni, sni) != 0))
		talker = talkers_older(talkers, talker);
	return talker;
}

/* A name is one destination, at whatever address; without a name it is the address. */
static void test_sums(void **state)
{
	struct stats_flow made[] = { flow("10.0.0.1", "192.0.2.1", "a.test"), flow("10.0.0.1", "192.0.2.2", "a.test"),
		flow("10.0.0.1", "192.0.2.1", ""), flow("10.0.0.1", "192.0.2.2", ""),
		flow("fd00::1", "fd00::2", "a.test") };
	const struct talker *talker;
	struct talkers *talkers;

	(void)state;
	assert_int_equal(talkers_new(100, &talkers), 0);
	made[1].started_ms = 500;
	made[1].client_port = 5000;
	made[1].status.state = STATS_FLOW_CONNECTING;
	for (size_t i = 0; i < ARRAY_SIZE(made); i++)
		talkers_add(talkers, &made[i], 2000 + i, 1000000);
	assert_int_equal(talkers_count(talkers), 4);
	talker = find(talkers, "10.0.0.1", "a.test");
	assert_int_equal(talker->ended, 2);
	assert_int_equal(talker->refused, 1);
	assert_int_equal(talker->flow.bytes[STATS_TO_TARGET], 20);
	assert_int_equal(talker->flow.bytes[STATS_TO_CLIENT], 40);
	assert_int_equal(talker->first_ms, 1000500);
	assert_int_equal(talker->last_ms, 1002001);
	assert_int_equal(talker->flow.original.family, 0);
	assert_int_equal(talkers_newest(talkers)->flow.client.family, AF_INET6);
	/* Another listener, upstream or protocol is another pair. */
	made[0].listener = 2;
	talkers_add(talkers, &made[0], 2000, 0);
	made[0].upstream = 3;
	talkers_add(talkers, &made[0], 2000, 0);
	made[0].protocol = IPPROTO_UDP;
	talkers_add(talkers, &made[0], 2000, 0);
	assert_int_equal(talkers_count(talkers), 7);
	talkers_free(talkers);
}

static void add(struct talkers *talkers, unsigned number)
{
	char client[32];
	struct stats_flow made;

	snprintf(client, sizeof(client), "10.%u.%u.%u", number >> 16, number >> 8 & 255, number & 255);
	made = flow(client, "192.0.2.1", "");
	talkers_add(talkers, &made, 2000, 0);
}

/* At the limit the one that was not seen for longest goes, whatever was seen first. */
static void test_bound(void **state)
{
	struct talkers *talkers, *other;
	unsigned n = 0;

	(void)state;
	assert_int_equal(talkers_new(1000, &talkers), 0);
	for (unsigned i = 0; i < 1000; i++)
		add(talkers, i);
	assert_int_equal(talkers_evicted(talkers), 0);
	add(talkers, 0); /* seen again */
	for (unsigned i = 1000; i < 5000; i++) {
		add(talkers, i);
		add(talkers, 0);
		assert_int_equal(talkers_count(talkers), 1000);
	}
	assert_int_equal(talkers_evicted(talkers), 4000);
	assert_int_equal(find(talkers, "10.0.0.0", "")->ended, 4002);
	assert_null(find(talkers, "10.0.0.1", ""));
	assert_non_null(find(talkers, "10.0.19.135", ""));
	for (const struct talker *at = talkers_newest(talkers); at; at = talkers_older(talkers, at))
		n++;
	assert_int_equal(n, 1000);
	/* Fewer places: those that were seen last stay, with their sums. */
	assert_int_equal(talkers_new(10, &other), 0);
	talkers_take(other, talkers);
	assert_int_equal(talkers_count(other), 10);
	assert_int_equal(find(other, "10.0.0.0", "")->ended, 4002);
	assert_ptr_equal(find(other, "10.0.0.0", ""), talkers_newest(other));
	assert_int_equal(talkers_evicted(other), 4990);
	talkers_free(talkers);
	assert_int_equal(talkers_new(0, &talkers), 0);
	talkers_take(talkers, other);
	add(talkers, 7);
	assert_int_equal(talkers_count(talkers), 0);
	assert_null(talkers_newest(talkers));
	talkers_free(talkers);
	talkers_free(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_sums), cmocka_unit_test(test_bound) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
