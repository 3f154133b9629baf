/*
 * The nft text of rate limits; see limits.h.
 *
 * Theory of operation: an element of a limited listener leads to the chain
 * "listener.ID", which judges bans, then what counts for every packet, then
 * what counts for a new connection, and goes on to the listener's action. Each
 * of its limits is a chain of its own, "listener.ID.LIMIT":
 *
 *   in the source's own share  -> count "passed", return
 *   no place in the set        -> count "full"; in the share of all such: count "passed", return
 *   else                       -> count "over", go to the limit's chain "limit.LIMIT"
 *
 * and that drops, rejects, bans, or with mode shadow merely returns. A set that
 * is full does not match, so the order must be this one: asked for "over", it
 * would let everybody pass.
 *
 * A datagram is of a new "connection" unless its flow is in known4 or known6,
 * which needs no connection tracking, and unlike that does not wait for an
 * answer.
 */
#include "rules/limits.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "rules/ledger.h"
#include "rules/nftset.h"

/* How long a source is remembered at least: it must not get a new burst before it would have one anyway. */
#define REMEMBER_MIN_S 60
/* nft keeps no larger burst. */
#define BURST_MAX UINT32_MAX

#define NEW_TCP "tcp flags & (syn | ack) == syn "

struct text {
	FILE *out;
	char *bytes;
	size_t length;
};

static int text_open(struct text *text)
{
	*text = (struct text){ 0 };
	text->out = open_memstream(&text->bytes, &text->length);
	return text->out ? 0 : -ENOMEM;
}

/* The bytes, or NULL when memory was out. */
static char *text_take(struct text *text)
{
	if (fclose(text->out) != 0) {
		free(text->bytes);
		return NULL;
	}
	return text->bytes;
}

static bool is_concurrent(const struct rate_limit *limit)
{
	return limit->metric == METRIC_CONCURRENT_CONNECTIONS;
}

bool limits_is_of_packets(const struct rate_limit *limit)
{
	return limit->metric == METRIC_PACKETS || limit->metric == METRIC_BYTES;
}

static bool is_per_listener(const struct rate_limit *limit)
{
	return limit->key == LIMIT_KEY_LISTENER;
}

int64_t limits_burst(const struct rate_limit *limit)
{
	return limit->burst ? limit->burst : limit->rate;
}

uint32_t limits_number(const struct rate_limit *limit)
{
	bool prefix = limit->key == LIMIT_KEY_SOURCE_PREFIX;
	const int64_t parts[] = { limit->key, prefix ? limit->prefix_v4 : 0, prefix ? limit->prefix_v6 : 0,
		limit->metric, limit->rate, is_concurrent(limit) ? 0 : limit->per,
		is_concurrent(limit) ? 0 : limits_burst(limit) };
	uint64_t hash = 14695981039346656037ULL;

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		hash = (hash ^ (uint64_t)parts[i]) * 1099511628211ULL;
	return (uint32_t)(hash ^ hash >> 32);
}

const char *limits_sources_set(const struct rate_limit *limit, int family, char buffer[LIMITS_NAME_MAX])
{
	snprintf(buffer, LIMITS_NAME_MAX, "limit.%s.%08x.%d", limit->name, limits_number(limit), family);
	return buffer;
}

/* The name of a budget of all: of those without a place in the set, or of one listener as a whole. */
static const char *shared_name(const struct rate_limit *limit, uint32_t listener, char buffer[LIMITS_NAME_MAX])
{
	if (is_per_listener(limit))
		snprintf(buffer, LIMITS_NAME_MAX, "listener.%u.%s.%08x", listener, limit->name, limits_number(limit));
	else
		snprintf(buffer, LIMITS_NAME_MAX, "limit.%s.%08x.rest", limit->name, limits_number(limit));
	return buffer;
}

/*
 * "10/second burst 20 packets". In bytes, nft's bucket holds the rate of one
 * unit and the burst; and of a minute's bytes it could not hold many without
 * an overflow, so these are told per second.
 */
