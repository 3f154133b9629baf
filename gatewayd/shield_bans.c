/*
 * Who is banned by the prefilters themselves, for sending more than
 * source_pps: read from the programs' maps when somebody asks, at most once a
 * second, and put in order; see shield.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gatewayd/base/array.h"
#include "gatewayd/base/clock.h"
#include "gatewayd/shield_private.h"
#include "schema/prefixes.h"

/* For so long what was read is good. */
#define GOOD_US UINT64_C(1000000)

static int compare(const void *a, const void *b)
{
	const struct shield_ban *x = a, *y = b;
	int r = prefix_compare(&x->prefix, &y->prefix);

	return r ? r : strcmp(x->interface, y->interface);
}

/* What a walk adds to. */
struct reading {
	struct shield *shield;
	const struct shield_item *item;
	int64_t now_ms; /* of the day */
	bool failed;
};

static void take(void *userdata, const struct addr *source, uint64_t left_ms)
{
	struct reading *reading = userdata;
	struct shield *shield = reading->shield;
	int64_t ban_s = reading->item->now ? (int64_t)(reading->item->now->params.ban_ns / 1000000000) : 0;
	struct shield_ban ban = { .prefix = { *source, (uint8_t)addr_bits(source->family) } };

	if (array_reserve(&shield->bans, &shield->bans_size, shield->n_bans + 1, sizeof(ban)) < 0) {
		reading->failed = true;
		return;
	}
	memcpy(ban.interface, reading->item->interface, sizeof(ban.interface));
	ban.expires_at = (reading->now_ms + (int64_t)left_ms + 500) / 1000;
	ban.created_at = ban.expires_at - ban_s;
	/* It was made by another ban_s than the one that is configured now. */
	if (ban.created_at > reading->now_ms / 1000)
		ban.created_at = reading->now_ms / 1000;
	shield->bans[shield->n_bans++] = ban;
}

size_t shield_own_bans(struct shield *shield, const struct shield_ban **ret)
{
	uint64_t now_us = clock_us();
	struct reading reading = { .shield = shield };
	struct timespec now;

	if (!shield->bans_read_us || now_us - shield->bans_read_us > GOOD_US) {
		clock_gettime(CLOCK_REALTIME, &now);
		reading.now_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
		shield->n_bans = 0;
		for (size_t i = 0; i < shield->n; i++) {
			reading.item = shield->items[i];
			if (kernel_xdp_ban_count(shield->items[i]->xdp) > 0)
				(void)kernel_xdp_bans(shield->items[i]->xdp, take, &reading);
		}
		if (shield->n_bans > 1)
			qsort(shield->bans, shield->n_bans, sizeof(*shield->bans), compare);
		shield->bans_read_us = reading.failed ? 0 : now_us;
	}
	*ret = shield->bans;
	return shield->n_bans;
}

unsigned shield_unban(struct shield *shield, const struct prefix *prefix)
{
	unsigned n = 0;

	if (prefix->length != addr_bits(prefix->addr.family))
		return 0;
	for (size_t i = 0; i < shield->n; i++)
		n += kernel_xdp_unban(shield->items[i]->xdp, &prefix->addr) == 0;
	if (n > 0)
		shield->bans_read_us = 0;
	return n;
}
