/* get, apply, diff, confirm, rollback: the configuration and its history. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gatewayd/ctl/ctl.h"
#include "gatewayd/ctl/diff.h"
#include "gatewayd/ctl/flows.h"
#include "gatewayd/ctl/print.h"

#define CONFIG       "/api/v1/config"
#define TRANSACTIONS "/api/v1/transactions"

/* Columns of lists, by the path of the resource; heads are the fields in capitals. Others show names only. */
static const struct {
	const char *resource, *fields;
} lists[] = {
	{ "listeners", "name enabled protocol sources destinations ports action upstream" },
	{ "upstreams", "name algorithm health.type targets" },
	{ "address-sets", "name entries_count entries comment" },
	{ "rate-limits", "name key metric rate per burst action mode" },
	{ "prefilters", "interface enabled mode" },
	{ "tokens", "name role expires_at" },
	{ "revisions", "revision created_at actor summary" },
	{ "audit", "id at actor method path status revision" },
	{ "bans", "address reason actor rate_limit placement interfaces expires_at" },
};

/* --- get --- */

static void print_list(const char *resource, const json_t *items)
{
	const char *fields = "name comment";
	struct print_table table;
	char heads[256] = "", *c;
	const json_t *item;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(lists); i++)
		if (strcmp(lists[i].resource, resource) == 0)
			fields = lists[i].fields;
	snprintf(heads, sizeof(heads), "%s", fields);
	for (c = heads; *c; c++)
		*c = (char)(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
	print_begin(&table, stdout, heads);
	json_array_foreach(items, i, item)
	{
		char names[256], *save = NULL;

		snprintf(names, sizeof(names), "%s", fields);
		for (char *name = strtok_r(names, " ", &save); name; name = strtok_r(NULL, " ", &save)) {
			_cleanup_free_ char *text = print_value(print_find(item, name));

			print_cell(&table, "%s", text ? text : "");
		}
	}
	print_end(&table);
}

/* Any address of the API, as it is; text that is no JSON too. */
static int get_raw(struct ctl *ctl, const char *path)
{
	_cleanup_answer_ struct client_answer answer = { 0 };
	int code = ctl_ask(ctl, "GET", path, NULL, NULL, &answer);

	if (code != CTL_OK)
		return code;
	if (answer.json)
		print_json(answer.json);
	else
		fwrite(answer.body ? answer.body : "", 1, answer.length, stdout);
	return CTL_OK;
}

static int get_object(struct ctl *ctl, const char *resource, const char *name)
{
	_cleanup_free_ char *path = ctl_path(ctl, resource, name, NULL);

	return path ? get_raw(ctl, path) : CTL_REFUSED;
}

/* What the API has beside /api/v1. */
static bool is_root_path(const char *path)
{
	static const char *const roots[] = { "/api/", "/metrics", "/healthz", "/readyz", "/openapi.json" };

	for (size_t i = 0; i < ARRAY_SIZE(roots); i++)
		if (strncmp(path, roots[i], strlen(roots[i])) == 0)
			return true;
	return false;
}

/* A path as the documentation writes it: /status is /api/v1/status. */
static int get_path(struct ctl *ctl, const char *path)
{
	_cleanup_free_ char *whole = NULL;

	if (asprintf(&whole, "%s%s", is_root_path(path) ? "" : "/api/v1", path) < 0)
		return CTL_REFUSED;
	return get_raw(ctl, whole);
}

int ctl_show(struct ctl *ctl)
{
	const char *const *words = ctl->args.words;
	_cleanup_json_ json_t *items = NULL;
	uint64_t most;
	int code;

	if (args_number(&ctl->args, OPTION_limit, 1, 1000000, 1000000, &most) < 0)
		return CTL_USAGE;
	if (ctl->args.n_words == 0)
		return get_raw(ctl, CONFIG);
	if (words[0][0] == '/')
		return get_path(ctl, words[0]);
	if (ctl->args.n_words == 2)
		return get_object(ctl, words[0], words[1]);
	code = ctl_list(ctl, words[0], most, &items);
	if (code != CTL_OK)
		return code;
	while (json_is_array(items) && json_array_size(items) > most)
		(void)json_array_remove(items, json_array_size(items) - 1);
	if (ctl->json || !json_is_array(items))
		print_json(items);
	else if (strcmp(words[0], "flows") == 0)
		flows_print(stdout, items);
	else
		print_list(words[0], items);
	return CTL_OK;
}

/* --- apply, diff --- */

