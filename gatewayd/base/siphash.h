/*
 * SipHash-2-4 as its authors publish it: a hash whose value is the same on
 * every machine, of bytes that a stranger may have chosen. Callers bring the
 * key: a secret where collisions would hurt, a stated one where several
 * gateways are to come to the same result.
 */
#ifndef GW_BASE_SIPHASH_H
#define GW_BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

/* The hash of the bytes under the key, whose two words are those of the published 16 bytes in little-endian order. */
uint64_t siphash(const uint64_t key[2], const uint8_t *bytes, size_t length);

static inline uint64_t siphash_rotate(uint64_t word, unsigned bits)
{
	return word << bits | word >> (64 - bits);
}

/* One round on the four words of state, for variants with other numbers of rounds. */
static inline void siphash_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = siphash_rotate(v[1], 13) ^ v[0];
	v[0] = siphash_rotate(v[0], 32);
	v[2] += v[3];
	v[3] = siphash_rotate(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = siphash_rotate(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = siphash_rotate(v[1], 17) ^ v[2];
	v[2] = siphash_rotate(v[2], 32);
}

/* The four words that every variant begins with, under the key. */
static inline void siphash_begin(const uint64_t key[2], uint64_t v[4])
{
	v[0] = key[0] ^ UINT64_C(0x736f6d6570736575);
	v[1] = key[1] ^ UINT64_C(0x646f72616e646f6d);
	v[2] = key[0] ^ UINT64_C(0x6c7967656e657261);
	v[3] = key[1] ^ UINT64_C(0x7465646279746573);
}

#endif
