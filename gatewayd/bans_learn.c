/*
 * What is looked at once a second: whom limits have banned meanwhile, and
 * whose ban has ended; see bans.h.
 *
 * A limit's counter says whether it has banned anybody. Whom is asked of a set
 * that holds the last few seconds only, so that a look costs little however
 * many are banned. That set may be full, or no daemon may have looked: so all
 * are read at the start, and once a minute if there were any.
 */
#include "gatewayd/bans_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gatewayd/base/array.h"
#include "gatewayd/base/log.h"

/* What one look gathers: all is stored in one transaction. */
struct look {
	struct bans *bans;
	const struct rate_limit *limit; /* whose set is read */
	bool fresh;                     /* it is the set of the last seconds */
	uint8_t length;                 /* of the set's prefixes */
	size_t n_learned, size;
	struct prefix *learned;
};

static int64_t ban_ms(const struct rate_limit *limit)
{
	return 1000 * (limit->action == LIMIT_ACTION_BAN ? limit->ban_s : limit->escalate_ban_s);
}

/* For how long the ban holds on: what is fresh says only when it began. */
static int64_t left_of(const struct look *look, int64_t left_ms)
{
	return look->fresh ? ban_ms(look->limit) - (LIMITS_FRESH_S * 1000 - left_ms) : left_ms;
}

static void put_reason(const struct rate_limit *limit, char *reason, size_t size)
{
	if (limit->action == LIMIT_ACTION_BAN)
		snprintf(reason, size, "over the limit \"%s\"", limit->name);
	else
		snprintf(reason, size, "more than %lld packets a minute over the limit \"%s\"",
		        (long long)limit->escalate_after, limit->name);
}

static int note_learned(struct look *look, const struct prefix *prefix)
{
	if (array_reserve(&look->learned, &look->size, look->n_learned + 1, sizeof(*look->learned)) < 0)
		return -ENOMEM;
	look->learned[look->n_learned++] = *prefix;
	return 0;
}

static int learn(void *userdata, const struct addr *addr, int64_t left_ms)
{
	struct look *look = userdata;
	struct prefix prefix = { *addr, look->length };
	int64_t now = time(NULL), left = left_of(look, left_ms);
	char reason[160], text[ADDR_TEXT_MAX + 4];
	struct store_ban ban = { prefix_format(&prefix, text), reason, "rate limit", look->limit->name, now,
		now + (left + 999) / 1000, look->limit->escalate_after > 0 };
	int r;

	/* One that is known stays as it is: what banned first is the reason. */
	if (left <= 0 || bans_find(look->bans, &prefix))
		return 0;
	put_reason(look->limit, reason, sizeof(reason));
	r = bans_put(look->bans, &prefix, &ban);
	if (r < 0)
		return r == -ENOSPC ? 0 : r;
	return note_learned(look, &prefix);
}

static void read_limit(struct look *look, const struct rate_limit *limit, bool fresh)
{
	char name[LIMITS_NAME_MAX];

	look->limit = limit;
	look->fresh = fresh;
	for (int family = 4; family <= 6; family += 2) {
		look->length = (uint8_t)limits_ban_length(limit, family);
		(void)kernel_nft_addresses(look->bans->owner.kernel,
		        fresh ? limits_fresh_set(limit->name, family, name)
		              : limits_banned_set(limit->name, family, name),
		        learn, look);
	}
}

/* Whether the limit has banned since this was last asked with the same memory. */
static bool has_banned(json_t *memory, const char *limit, json_t *now)
{
	const json_t *before = json_object_get(memory, limit);

	if (before && now && json_equal(before, now))
		return false;
	(void)json_object_set(memory, limit, now ? now : json_null());
	return true;
}

static void learn_from_limit(struct look *look, const struct rate_limit *limit, json_t *banned)
{
	struct bans *bans = look->bans;
	bool fresh = has_banned(bans->seen, limit->name, banned);

	if (bans->looks % BANS_LOOKS_FOR_ALL == 0 && has_banned(bans->seen_all, limit->name, banned))
		read_limit(look, limit, false);
	else if (fresh)
		read_limit(look, limit, true);
}

