/*
 * Health: what the checks' outcomes make of a target (rise and fall), and the
 * thread's turns against real sockets on loopback: schedules, changes of the
 * configuration, more targets than checks at once.
 */
#include "gatewayd/relay/health.h"

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatewayd/relay/config.h"
#include "gatewayd/relay/health_check.h"
#include "gatewayd/relay/reap.h"

/* --- rise and fall --- */

struct judged {
	struct health_streak streak;
	struct target_state state;
	uint64_t now_ms;
};

/* '+' a good check, '-' a bad one, 'l' one that could not be made; the healths after each, as letters. */
static void expect(struct judged *judged, unsigned rise, unsigned fall, const char *checks, const char *healths)
{
	static const char letters[] = {
		[TARGET_HEALTH_UNKNOWN] = '?', [TARGET_HEALTH_UP] = 'u', [TARGET_HEALTH_DOWN] = 'd'
	};
	struct health_rule rule = { .rise = (uint8_t)rise, .fall = (uint8_t)fall };

	for (size_t i = 0; checks[i]; i++) {
		struct health_verdict verdict = { .cause = checks[i] == '+'   ? TARGET_CAUSE_OK
			                                   : checks[i] == 'l' ? TARGET_CAUSE_LOCAL
			                                                      : TARGET_CAUSE_TIMEOUT };
		uint32_t before = judged->state.health;
		bool changed = health_rule_note(&rule, &judged->streak, &judged->state, &verdict, ++judged->now_ms);

		if (letters[judged->state.health] != healths[i])
			fail_msg(
			        "after check %zu of %s the health is %c", i + 1, checks, letters[judged->state.health]);
		assert_int_equal(changed, before != judged->state.health);
		if (changed)
			assert_int_equal(judged->state.since_ms, judged->now_ms);
		assert_int_equal(judged->state.checked_ms, judged->now_ms);
	}
}

static void test_rise_and_fall(void **state)
{
	struct judged fresh = { 0 }, strict = { 0 }, local = { 0 };

	(void)state;
	expect(&fresh, 2, 3, "--+--+---", "??uuuuuud"); /* one good check is enough where nothing is known */
	expect(&fresh, 2, 3, "+-+-++--",
	        "dddddu"
	        "uu");
	expect(&fresh, 2, 3, "-", "d");
	expect(&strict, 1, 1, "-+-+", "dudu");
	expect(&local, 2, 2, "-l-", "??d"); /* what could not be made neither speaks nor begins anew */
	expect(&local, 2, 2, "+l+", "ddu");
	assert_int_equal(local.state.checks, 4);
	assert_int_equal(local.state.failures, 2);
	/* Streaks do not run over. */
	for (unsigned i = 0; i < 300; i++)
		expect(&local, 100, 100, "+", "u");
	assert_true(health_rule_forget(&local.streak, &local.state, 7));
	assert_int_equal(local.state.health, TARGET_HEALTH_UNKNOWN);
	assert_false(health_rule_forget(&local.streak, &local.state, 8));
}

/* --- flows that go with their targets --- */

/* Each time is moved by at most half a step, and never by more than half of a thirtieth of the interval; steps of all
 * intervals meet. */
