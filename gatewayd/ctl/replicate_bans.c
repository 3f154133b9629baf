/* Copies of bans; see replicate_bans.h. */
#include "gatewayd/ctl/replicate_bans.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "gatewayd/ctl/print.h"

#define BANS "/api/v1/bans"
/* In front of the reason of a copy. */
#define COPY "replicated: "
/* Bans of a gateway that are looked at, of its first ones by address, and changes made in one round: a flood of bans
 * must not keep the configuration waiting. */
#define BANS_COPIED   8192
#define CHANGES_ROUND 512
/* Longest reason that the API takes. */
#define REASON_BYTES_MAX 255

static bool is_copy(const json_t *ban)
{
	return strncmp(print_text(ban, "reason"), COPY, strlen(COPY)) == 0;
}

/* The bans by their addresses, new. */
static int list(struct ctl *ctl, json_t **ret)
{
	_cleanup_json_ json_t *items = NULL;
	json_t *by_address = json_object(), *ban;
	int code = by_address ? ctl_list(ctl, "bans", BANS_COPIED, &items) : CTL_REFUSED;
	size_t i;

	json_array_foreach(items, i, ban) json_object_set(by_address, print_text(ban, "address"), ban);
	*ret = by_address;
	return code;
}

/* Seconds that are left; 0: without end; negative: over. */
static int64_t seconds_left(const json_t *ban)
{
	const char *text = json_string_value(json_object_get(ban, "expires_at"));
	struct tm end = { 0 };
	int64_t left;

	if (!text || !strptime(text, "%Y-%m-%dT%H:%M:%SZ", &end))
		return 0;
	left = timegm(&end) - time(NULL);
	return left > 0 ? left : -1;
}

/* Nobody hears of a conflict: it is a ban that this gateway has reasons not to make, or has not any more. Of anything
 * else that fails the second attempt says why. */
static int change(struct ctl *to, const char *method, const char *path, json_t *body)
{
	_cleanup_answer_ struct client_answer answer = { 0 };

	if (client_ask(to->client, method, path, body, NULL, &answer) == 0 &&
	        (answer.status < 300 || answer.status == 409 || answer.status == 404))
		return CTL_OK;
	client_answer_clear(&answer);
	return ctl_ask(to, method, path, body, NULL, &answer);
}

/* The reason of a copy, new; what is too long is cut between two characters. */
static char *copy_reason(const json_t *ban)
{
	size_t end = REASON_BYTES_MAX;
	char *text;

	if (asprintf(&text, COPY "%s", print_text(ban, "reason")) < 0)
		return NULL;
	if (strlen(text) > end) {
		while (((unsigned char)text[end] & 0xc0) == 0x80)
			end--;
		text[end] = '\0';
	}
	return text;
}

static int copy(const json_t *ban, struct ctl *to)
{
	int64_t left = seconds_left(ban);
	_cleanup_free_ char *reason = copy_reason(ban);
	_cleanup_json_ json_t *wish = NULL;

	if (left < 0)
		return CTL_OK;
	wish = json_pack("{s:s, s:s, s:o, s:s}", "address", print_text(ban, "address"), "reason", reason ? reason : "",
	        "ban_s", left > 0 ? json_integer(left) : json_null(), "placement", print_text(ban, "placement"));
	return wish ? change(to, "POST", BANS, wish) : CTL_REFUSED;
}

static int lift(const json_t *ban, struct ctl *at)
{
	_cleanup_free_ char *address = client_escape(at->client, print_text(ban, "address")), *path = NULL;

	if (!address || asprintf(&path, BANS "?address=%s", address) < 0)
		return CTL_REFUSED;
	return change(at, "DELETE", path, NULL);
}

/* From one to the other; *left counts the changes of the round down. */
static int one_way(json_t *from, json_t *there, struct ctl *to, unsigned *left)
{
	const char *address;
	json_t *ban;
	int code = CTL_OK;

	json_object_foreach(from, address, ban)
	{
		if (code == CTL_OK && *left > 0 && !is_copy(ban) && !json_object_get(there, address)) {
			code = copy(ban, to);
			(*left)--;
		}
	}
	/* Of a list that is not whole it cannot be told what is not in it. */
	if (json_object_size(from) >= BANS_COPIED)
		return code;
	json_object_foreach(there, address, ban)
	{
		if (code == CTL_OK && *left > 0 && is_copy(ban) && !json_object_get(from, address)) {
			code = lift(ban, to);
			(*left)--;
		}
	}
	return code;
}

int replicate_bans(struct ctl *own, struct ctl *peer)
{
	_cleanup_json_ json_t *ours = NULL, *theirs = NULL;
	unsigned left = CHANGES_ROUND;
	int code = list(own, &ours);

	if (code == CTL_OK)
		code = list(peer, &theirs);
	if (code == CTL_OK)
		code = one_way(ours, theirs, peer, &left);
	if (code == CTL_OK)
		code = one_way(theirs, ours, own, &left);
	return code;
}