static int read_document(struct ctl *ctl, json_t **ret)
{
	const char *path = ctl->args.option[OPTION_file];
	_cleanup_fclose_ FILE *file = NULL;
	json_error_t error;
	json_t *document;

	if (!path) {
		ctl_say("which file? -f FILE, or -f - for standard input");
		return CTL_USAGE;
	}
	if (strcmp(path, "-") != 0 && !(file = fopen(path, "re"))) {
		ctl_say("%s: %s", path, strerror(errno));
		return CTL_USAGE;
	}
	document = json_loadf(file ? file : stdin, JSON_REJECT_DUPLICATES, &error);
	if (!document) {
		ctl_say("%s:%d:%d: %s", path, error.line, error.column, error.text);
		return CTL_USAGE;
	}
	*ret = document;
	return CTL_OK;
}

/* How a document is written: an object is the whole configuration, a list is a transaction. */
struct writing {
	json_t *document;
	const char *method, *path;
	char *etag; /* of the configuration that the difference was made against */
};

static void writing_clear(struct writing *writing)
{
	json_decref(writing->document);
	free(writing->etag);
}

static int begin_writing(struct ctl *ctl, struct writing *ret)
{
	_cleanup_answer_ struct client_answer now = { 0 };
	int code = read_document(ctl, &ret->document);

	if (code != CTL_OK)
		return code;
	ret->method = json_is_array(ret->document) ? "POST" : "PUT";
	ret->path = json_is_array(ret->document) ? TRANSACTIONS : CONFIG;
	if (json_is_array(ret->document))
		return CTL_OK;
	/* What is shown must be what is done: nobody may have written in between. */
	code = ctl_ask(ctl, "GET", CONFIG, NULL, NULL, &now);
	if (code == CTL_OK)
		ret->etag = TAKE_PTR(now.etag);
	return code;
}

static int rehearse(struct ctl *ctl, const struct writing *writing, json_t **ret)
{
	_cleanup_answer_ struct client_answer answer = { 0 };
	_cleanup_free_ char *path = NULL;
	int code;

	if (asprintf(&path, "%s?dry_run=true", writing->path) < 0)
		path = NULL;
	code = path ? ctl_ask(ctl, writing->method, path, writing->document, writing->etag, &answer) : CTL_REFUSED;
	if (code == CTL_OK)
		*ret = TAKE_PTR(answer.json);
	return code;
}

static void show_rehearsal(const json_t *rehearsal)
{
	const json_t *diff = json_object_get(rehearsal, "diff"), *warning;
	size_t i;

	diff_print(stdout, diff);
	if (json_array_size(diff) == 0)
		puts("nothing changes");
	json_array_foreach(json_object_get(rehearsal, "warnings"), i, warning)
	{
		ctl_say("warning: %s: %s", print_text(warning, "pointer"), print_text(warning, "detail"));
	}
	fflush(stdout);
}

/* path with the query that --confirm-within asks for, new; NULL with the exit code. */
static char *with_confirm(struct ctl *ctl, const char *path, int *ret_code)
{
	uint64_t seconds;
	char *text;

	*ret_code = CTL_USAGE;
	if (args_number(&ctl->args, OPTION_confirm_within, 1, 86400, 0, &seconds) < 0)
		return NULL;
	*ret_code = CTL_REFUSED;
	if (seconds == 0)
		return strdup(path);
	return asprintf(&text, "%s?confirm_within=%llu", path, (unsigned long long)seconds) < 0 ? NULL : text;
}

static int write_it(struct ctl *ctl, const char *method, const char *path, json_t *body, const char *if_match)
{
	_cleanup_answer_ struct client_answer answer = { 0 };
	int code;
	_cleanup_free_ char *query = with_confirm(ctl, path, &code);

	if (!query)
		return code;
	code = ctl_ask(ctl, method, query, body, if_match, &answer);
	if (code != CTL_OK)
		return code;
	ctl_say_written(&answer);
	if (ctl->json)
		print_json(answer.json);
	else
		printf("revision %s\n", answer.revision ? answer.revision : "unknown");
	return CTL_OK;
}

