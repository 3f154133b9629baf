/* The words of traces: what is armed, which packet is whose, rules by their handles, and what steps came to. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "gatewayd/base/cleanup.h"
#include "rules/trace.h"

static struct trace_filter filter_of(const char *src, uint16_t sport, const char *dst)
{
	struct trace_filter filter = { .protocol = IPPROTO_TCP, .src_port = sport, .dst_port = 443 };

	assert_int_equal(addr_parse(src, &filter.src), 0);
	assert_int_equal(addr_parse(dst, &filter.dst), 0);
	return filter;
}

static void test_text(void **state)
{
	struct trace_filter filter = filter_of("2001:db8::1", 0, "2001:db8::2");
	_cleanup_free_ char *text = NULL;

	(void)state;
	assert_int_equal(trace_render(&filter, 3, 20, &text), 0);
	assert_non_null(strstr(text, "add table inet gatewayd_trace3 { flags owner; }\n"));
	assert_non_null(strstr(text, "elements = { tcp timeout 20s }"));
	assert_non_null(strstr(text, "ip6 saddr 2001:db8::1 ip6 daddr 2001:db8::2 tcp dport 443 limit rate"));
	assert_non_null(strstr(text, "ip6 saddr 2001:db8::2 ip6 daddr 2001:db8::1 tcp sport 443 limit rate"));
}

static void test_ways(void **state)
{
	struct trace_filter filter = filter_of("192.0.2.1", 1000, "192.0.2.2");
	struct trace_packet packet = {
		.protocol = IPPROTO_TCP, .src = filter.src, .dst = filter.dst, .src_port = 1000, .dst_port = 443
	};

	(void)state;
	assert_int_equal(trace_way_of(&filter, &packet), TRACE_TO_SERVER);
	packet.src_port = 1001;
	assert_int_equal(trace_way_of(&filter, &packet), TRACE_NONE);
	filter.src_port = 0;
	assert_int_equal(trace_way_of(&filter, &packet), TRACE_TO_SERVER);
	packet = (struct trace_packet){
		.protocol = IPPROTO_TCP, .src = filter.dst, .dst = filter.src, .src_port = 443, .dst_port = 7
	};
	assert_int_equal(trace_way_of(&filter, &packet), TRACE_TO_CLIENT);
	packet.protocol = IPPROTO_UDP;
	assert_int_equal(trace_way_of(&filter, &packet), TRACE_NONE);
	packet.protocol = 0; /* behind headers that were not read */
	assert_int_equal(trace_way_of(&filter, &packet), TRACE_TO_CLIENT);
}

static void test_packets(void **state)
{
	static const uint8_t v4[20] = { 0x45, 0, 0, 60, 0, 0, 0, 0, 64, IPPROTO_TCP, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2 };
	static const uint8_t tcp[20] = { 3, 232, 1, 187, [13] = 2 };
	uint8_t v6[40] = { 0x60, [5] = 20, [6] = 0, [8] = 0x20, [24] = 0x20, [39] = 2 };
	struct trace_packet packet;

	(void)state;
	assert_int_equal(trace_packet_parse(v4, sizeof(v4), tcp, sizeof(tcp), &packet), 0);
	assert_int_equal(packet.src_port, 1000);
	assert_int_equal(packet.dst_port, 443);
	assert_int_equal(packet.flags, 2);
	assert_int_equal(packet.length, 60);
	assert_int_equal(trace_packet_parse(v4, 19, tcp, sizeof(tcp), &packet), -EBADMSG);
	assert_int_equal(trace_packet_parse(v4, sizeof(v4), tcp, 3, &packet), 0);
	assert_int_equal(packet.protocol, 0);
	assert_int_equal(trace_packet_parse(v6, sizeof(v6), tcp, sizeof(tcp), &packet), 0);
	assert_int_equal(packet.protocol, 0);
	assert_int_equal(packet.length, 60);
	v6[6] = IPPROTO_UDP;
	assert_int_equal(trace_packet_parse(v6, sizeof(v6), tcp, 8, &packet), 0);
	assert_int_equal(packet.dst.bytes[15], 2);
	v6[0] = 0;
	assert_int_equal(trace_packet_parse(v6, sizeof(v6), tcp, 8, &packet), -EBADMSG);
}

static void test_rules(void **state)
{
	static const char listing[] =
	        "table inet other { # handle 1\n\tchain c { # handle 2\n\t\tdrop # handle 9\n\t}\n}\n"
	        "table inet gatewayd { # handle 2\n\tset s { # handle 3\n\t\ttype mark\n\t}\n\n"
	        "\tchain tcp4 { # handle 4\n\t\tth dport @tcp4_d0_s0_exact_relay goto act_relay # "
	        "handle 12\n\t\tdrop # handle 7\n\t}\n}\n";
	struct trace_rules *rules;
	char set[32];

	(void)state;
	assert_int_equal(trace_rules_parse(listing, &rules), 0);
	assert_null(trace_rules_find(rules, 9));
	assert_null(trace_rules_find(rules, 4));
	assert_string_equal(trace_rules_find(rules, 7), "drop");
	assert_true(trace_rule_set(trace_rules_find(rules, 12), set, sizeof(set)));
	assert_string_equal(set, "tcp4_d0_s0_exact_relay");
	assert_false(trace_rule_set(trace_rules_find(rules, 7), set, sizeof(set)));
	assert_false(trace_rule_set(trace_rules_find(rules, 12), set, 8));
	trace_rules_free(rules);
	assert_int_equal(trace_rules_parse("", &rules), 0);
	assert_null(trace_rules_find(rules, 7));
	trace_rules_free(rules);
}

static struct trace_step step(const char *table, const char *chain, enum trace_verdict verdict)
{
	struct trace_step made = { .kind = TRACE_RULE, .verdict = verdict, .family = "inet" };

	strcpy(made.table, table);
	strcpy(made.chain, chain);
	return made;
}

static void test_outcomes(void **state)
{
	struct trace_step steps[] = { step("gatewayd", "tcp4", TRACE_GOTO), step("gatewayd", "listener.8", TRACE_JUMP),
		step("gatewayd", "limit.few", TRACE_GOTO), step("gatewayd", "act_reject", TRACE_DROP) };
	struct trace_step wall = step("wall", "act_reject", TRACE_DROP);
	struct trace_outcome outcome;

	(void)state;
	trace_judge(steps, 4, &outcome);
	assert_string_equal(outcome.verdict, "limit");
	assert_string_equal(outcome.limit, "few");
	assert_int_equal(outcome.listener, 8);
	trace_judge(steps, 1, &outcome);
	assert_string_equal(outcome.verdict, "pass");
	steps[0] = step("gatewayd", "pre_tcp", TRACE_ACCEPT);
	trace_judge(steps, 1, &outcome);
	assert_string_equal(outcome.verdict, "established");
	steps[0] = step("gatewayd", "go_reset", TRACE_ACCEPT); /* a reset without a socket goes on to the server */
	trace_judge(steps, 1, &outcome);
	assert_string_equal(outcome.verdict, "direct");
	trace_judge(&steps[3], 1, &outcome);
	assert_string_equal(outcome.verdict, "reject");
	trace_judge(&wall, 1, &outcome);
	assert_string_equal(outcome.verdict, "foreign_drop");
	wall.family = "ip";
	strcpy(wall.table, "gatewayd"); /* of another family, so not ours */
	trace_judge(&wall, 1, &outcome);
	assert_string_equal(outcome.verdict, "foreign_drop");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_ways),
		cmocka_unit_test(test_packets),
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_outcomes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
