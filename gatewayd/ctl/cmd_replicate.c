/*
 * replicate: keeps the configuration of two gateways equal, ours and the one at --url.
 *
 * Each gateway's history has a hash of every configuration it has had. Whoever has had what the other has now is ahead,
 * and the other takes its configuration, as one write that is refused if somebody has written meanwhile. If neither has
 * had what the other has, both were changed: nothing is done, and that is told. There is no leader to be agreed upon,
 * so it may run on both sides at once. Bans are copied both ways, see replicate_bans.h.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "gatewayd/ctl/ctl.h"
#include "gatewayd/ctl/print.h"
#include "gatewayd/ctl/replicate_bans.h"

/* Newest revisions of a history that are looked through: a page of the API. */
#define HISTORY_MAX 1000
/* Seconds between two looks, and how much longer after looks that failed: the journal should not fill. */
#define INTERVAL_S       5
#define INTERVAL_S_MAX   3600
#define FAILED_FACTOR    10
#define HASH_TEXT_BYTES  80
#define TIME_TEXT_BYTES  40
#define ACTOR_TEXT_BYTES 80

/* One of the two, as it was at the last look. */
struct side {
	struct ctl ctl;
	int64_t revision; /* 0: it has never had a configuration */
	char hash[HASH_TEXT_BYTES], time[TIME_TEXT_BYTES], actor[ACTOR_TEXT_BYTES];
	bool pending; /* its change is not confirmed yet */
};

enum verdict { VERDICT_NONE, VERDICT_EQUAL, VERDICT_OURS, VERDICT_THEIRS, VERDICT_BOTH, VERDICT_WAITS };

struct pair {
	struct side own, peer;
	/* What was found last, and of which revisions: the same is not said, or asked for, twice. */
	enum verdict verdict;
	int64_t own_revision, peer_revision;
};

static int look(struct side *side)
{
	_cleanup_json_ json_t *page = NULL;
	const json_t *newest;
	int code = ctl_get(&side->ctl, "/api/v1/revisions?limit=1", &page);

	if (code != CTL_OK)
		return code;
	newest = json_array_get(json_object_get(page, "items"), 0);
	side->revision = json_integer_value(json_object_get(newest, "revision"));
	side->pending = json_is_object(json_object_get(page, "pending"));
	snprintf(side->hash, sizeof(side->hash), "%s", print_text(newest, "config_hash"));
	snprintf(side->time, sizeof(side->time), "%s", print_text(newest, "created_at"));
	snprintf(side->actor, sizeof(side->actor), "%s", print_text(newest, "actor"));
	return CTL_OK;
}

/* Whether the side has had the other's configuration; that of a new gateway everybody has had. */
static int has_had(struct side *side, const struct side *other, bool *ret)
{
	_cleanup_json_ json_t *page = NULL;
	char path[64];
	const json_t *revision;
	size_t i;
	int code;

	*ret = other->revision == 0;
	if (*ret)
		return CTL_OK;
	snprintf(path, sizeof(path), "/api/v1/revisions?limit=%d", HISTORY_MAX);
	code = ctl_get(&side->ctl, path, &page);
	json_array_foreach(json_object_get(page, "items"), i, revision)
	{
		*ret |= strcmp(print_text(revision, "config_hash"), other->hash) == 0;
	}
	return code;
}

/* If each has had what the other has now (it was taken back somewhere), the later counts. */
static int judge(struct pair *pair, enum verdict *ret)
{
	bool ours = false, theirs = false;
	int code;

	if (pair->own.pending || pair->peer.pending) {
		*ret = VERDICT_WAITS;
		return CTL_OK;
	}
	if (strcmp(pair->own.hash, pair->peer.hash) == 0) {
		*ret = VERDICT_EQUAL;
		return CTL_OK;
	}
	code = has_had(&pair->own, &pair->peer, &ours);
	if (code == CTL_OK)
		code = has_had(&pair->peer, &pair->own, &theirs);
	if (ours && theirs)
		ours = strcmp(pair->own.time, pair->peer.time) >= 0;
	*ret = pair->own.ctl.args.option[OPTION_force] || ours ? VERDICT_OURS : theirs ? VERDICT_THEIRS : VERDICT_BOTH;
	return code;
}