int ctl_apply(struct ctl *ctl)
{
	_cleanup_(writing_clear) struct writing writing = { 0 };
	_cleanup_json_ json_t *rehearsal = NULL;
	int code = begin_writing(ctl, &writing);

	if (code == CTL_OK)
		code = rehearse(ctl, &writing, &rehearsal);
	if (code != CTL_OK)
		return code;
	if (ctl->json && ctl->args.option[OPTION_dry_run])
		print_json(rehearsal);
	else if (!ctl->json)
		show_rehearsal(rehearsal);
	if (ctl->args.option[OPTION_dry_run])
		return CTL_OK;
	if (json_array_size(json_object_get(rehearsal, "diff")) > 0 && !ctl_may(ctl, "Apply?")) {
		ctl_say("nothing was changed");
		return CTL_REFUSED;
	}
	return write_it(ctl, writing.method, writing.path, writing.document, writing.etag);
}

static int diff_revisions(struct ctl *ctl, json_t **ret)
{
	_cleanup_free_ char *path = ctl_path(ctl, "revisions", ctl->args.words[0], "diff", NULL), *query = NULL;
	_cleanup_free_ char *to = ctl->args.n_words == 2 ? client_escape(ctl->client, ctl->args.words[1]) : NULL;

	if (!path || asprintf(&query, "%s%s%s", path, to ? "?to=" : "", to ? to : "") < 0)
		return CTL_REFUSED;
	return ctl_get(ctl, query, ret);
}

int ctl_diff(struct ctl *ctl)
{
	_cleanup_(writing_clear) struct writing writing = { 0 };
	_cleanup_json_ json_t *answer = NULL;
	int code;

	if ((ctl->args.n_words == 0) != (ctl->args.option[OPTION_file] != NULL)) {
		ctl_say("usage: gatewayctl diff %s", ctl->args.command->usage);
		return CTL_USAGE;
	}
	if (ctl->args.n_words > 0)
		code = diff_revisions(ctl, &answer);
	else if ((code = begin_writing(ctl, &writing)) == CTL_OK)
		code = rehearse(ctl, &writing, &answer);
	if (code != CTL_OK)
		return code;
	if (ctl->json)
		print_json(answer);
	else
		show_rehearsal(answer);
	return json_array_size(json_object_get(answer, "diff")) > 0 ? CTL_ATTENTION : CTL_OK;
}

/* --- confirm, rollback --- */

/* The number in the first word, or that of `key` of the change that waits; new, or NULL when said why not. */
static char *revision_of(struct ctl *ctl, const char *key)
{
	_cleanup_json_ json_t *status = NULL;
	const json_t *pending, *number;
	char *text;

	if (ctl->args.n_words > 0)
		return strdup(ctl->args.words[0]);
	if (ctl_get(ctl, "/api/v1/status", &status) != CTL_OK)
		return NULL;
	pending = json_object_get(status, "pending");
	number = json_object_get(pending, key);
	if (!json_is_integer(number)) {
		ctl_say("no change waits to be confirmed; name a revision (gatewayctl get revisions)");
		return NULL;
	}
	return asprintf(&text, "%lld", (long long)json_integer_value(number)) < 0 ? NULL : text;
}

int ctl_confirm(struct ctl *ctl)
{
	_cleanup_answer_ struct client_answer answer = { 0 };
	_cleanup_free_ char *revision = revision_of(ctl, "revision"), *path = NULL;
	int code;

	path = revision ? ctl_path(ctl, "revisions", revision, "confirm", NULL) : NULL;
	code = path ? ctl_ask(ctl, "POST", path, NULL, NULL, &answer) : CTL_REFUSED;
	if (code != CTL_OK)
		return code;
	if (ctl->json)
		print_json(answer.json);
	else
		printf("revision %s stays\n", revision);
	return CTL_OK;
}

int ctl_rollback(struct ctl *ctl)
{
	_cleanup_free_ char *revision = revision_of(ctl, "base"), *path = NULL;
	struct writing writing = { .method = "POST" };
	_cleanup_json_ json_t *rehearsal = NULL;
	int code;

	writing.path = path = revision ? ctl_path(ctl, "revisions", revision, "rollback", NULL) : NULL;
	code = path ? rehearse(ctl, &writing, &rehearsal) : CTL_REFUSED;
	if (code != CTL_OK)
		return code;
	if (ctl->json && ctl->args.option[OPTION_dry_run])
		print_json(rehearsal);
	else if (!ctl->json)
		show_rehearsal(rehearsal);
	if (ctl->args.option[OPTION_dry_run])
		return CTL_OK;
	if (!ctl_may(ctl, "Go back to this?")) {
		ctl_say("nothing was changed");
		return CTL_REFUSED;
	}
	return write_it(ctl, "POST", path, NULL, NULL);
}
