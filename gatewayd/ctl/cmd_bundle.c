/* support-bundle: what somebody else needs to find a fault, as one file without secrets. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "gatewayd/ctl/ctl.h"
#include "gatewayd/ctl/print.h"
#include "gatewayd/ctl/redact.h"
#include "gatewayd/ctl/tar.h"

/* What is asked for, and its name in the archive. Tokens and sessions are not among it. */
static const struct {
	const char *name, *path;
} parts[] = {
	{ "status.json", "/api/v1/status" },
	{ "doctor.json", "/api/v1/doctor" },
	{ "config.json", "/api/v1/config" },
	{ "stats.json", "/api/v1/stats?limit=1000" },
	{ "ledger.json", "/api/v1/stats/ledger" },
	{ "history.json", "/api/v1/stats/history?step=10" },
	{ "metrics.txt", "/metrics" },
	{ "flows.json", "/api/v1/flows?limit=1000" },
	{ "ruleset.txt", "/api/v1/ruleset" },
	{ "ruleset-desired.txt", "/api/v1/ruleset?format=desired" },
	{ "revisions.json", "/api/v1/revisions?limit=100" },
	{ "audit.json", "/api/v1/audit?limit=1000" },
	{ "bans.json", "/api/v1/bans" },
};

static int put_json(FILE *out, const char *name, json_t *document)
{
	_cleanup_free_ char *text = NULL;

	redact_json(document);
	text = json_dumps(document, JSON_INDENT(1) | JSON_ENCODE_ANY);
	return text ? tar_put(out, name, text, strlen(text)) : -ENOMEM;
}

/* One part. What the gateway refuses is noted in its place: it may be the fault that is looked for. */
static int put_part(struct ctl *ctl, FILE *out, const char *name, const char *path, bool *ret_lost)
{
	_cleanup_answer_ struct client_answer answer = { 0 };
	int r = client_ask(ctl->client, "GET", path, NULL, NULL, &answer);

	if (r == -EHOSTUNREACH) {
		*ret_lost = true;
		return 0;
	}
	if (r < 0)
		return r;
	if (answer.json)
		return put_json(out, name, answer.json);
	if (answer.body)
		redact_text(answer.body);
	return tar_put(out, name, answer.body ? answer.body : "", answer.length);
}

static int put_about(FILE *out)
{
	_cleanup_json_ json_t *about =
	        json_pack("{s:s, s:I}", "gatewayctl", GW_VERSION, "made_at", (json_int_t)time(NULL));

	return put_json(out, "about.json", about);
}

static int write_bundle(struct ctl *ctl, FILE *out, bool *ret_lost)
{
	int r = put_about(out);

	*ret_lost = false;
	for (size_t i = 0; i < ARRAY_SIZE(parts) && r == 0 && !*ret_lost; i++)
		r = put_part(ctl, out, parts[i].name, parts[i].path, ret_lost);
	return r == 0 ? tar_end(out) : r;
}

int ctl_bundle(struct ctl *ctl)
{
	char name[64];
	const char *path = ctl->args.n_words > 0 ? ctl->args.words[0] : name;
	time_t now = time(NULL);
	struct tm utc;
	_cleanup_fclose_ FILE *out = NULL;
	bool lost;
	int fd, r;

	strftime(name, sizeof(name), "gatewayd-support-%Y%m%d-%H%M%S.tar", gmtime_r(&now, &utc));
	/* Addresses of clients are in it: for its owner only, and never over something that is there. */
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	out = fd >= 0 ? fdopen(fd, "we") : NULL;
	if (!out) {
		ctl_say("%s: %s", path, strerror(errno));
		return CTL_USAGE;
	}
	r = write_bundle(ctl, out, &lost);
	if (r < 0 || lost) {
		(void)unlink(path);
		ctl_say(lost ? "no answer from %s: %s" : "%s: %s", lost ? client_where(ctl->client) : path,
		        lost ? client_words(ctl->client) : strerror(-r));
		return lost ? CTL_UNREACHABLE : CTL_REFUSED;
	}
	printf("%s\n", path);
	return CTL_OK;
}
