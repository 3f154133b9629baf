/* Log-linear histograms against a plain reference: the sorted values themselves. */
#include "gatewayd/base/histogram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define VALUES 20000

static struct histogram histogram;
static _Atomic uint64_t total_of;
static struct histogram_sum sum;

static int setup(void **state)
{
	(void)state;
	histogram_clear(&histogram, &total_of);
	memset(&sum, 0, sizeof(sum));
	return 0;
}

/* Buckets lie side by side from 0 to the end, and each value is in the bucket that says so. */
static void test_buckets(void **state)
{
	(void)state;
	assert_true(histogram_least(0) == 0);
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		assert_int_equal(histogram_bucket(histogram_least(i)), i);
		assert_int_equal(histogram_bucket(histogram_most(i)), i);
		if (i + 1 < HISTOGRAM_BUCKETS)
			assert_true(histogram_most(i) + 1 == histogram_least(i + 1));
	}
	assert_int_equal(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
	assert_int_equal(histogram_bucket(UINT64_C(1) << HISTOGRAM_VALUE_BITS), HISTOGRAM_BUCKETS - 1);
}

/* No bucket is wider than the named share of its least value. */
static void test_precision(void **state)
{
	(void)state;
	for (unsigned i = 0; i + 1 < HISTOGRAM_BUCKETS; i++) {
		uint64_t width = histogram_most(i) - histogram_least(i);

		assert_true(width << HISTOGRAM_PRECISION_BITS <= histogram_least(i));
	}
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Values of every magnitude, small ones as often as large ones. */
static uint64_t random_value(unsigned *seed)
{
	uint64_t value = (uint64_t)rand_r(seed) << 31 ^ (uint64_t)rand_r(seed);

	return value >> (22 + rand_r(seed) % 40);
}

static void test_quantiles(void **state)
{
	static const double shares[] = { 0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1 };
	static uint64_t values[VALUES];
	unsigned seed = 4711;
	uint64_t total = 0;

	(void)state;
	for (size_t i = 0; i < VALUES; i++) {
		values[i] = random_value(&seed);
		total += values[i];
		histogram_record(&histogram, &total_of, values[i]);
	}
	qsort(values, VALUES, sizeof(values[0]), compare);
	histogram_add(&histogram, &total_of, &sum);
	assert_true(sum.count == VALUES);
	assert_true(sum.sum == total);
	for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
		double exact = shares[i] * VALUES;
		size_t rank = (size_t)exact + ((double)(size_t)exact < exact);
		uint64_t truth = values[rank ? rank - 1 : 0], found = histogram_quantile(&sum, shares[i]);

		assert_true(found >= truth);
		assert_true(found - truth <= truth >> HISTOGRAM_PRECISION_BITS);
	}
	for (unsigned bit = 0; bit < HISTOGRAM_VALUE_BITS; bit++) {
		uint64_t limit = (UINT64_C(1) << bit) - 1, truth = 0;

		for (size_t i = 0; i < VALUES; i++)
			truth += values[i] <= limit;
		assert_true(histogram_at_most(&sum, limit) == truth);
	}
}

static void test_limits(void **state)
{
	(void)state;
	assert_true(histogram_quantile(&sum, 0.5) == 0);
	histogram_record(&histogram, &total_of, UINT64_MAX / 2);
	histogram_add(&histogram, &total_of, &sum);
	histogram_add(&histogram, &total_of, &sum);
	assert_true(sum.count == 2);
	assert_true(histogram_quantile(&sum, 0.5) == UINT64_MAX);
	histogram_clear(&histogram, &total_of);
	memset(&sum, 0, sizeof(sum));
	histogram_add(&histogram, &total_of, &sum);
	assert_true(sum.count == 0 && sum.sum == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_buckets, setup),
		cmocka_unit_test_setup(test_precision, setup),
		cmocka_unit_test_setup(test_quantiles, setup),
		cmocka_unit_test_setup(test_limits, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