static void put_rate(FILE *out, const struct rate_limit *limit)
{
	const char *per = limit->per == PER_MINUTE ? "minute" : "second";
	int64_t rate = limit->rate, burst = limits_burst(limit);

	if (limit->metric == METRIC_BYTES) {
		if (limit->per == PER_MINUTE)
			rate = rate < 60 ? 1 : rate / 60;
		burst = burst > rate ? burst - rate : 0;
		fprintf(out, "%" PRId64 " bytes/second", rate);
		if (burst > 0)
			fprintf(out, " burst %" PRId64 " bytes", burst < BURST_MAX ? burst : BURST_MAX);
		return;
	}
	fprintf(out, "%" PRId64 "/%s burst %" PRId64 " packets", rate, per, burst < BURST_MAX ? burst : BURST_MAX);
}

/* How long until a source has its whole burst again. */
static int64_t remember_s(const struct rate_limit *limit)
{
	int64_t seconds = limits_burst(limit) / limit->rate * (limit->per == PER_MINUTE ? 60 : 1) +
	                  (limit->per == PER_MINUTE ? 60 : 1);

	return seconds < REMEMBER_MIN_S ? REMEMBER_MIN_S : seconds;
}

/* "ip saddr", or with the mask of a shorter prefix. */
static void put_source(FILE *out, int family, unsigned length)
{
	nftset_put_address(out, family == 4 ? AF_INET : AF_INET6, "saddr", length);
}

/* --- what belongs to the limit --- */

static int add_counter(struct limits *limits, const char *limit, const char *what)
{
	char name[LIMITS_NAME_MAX];

	return limits_add(limits, LIMITS_COUNTER, limits_counter(limit, what, name), strdup(""));
}

static int add_source_sets(struct limits *limits, const struct rate_limit *limit)
{
	char name[LIMITS_NAME_MAX], timeout[64] = "flags dynamic;", *text;
	int r = 0;

	/* The kernel itself forgets sources without connections; a timeout would forget some with. */
	if (!is_concurrent(limit))
		snprintf(timeout, sizeof(timeout), "flags dynamic,timeout; timeout %" PRId64 "s;", remember_s(limit));
	for (int family = 4; r == 0 && family <= 6; family += 2) {
		if (asprintf(&text, "{ type ipv%d_addr; size %d; %s }", family, LIMITS_SOURCES_MAX, timeout) < 0)
			return -ENOMEM;
		r = limits_add(limits, LIMITS_SET, limits_sources_set(limit, family, name), text);
	}
	return r;
}

static int add_shared(struct limits *limits, const struct rate_limit *limit, uint32_t listener)
{
	char name[LIMITS_NAME_MAX];
	struct text text;

	if (text_open(&text) < 0)
		return -ENOMEM;
	if (is_concurrent(limit)) {
		/* One element: the count of connections lies in it, and so outlives the rule. */
		fputs("{ type inet_proto; flags dynamic; }", text.out);
		return limits_add(limits, LIMITS_SET, shared_name(limit, listener, name), text_take(&text));
	}
	fputs("{ rate ", text.out);
	put_rate(text.out, limit);
	fputs("; }", text.out);
	return limits_add(limits, LIMITS_LIMIT, shared_name(limit, listener, name), text_take(&text));
}

bool limits_bans(const struct rate_limit *limit)
{
	return limit->mode == LIMIT_MODE_ENFORCE && (limit->action == LIMIT_ACTION_BAN || limit->escalate_after > 0);
}

unsigned limits_ban_length(const struct rate_limit *limit, int family)
{
	unsigned length = limits_length(limit, family);

	return length ? length : family == 4 ? 32 : 128;
}

static int add_set(struct limits *limits, const char *name, int family, int size, int64_t timeout_s)
{
	char timeout[48] = "", *text;

	if (timeout_s > 0)
		snprintf(timeout, sizeof(timeout), " timeout %" PRId64 "s;", timeout_s);
	if (asprintf(&text, "{ type ipv%d_addr; size %d; flags dynamic,timeout;%s }", family, size, timeout) < 0)
		return -ENOMEM;
	return limits_add(limits, LIMITS_SET, name, text);
}

