/* Times of day of what was noted by the clock that nobody sets. */
#include "gatewayd/health_view.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Whenever one looks, and wherever seconds of the two clocks begin, it is the same second. */
static void test_time_stays(void **state)
{
	static const uint64_t day_us = UINT64_C(1800000000000000);

	(void)state;
	for (uint64_t offset_us = 0; offset_us < 1000000; offset_us += 99991)
		for (uint64_t at_ms = 5000; at_ms < 6000; at_ms += 97) {
			int64_t first = health_view_time_by(at_ms, day_us + offset_us + at_ms * 1000, at_ms * 1000);

			assert_int_equal(first, (day_us + offset_us + at_ms * 1000) / 1000000);
			for (uint64_t later_us = 0; later_us < 3000000; later_us += 12347) {
				uint64_t now_us = at_ms * 1000 + later_us;

				assert_int_equal(
				        health_view_time_by(at_ms, day_us + offset_us + now_us, now_us), first);
			}
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_time_stays) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
