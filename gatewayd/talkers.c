/* Who talked to whom; see talkers.h. */
#include "gatewayd/talkers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "gatewayd/base/siphash.h"

#define NONE UINT32_MAX

struct talkers {
	struct talker *items;
	uint32_t *buckets;
	uint32_t max, mask, touched, n;
	uint32_t newest, oldest;
	uint64_t key[2]; /* clients choose what is hashed */
	uint64_t evicted;
};

int talkers_new(uint32_t max, struct talkers **ret)
{
	struct talkers *talkers = calloc(1, sizeof(*talkers));
	uint32_t buckets = 16;

	if (!talkers)
		return -ENOMEM;
	while (buckets < max)
		buckets *= 2;
	talkers->max = max;
	talkers->mask = buckets - 1;
	talkers->newest = talkers->oldest = NONE;
	talkers->items = calloc(max + 1, sizeof(*talkers->items));
	talkers->buckets = malloc(buckets * sizeof(*talkers->buckets));
	if (!talkers->items || !talkers->buckets ||
	        getrandom(talkers->key, sizeof(talkers->key), 0) != sizeof(talkers->key)) {
		talkers_free(talkers);
		return -ENOMEM;
	}
	memset(talkers->buckets, 0xff, buckets * sizeof(*talkers->buckets));
	*ret = talkers;
	return 0;
}

void talkers_free(struct talkers *talkers)
{
	if (!talkers)
		return;
	free(talkers->items);
	free(talkers->buckets);
	free(talkers);
}

/* --- places --- */

/* What flows of one pair have in common, the rest zero. */
static void key_of(const struct stats_flow *flow, struct stats_flow *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->client = flow->client;
	ret->listener = flow->listener;
	ret->upstream = flow->upstream;
	ret->protocol = flow->protocol;
	memcpy(ret->sni, flow->sni, strnlen(flow->sni, sizeof(ret->sni) - 1));
	if (*ret->sni)
		return;
	ret->original = flow->original;
	ret->original_port = flow->original_port;
}

static bool is_of(const struct talker *talker, const struct stats_flow *key)
{
	const struct stats_flow *flow = &talker->flow;

	return flow->listener == key->listener && flow->upstream == key->upstream && flow->protocol == key->protocol &&
	       flow->original_port == key->original_port && addr_equal(&flow->client, &key->client) &&
	       addr_equal(&flow->original, &key->original) && strcmp(flow->sni, key->sni) == 0;
}

static uint32_t bucket_of(const struct talkers *talkers, const struct stats_flow *key)
{
	return (uint32_t)siphash(talkers->key, (const uint8_t *)key, sizeof(*key)) & talkers->mask;
}

static void order_remove(struct talkers *talkers, struct talker *talker)
{
	if (talker->newer != NONE)
		talkers->items[talker->newer].older = talker->older;
	else
		talkers->newest = talker->older;
	if (talker->older != NONE)
		talkers->items[talker->older].newer = talker->newer;
	else
		talkers->oldest = talker->newer;
}

static void order_put(struct talkers *talkers, struct talker *talker)
{
	uint32_t index = (uint32_t)(talker - talkers->items);

	talker->newer = NONE;
	talker->older = talkers->newest;
	if (talkers->newest != NONE)
		talkers->items[talkers->newest].newer = index;
	else
		talkers->oldest = index;
	talkers->newest = index;
}

/* The place of the one that was not seen for longest, which is free then. */
static struct talker *evict(struct talkers *talkers)
{
	struct talker *talker = &talkers->items[talkers->oldest];
	uint32_t *at = &talkers->buckets[talker->bucket];

	while (*at != talkers->oldest)
		at = &talkers->items[*at].next;
	*at = talker->next;
	order_remove(talkers, talker);
	talkers->evicted++;
	talkers->n--;
	return talker;
}

/* The sums of this pair, which is the one that was seen last from now on. */
static struct talker *place_of(struct talkers *talkers, const struct stats_flow *key)
{
	uint32_t bucket = bucket_of(talkers, key);
	struct talker *talker;

	for (uint32_t i = talkers->buckets[bucket]; i != NONE; i = talkers->items[i].next)
		if (is_of(&talkers->items[i], key)) {
			order_remove(talkers, &talkers->items[i]);
			order_put(talkers, &talkers->items[i]);
			return &talkers->items[i];
		}
	talker = talkers->n < talkers->max ? &talkers->items[talkers->touched++] : evict(talkers);
	*talker = (struct talker){
		.flow = *key, .bucket = bucket, .next = talkers->buckets[bucket], .first_ms = INT64_MAX
	};
	talkers->buckets[bucket] = (uint32_t)(talker - talkers->items);
	order_put(talkers, talker);
	talkers->n++;
	return talker;
}

/* --- sums --- */

void talkers_add(struct talkers *talkers, const struct stats_flow *flow, uint64_t at_ms, int64_t clock_ms)
{
	int64_t began_ms = (int64_t)flow->started_ms + clock_ms, ended_ms = (int64_t)at_ms + clock_ms;
	struct stats_flow key;
	struct talker *talker;

	if (talkers->max == 0)
		return;
	key_of(flow, &key);
	talker = place_of(talkers, &key);
	talker->ended++;
	talker->refused += flow->status.state != STATS_FLOW_RELAYING;
	for (int i = 0; i < STATS_DIRECTIONS; i++)
		talker->flow.bytes[i] += flow->bytes[i];
	if (began_ms < talker->first_ms)
		talker->first_ms = began_ms;
	if (ended_ms > talker->last_ms)
		talker->last_ms = ended_ms;
}

void talkers_take(struct talkers *talkers, const struct talkers *from)
{
	for (uint32_t i = from->oldest; i != NONE && talkers->max > 0; i = from->items[i].newer) {
		struct stats_flow key;
		struct talker *talker;

		key_of(&from->items[i].flow, &key);
		talker = place_of(talkers, &key);
		talker->flow = from->items[i].flow;
		talker->ended = from->items[i].ended;
		talker->refused = from->items[i].refused;
		talker->first_ms = from->items[i].first_ms;
		talker->last_ms = from->items[i].last_ms;
	}
	talkers->evicted += from->evicted;
}

uint32_t talkers_count(const struct talkers *talkers)
{
	return talkers->n;
}

uint32_t talkers_max(const struct talkers *talkers)
{
	return talkers->max;
}

uint64_t talkers_evicted(const struct talkers *talkers)
{
	return talkers->evicted;
}

static const struct talker *at(const struct talkers *talkers, uint32_t index)
{
	return index == NONE ? NULL : &talkers->items[index];
}

const struct talker *talkers_newest(const struct talkers *talkers)
{
	return at(talkers, talkers->newest);
}

const struct talker *talkers_older(const struct talkers *talkers, const struct talker *talker)
{
	return at(talkers, talker->older);
}
