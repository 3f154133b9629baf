/* What holds for every parser of first bytes: a verdict on a prefix is final unless it asks for more. */
#ifndef GW_TESTS_FUZZ_FIRST_H
#define GW_TESTS_FUZZ_FIRST_H

#include "gatewayd/base/first.h"
#include "tests/fuzz/fuzz.h"

/* The bytes in memory of exactly their size, so that a read beyond them is seen. */
static inline uint8_t *fuzz_exact(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	FUZZ_EXPECT(copy);
	if (size > 0)
		memcpy(copy, data, size);
	return copy;
}

/* A host that was taken is taken again as the same. */
static inline void fuzz_host_is_canonical(const char *host)
{
	char again[FIRST_HOST_MAX + 1];

	FUZZ_EXPECT(strlen(host) <= FIRST_HOST_MAX);
	if (*host && !strchr(host, ':'))
		FUZZ_EXPECT(first_host((const uint8_t *)host, strlen(host), again) && strcmp(host, again) == 0);
}

static inline bool fuzz_lies_within(struct first_span span, const uint8_t *bytes, size_t length)
{
	return span.length == 0 ||
	       (span.bytes >= bytes && span.length <= length && span.bytes + span.length <= bytes + length);
}

#endif