static void learn_from_limits(struct look *look)
{
	struct bans *bans = look->bans;
	const struct snapshot *snapshot = apply_snapshot(bans->owner.apply);
	const struct limits *limits = model_limits(apply_model(bans->owner.apply));
	const struct rows *rows = &snapshot->rows[RESOURCE_RATE_LIMIT];
	char name[LIMITS_NAME_MAX];
	json_t *counters = NULL;

	/* A limit that was taken out of use and is used again counts from nothing. */
	if (snapshot->revision != bans->revision)
		json_object_clear(bans->seen);
	for (size_t i = 0; i < rows->n; i++) {
		const struct rate_limit *limit = (const struct rate_limit *)rows->items[i];

		if (!limits_find(limits, LIMITS_COUNTER, limits_counter(limit->name, "banned", name)))
			continue;
		if (!counters && kernel_nft_counters(bans->owner.kernel, &counters) < 0)
			return;
		learn_from_limit(look, limit, json_object_get(json_object_get(counters, name), "packets"));
	}
	json_decref(counters);
	bans->looks++;
}

static int store_learned(struct look *look)
{
	struct bans *bans = look->bans;
	_cleanup_free_ struct store_ban *stored = calloc(look->n_learned + 1, sizeof(*stored));
	_cleanup_free_ char(*texts)[ADDR_TEXT_MAX + 4] = calloc(look->n_learned + 1, sizeof(*texts));
	size_t n = 0;
	int r;

	for (size_t i = 0; stored && texts && i < look->n_learned; i++) {
		const struct ban *ban = bans_find(bans, &look->learned[i]);

		if (!ban)
			continue;
		stored[n] = (struct store_ban){ prefix_format(&ban->prefix, texts[n]), ban->reason, ban->actor,
			ban->limit, ban->created_at, ban->expires_at, ban->xdp };
		n++;
		log_write_about(LOG_NOTICE,
		        LOG_ABOUT(LOG_TEXT("CLIENT", texts[n - 1]), LOG_TEXT("RATE_LIMIT", ban->limit)),
		        "%s is banned by rate limit \"%s\"", texts[n - 1], ban->limit);
		bans_shut(bans, ban);
		bans_tell(bans, ban, "added");
	}
	if (n == 0)
		return stored && texts ? 0 : -ENOMEM;
	r = store_bans_write(bans->store, stored, n, NULL, 0);
	if (r < 0)
		log_error("bans cannot be stored: %s", store_error(bans->store));
	return r;
}

/* Those whose time is over, and those that must not be any more. The kernel has forgotten the first already. */
static void forget_ended(struct bans *bans)
{
	int64_t revision = apply_snapshot(bans->owner.apply)->revision, now = time(NULL);
	_cleanup_free_ const char **texts = calloc(bans->n + 1, sizeof(*texts));
	_cleanup_free_ char(*bytes)[ADDR_TEXT_MAX + 4] = calloc(bans->n + 1, sizeof(*bytes));
	size_t n = 0;

	for (size_t i = bans->n; texts && bytes && i-- > 0;) {
		struct ban *ban = &bans->items[i];
		bool ended = ban->expires_at && ban->expires_at <= now;
		struct render_ban gone = { .prefix = ban->prefix, .limit = ban->limit };

		if (!ended && (revision == bans->revision || !bans_is_exempt(bans, &ban->prefix)))
			continue;
		if (!ended && apply_bans(bans->owner.apply, &gone, 1) < 0)
			continue;
		texts[n] = prefix_format(&ban->prefix, bytes[n]);
		n++;
		bans_unshut(bans, ban);
		bans_tell(bans, ban, ended ? "expired" : "lifted");
		bans_take_out(bans, i);
	}
	if (n > 0 && store_bans_write(bans->store, NULL, 0, texts, n) < 0)
		log_error("bans cannot be forgotten: %s", store_error(bans->store));
	bans->revision = revision;
}

void bans_look(struct bans *bans)
{
	struct look look = { .bans = bans };

	learn_from_limits(&look);
	(void)store_learned(&look);
	free(look.learned);
	forget_ended(bans);
	bans_follow_prefilters(bans);
}