static void test_checks_meet(void **state)
{
	static const struct {
		uint32_t interval_ms;
		uint64_t due_ms, begins_ms;
	} cases[] = {
		{ 1000, 3200, 3200 },
		{ 1000, 3215, 3200 },
		{ 1000, 3216, 3232 },
		{ 60000, 3215, 3200 },
		{ 959, 3215, 3216 },
		{ 500, 3215, 3216 },
		{ 500, 3223, 3216 },
		{ 500, 3224, 3232 },
		{ 100, 3215, 3216 },
		{ 100, 3214, 3214 },
		{ 59, 3215, 3215 },
		{ 1, 3215, 3215 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(health_rule_meet(cases[i].due_ms, cases[i].interval_ms), cases[i].begins_ms);
}

static void test_reap_why(void **state)
{
	struct target_state target = { 0 };
	uint64_t wake = UINT64_MAX;

	(void)state;
	assert_int_equal(reap_why(&target, TARGET_UP, true, 1000, &wake), REAP_NOT);
	assert_int_equal(reap_why(&target, TARGET_DOWN, true, 1000, &wake), REAP_DOWN);
	assert_int_equal(reap_why(&target, TARGET_DOWN, false, 1000, &wake), REAP_NOT);
	target.admin = TARGET_UP + 1; /* the operator's word counts more than the configuration */
	assert_int_equal(reap_why(&target, TARGET_DOWN, true, 1000, &wake), REAP_NOT);
	target.health = TARGET_HEALTH_DOWN;
	assert_int_equal(reap_why(&target, TARGET_UP, true, 1000, &wake), REAP_DOWN);
	assert_int_equal(reap_why(&target, TARGET_UP, false, 1000, &wake), REAP_NOT);
	target.health = TARGET_HEALTH_UNKNOWN;
	target.admin = TARGET_DRAIN + 1;
	target.drain_deadline_ms = 2000;
	target.reset_per_s = 10;
	assert_int_equal(reap_why(&target, TARGET_UP, true, 1999, &wake), REAP_NOT);
	assert_int_equal(wake, 2000);
	assert_int_equal(reap_why(&target, TARGET_UP, true, 2000, &wake), REAP_DRAINED);
	target.admin = 0; /* back in service */
	assert_int_equal(reap_why(&target, TARGET_UP, true, 2000, &wake), REAP_NOT);
}

static unsigned passes(struct target_state *target, enum reap_why why, uint64_t now_us)
{
	unsigned n = 0;

	while (reap_pass(target, why, now_us))
		n++;
	return n;
}

static void test_reap_rate(void **state)
{
	struct target_state target = { .reset_per_s = 10 };
	uint64_t now_us = 5000000;
	unsigned first = passes(&target, REAP_DRAINED, now_us), sum = 0;

	(void)state;
	assert_in_range(first, 1, 10 * REAP_BURST_US / 1000000 + 1);
	for (unsigned i = 0; i < 200; i++)
		sum += passes(&target, REAP_DRAINED, now_us += 50000);
	assert_in_range(sum, 99, 101); /* ten seconds */
	target = (struct target_state){ 0 };
	assert_int_equal(passes(&target, REAP_DRAINED, now_us), 0);
	sum = 0;
	for (unsigned i = 0; i < 20; i++)
		sum += passes(&target, REAP_DOWN, now_us += 50000);
	assert_in_range(sum, REAP_DOWN_PER_S - 60, REAP_DOWN_PER_S + REAP_DOWN_PER_S / 10 + 1);
}

/* --- the thread --- */

#define TARGETS 40

struct fixture {
	struct health *health;
	struct stats_memory *memory;
	int reply_fd, listen_fd;
	uint16_t port;
	uint64_t sequence;
};

static int listen_on_loopback(uint16_t *ret_port)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(listen(fd, 128), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &length), 0);
	*ret_port = ntohs(in.sin_port);
	return fd;
}

