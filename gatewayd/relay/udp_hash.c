/* The keyed hash; see udp_hash.h. */
#include "gatewayd/relay/udp_hash.h"

#include <string.h>
#include <sys/random.h>

#include "gatewayd/base/siphash.h"

/* Family, ports, two addresses: at most so many words. */
#define HASHED_WORDS 5

void udp_hash_init(struct udp_hash *hash)
{
	/* Early in the boot the kernel may have no randomness yet; what memory's place tells is better than waiting. */
	if (getrandom(hash->secret, sizeof(hash->secret), GRND_NONBLOCK) < 0)
		hash->secret[0] = (uintptr_t)hash;
}

static uint64_t hash_words(const uint64_t secret[2], const uint64_t *words, unsigned n)
{
	uint64_t v[4];

	siphash_begin(secret, v);
	for (unsigned i = 0; i < n; i++) {
		v[3] ^= words[i];
		siphash_round(v);
		v[0] ^= words[i];
	}
	v[2] ^= 0xff;
	for (unsigned i = 0; i < 3; i++)
		siphash_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint32_t udp_hash_pair(
        const struct udp_hash *hash, const struct addr *a, uint16_t a_port, const struct addr *b, uint16_t b_port)
{
	size_t length = addr_bits(a->family) / 8;
	uint64_t words[HASHED_WORDS] = { (uint64_t)a->family << 32 | (uint64_t)a_port << 16 | b_port };

	memcpy(&words[1], a->bytes, length);
	memcpy((uint8_t *)&words[1] + length, b->bytes, length);
	return (uint32_t)hash_words(hash->secret, words, a->family == AF_INET ? 2 : HASHED_WORDS);
}
