/* Smooth weighted round robin; see balance.h. */
#include "gatewayd/relay/balance.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void balance_clear(struct balance *balance)
{
	free(balance->targets);
	*balance = (struct balance){ 0 };
}

static struct target *find(const struct balance *balance, uint32_t id)
{
	for (size_t i = 0; i < balance->n; i++)
		if (balance->targets[i].id == id)
			return &balance->targets[i];
	return NULL;
}

int balance_put(struct balance *balance, const struct target *target)
{
	struct target *old = find(balance, target->id), *grown;
	int64_t gained = old ? old->gained : 0;

	if (!old) {
		grown = realloc(balance->targets, (balance->n + 1) * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		balance->targets = grown;
		old = &grown[balance->n++];
	}
	*old = *target;
	old->gained = gained;
	return 0;
}

int balance_remove(struct balance *balance, uint32_t id)
{
	struct target *gone = find(balance, id);

	if (!gone)
		return -ENOENT;
	balance->n--;
	memmove(gone, gone + 1, (size_t)(balance->targets + balance->n - gone) * sizeof(*gone));
	return 0;
}

const struct target *balance_target(const struct balance *balance, uint32_t id)
{
	return find(balance, id);
}

static bool is_usable(const struct target *target, uint8_t family, bool backup)
{
	return target->state == TARGET_UP && target->weight > 0 && target->backup == backup &&
	       (family == AF_UNSPEC || target->addr.family == family);
}

static struct target *pick(struct balance *balance, uint8_t family, bool backup)
{
	struct target *best = NULL;
	int64_t total = 0;

	for (size_t i = 0; i < balance->n; i++) {
		struct target *target = &balance->targets[i];

		if (!is_usable(target, family, backup))
			continue;
		target->gained += target->weight;
		total += target->weight;
		if (!best || target->gained > best->gained)
			best = target;
	}
	if (best)
		best->gained -= total;
	return best;
}

const struct target *balance_pick(struct balance *balance, uint8_t family)
{
	struct target *target = pick(balance, family, false);

	return target ? target : pick(balance, family, true);
}

const struct target *balance_find(const struct balance *balance, const struct addr *addr, uint16_t port)
{
	for (size_t i = 0; i < balance->n; i++) {
		const struct target *target = &balance->targets[i];

		if ((target->port == port || target->port == 0) && addr_equal(&target->addr, addr))
			return target;
	}
	return NULL;
}
