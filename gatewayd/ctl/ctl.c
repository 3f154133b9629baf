/* What the commands share, see ctl.h. */
#include "gatewayd/ctl/ctl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "gatewayd/ctl/print.h"

#define API            "/api/v1"
#define SOCKET_DEFAULT "/run/gatewayd/api.sock"

void ctl_say(const char *format, ...)
{
	_cleanup_free_ char *text = NULL;
	va_list arguments;
	int r;

	va_start(arguments, format);
	r = vasprintf(&text, format, arguments);
	va_end(arguments);
	if (r < 0)
		text = NULL;
	fprintf(stderr, "gatewayctl: %s\n", text ? print_clean(text) : "memory is out");
}

/* The refusal for people: what it is, then each fault and where it stands. */
static void say_problem(const struct client_answer *answer)
{
	const json_t *problem = answer->json, *fault, *faults = json_object_get(problem, "errors");
	const char *detail = print_text(problem, "detail"), *title = print_text(problem, "title");
	size_t i;

	if (json_array_size(faults) > 0) /* of which detail has the first */
		detail = "";
	ctl_say("%s%s%s (%ld)", *title ? title : "the gateway refused", *detail ? ": " : "", detail, answer->status);
	json_array_foreach(faults, i, fault)
	{
		const char *pointer = print_text(fault, "pointer"), *what = print_text(fault, "detail");

		ctl_say("  %s%s%s", pointer, *pointer ? ": " : "", what);
	}
	if (print_number(problem, "errors_not_shown") > 0)
		ctl_say("  and %.0f more", print_number(problem, "errors_not_shown"));
	if (answer->status == 401)
		ctl_say("  a token is given with --token-file or $GATEWAYCTL_TOKEN");
}

int ctl_ask(struct ctl *ctl, const char *method, const char *path, json_t *body, const char *if_match,
        struct client_answer *ret)
{
	int r = client_ask(ctl->client, method, path, body, if_match, ret);

	if (r == -ENOMEM)
		ctl_say("memory is out");
	else if (r == -EMSGSIZE)
		ctl_say("the answer is too long");
	else if (r < 0)
		ctl_say("no answer from %s: %s", client_where(ctl->client), client_words(ctl->client));
	if (r < 0)
		return r == -EHOSTUNREACH ? CTL_UNREACHABLE : CTL_REFUSED;
	if (ret->status >= 200 && ret->status < 300)
		return CTL_OK;
	say_problem(ret);
	client_answer_clear(ret);
	return CTL_REFUSED;
}

int ctl_get(struct ctl *ctl, const char *path, json_t **ret)
{
	_cleanup_answer_ struct client_answer answer = { 0 };
	int code = ctl_ask(ctl, "GET", path, NULL, NULL, &answer);

	if (code != CTL_OK)
		return code;
	if (!answer.json) {
		ctl_say("%s%s is no JSON document", client_where(ctl->client), path);
		return CTL_REFUSED;
	}
	*ret = TAKE_PTR(answer.json);
	return CTL_OK;
}

void ctl_say_written(const struct client_answer *answer)
{
	for (size_t i = 0; i < answer->n_warnings; i++)
		ctl_say("warning: %s", answer->warnings[i]);
	if (answer->deadline)
		ctl_say("will be taken back at %s unless: gatewayctl confirm %s", answer->deadline,
		        answer->revision ? answer->revision : "");
}

bool ctl_may(const struct ctl *ctl, const char *question)
{
	char line[16] = "";

	if (ctl->args.option[OPTION_yes] || !isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
		return true;
	fprintf(stderr, "%s [y/N] ", question);
	return fgets(line, sizeof(line), stdin) && (line[0] == 'y' || line[0] == 'Y');
}

const char *ctl_socket(const struct ctl *ctl)
{
	const char *given = ctl->args.option[OPTION_socket], *usual = getenv("GATEWAYCTL_SOCKET");

	return given ? given : usual ? usual : SOCKET_DEFAULT;
}

const char *ctl_url(const struct ctl *ctl)
{
	const char *given = ctl->args.option[OPTION_url];

	/* A socket on the command line goes before an address that is only in the environment. */
	return given || ctl->args.option[OPTION_socket] ? given : getenv("GATEWAYCTL_URL");
}

/* Prefixes are the only names with a slash, which stands in paths as it is. */
static int put_segments(struct ctl *ctl, FILE *out, const char *word)
{
	size_t length = strcspn(word, "/");
	_cleanup_free_ char *segment = strndup(word, length);
	_cleanup_free_ char *escaped = segment ? client_escape(ctl->client, segment) : NULL;

	if (!escaped)
		return -ENOMEM;
	fprintf(out, "/%s", escaped);
	return word[length] ? put_segments(ctl, out, word + length + 1) : 0;
}

char *ctl_path(struct ctl *ctl, const char *first, ...)
{
	char *path = NULL;
	size_t length;
	FILE *out = open_memstream(&path, &length);
	bool failed = false;
	va_list segments;

	if (!out)
		return NULL;
	fputs(API, out);
	va_start(segments, first);
	for (const char *segment = first; segment; segment = va_arg(segments, const char *))
		failed |= put_segments(ctl, out, segment) < 0;
	va_end(segments);
	if (fclose(out) != 0 || failed) {
		free(path);
		ctl_say("memory is out");
		return NULL;
	}
	return path;
}

/* The cursor is a name, or a number that the query calls "before". */
int ctl_list(struct ctl *ctl, const char *resource, uint64_t most, json_t **ret)
{
	_cleanup_free_ char *path = ctl_path(ctl, resource, NULL);
	_cleanup_json_ json_t *all = json_array();
	_cleanup_free_ char *next = NULL;
	int code = path && all ? CTL_OK : CTL_REFUSED;

	while (code == CTL_OK && json_array_size(all) < most) {
		_cleanup_json_ json_t *page = NULL;
		_cleanup_free_ char *query = NULL;
		json_t *cursor;

		if (asprintf(&query, "%s%s%s", path, next ? "?" : "", next ? next : "") < 0)
			query = NULL;
		code = query ? ctl_get(ctl, query, &page) : CTL_REFUSED;
		if (code != CTL_OK)
			break;
		if (!json_object_get(page, "items")) { /* no list: one document */
			*ret = TAKE_PTR(page);
			return CTL_OK;
		}
		json_array_extend(all, json_object_get(page, "items"));
		cursor = json_object_get(page, "next");
		free(TAKE_PTR(next));
		if (json_is_integer(cursor)) {
			if (asprintf(&next, "limit=1000&before=%lld", (long long)json_integer_value(cursor)) < 0)
				next = NULL;
		} else if (json_is_string(cursor)) {
			if (asprintf(&next, "limit=1000&after=%s", json_string_value(cursor)) < 0)
				next = NULL;
		}
		if (!next)
			break;
	}
	if (code == CTL_OK)
		*ret = TAKE_PTR(all);
	return code;
}