static int add_ban_sets(struct limits *limits, const struct rate_limit *limit)
{
	char name[LIMITS_NAME_MAX];
	int r = add_counter(limits, limit->name, "banned");

	for (int family = 4; r == 0 && family <= 6; family += 2) {
		r = add_set(limits, limits_banned_set(limit->name, family, name), family, LIMITS_BANS_MAX, 0);
		if (r == 0)
			r = add_set(limits, limits_fresh_set(limit->name, family, name), family, LIMITS_FRESH_MAX,
			        LIMITS_FRESH_S);
		ban_lengths_add(&limits->bans, family, limits_ban_length(limit, family));
	}
	return r;
}

/* " update @limit.l.excess20.4 { ip saddr limit rate over 20/minute burst 20 packets }": true from then on. */
static void put_excess(FILE *out, const struct rate_limit *limit, int family)
{
	char name[LIMITS_NAME_MAX];

	fprintf(out, " update @%s { ", limits_excess_set(limit, family, name));
	put_source(out, family, limits_ban_length(limit, family));
	fprintf(out, " limit rate over %" PRId64 "/minute burst %" PRId64 " packets }", limit->escalate_after,
	        limit->escalate_after);
}

/* The set that tells the daemon stands last: where it is full the ban holds, and is learned of later. */
static void put_ban(FILE *out, const struct rate_limit *limit, int family, int64_t seconds)
{
	char banned[LIMITS_NAME_MAX], fresh[LIMITS_NAME_MAX], counter[LIMITS_NAME_MAX];
	unsigned length = limits_ban_length(limit, family);

	fprintf(out, " add @%s { ", limits_ban_set(family, length, banned));
	put_source(out, family, length);
	fprintf(out, " timeout %" PRId64 "s } add @%s { ", seconds, limits_banned_set(limit->name, family, banned));
	put_source(out, family, length);
	fprintf(out, " timeout %" PRId64 "s } counter name \"%s\" update @%s { ", seconds,
	        limits_counter(limit->name, "banned", counter), limits_fresh_set(limit->name, family, fresh));
	put_source(out, family, length);
	fputs(" }\n", out);
}

/* One that is never banned is limited all the same. */
static void put_escalation(FILE *out, const struct rate_limit *limit)
{
	char name[LIMITS_NAME_MAX];
	bool at_once = limit->action == LIMIT_ACTION_BAN;

	for (int family = 4; family <= 6; family += 2) {
		fprintf(out, "%s saddr != @exempt%d", family == 4 ? "ip" : "ip6", family);
		if (limit->escalate_after > 0 && !at_once)
			put_excess(out, limit, family);
		if (limit->escalate_after > 0)
			fprintf(out, " counter name \"%s\"", limits_counter(limit->name, "escalated", name));
		if (limit->mode == LIMIT_MODE_ENFORCE)
			put_ban(out, limit, family, at_once ? limit->ban_s : limit->escalate_ban_s);
		else
			fputc('\n', out);
	}
}

static void put_consequence(FILE *out, const struct rate_limit *limit)
{
	if (limits_bans(limit) || limit->escalate_after > 0)
		put_escalation(out, limit);
	if (limit->mode == LIMIT_MODE_SHADOW)
		return;
	ledger_put_count(out, LEDGER_limited);
	fputc('\n', out);
	switch ((enum limit_action)limit->action) {
	case LIMIT_ACTION_REJECT:
		fputs("meta l4proto tcp reject with tcp reset\nreject with icmpx port-unreachable\n", out);
		return;
	case LIMIT_ACTION_BAN:
	case LIMIT_ACTION_DROP:
	case LIMIT_ACTION_SHAPE: /* of flows: not enforced here */
	case LIMIT_ACTION_WORDS:
		break;
	}
	fputs("drop\n", out);
}

static int add_excess(struct limits *limits, const struct rate_limit *limit)
{
	char name[LIMITS_NAME_MAX];
	int r = add_counter(limits, limit->name, "escalated");

	for (int family = 4; r == 0 && limit->action != LIMIT_ACTION_BAN && family <= 6; family += 2)
		r = add_set(
		        limits, limits_excess_set(limit, family, name), family, LIMITS_SOURCES_MAX, 2 * REMEMBER_MIN_S);
	return r;
}

