/* Targets and the choice between them; see balance.h. */
#include "gatewayd/relay/balance.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/relay/load.h"
#include "gatewayd/relay/maglev.h"

/* --- the targets --- */

static void tables_outdate(struct balance *balance)
{
	balance->table[0].is_current = balance->table[1].is_current = false;
}

void balance_clear(struct balance *balance)
{
	free(balance->targets);
	free(balance->candidates);
	free(balance->table[0].place);
	free(balance->table[1].place);
	*balance = (struct balance){ 0 };
}

void balance_configure(struct balance *balance, const struct balance_rules *rules)
{
	if (rules->algorithm != PROTO_ALGORITHM_SOURCE_HASH)
		for (unsigned i = 0; i < 2; i++) {
			free(balance->table[i].place);
			balance->table[i] = (struct balance_table){ 0 };
		}
	if (balance->random == 0 && getrandom(&balance->random, sizeof(balance->random), GRND_NONBLOCK) < 0)
		balance->random = (uintptr_t)balance; /* early in the boot there may be no randomness yet */
	balance->rules = *rules;
}

struct target *balance_target(const struct balance *balance, uint32_t id)
{
	for (size_t i = 0; i < balance->n; i++)
		if (balance->targets[i].id == id)
			return &balance->targets[i];
	return NULL;
}

static int grow(struct balance *balance)
{
	struct candidate *candidates = realloc(balance->candidates, (balance->n + 1) * sizeof(*candidates));
	struct target *targets;

	if (!candidates)
		return -ENOMEM;
	balance->candidates = candidates;
	targets = realloc(balance->targets, (balance->n + 1) * sizeof(*targets));
	if (!targets)
		return -ENOMEM;
	balance->targets = targets;
	return 0;
}

/* Whether a table of source_hash that is right with one of them is right with the other. */
static bool is_placed_alike(const struct target *a, const struct target *b)
{
	return addr_equal(&a->addr, &b->addr) && a->port == b->port && a->weight == b->weight && a->backup == b->backup;
}

int balance_put(struct balance *balance, const struct target *target)
{
	struct target *old = balance_target(balance, target->id);
	int64_t gained = old ? old->gained : 0;
	uint16_t hash_weight = old ? old->hash_weight : 0;

	if (!old || !is_placed_alike(old, target))
		tables_outdate(balance);
	if (!old) {
		int r = grow(balance);

		if (r < 0)
			return r;
		old = &balance->targets[balance->n++];
	}
	*old = *target;
	old->gained = gained;
	old->hash_weight = hash_weight;
	old->share = 0;
	return 0;
}

