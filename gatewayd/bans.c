/* Bans; see bans.h. */
#include "gatewayd/bans.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gatewayd/bans_private.h"
#include "gatewayd/base/array.h"
#include "gatewayd/base/log.h"

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

static int fill(const struct store_ban *from, const struct prefix *prefix, struct ban *ret)
{
	struct ban ban = { .prefix = *prefix,
		.created_at = from->created_at,
		.expires_at = from->expires_at,
		.reason = strdup(from->reason),
		.actor = strdup(from->actor),
		.limit = strdup(from->rate_limit),
		.xdp = from->xdp };

	if (!ban.reason || !ban.actor || !ban.limit) {
		ban_clear(&ban);
		return -ENOMEM;
	}
	*ret = ban;
	return 0;
}

int bans_put(struct bans *bans, const struct prefix *prefix, const struct store_ban *from)
{
	size_t at = lower_bound(bans, prefix);
	struct ban ban;
	int r;

	if (!is_at(bans, at, prefix) && bans->n >= BANS_MAX)
		return -ENOSPC;
	r = array_reserve(&bans->items, &bans->size, bans->n + 1, sizeof(*bans->items));
	if (r == 0)
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

void bans_take_out(struct bans *bans, size_t at)
{
	ban_clear(&bans->items[at]);
	memmove(&bans->items[at], &bans->items[at + 1], (bans->n - at - 1) * sizeof(*bans->items));
	bans->n--;
}

void bans_tell(const struct bans *bans, const struct ban *ban, const char *what)
{
	const struct ban_view view = { .ban = ban };
	json_t *data = bans->owner.tell ? bans_document(bans, &view) : NULL;

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
	r = bans_put(bans, &prefix, stored);
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
	bans->seen_all = json_object();
	r = bans->seen && bans->seen_all ? store_bans_load(store, take_stored, bans) : -ENOMEM;
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
	json_decref(bans->seen_all);
	prefixes_clear(&bans->exempt);
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
	static const struct prefixes none;
	const struct snapshot *snapshot = apply_snapshot(bans->owner.apply);
	const struct settings *settings = snapshot_settings(snapshot);
	const struct row *row = settings && settings->ban_exempt
	                                ? snapshot_find(snapshot, RESOURCE_ADDRESS_SET, settings->ban_exempt)
	                                : NULL;

	return row ? &((const struct address_set *)row)->entries : &none;
}

bool bans_is_exempt(const struct bans *bans, const struct prefix *prefix)
{
	const struct prefixes *entries = exempt(bans);

	for (unsigned length = 0; entries->n > 0 && length <= prefix->length; length++) {
		struct prefix wider = { prefix->addr, (uint8_t)length };

		addr_mask(&wider.addr, length);
		if (prefixes_contain(entries, &wider))
			return true;
	}
	return false;
}

bool bans_cover(const struct bans *bans, const struct ban_lengths *lengths, const struct addr *addr)
{
	const struct prefix whole = { .addr = *addr, .length = (uint8_t)addr_bits(addr->family) };
	int family = addr->family == AF_INET ? 4 : 6;

	for (unsigned length = 0; length <= whole.length; length++) {
		struct prefix prefix = { .addr = *addr, .length = (uint8_t)length };

		if (!ban_lengths_has(lengths, family, length))
			continue;
		addr_mask(&prefix.addr, length);
		if (bans_find(bans, &prefix))
			return !bans_is_exempt(bans, &whole);
	}
	return false;
}

/* Whether some of the prefix is never to be banned: a prefilter asks for nothing else once it finds the ban. */
static bool is_partly_exempt(const struct bans *bans, const struct prefix *prefix)
{
	const struct prefixes *entries = exempt(bans);
	const struct prefix *first = prefixes_at(entries, prefixes_lower_bound(entries, prefix));

	return bans_is_exempt(bans, prefix) || (first && prefix_contains(prefix, &first->addr));
}

/* --- at the prefilters --- */

static int64_t seconds_left(const struct ban *ban)
{
	int64_t left = ban->expires_at - (int64_t)time(NULL);

	return !ban->expires_at ? -1 : left > 0 ? left : 1;
}

static bool is_for_prefilters(const struct bans *bans, const struct ban *ban)
{
	return ban->xdp && (!ban->expires_at || ban->expires_at > time(NULL)) && !is_partly_exempt(bans, &ban->prefix);
}

void bans_shut(const struct bans *bans, const struct ban *ban)
{
	if (bans->owner.shield && is_for_prefilters(bans, ban))
		(void)shield_shut(bans->owner.shield, &ban->prefix, seconds_left(ban));
}

void bans_unshut(const struct bans *bans, const struct ban *ban)
{
	if (bans->owner.shield && ban->xdp)
		(void)shield_unshut(bans->owner.shield, &ban->prefix);
}

static bool keep_shut(void *userdata, const struct prefix *prefix)
{
	const struct bans *bans = userdata;
	const struct ban *ban = bans_find(bans, prefix);

	return ban && is_for_prefilters(bans, ban);
}

void bans_follow_prefilters(struct bans *bans)
{
	const struct prefixes *now = exempt(bans);

	if (!bans->owner.shield ||
	        (bans->epoch == shield_epoch(bans->owner.shield) && prefixes_equal(&bans->exempt, now)))
		return;
	bans->epoch = shield_epoch(bans->owner.shield);
	prefixes_clear(&bans->exempt);
	prefixes_share(&bans->exempt, now);
	shield_unshut_others(bans->owner.shield, keep_shut, bans);
	for (size_t i = 0; i < bans->n; i++)
		bans_shut(bans, &bans->items[i]);
}

/* --- by hand --- */

static int store(struct bans *bans, const struct store_ban *put_one, const char *forget)
{
	int r = store_bans_write(bans->store, put_one, put_one != NULL, &forget, forget != NULL);

	if (r < 0)
		log_error("a ban cannot be stored: %s", store_error(bans->store));
	return r < 0 ? -EIO : 0;
}

static void put_at_prefilters(const struct bans *bans, const struct ban *ban)
{
	if (ban->xdp)
		bans_shut(bans, ban);
	else if (bans->owner.shield)
		(void)shield_unshut(bans->owner.shield, &ban->prefix);
}

int bans_add(struct bans *bans, const struct core_ban *wish)
{
	char text[ADDR_TEXT_MAX + 4];
	int64_t now = time(NULL);
	struct store_ban stored = { prefix_format(&wish->prefix, text), wish->reason, wish->actor, "", now,
		wish->seconds ? now + wish->seconds : 0, wish->xdp };
	struct render_ban ban = { .prefix = wish->prefix, .seconds = wish->seconds ? wish->seconds : -1 };
	int r;

	if (bans_is_exempt(bans, &wish->prefix))
		return -EPERM;
	if (!bans_find(bans, &wish->prefix) && bans->n >= BANS_MAX)
		return -ENOSPC;
	r = store(bans, &stored, NULL);
	if (r == 0)
		r = apply_bans(bans->owner.apply, &ban, 1);
	if (r == 0)
		r = bans_put(bans, &wish->prefix, &stored);
	if (r < 0)
		return r == -ENOMEM ? r : -EIO;
	put_at_prefilters(bans, bans_find(bans, &wish->prefix));
	log_write_about(LOG_NOTICE, LOG_ABOUT(LOG_TEXT("CLIENT", text), LOG_TEXT("ACTOR", wish->actor)),
	        "%s is banned by %s: %s", text, wish->actor, *wish->reason ? wish->reason : "no reason given");
	bans_tell(bans, bans_find(bans, &wish->prefix), "added");
	return 0;
}

/* One that prefilters have made themselves. */
static int lift_own(struct bans *bans, const struct prefix *prefix, const char *actor)
{
	char text[ADDR_TEXT_MAX + 4];
	struct ban_view view;
	json_t *data;

	if (!bans_view(bans, prefix, &view) || !view.own)
		return -ENOENT;
	data = bans->owner.tell ? bans_document(bans, &view) : NULL;
	(void)shield_unban(bans->owner.shield, prefix);
	prefix_format(prefix, text);
	log_write_about(LOG_NOTICE, LOG_ABOUT(LOG_TEXT("CLIENT", text), LOG_TEXT("ACTOR", actor)),
	        "the ban of %s by a prefilter is lifted by %s", text, actor);
	if (data) {
		json_object_set_new(data, "what", json_string("lifted"));
		bans->owner.tell(bans->owner.userdata, data);
	}
	return 0;
}

int bans_lift(struct bans *bans, const struct prefix *prefix, const char *actor)
{
	size_t at = lower_bound(bans, prefix);
	char text[ADDR_TEXT_MAX + 4];
	struct render_ban ban = { .prefix = *prefix };
	int r;

	if (!is_at(bans, at, prefix))
		return lift_own(bans, prefix, actor);
	ban.limit = bans->items[at].limit;
	r = store(bans, NULL, prefix_format(prefix, text));
	if (r == 0)
		r = apply_bans(bans->owner.apply, &ban, 1);
	if (r < 0)
		return r == -ENOMEM ? r : -EIO;
	bans_unshut(bans, &bans->items[at]);
	if (bans->owner.shield)
		(void)shield_unban(bans->owner.shield, prefix);
	log_write_about(LOG_NOTICE, LOG_ABOUT(LOG_TEXT("CLIENT", text), LOG_TEXT("ACTOR", actor)),
	        "the ban of %s is lifted by %s", text, actor);
	bans_tell(bans, &bans->items[at], "lifted");
	bans_take_out(bans, at);
	return 0;
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
	char name[LIMITS_NAME_MAX];

	bans_lengths(presence->bans, &lengths);
	for (int family = 4; family <= 6; family += 2)
		for (unsigned length = 0; length <= (family == 4 ? 32U : 128U); length++) {
			if (!ban_lengths_has(&lengths, family, length))
				continue;
			presence->length = (uint8_t)length;
			(void)kernel_nft_addresses(presence->bans->owner.kernel, limits_ban_set(family, length, name),
			        note_present, presence);
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
	json_object_clear(bans->seen_all);
	find_present(&presence);
	for (size_t i = 0; i < bans->n; i++)
		if (!present[i])
			missing[n++] = (struct render_ban){ .prefix = bans->items[i].prefix,
				.seconds = seconds_left(&bans->items[i]) };
	if (n > 0 && apply_bans(bans->owner.apply, missing, n) == 0)
		log_notice("%zu bans were put into the kernel again", n);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)usec;
	bans_look(userdata);
	(void)sd_event_source_set_time_relative(source, BANS_LOOK_US);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

int bans_start(struct bans *bans, sd_event *event, const struct bans_owner *owner)
{
	bans->owner = *owner;
	apply_on_replace(owner->apply, restore, bans);
	restore(bans);
	bans_look(bans);
	return sd_event_add_time_relative(event, &bans->timer, CLOCK_MONOTONIC, BANS_LOOK_US, 0, on_timer, bans);
}
