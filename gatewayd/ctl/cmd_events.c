/* events: what happens, as it happens; goes on where it was when the stream or the daemon ends. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "gatewayd/ctl/ctl.h"
#include "gatewayd/ctl/print.h"

#define ID_BYTES   32
#define TYPE_BYTES 32

struct reader {
	struct ctl *ctl;
	char id[ID_BYTES], type[TYPE_BYTES];
	uint64_t left; /* events still to be shown; 0: without end */
	bool finished;
};

static void show_people(const struct reader *reader, const json_t *data)
{
	time_t now = time(NULL);
	struct tm local;
	char clock[16];
	const json_t *value;
	const char *key;

	strftime(clock, sizeof(clock), "%H:%M:%S", localtime_r(&now, &local));
	printf("%s %-12s", clock, reader->type);
	json_object_foreach((json_t *)data, key, value)
	{
		_cleanup_free_ char *text = print_value(value);

		printf(" %s=%s", key, text ? print_clean(text) : "?");
	}
	putchar('\n');
}

static void show(struct reader *reader, const char *text)
{
	_cleanup_json_ json_t *data = json_loads(text, 0, NULL);

	if (!reader->ctl->json) {
		show_people(reader, data);
	} else {
		_cleanup_json_ json_t *event =
		        json_pack("{s:s, s:s, s:O?}", "id", reader->id, "type", reader->type, "data", data);

		json_dumpf(event, stdout, JSON_COMPACT);
		putchar('\n');
	}
	/* Whoever reads a pipe wants it now. */
	reader->finished = fflush(stdout) != 0;
	if (reader->left > 0 && --reader->left == 0)
		reader->finished = true;
}

static bool on_line(void *userdata, const char *line)
{
	struct reader *reader = userdata;

	if (strncmp(line, "id: ", 4) == 0)
		snprintf(reader->id, sizeof(reader->id), "%s", line + 4);
	else if (strncmp(line, "event: ", 7) == 0)
		snprintf(reader->type, sizeof(reader->type), "%s", line + 7);
	else if (strncmp(line, "data: ", 6) == 0)
		show(reader, line + 6);
	return !reader->finished;
}

/* One stream, to its end. CTL_OK: ask again. */
static int follow(struct reader *reader, const char *path, bool *ret_answered)
{
	_cleanup_answer_ struct client_answer refusal = { 0 };
	struct client *client = reader->ctl->client;
	int r = client_follow(client, path, *reader->id ? reader->id : NULL, STDOUT_FILENO, on_line, reader, &refusal);

	if (r == -EPIPE) {
		reader->finished = true;
		return CTL_OK;
	}
	if (r == -EPERM) {
		ctl_say("%s (%ld)", print_text(refusal.json, "detail"), refusal.status);
		return CTL_REFUSED;
	}
	if (r == -EHOSTUNREACH && !*ret_answered) {
		ctl_say("no answer from %s: %s", client_where(client), client_words(client));
		return CTL_UNREACHABLE;
	}
	if (r == -ENOMEM || r == -EMSGSIZE) {
		ctl_say("an event is too long, or memory is out");
		return CTL_REFUSED;
	}
	if (r == -EHOSTUNREACH && !reader->finished)
		sleep(1);
	*ret_answered = true;
	return CTL_OK;
}

int ctl_events(struct ctl *ctl)
{
	const char *types = ctl->args.option[OPTION_types], *after = ctl->args.option[OPTION_after];
	_cleanup_free_ char *escaped = types ? client_escape(ctl->client, types) : NULL, *path = NULL;
	struct reader reader = { .ctl = ctl };
	bool answered = false;
	int code = CTL_OK;

	if (args_number(&ctl->args, OPTION_count, 1, UINT64_MAX - 1, 0, &reader.left) < 0)
		return CTL_USAGE;
	if (asprintf(&path, "/api/v1/events%s%s", escaped ? "?types=" : "", escaped ? escaped : "") < 0)
		return CTL_REFUSED;
	if (after)
		snprintf(reader.id, sizeof(reader.id), "%s", after);
	while (code == CTL_OK && !reader.finished)
		code = follow(&reader, path, &answered);
	return code;
}
