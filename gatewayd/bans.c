/* Bans; see bans.h. */
#include "gatewayd/bans.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gatewayd/base/log.h"
#include "gatewayd/store_bans.h"
#include "rules/limits.h"
#include "schema/prefixes.h"
#include "schema/value.h"

/* How often it is looked whether limits have banned somebody, or a ban has ended. */
#define LOOK_US UINT64_C(1000000)

struct bans {
	struct store *store;
	struct bans_owner owner;
	sd_event_source *timer;
	struct ban *items; /* sorted by prefix */
	size_t n, size;
	json_t *seen;     /* how many each limit had banned when its set was last read */
	int64_t revision; /* that was in force at the last look */
};

/* --- the list --- */

static void ban_clear(struct ban *ban)
{
	free(ban->reason);
	free(ban->actor);
	free(ban->limit);
	*ban = (struct ban){ 0 };
}

/* Index of the first that is not less. */
static size_t lower_bound(const struct bans *bans, const struct prefix *prefix)
{
	size_t low = 0, high = bans->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (prefix_compare(&bans->items[middle].prefix, prefix) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool is_at(const struct bans *bans, size_t at, const struct prefix *prefix)
{
	return at < bans->n && prefix_compare(&bans->items[at].prefix, prefix) == 0;
}

const struct ban *bans_find(const struct bans *bans, const struct prefix *prefix)
{
	size_t at = lower_bound(bans, prefix);

	return is_at(bans, at, prefix) ? &bans->items[at] : NULL;
}

size_t bans_count(const struct bans *bans)
{
	return bans->n;
}

size_t bans_page(const struct bans *bans, const struct prefix *after, size_t max, const struct ban **ret)
{
	size_t at = after ? lower_bound(bans, after) : 0, n = 0;

	if (after && is_at(bans, at, after))
		at++;
	while (at < bans->n && n < max)
		ret[n++] = &bans->items[at++];
	return n;
}

static int fill(const struct store_ban *from, const struct prefix *prefix, struct ban *ret)
{
	struct ban ban = { .prefix = *prefix,
		.created_at = from->created_at,
		.expires_at = from->expires_at,
		.reason = strdup(from->reason),
		.actor = strdup(from->actor),
		.limit = strdup(from->rate_limit) };

	if (!ban.reason || !ban.actor || !ban.limit) {
		ban_clear(&ban);
		return -ENOMEM;
	}
	*ret = ban;
	return 0;
}

/* Into its place, over what is there. -ENOSPC. */
static int put(struct bans *bans, const struct prefix *prefix, const struct store_ban *from)
{
	size_t at = lower_bound(bans, prefix);
	struct ban ban;
	int r;

	if (!is_at(bans, at, prefix) && bans->n >= BANS_MAX)
		return -ENOSPC;
	if (bans->n == bans->size) {
		size_t size = bans->size ? bans->size * 2 : 16;
		struct ban *items = reallocarray(bans->items, size, sizeof(*items));

		if (!items)
			return -ENOMEM;
		bans->items = items;
		bans->size = size;
	}
	r = fill(from, prefix, &ban);
	if (r < 0)
		return r;
	if (is_at(bans, at, prefix)) {
		ban_clear(&bans->items[at]);
	} else {
		memmove(&bans->items[at + 1], &bans->items[at], (bans->n - at) * sizeof(ban));
		bans->n++;
	}
	bans->items[at] = ban;
	return 0;
}

static void take_out(struct bans *bans, size_t at)
{
	ban_clear(&bans->items[at]);
	memmove(&bans->items[at], &bans->items[at + 1], (bans->n - at - 1) * sizeof(*bans->items));
	bans->n--;
}

static json_t *time_document(int64_t at)
{
	char text[32];

	return at ? json_string(value_time_format(at, text)) : json_null();
}

json_t *bans_document(const struct ban *ban)
{
	char text[ADDR_TEXT_MAX + 4];

	return json_pack("{s:s, s:s, s:s, s:s?, s:o, s:o}", "address", prefix_format(&ban->prefix, text), "reason",
	        ban->reason, "actor", ban->actor, "rate_limit", *ban->limit ? ban->limit : NULL, "created_at",
	        time_document(ban->created_at), "expires_at", time_document(ban->expires_at));
}

/* what: "added", "lifted", "expired". */
static void tell(struct bans *bans, const struct ban *ban, const char *what)
{
	json_t *data = bans->owner.tell ? bans_document(ban) : NULL;

	if (!data)
		return;
	json_object_set_new(data, "what", json_string(what));
	bans->owner.tell(bans->owner.userdata, data);
}

/* --- from the store --- */

static int take_stored(void *userdata, const struct store_ban *stored)
{
	struct bans *bans = userdata;
	struct prefix prefix;
	int r;

	if (prefix_parse(stored->prefix, &prefix) < 0 || (stored->expires_at && stored->expires_at <= time(NULL)))
		return 0;
	r = put(bans, &prefix, stored);
	return r == -ENOSPC ? 0 : r;
}

int bans_new(struct store *store, struct bans **ret)
{
	struct bans *bans = calloc(1, sizeof(*bans));
	int r;

	if (!bans)
		return -ENOMEM;
	bans->store = store;
	bans->revision = -1;
	bans->seen = json_object();
	r = bans->seen ? store_bans_load(store, take_stored, bans) : -ENOMEM;
	if (r < 0) {
		bans_free(bans);
		return r;
	}
	*ret = bans;
	return 0;
}

void bans_free(struct bans *bans)
{
	if (!bans)
		return;
	sd_event_source_disable_unref(bans->timer);
	while (bans->n > 0)
		ban_clear(&bans->items[--bans->n]);
	free(bans->items);
	json_decref(bans->seen);
	free(bans);
}

void bans_lengths(const struct bans *bans, struct ban_lengths *ret)
{
	for (size_t i = 0; i < bans->n; i++)
		ban_lengths_add(
		        ret, bans->items[i].prefix.addr.family == AF_INET ? 4 : 6, bans->items[i].prefix.length);
}

/* --- exemptions --- */

static const struct prefixes *exempt(const struct bans *bans)
{
	const struct snapshot *snapshot = apply_snapshot(bans->owner.apply);
	const struct settings *settings = snapshot_settings(snapshot);
	const struct row *row = settings && settings->ban_exempt
	                                ? snapshot_find(snapshot, RESOURCE_ADDRESS_SET, settings->ban_exempt)
	                                : NULL;

	return row ? &((const struct address_set *)row)->entries : NULL;
}

bool bans_is_exempt(const struct bans *bans, const struct prefix *prefix)
{
	const struct prefixes *entries = exempt(bans);

	for (size_t i = 0; entries && i < entries->n; i++)
		if (entries->items[i].length <= prefix->length && prefix_contains(&entries->items[i], &prefix->addr))
			return true;
	return false;
}

/* --- by hand --- */

static int64_t seconds_left(const struct ban *ban)
{
	int64_t left = ban->expires_at - (int64_t)time(NULL);

	return !ban->expires_at ? -1 : left > 0 ? left : 1;
}

static int store(struct bans *bans, const struct store_ban *put_one, const char *forget)
{
	int r = store_bans_write(bans->store, put_one, put_one != NULL, &forget, forget != NULL);

	if (r < 0)
		log_error("a ban cannot be stored: %s", store_error(bans->store));
	return r < 0 ? -EIO : 0;
}

int bans_add(struct bans *bans, const struct prefix *prefix, int64_t seconds, const char *reason, const char *actor)
{
	char text[ADDR_TEXT_MAX + 4];
	int64_t now = time(NULL);
	struct store_ban stored = { prefix_format(prefix, text), reason, actor, "", now, seconds ? now + seconds : 0 };
	struct render_ban ban = { .prefix = *prefix, .seconds = seconds ? seconds : -1 };
	int r;

	if (bans_is_exempt(bans, prefix))
		return -EPERM;
	if (!bans_find(bans, prefix) && bans->n >= BANS_MAX)
		return -ENOSPC;
	r = store(bans, &stored, NULL);
	if (r == 0)
		r = apply_bans(bans->owner.apply, &ban, 1);
	if (r == 0)
		r = put(bans, prefix, &stored);
	if (r < 0)
		return r == -ENOMEM ? r : -EIO;
	log_notice("%s is banned by %s: %s", text, actor, *reason ? reason : "no reason given");
	tell(bans, bans_find(bans, prefix), "added");
	return 0;
}

int bans_lift(struct bans *bans, const struct prefix *prefix, const char *actor)
{
	size_t at = lower_bound(bans, prefix);
	char text[ADDR_TEXT_MAX + 4];
	struct render_ban ban = { .prefix = *prefix };
	int r;

	if (!is_at(bans, at, prefix))
		return -ENOENT;
	ban.limit = bans->items[at].limit;
	r = store(bans, NULL, prefix_format(prefix, text));
	if (r == 0)
		r = apply_bans(bans->owner.apply, &ban, 1);
	if (r < 0)
		return r == -ENOMEM ? r : -EIO;
	log_notice("the ban of %s is lifted by %s", text, actor);
	tell(bans, &bans->items[at], "lifted");
	take_out(bans, at);
	return 0;
}

/* --- once a second --- */

/* What one look gathers: all is stored in one transaction. */
struct look {
	struct bans *bans;
	const char *limit; /* "" */
	uint8_t length[2]; /* of the set's prefixes */
	size_t n_learned, first;
	struct prefix *learned;
	size_t size;
};

static int learn(void *userdata, const struct addr *addr, int64_t left_ms)
{
	struct look *look = userdata;
	struct prefix prefix = { *addr, look->length[addr->family == AF_INET6] };
	int64_t now = time(NULL);
	char reason[128], text[ADDR_TEXT_MAX + 4];
	const struct ban *known = bans_find(look->bans, &prefix);
	struct store_ban ban = { prefix_format(&prefix, text), reason, "rate limit", look->limit, now,
		left_ms < 0 ? 0 : now + (left_ms + 999) / 1000 };
	int r;

	/* One that is known stays as it is: what banned first is the reason. */
	if (known || left_ms == 0)
		return 0;
	snprintf(reason, sizeof(reason), *look->limit ? "over the limit \"%s\"" : "found in the kernel", look->limit);
	r = put(look->bans, &prefix, &ban);
	if (r < 0)
		return r == -ENOSPC ? 0 : r;
	if (look->n_learned == look->size) {
		size_t size = look->size ? look->size * 2 : 64;
		struct prefix *learned = reallocarray(look->learned, size, sizeof(*learned));

		if (!learned)
			return -ENOMEM;
		look->learned = learned;
		look->size = size;
	}
	look->learned[look->n_learned++] = prefix;
	return 0;
}

static void read_limit(struct look *look, const struct rate_limit *limit)
{
	char name[LIMITS_NAME_MAX];

	look->limit = limit->name;
	for (int family = 4; family <= 6; family += 2) {
		unsigned length = limits_length(limit, family);

		look->length[family == 6] = (uint8_t)(length ? length : family == 4 ? 32 : 128);
		(void)kernel_nft_addresses(
		        look->bans->owner.kernel, limits_banned_set(limit->name, family, name), learn, look);
	}
}

/* Reads the sets of those limits that have banned since they were last read. */
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
		const json_t *before;
		json_t *now;

		if (!limits_find(limits, LIMITS_COUNTER, limits_counter(limit->name, "banned", name)))
			continue;
		if (!counters && kernel_nft_counters(bans->owner.kernel, &counters) < 0)
			return;
		now = json_object_get(json_object_get(counters, name), "packets");
		before = json_object_get(bans->seen, limit->name);
		if (before && now && json_equal(before, now))
			continue;
		read_limit(look, limit);
		(void)json_object_set(bans->seen, limit->name, now ? now : json_null());
	}
	json_decref(counters);
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
			ban->limit, ban->created_at, ban->expires_at };
		n++;
		log_notice("%s is banned by rate limit \"%s\"", texts[n - 1], ban->limit);
		tell(bans, ban, "added");
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
		tell(bans, ban, ended ? "expired" : "lifted");
		take_out(bans, i);
	}
	if (n > 0 && store_bans_write(bans->store, NULL, 0, texts, n) < 0)
		log_error("bans cannot be forgotten: %s", store_error(bans->store));
	bans->revision = revision;
}

