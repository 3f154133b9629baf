/* SipHash-2-4; see siphash.h. */
#include "gatewayd/base/siphash.h"

static uint64_t read_word(const uint8_t *bytes, size_t length)
{
	uint64_t word = 0;

	for (size_t i = 0; i < length; i++)
		word |= (uint64_t)bytes[i] << (8 * i);
	return word;
}

static void compress(uint64_t v[4], uint64_t word)
{
	v[3] ^= word;
	siphash_round(v);
	siphash_round(v);
	v[0] ^= word;
}

uint64_t siphash(const uint64_t key[2], const uint8_t *bytes, size_t length)
{
	size_t whole = length / 8 * 8;
	uint64_t v[4];

	siphash_begin(key, v);
	for (size_t i = 0; i < whole; i += 8)
		compress(v, read_word(bytes + i, 8));
	compress(v, read_word(bytes + whole, length - whole) | (uint64_t)(length & 0xff) << 56);
	v[2] ^= 0xff;
	for (unsigned i = 0; i < 4; i++)
		siphash_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}