int balance_remove(struct balance *balance, uint32_t id)
{
	struct target *gone = balance_target(balance, id);

	if (!gone)
		return -ENOENT;
	balance->n--;
	memmove(gone, gone + 1, (size_t)(balance->targets + balance->n - gone) * sizeof(*gone));
	tables_outdate(balance);
	return 0;
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

/* --- who can be used --- */

/* The kinds, best first. */
enum { KIND_EJECTED = 2, KIND_BACKUP = 1, KINDS = 4 };

static uint32_t state_word(const _Atomic uint32_t *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

static uint64_t state_time(const _Atomic uint64_t *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

static uint32_t weight_of(const struct target *target, const struct target_state *state)
{
	uint32_t word = state ? state_word(&state->weight) : 0;

	return word ? word - 1 : target->weight;
}

static bool is_in_service(const struct target *target, const struct target_state *state)
{
	uint32_t word = state ? state_word(&state->admin) : 0;
	uint32_t admin = word ? word - 1 : target->state;

	return admin == TARGET_UP && (!state || state_word(&state->health) != TARGET_HEALTH_DOWN);
}

static bool was_tried(const struct balance_ask *ask, uint32_t id)
{
	for (size_t i = 0; i < ask->n_tried; i++)
		if (ask->tried[i] == id)
			return true;
	return false;
}

/* The share that the weight is worth: less for a while after a recovery, by checks or from an ejection. */
static uint32_t share_of(
        const struct balance *balance, const struct target_state *state, uint32_t weight, uint64_t now_ms)
{
	uint64_t whole = (uint64_t)weight * BALANCE_SHARE_ONE, slow_ms = balance->rules.slow_start_ms, since_ms, part;

	if (slow_ms == 0 || !state)
		return (uint32_t)whole;
	since_ms = state_word(&state->health) == TARGET_HEALTH_UP ? state_time(&state->since_ms) : 0;
	part = state_time(&state->ejected_until_ms);
	if (part <= now_ms && part > since_ms)
		since_ms = part;
	if (since_ms == 0 || now_ms >= since_ms + slow_ms)
		return (uint32_t)whole;
	part = now_ms > since_ms ? whole * (now_ms - since_ms) / slow_ms : 0;
	return (uint32_t)(part > whole / BALANCE_SLOW_PART ? part : whole / BALANCE_SLOW_PART);
}

/* What one look at all targets has found. */
struct look {
	size_t n; /* candidates, all of one kind */
	unsigned kind;
	bool full;              /* some could be used but for max_connections */
	bool weight_changed[2]; /* since the table of source_hash was made; [1]: of a backup */
};

/* What has been found so far is not what will be chosen from. */
static void look_again(struct balance *balance, struct look *look)
{
	for (size_t i = 0; i < look->n; i++)
		balance->candidates[i].target->share = 0;
	look->n = 0;
}

static void look_at(struct balance *balance, const struct balance_ask *ask, struct target *target, struct look *look)
{
	const struct target_state *state = load_state(ask->place, target->slot, target->id);
	uint32_t weight = weight_of(target, state), flows = load_now(ask->place, state);
	unsigned kind = target->backup ? KIND_BACKUP : 0;

	target->share = 0;
	if (weight != target->hash_weight)
		look->weight_changed[target->backup] = true;
	if (weight == 0 || !is_in_service(target, state) || was_tried(ask, target->id) ||
	        (ask->family != AF_UNSPEC && target->addr.family != ask->family))
		return;
	if (target->max_connections > 0 && flows >= target->max_connections) {
		look->full = true;
		return;
	}
	if (state && state_time(&state->ejected_until_ms) > ask->now_ms)
		kind += KIND_EJECTED;
	if (kind > look->kind)
		return;
	if (kind < look->kind)
		look_again(balance, look);
	look->kind = kind;
	target->share = share_of(balance, state, weight, ask->now_ms);
	balance->candidates[look->n++] = (struct candidate){ target, target->share, flows };
}

/* --- the algorithms, each among at least one candidate --- */

static struct target *round_robin(struct balance *balance, size_t n)
{
	struct target *best = NULL;
	int64_t total = 0;

	for (size_t i = 0; i < n; i++) {
		struct target *target = balance->candidates[i].target;

		target->gained += target->share;
		total += target->share;
		if (!best || target->gained > best->gained)
			best = target;
	}
	best->gained -= total;
	return best;
}

/* Whether a, with one flow more, has fewer for its share than b. */
static bool is_less_loaded(const struct candidate *a, const struct candidate *b)
{
	return ((uint64_t)a->flows + 1) * b->share < ((uint64_t)b->flows + 1) * a->share;
}

/* Equals take turns: which one is looked at first moves on by one with each choice. */
static struct target *least_conn(struct balance *balance, size_t n)
{
	size_t at = balance->turn++ % n;
	const struct candidate *best = &balance->candidates[at];

	for (size_t i = 1; i < n; i++) {
		at = at + 1 < n ? at + 1 : 0;
		if (is_less_loaded(&balance->candidates[at], best))
			best = &balance->candidates[at];
	}
	return best->target;
}

/* splitmix64: for spreading load, not for secrets. */
static uint64_t draw(struct balance *balance)
{
	uint64_t word = balance->random += UINT64_C(0x9e3779b97f4a7c15);

	word = (word ^ word >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	word = (word ^ word >> 27) * UINT64_C(0x94d049bb133111eb);
	return word ^ word >> 31;
}

/* One of the candidates by their shares; not `other`, which may be NULL. */
static struct candidate *draw_one(struct balance *balance, size_t n, const struct candidate *other)
{
	struct candidate *candidates = balance->candidates, *last = NULL;
	uint64_t total = 0, at;

	for (size_t i = 0; i < n; i++)
		total += &candidates[i] != other ? candidates[i].share : 0;
	at = draw(balance) % total;
	for (size_t i = 0; i < n; i++) {
		if (&candidates[i] == other)
			continue;
		last = &candidates[i];
		if (at < last->share)
			break;
		at -= last->share;
	}
	return last;
}

static struct target *random_two(struct balance *balance, size_t n)
{
	const struct candidate *one = draw_one(balance, n, NULL), *other;

	if (n == 1)
		return one->target;
	other = draw_one(balance, n, one);
	return is_less_loaded(other, one) ? other->target : one->target;
}

/* Makes the table of the backups, or of the others, with the weights that are in force. Targets that are out of service
 * have their places too: it is only while they are out that others stand in for them. */
static int table_make(struct balance *balance, const struct balance_ask *ask, bool backup)
{
	_cleanup_free_ struct maglev_server *servers = calloc(balance->n, sizeof(*servers));
	struct balance_table *table = &balance->table[backup];
	int r;

	if (!table->place)
		table->place = malloc(MAGLEV_SIZE * sizeof(*table->place));
	if (!table->place || !servers)
		return -ENOMEM;
	for (size_t i = 0; i < balance->n; i++) {
		struct target *target = &balance->targets[i];
		uint32_t weight = weight_of(target, load_state(ask->place, target->slot, target->id));

		servers[i] = (struct maglev_server){ .addr = target->addr, .port = target->port };
		if (target->backup != backup)
			continue;
		servers[i].weight = target->hash_weight = (uint16_t)weight;
	}
	table->made_ms = ask->now_ms;
	r = maglev_build(servers, balance->n, table->place);
	table->is_current = r == 0;
	return r;
}

/* Whether this client is one of those that a target in slow start takes by now: ever more, and always the same ones. */
static bool takes_already(const struct target *target, uint64_t hash)
{
	return (hash >> 40) * target->hash_weight * BALANCE_SHARE_ONE < (uint64_t)target->share << 24;
}

static struct target *source_hash(struct balance *balance, const struct balance_ask *ask, const struct look *look)
{
	bool backup = look->kind & KIND_BACKUP;
	struct balance_table *table = &balance->table[backup];
	uint64_t hash = maglev_hash(ask->client);
	struct target *slow = NULL;

	if ((!table->is_current ||
	            (look->weight_changed[backup] && ask->now_ms >= table->made_ms + BALANCE_TABLE_MS)) &&
	        table_make(balance, ask, backup) < 0)
		return round_robin(balance, look->n); /* there is no memory: any target is better than none */
	for (uint32_t i = 0, at = (uint32_t)(hash % MAGLEV_SIZE); i < MAGLEV_SIZE; i++) {
		struct target *target = &balance->targets[table->place[at]];

		at = at + 1 < MAGLEV_SIZE ? at + 1 : 0;
		if (target->share == 0)
			continue;
		if (takes_already(target, hash))
			return target;
		slow = slow ? slow : target;
	}
	return slow ? slow : round_robin(balance, look->n);
}

int balance_pick(struct balance *balance, const struct balance_ask *ask, struct target **ret)
{
	struct look look = { .kind = KINDS };

	for (size_t i = 0; i < balance->n; i++)
		look_at(balance, ask, &balance->targets[i], &look);
	if (look.n == 0)
		return look.full ? -EBUSY : -ENOENT;
	switch ((enum proto_algorithm)balance->rules.algorithm) {
	case PROTO_ALGORITHM_LEAST_CONN:
		*ret = least_conn(balance, look.n);
		return 0;
	case PROTO_ALGORITHM_RANDOM_TWO:
		*ret = random_two(balance, look.n);
		return 0;
	case PROTO_ALGORITHM_SOURCE_HASH:
		*ret = source_hash(balance, ask, &look);
		return 0;
	case PROTO_ALGORITHM_ROUND_ROBIN:
	case PROTO_ALGORITHMS:
		break;
	}
	*ret = round_robin(balance, look.n);
	return 0;
}
