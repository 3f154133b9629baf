/*
 * Log-linear histograms with fixed buckets: each power of two is divided into
 * as many equal buckets, so that the width of a bucket is a fixed share of the
 * values in it, from microseconds to months, in a few kilobytes. One writer
 * records without a lock or memory of its own; readers copy.
 */
#ifndef GW_BASE_HISTOGRAM_H
#define GW_BASE_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

/* Buckets per power of two, as a power of two: a bucket is at most 1/16 of its values wide. */
#define HISTOGRAM_PRECISION_BITS 4
/* Values of more bits count as the largest one: 2^42 us are 50 days, 2^42 bytes are 4 TiB. */
#define HISTOGRAM_VALUE_BITS 42
#define HISTOGRAM_BUCKETS    ((unsigned)(HISTOGRAM_VALUE_BITS - HISTOGRAM_PRECISION_BITS + 1) << HISTOGRAM_PRECISION_BITS)

/* In shared memory; all zero is empty. The sum of the values is a word of its owner, who keeps those of several
 * histograms in one line of the cache. */
struct histogram {
	_Atomic uint64_t count[HISTOGRAM_BUCKETS];
};

/* A reader's copy, or the sum of several; all zero is empty. */
struct histogram_sum {
	uint64_t sum;
	uint64_t count; /* of all buckets */
	uint64_t bucket[HISTOGRAM_BUCKETS];
};

/* The bucket of a value. */
static inline unsigned histogram_bucket(uint64_t value)
{
	unsigned bits;

	if (value < (1U << HISTOGRAM_PRECISION_BITS))
		return (unsigned)value;
	if (value >> HISTOGRAM_VALUE_BITS)
		return HISTOGRAM_BUCKETS - 1;
	/* The leading bit says which power of two, the ones behind it which part of that. */
	bits = 63 - (unsigned)__builtin_clzll(value);
	return ((bits - HISTOGRAM_PRECISION_BITS) << HISTOGRAM_PRECISION_BITS) +
	       (unsigned)(value >> (bits - HISTOGRAM_PRECISION_BITS));
}

/* By the one writer. */
static inline void histogram_record(struct histogram *histogram, _Atomic uint64_t *sum, uint64_t value)
{
	_Atomic uint64_t *count = &histogram->count[histogram_bucket(value)];

	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1, memory_order_relaxed);
	atomic_store_explicit(sum, atomic_load_explicit(sum, memory_order_relaxed) + value, memory_order_relaxed);
}

/* By the one writer: empties it. */
void histogram_clear(struct histogram *histogram, _Atomic uint64_t *sum);
/* Adds what has been recorded so far. */
void histogram_add(const struct histogram *histogram, const _Atomic uint64_t *sum, struct histogram_sum *to);

/* The smallest and the largest value of a bucket; the last bucket's largest is UINT64_MAX. */
uint64_t histogram_least(unsigned bucket);
uint64_t histogram_most(unsigned bucket);
/* A value that at least this share (0 to 1) of the recorded ones do not exceed: the largest of its bucket, so never
 * less than the true one, and more by at most the bucket's width. 0 if nothing is recorded. */
uint64_t histogram_quantile(const struct histogram_sum *sum, double share);
/* How many recorded values are at most `value`; exact where a bucket ends there, else those of whole buckets below. */
uint64_t histogram_at_most(const struct histogram_sum *sum, uint64_t value);

#endif
