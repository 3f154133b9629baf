/*
 * The ledger without a kernel: what interfaces say in /proc/net/dev, sums and
 * rests, names that are no text, too many of them, and interfaces that go.
 */
#include "gatewayd/ledger.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/links.h"

static void test_links(void **state)
{
	static char text[] = "Inter-|   Receive                                                |  Transmit\n"
	                     " face |bytes    packets errs drop fifo frame compressed multicast|bytes packets\n"
	                     "    lo: 1210 11 0 0 0 0 0 0 1210 11 0 0 0 0 0 0\n"
	                     "in0.100: 98 18446744073709551615 1 0 0 0 0 0 1 1 0 0 0 0 0 0\n"
	                     "a:b: 5 6 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
	                     "muchlongerthanany: 5 6 0 0\n"
	                     "x:\n: 1 2\n";
	_cleanup_fclose_ FILE *file = fmemopen(text, sizeof(text) - 1, "r");
	_cleanup_free_ struct link_count *links = NULL;
	size_t n = 0;

	(void)state;
	assert_int_equal(links_parse(file, &links, &n), 0);
	assert_int_equal(n, 3);
	assert_string_equal(links[0].interface, "lo");
	assert_int_equal(links[0].packets, 11);
	assert_int_equal(links[0].bytes, 1210);
	assert_string_equal(links[1].interface, "in0.100");
	assert_true(links[1].packets == UINT64_MAX);
	assert_string_equal(links[2].interface, "a:b");
}

static void test_rests(void **state)
{
	struct ledger_row row = { 0 };

	(void)state;
	row.counts.outcome[LEDGER_in].packets = 100;
	row.counts.outcome[LEDGER_relay_tcp].packets = 60;
	row.counts.outcome[LEDGER_multicast].packets = 3;
	row.counts.outcome[LEDGER_bypassed].packets = 20;
	row.counts.outcome[LEDGER_no_listener].packets = 10;
	row.counts.outcome[LEDGER_forwarded].packets = 25;
	row.counts.outcome[LEDGER_local].packets = 4;
	assert_int_equal(ledger_passed(&row), 30);
	assert_int_equal(ledger_rest_stack(&row), 7);
	assert_int_equal(ledger_rest_passed(&row), 1);
	/* What comes while it is read may stand in a later sum only. */
	row.counts.outcome[LEDGER_in].packets = 92;
	assert_int_equal(ledger_rest_stack(&row), -1);
	row.link.in.packets = 12;
	assert_int_equal(ledger_rest_link(&row), 0);
	row.link.filtered = true;
	row.link.reasons[PREFILTER_denied].packets = 2;
	row.link.reasons[PREFILTER_passed].packets = 9;
	assert_int_equal(ledger_rest_link(&row), 1);
}

static void test_names_and_bounds(void **state)
{
	struct ledger_counts *counts = calloc(LEDGER_INTERFACES_MAX + 3, sizeof(*counts));
	_cleanup_free_ struct ledger_row *rows = NULL;
	struct kernel *kernel;
	struct ledger *ledger;
	size_t n, omitted;

	(void)state;
	for (unsigned i = 0; i < LEDGER_INTERFACES_MAX + 3U; i++)
		snprintf(counts[i].interface, IFNAMSIZ, "v%u", i);
	strcpy(counts[0].interface, "a\"b");
	strcpy(counts[1].interface, "\xff");
	assert_int_equal(kernel_fake_new(&kernel), 0);
	kernel_fake_ledger(kernel, counts, LEDGER_INTERFACES_MAX + 3);
	assert_int_equal(ledger_new(NULL, kernel, NULL, NULL, &ledger), 0);
	assert_int_equal(ledger_look(ledger, &rows, &n, &omitted), 0);
	assert_int_equal(n, LEDGER_INTERFACES_MAX);
	assert_int_equal(omitted, 3);
	ledger_free(ledger);
	kernel_free(kernel);
	free(counts);
}

/* lo is there, the other is not. */
static void test_interfaces_that_go(void **state)
{
	struct ledger_counts counts[2] = { { .interface = "gone0" }, { .interface = "lo" } };
	struct kernel *kernel;
	struct ledger *ledger;

	(void)state;
	counts[0].outcome[LEDGER_in].packets = 5;
	counts[0].outcome[LEDGER_local].packets = 5;
	counts[1].outcome[LEDGER_in].packets = 5;
	assert_int_equal(kernel_fake_new(&kernel), 0);
	kernel_fake_ledger(kernel, counts, 2);
	assert_int_equal(ledger_new(NULL, kernel, NULL, NULL, &ledger), 0);
	for (unsigned i = 0; i < LEDGER_LOOKS_GONE; i++) {
		assert_int_equal(kernel_fake_calls(kernel, KERNEL_NFT_COMMIT), 0);
		ledger_tend(ledger);
	}
	assert_int_equal(kernel_fake_calls(kernel, KERNEL_NFT_COMMIT), 1);
	assert_string_equal(kernel_fake_committed(kernel),
	        "delete element inet gatewayd ledger { \"gone0\" . 0x00000000, \"gone0\" . 0x00000012 }\n");
	ledger_free(ledger);
	kernel_free(kernel);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_rests),
		cmocka_unit_test(test_names_and_bounds),
		cmocka_unit_test(test_interfaces_that_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