static int add_over_chain(struct limits *limits, const struct rate_limit *limit)
{
	char name[LIMITS_NAME_MAX];
	struct text text;

	if (text_open(&text) < 0)
		return -ENOMEM;
	fprintf(text.out, "counter name \"%s\"\n", limits_counter(limit->name, "over", name));
	put_consequence(text.out, limit);
	snprintf(name, sizeof(name), "limit.%s", limit->name);
	return limits_add(limits, LIMITS_CHAIN, name, text_take(&text));
}

int limits_text_limit(struct limits *limits, const struct rate_limit *limit)
{
	int r = add_counter(limits, limit->name, "passed");

	if (r == 0)
		r = add_counter(limits, limit->name, "over");
	if (r == 0 && !is_per_listener(limit))
		r = add_counter(limits, limit->name, "full");
	if (r == 0 && !is_per_listener(limit))
		r = add_source_sets(limits, limit);
	if (r == 0 && !is_per_listener(limit) && !is_concurrent(limit))
		r = add_shared(limits, limit, 0);
	if (r == 0 && limits_bans(limit))
		r = add_ban_sets(limits, limit);
	if (r == 0 && limit->escalate_after > 0)
		r = add_excess(limits, limit);
	return r < 0 ? r : add_over_chain(limits, limit);
}

/* --- what belongs to a listener --- */

struct pair {
	const struct rate_limit *limit;
	uint32_t listener;
};

static void put_passed(FILE *out, const struct pair *pair)
{
	char own[LIMITS_NAME_MAX], whole[LIMITS_NAME_MAX];

	fprintf(out, " counter name \"%s\" counter name \"%s\" return\n",
	        limits_listener_counter(pair->listener, pair->limit->name, "passed", own),
	        limits_counter(pair->limit->name, "passed", whole));
}

static void put_shared(FILE *out, const struct pair *pair)
{
	char name[LIMITS_NAME_MAX];

	shared_name(pair->limit, pair->listener, name);
	if (is_concurrent(pair->limit))
		fprintf(out, "add @%s { meta l4proto ct count %" PRId64 " }", name, pair->limit->rate);
	else
		fprintf(out, "limit name \"%s\"", name);
	put_passed(out, pair);
}

/* "update" begins the time anew until the source is forgotten. */
static void put_share(FILE *out, const struct pair *pair, int family)
{
	const struct rate_limit *limit = pair->limit;
	char name[LIMITS_NAME_MAX];

	fprintf(out, "%s @%s { ", is_concurrent(limit) ? "add" : "update", limits_sources_set(limit, family, name));
	put_source(out, family, limits_length(limit, family));
	if (is_concurrent(limit)) {
		fprintf(out, " ct count %" PRId64 " }", limit->rate);
	} else {
		fputs(" limit rate ", out);
		put_rate(out, limit);
		fputs(" }", out);
	}
	put_passed(out, pair);
}

static void put_rest(FILE *out, const struct pair *pair, int family)
{
	const struct rate_limit *limit = pair->limit;
	char name[LIMITS_NAME_MAX];

	put_source(out, family, limits_length(limit, family));
	fprintf(out, " != @%s counter name ", limits_sources_set(limit, family, name));
	fprintf(out, "\"%s\"", limits_counter(limit->name, "full", name));
	if (is_concurrent(limit)) {
		fputc('\n', out);
		return;
	}
	fprintf(out, " limit name \"%s\"", shared_name(limit, pair->listener, name));
	put_passed(out, pair);
}

static int add_pair(struct limits *limits, const struct pair *pair)
{
	char name[LIMITS_NAME_MAX];
	struct text text;

	if (text_open(&text) < 0)
		return -ENOMEM;
	if (is_per_listener(pair->limit))
		put_shared(text.out, pair);
	for (int family = 4; !is_per_listener(pair->limit) && family <= 6; family += 2) {
		put_share(text.out, pair, family);
		put_rest(text.out, pair, family);
	}
	fprintf(text.out, "counter name \"%s\" goto limit.%s\n",
	        limits_listener_counter(pair->listener, pair->limit->name, "over", name), pair->limit->name);
	snprintf(name, sizeof(name), "listener.%u.%s", pair->listener, pair->limit->name);
	return limits_add(limits, LIMITS_CHAIN, name, text_take(&text));
}