static int start(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	fixture->memory = mmap(NULL, sizeof(*fixture->memory), PROT_READ | PROT_WRITE,
	        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	fixture->reply_fd = eventfd(0, EFD_NONBLOCK);
	fixture->listen_fd = listen_on_loopback(&fixture->port);
	*state = fixture;
	return fixture->memory == MAP_FAILED || health_new(fixture->reply_fd, 8, &fixture->health) < 0;
}

static int stop(void **state)
{
	struct fixture *fixture = *state;

	health_free(fixture->health);
	munmap(fixture->memory, sizeof(*fixture->memory));
	close(fixture->listen_fd);
	close(fixture->reply_fd);
	free(fixture);
	return 0;
}

static uint32_t slot_of(uint32_t id)
{
	return STATS_LISTENERS_MAX + STATS_UPSTREAMS_MAX + id;
}

static struct target_state *target(struct fixture *fixture, uint32_t id)
{
	return stats_target(fixture->memory, slot_of(id));
}

static void add(struct config_batch *batch, struct proto_message message, int expected)
{
	assert_int_equal(config_batch_add(batch, &message), expected);
}

static struct proto_message rules(uint8_t type)
{
	return (struct proto_message){ .type = PROTO_HEALTH_PUT,
		.health_put = { .upstream = 1,
		        .type = type,
		        .rise = 1,
		        .fall = 1,
		        .status_from = 200,
		        .status_to = 399,
		        .interval_ms = 40,
		        .timeout_ms = 40,
		        .path = "/" } };
}

static struct proto_message put(uint32_t id, uint16_t port)
{
	return (struct proto_message){ .type = PROTO_TARGET_PUT,
		.target_put = { .upstream = 1,
		        .id = id,
		        .family = AF_INET,
		        .address = { 127, 0, 0, 1 },
		        .port = port,
		        .weight = 1,
		        .slot = slot_of(id) } };
}

static void order(struct fixture *fixture, struct health_order given)
{
	given.sequence = ++fixture->sequence;
	assert_int_equal(health_order(fixture->health, &given), 0);
	for (unsigned i = 0; i < 100 && health_done(fixture->health) < given.sequence; i++)
		health_turn(fixture->health, 10);
	assert_int_equal(health_done(fixture->health), given.sequence);
}

/* Upstream 1 with targets 1 to n: the even ones at a port that nobody listens on. */
static void configure(struct fixture *fixture, uint64_t base, uint8_t type, unsigned n, int expected)
{
	struct config_batch *batch;

	assert_int_equal(config_batch_new(base, base + 1, &batch), 0);
	add(batch, (struct proto_message){ .type = PROTO_UPSTREAM_PUT, .upstream_put = { .id = 1, .name = "pool" } },
	        0);
	add(batch, rules(type), 0);
	for (uint32_t id = 1; id <= n; id++) {
		atomic_store(&fixture->memory->id[slot_of(id)], id);
		add(batch, put(id, id % 2 ? fixture->port : 1), 0);
	}
	order(fixture, (struct health_order){ .kind = HEALTH_ORDER_APPLY, .batch = batch });
	assert_int_equal(health_apply_result(fixture->health), expected);
	config_batch_free(batch);
}

static bool all_checked(struct fixture *fixture, unsigned n, uint64_t times)
{
	for (uint32_t id = 1; id <= n; id++)
		if (target(fixture, id)->checks < times)
			return false;
	return true;
}

static void turn_until_checked(struct fixture *fixture, unsigned n, uint64_t times)
{
	for (unsigned i = 0; i < 5000 && !all_checked(fixture, n, times); i++)
		health_turn(fixture->health, 10);
	assert_true(all_checked(fixture, n, times));
}

static void test_bad_rules(void **state)
{
	struct config_batch *batch;
	struct proto_message bad = rules(PROTO_HEALTH_TYPES);

	(void)state;
	assert_int_equal(config_batch_new(0, 1, &batch), 0);
	add(batch, bad, -EBADMSG);
	bad = rules(PROTO_HEALTH_TCP);
	bad.health_put.interval_ms = 0;
	add(batch, bad, -EBADMSG);
	bad = rules(PROTO_HEALTH_TCP);
	bad.health_put.fall = 0;
	add(batch, bad, -EBADMSG);
	bad = rules(PROTO_HEALTH_HTTP);
	strcpy(bad.health_put.path, "/\r\nHost: x");
	add(batch, bad, -EBADMSG);
	config_batch_free(batch);
}

static void test_turns(void **state)
{
	struct fixture *fixture = *state;

	configure(fixture, 0, PROTO_HEALTH_TCP, TARGETS, 0);
	health_turn(fixture->health, 10); /* without memory nothing is checked */
	order(fixture, (struct health_order){ .kind = HEALTH_ORDER_MEMORY, .memory = fixture->memory });
	assert_int_equal(fixture->memory->health.targets, TARGETS);
	turn_until_checked(fixture, TARGETS, 3);
	for (uint32_t id = 1; id <= TARGETS; id++) {
		assert_int_equal(target(fixture, id)->health, id % 2 ? TARGET_HEALTH_UP : TARGET_HEALTH_DOWN);
		assert_int_equal(target(fixture, id)->cause, id % 2 ? TARGET_CAUSE_OK : TARGET_CAUSE_CONNECT);
		if (id % 2 == 0)
			assert_int_equal(target(fixture, id)->detail, ECONNREFUSED);
	}
	assert_int_equal(health_changes(fixture->health), TARGETS);
	assert_int_equal(health_resets(fixture->health), 0);
}

/* More targets than checks at once, all silent: each has its turn, and those that answer are not kept from theirs. */
static void test_no_room(void **state)
{
	struct fixture *fixture = *state;

	order(fixture, (struct health_order){ .kind = HEALTH_ORDER_MEMORY, .memory = fixture->memory });
	configure(fixture, 0, PROTO_HEALTH_HTTP, TARGETS, 0); /* nobody accepts: the odd ones are silent */
	turn_until_checked(fixture, TARGETS, 2);
	assert_true(fixture->memory->health.late > 0);
	assert_int_equal(target(fixture, 1)->cause, TARGET_CAUSE_TIMEOUT);
	assert_int_equal(target(fixture, 1)->detail, 40);
	assert_int_equal(target(fixture, 2)->cause, TARGET_CAUSE_CONNECT);
}

/* What is taken away is checked no more, also in the middle of a check or while it waits; what stays goes on. */
static void test_changes(void **state)
{
	struct fixture *fixture = *state;
	uint64_t checks;

	order(fixture, (struct health_order){ .kind = HEALTH_ORDER_MEMORY, .memory = fixture->memory });
	configure(fixture, 0, PROTO_HEALTH_HTTP, TARGETS, 0);
	for (unsigned i = 0; i < 20; i++)
		health_turn(fixture->health, 5);
	configure(fixture, 0, PROTO_HEALTH_HTTP, 2, 0);
	assert_int_equal(fixture->memory->health.targets, 2);
	checks = target(fixture, 3)->checks;
	turn_until_checked(fixture, 2, 5);
	assert_int_equal(target(fixture, 3)->checks, checks);
	/* No check any more: nothing is known. */
	configure(fixture, 1, PROTO_HEALTH_NONE, 2, 0);
	assert_int_equal(target(fixture, 1)->health, TARGET_HEALTH_UNKNOWN);
	assert_int_equal(fixture->memory->health.targets, 0);
	/* A slot that is another's by now is not written to. */
	configure(fixture, 2, PROTO_HEALTH_TCP, 2, 0);
	atomic_store(&fixture->memory->id[slot_of(1)], 99);
	checks = target(fixture, 1)->checks;
	for (unsigned i = 0; i < 30; i++)
		health_turn(fixture->health, 5);
	assert_int_equal(target(fixture, 1)->checks, checks);
	configure(fixture, 0, PROTO_HEALTH_TCP, 0, 0);
	assert_int_equal(fixture->memory->health.targets, 0);
}

/* A change of what is not there: told, and nothing breaks. */
static void test_unknown(void **state)
{
	struct fixture *fixture = *state;
	struct config_batch *batch;

	assert_int_equal(config_batch_new(1, 2, &batch), 0);
	add(batch, put(1, 80), 0);
	order(fixture, (struct health_order){ .kind = HEALTH_ORDER_APPLY, .batch = batch });
	assert_int_equal(health_apply_result(fixture->health), -ENOENT);
	config_batch_free(batch);
}

static void expect_request(const char *address, uint16_t port, struct proto_message message, const char *expected)
{
	struct health_upstream upstream = { .rules = message.health_put };
	struct health_target checked = { .upstream = &upstream, .port = port };
	char request[HEALTH_REQUEST_MAX];
	size_t n;

	assert_int_equal(addr_parse(address, &checked.addr), 0);
	n = health_check_request(&checked, request);
	assert_int_equal(n, strlen(request));
	assert_memory_equal(request, expected, strlen(expected));
	assert_string_equal(request + n - 4, "\r\n\r\n");
}

static void test_requests(void **state)
{
	struct proto_message message = rules(PROTO_HEALTH_HTTP);

	(void)state;
	expect_request("192.0.2.1", 80, message, "GET / HTTP/1.1\r\nHost: 192.0.2.1:80\r\n");
	expect_request("2001:db8::1", 80, message, "GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n");
	message.health_put.head = 1;
	message.health_put.port = 8080;
	expect_request("192.0.2.1", 80, message, "HEAD / HTTP/1.1\r\nHost: 192.0.2.1:8080\r\n");
	memset(message.health_put.path, 'p', 255);
	memset(message.health_put.host, 'h', 255);
	expect_request("192.0.2.1", 80, message, "HEAD ppp");
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rise_and_fall),
		cmocka_unit_test(test_checks_meet),
		cmocka_unit_test(test_reap_why),
		cmocka_unit_test(test_reap_rate),
		cmocka_unit_test(test_bad_rules),
		cmocka_unit_test(test_requests),
		WITH(test_turns),
		WITH(test_no_room),
		WITH(test_changes),
		WITH(test_unknown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