static void look(struct bans *bans)
{
	struct look look = { .bans = bans, .limit = "" };

	learn_from_limits(&look);
	(void)store_learned(&look);
	free(look.learned);
	forget_ended(bans);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)usec;
	look(userdata);
	(void)sd_event_source_set_time_relative(source, LOOK_US);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

/* --- into the kernel --- */

struct presence {
	struct bans *bans;
	bool *present; /* parallel to the items */
	uint8_t length;
};

static int note_present(void *userdata, const struct addr *addr, int64_t left_ms)
{
	struct presence *presence = userdata;
	struct prefix prefix = { *addr, presence->length };
	const struct ban *ban = bans_find(presence->bans, &prefix);

	(void)left_ms;
	if (ban)
		presence->present[ban - presence->bans->items] = true;
	return 0;
}

/* Which of ours are in the kernel's sets. */
static void find_present(struct presence *presence)
{
	struct ban_lengths lengths = { 0 };
	char name[32];

	bans_lengths(presence->bans, &lengths);
	for (int family = 4; family <= 6; family += 2)
		for (unsigned length = 0; length <= (family == 4 ? 32U : 128U); length++) {
			if (!ban_lengths_has(&lengths, family, length))
				continue;
			presence->length = (uint8_t)length;
			snprintf(name, sizeof(name), "ban%d_%u", family, length);
			(void)kernel_nft_addresses(presence->bans->owner.kernel, name, note_present, presence);
		}
}

/* Puts there what is missing: after a reboot, or when the table was made anew. */
static void restore(void *userdata)
{
	struct bans *bans = userdata;
	_cleanup_free_ bool *present = calloc(bans->n + 1, sizeof(*present));
	_cleanup_free_ struct render_ban *missing = calloc(bans->n + 1, sizeof(*missing));
	struct presence presence = { bans, present, 0 };
	size_t n = 0;

	if (!present || !missing)
		return;
	json_object_clear(bans->seen); /* counters may begin anew */
	find_present(&presence);
	for (size_t i = 0; i < bans->n; i++)
		if (!present[i])
			missing[n++] = (struct render_ban){ .prefix = bans->items[i].prefix,
				.seconds = seconds_left(&bans->items[i]) };
	if (n > 0 && apply_bans(bans->owner.apply, missing, n) == 0)
		log_notice("%zu bans were put into the kernel again", n);
}

int bans_start(struct bans *bans, sd_event *event, const struct bans_owner *owner)
{
	bans->owner = *owner;
	apply_on_replace(owner->apply, restore, bans);
	restore(bans);
	look(bans);
	return sd_event_add_time_relative(event, &bans->timer, CLOCK_MONOTONIC, LOOK_US, 0, on_timer, bans);
}