/* The whole configuration of one becomes that of the other, which must still be the one that was judged. */
static int carry(struct side *from, struct side *to)
{
	_cleanup_answer_ struct client_answer answer = { 0 };
	_cleanup_json_ json_t *config = NULL;
	char etag[32];
	int code = ctl_get(&from->ctl, "/api/v1/config", &config);

	snprintf(etag, sizeof(etag), "\"%" PRId64 "\"", to->revision);
	if (code != CTL_OK)
		return code;
	code = ctl_ask(&to->ctl, "PUT", "/api/v1/config", config, etag, &answer);
	if (code != CTL_OK) {
		ctl_say("%s does not take revision %" PRId64 " of %s, and keeps what it has",
		        client_where(to->ctl.client), from->revision, client_where(from->ctl.client));
		return code;
	}
	ctl_say_written(&answer);
	printf("revision %" PRId64 " of %s is revision %s of %s\n", from->revision, client_where(from->ctl.client),
	        answer.revision ? answer.revision : "?", client_where(to->ctl.client));
	fflush(stdout);
	return look(to);
}

static int say_both(const struct pair *pair)
{
	const struct side *sides[] = { &pair->own, &pair->peer };

	ctl_say("both gateways were changed, so nothing is replicated:");
	for (size_t i = 0; i < ARRAY_SIZE(sides); i++)
		ctl_say("  %s: revision %" PRId64 ", %s, by %s", client_where(sides[i]->ctl.client), sides[i]->revision,
		        sides[i]->time, sides[i]->actor);
	ctl_say("  on the one that is right, run once with --once --force; the other's configuration stays in its "
	        "history");
	return CTL_ATTENTION;
}

static int act(struct pair *pair, enum verdict verdict, bool is_news)
{
	switch (verdict) {
	case VERDICT_OURS:
		return carry(&pair->own, &pair->peer);
	case VERDICT_THEIRS:
		return carry(&pair->peer, &pair->own);
	case VERDICT_BOTH:
		return is_news ? say_both(pair) : CTL_ATTENTION;
	case VERDICT_WAITS:
		if (is_news)
			ctl_say("a change waits to be confirmed; it is replicated then");
		return CTL_ATTENTION;
	case VERDICT_NONE:
	case VERDICT_EQUAL:
		break;
	}
	return CTL_OK;
}

static bool is_known(const struct pair *pair)
{
	return (pair->verdict == VERDICT_EQUAL || pair->verdict == VERDICT_BOTH) &&
	       pair->own.revision == pair->own_revision && pair->peer.revision == pair->peer_revision;
}

static int replicate_config(struct pair *pair)
{
	enum verdict verdict = pair->verdict;
	int code = look(&pair->own);

	if (code == CTL_OK)
		code = look(&pair->peer);
	if (code == CTL_OK && !is_known(pair))
		code = judge(pair, &verdict);
	if (code != CTL_OK)
		return code;
	code = act(pair, verdict, !is_known(pair) && (verdict != VERDICT_WAITS || pair->verdict != VERDICT_WAITS));
	if (code != CTL_OK && code != CTL_ATTENTION)
		return code;
	/* What was carried is equal now, also if two versions of the program do not hash it alike. */
	pair->verdict = code == CTL_OK ? VERDICT_EQUAL : verdict;
	pair->own_revision = pair->own.revision;
	pair->peer_revision = pair->peer.revision;
	return code;
}

static int replicate_once(struct pair *pair)
{
	int code = replicate_config(pair);
	int bans = code == CTL_OK || code == CTL_ATTENTION ? replicate_bans(&pair->own.ctl, &pair->peer.ctl) : CTL_OK;

	return bans != CTL_OK ? bans : code;
}

__attribute__((noreturn)) static void replicate_for_ever(struct pair *pair, unsigned interval)
{
	unsigned pause = interval;

	for (;;) {
		int code = replicate_once(pair);

		if (code == CTL_OK || code == CTL_ATTENTION)
			pause = interval;
		else if (pause < FAILED_FACTOR * interval)
			pause *= 2;
		sleep(pause);
	}
}

int ctl_replicate(struct ctl *ctl)
{
	const char *const *option = ctl->args.option;
	struct client_options here = { .socket = ctl_socket(ctl) };
	struct pair pair = { .own.ctl = *ctl, .peer.ctl = *ctl };
	uint64_t interval;
	int code;

	if (args_number(&ctl->args, OPTION_interval, 1, INTERVAL_S_MAX, INTERVAL_S, &interval) < 0)
		return CTL_USAGE;
	if (!ctl_url(ctl) || (option[OPTION_force] && !option[OPTION_once])) {
		ctl_say(option[OPTION_force] && !option[OPTION_once] ? "--force is for once: --once --force"
		                                                     : "which gateway? --url URL");
		return CTL_USAGE;
	}
	pair.own.ctl.client = NULL;
	if (client_new(&here, &pair.own.ctl.client) < 0) {
		ctl_say("memory is out");
		return CTL_REFUSED;
	}
	if (!option[OPTION_once])
		replicate_for_ever(&pair, (unsigned)interval);
	code = replicate_once(&pair);
	client_free(pair.own.ctl.client);
	return code;
}