/* The i-th limit that the listener names, if it is enforced here. */
static const struct rate_limit *limit_at(const struct snapshot *snapshot, const struct listener *listener, size_t i)
{
	const struct rate_limit *limit =
	        (const struct rate_limit *)snapshot_find(snapshot, RESOURCE_RATE_LIMIT, listener->rate_limits.items[i]);

	return limit && !limits_is_of_flows(limit) ? limit : NULL;
}

static int add_pair_objects(struct limits *limits, const struct pair *pair)
{
	static const char *const whats[] = { "passed", "over" };
	char name[LIMITS_NAME_MAX];
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(whats); i++) {
		limits_listener_counter(pair->listener, pair->limit->name, whats[i], name);
		r = limits_add(limits, LIMITS_COUNTER, name, strdup(""));
	}
	if (r == 0 && is_per_listener(pair->limit))
		r = add_shared(limits, pair->limit, pair->listener);
	return r < 0 ? r : add_pair(limits, pair);
}

/* The limits of one listener in the order it names them: those of every packet, or those of new connections. */
static unsigned put_jumps(FILE *out, const struct snapshot *snapshot, const struct listener *listener, bool packets)
{
	const char *when = !packets && listener->protocol == PROTOCOL_TCP ? NEW_TCP : "";
	unsigned n = 0;

	for (size_t i = 0; i < listener->rate_limits.n; i++) {
		const struct rate_limit *limit = limit_at(snapshot, listener, i);

		if (!limit || limits_is_of_packets(limit) != packets)
			continue;
		fprintf(out, "%sjump listener.%u.%s\n", when, (unsigned)listener->row.id, limit->name);
		n++;
	}
	return n;
}

static bool has_limit(const struct snapshot *snapshot, const struct listener *listener, bool packets)
{
	for (size_t i = 0; i < listener->rate_limits.n; i++) {
		const struct rate_limit *limit = limit_at(snapshot, listener, i);

		if (limit && limits_is_of_packets(limit) == packets)
			return true;
	}
	return false;
}

static void put_known(FILE *out, const char *action, bool goes)
{
	static const char *const tuples[] = { "ip saddr . udp sport . ip daddr . udp dport",
		"ip6 saddr . udp sport . ip6 daddr . udp dport" };

	for (int i = 0; i < 2; i++) {
		if (goes)
			fprintf(out, "%s @known%c ", tuples[i], i ? '6' : '4');
		fprintf(out, "update @known%c { %s }", i ? '6' : '4', tuples[i]);
		if (goes)
			fprintf(out, " goto %s", action);
		fputc('\n', out);
	}
}

static void put_listener(FILE *out, const struct snapshot *snapshot, const struct listener *listener)
{
	const char *action = nftset_action_chain(listener_verdict(listener));
	bool udp = listener->protocol == PROTOCOL_UDP, opens = has_limit(snapshot, listener, false);

	fputs("jump bans\n", out);
	put_jumps(out, snapshot, listener, true);
	/* A packet of an accepted connection came only for the limits above. */
	if (!udp && listener->action == ACTION_RELAY)
		fputs("tcp flags & (syn | ack) != syn socket transparent 1 return\n", out);
	if (udp && opens)
		put_known(out, action, true);
	put_jumps(out, snapshot, listener, false);
	if (udp && opens)
		put_known(out, action, false);
	fprintf(out, "goto %s\n", action);
}

int limits_text_listener(struct limits *limits, const struct snapshot *snapshot, const struct listener *listener)
{
	char name[LIMITS_CHAIN_NAME_MAX];
	struct text text;
	int r = 0;

	for (size_t i = 0; r == 0 && i < listener->rate_limits.n; i++) {
		struct pair pair = { limit_at(snapshot, listener, i), (uint32_t)listener->row.id };

		r = pair.limit ? add_pair_objects(limits, &pair) : 0;
	}
	if (r < 0)
		return r;
	if (text_open(&text) < 0)
		return -ENOMEM;
	put_listener(text.out, snapshot, listener);
	limits->metered |= listener->protocol == PROTOCOL_TCP && listener->action == ACTION_RELAY &&
	                   has_limit(snapshot, listener, true);
	return limits_add(
	        limits, LIMITS_CHAIN, limits_listener_chain((uint32_t)listener->row.id, name), text_take(&text));
}
