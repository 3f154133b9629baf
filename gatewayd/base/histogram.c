/* Reading log-linear histograms; see histogram.h. */
#include "gatewayd/base/histogram.h"

void histogram_clear(struct histogram *histogram, _Atomic uint64_t *sum)
{
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		atomic_store_explicit(&histogram->count[i], 0, memory_order_relaxed);
	atomic_store_explicit(sum, 0, memory_order_relaxed);
}

void histogram_add(const struct histogram *histogram, const _Atomic uint64_t *sum, struct histogram_sum *to)
{
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		uint64_t count = atomic_load_explicit(&histogram->count[i], memory_order_relaxed);

		to->bucket[i] += count;
		to->count += count;
	}
	to->sum += atomic_load_explicit(sum, memory_order_relaxed);
}

uint64_t histogram_least(unsigned bucket)
{
	unsigned power = bucket >> HISTOGRAM_PRECISION_BITS;
	uint64_t part = bucket & ((1U << HISTOGRAM_PRECISION_BITS) - 1);

	return power == 0 ? part : ((UINT64_C(1) << HISTOGRAM_PRECISION_BITS) + part) << (power - 1);
}

uint64_t histogram_most(unsigned bucket)
{
	return bucket >= HISTOGRAM_BUCKETS - 1 ? UINT64_MAX : histogram_least(bucket + 1) - 1;
}

uint64_t histogram_quantile(const struct histogram_sum *sum, double share)
{
	double exact = share * (double)sum->count;
	uint64_t rank = (uint64_t)exact, seen = 0;

	if (sum->count == 0)
		return 0;
	if ((double)rank < exact)
		rank++;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += sum->bucket[i];
		if (sum->bucket[i] > 0 && seen >= rank)
			return histogram_most(i);
	}
	return UINT64_MAX;
}

uint64_t histogram_at_most(const struct histogram_sum *sum, uint64_t value)
{
	uint64_t seen = 0;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS && histogram_most(i) <= value; i++)
		seen += sum->bucket[i];
	return seen;
}
