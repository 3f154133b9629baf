/* Three addresses; see addr_trio.h. */
#include "gatewayd/base/addr_trio.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static_assert(sizeof(struct addr_trio) == 13, "it has no padding");
static_assert((ADDR_POOL_RECENT & (ADDR_POOL_RECENT - 1)) == 0, "a power of two");

enum kind { KIND_NONE, KIND_IPV4, KIND_IPV6 };

/* An address in the pool. */
struct shared {
	uint8_t bytes[16];
	uint32_t users;
};

int addr_pool_init(struct addr_pool *pool, uint32_t trios)
{
	*pool = (struct addr_pool){ 0 };
	return parts_init(&pool->parts, trios > UINT32_MAX / 3 ? UINT32_MAX : trios * 3, sizeof(struct shared));
}

void addr_pool_destroy(struct addr_pool *pool)
{
	parts_destroy(&pool->parts);
}

static uint32_t *recent_of(struct addr_pool *pool, const uint8_t bytes[16])
{
	uint64_t halves[2];

	memcpy(halves, bytes, sizeof(halves));
	return &pool->recent[(halves[0] ^ halves[1]) * UINT64_C(0x9E3779B97F4A7C15) >> 32 & (ADDR_POOL_RECENT - 1)];
}

/* The number of an address, which has one user more. 0: there is no room. */
static uint32_t pool_use(struct addr_pool *pool, const uint8_t bytes[16])
{
	uint32_t *recent = recent_of(pool, bytes);
	struct shared *shared = parts_at(&pool->parts, *recent);

	if (!shared || memcmp(shared->bytes, bytes, sizeof(shared->bytes)) != 0) {
		uint32_t number = parts_take(&pool->parts);

		if (number == 0)
			return 0;
		*recent = number;
		shared = parts_at(&pool->parts, number);
		memcpy(shared->bytes, bytes, sizeof(shared->bytes));
	}
	shared->users++;
	return *recent;
}

static void pool_leave(struct addr_pool *pool, uint32_t number)
{
	struct shared *shared = parts_at(&pool->parts, number);
	uint32_t *recent = recent_of(pool, shared->bytes);

	if (--shared->users > 0)
		return;
	if (*recent == number)
		*recent = 0;
	parts_give(&pool->parts, number);
}

static enum kind kind_of(const struct addr_trio *trio, unsigned i)
{
	return (enum kind)(trio->kind >> i * 2 & 3);
}

static int put(struct addr_trio *trio, struct addr_pool *pool, unsigned i, const struct addr *addr)
{
	enum kind kind = addr->family == AF_INET ? KIND_IPV4 : addr->family == AF_INET6 ? KIND_IPV6 : KIND_NONE;
	uint32_t number;

	if (kind == KIND_IPV4)
		memcpy(trio->bytes + i * 4, addr->bytes, 4);
	if (kind == KIND_IPV6) {
		number = pool_use(pool, addr->bytes);
		if (number == 0)
			return -ENOMEM;
		memcpy(trio->bytes + i * 4, &number, sizeof(number));
	}
	trio->kind |= (uint8_t)(kind << i * 2);
	return 0;
}

int addr_trio_put(struct addr_trio *trio, struct addr_pool *pool, const struct addr *client,
        const struct addr *original, const struct addr *target)
{
	int r;

	addr_trio_drop(trio, pool);
	r = put(trio, pool, 0, client);
	if (r == 0)
		r = put(trio, pool, 1, original);
	if (r == 0)
		r = put(trio, pool, 2, target);
	return r;
}

static uint32_t number_of(const struct addr_trio *trio, unsigned i)
{
	uint32_t number;

	memcpy(&number, trio->bytes + i * 4, sizeof(number));
	return number;
}

static struct addr get(const struct addr_trio *trio, const struct addr_pool *pool, unsigned i)
{
	const struct shared *shared;
	struct addr addr = { 0 };

	switch (kind_of(trio, i)) {
	case KIND_IPV4:
		addr.family = AF_INET;
		memcpy(addr.bytes, trio->bytes + i * 4, 4);
		break;
	case KIND_IPV6:
		shared = parts_at(&pool->parts, number_of(trio, i));
		addr.family = AF_INET6;
		memcpy(addr.bytes, shared->bytes, sizeof(addr.bytes));
		break;
	case KIND_NONE:
		break;
	}
	return addr;
}

void addr_trio_get(const struct addr_trio *trio, const struct addr_pool *pool, struct addr *ret_client,
        struct addr *ret_original, struct addr *ret_target)
{
	*ret_client = get(trio, pool, 0);
	*ret_original = get(trio, pool, 1);
	*ret_target = get(trio, pool, 2);
}

void addr_trio_drop(struct addr_trio *trio, struct addr_pool *pool)
{
	for (unsigned i = 0; i < 3; i++)
		if (kind_of(trio, i) == KIND_IPV6)
			pool_leave(pool, number_of(trio, i));
	*trio = (struct addr_trio){ 0 };
}
