/* Three addresses; see addr_trio.h. */
#include "gatewayd/base/addr_trio.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static_assert(sizeof(struct addr_trio) == 13, "it has no padding");

enum kind { KIND_NONE, KIND_IPV4, KIND_IPV6 };

int addr_pool_init(struct addr_pool *pool, uint32_t trios)
{
	return shared_init(&pool->shared, trios > UINT32_MAX / 3 ? UINT32_MAX : trios * 3, 16);
}

void addr_pool_destroy(struct addr_pool *pool)
{
	shared_destroy(&pool->shared);
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
		number = shared_use(&pool->shared, addr->bytes);
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
	struct addr addr = { 0 };

	switch (kind_of(trio, i)) {
	case KIND_IPV4:
		addr.family = AF_INET;
		memcpy(addr.bytes, trio->bytes + i * 4, 4);
		break;
	case KIND_IPV6:
		addr.family = AF_INET6;
		memcpy(addr.bytes, shared_at(&pool->shared, number_of(trio, i)), sizeof(addr.bytes));
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
			shared_leave(&pool->shared, number_of(trio, i));
	*trio = (struct addr_trio){ 0 };
}
