/* flows: who talks to whom, and the end of it. */
#include <stdio.h>
#include <string.h>

#include "gatewayd/ctl/ctl.h"
#include "gatewayd/ctl/flows.h"
#include "gatewayd/ctl/print.h"

/* Most flows that one "flows kill" with filters ends: more is a matter of the configuration. */
#define KILL_MAX 1000

static const struct {
	enum option option;
	const char *parameter;
} filters[] = {
	{ OPTION_sort, "sort" },
	{ OPTION_group, "group" },
	{ OPTION_client, "client" },
	{ OPTION_listener, "listener" },
	{ OPTION_upstream, "upstream" },
	{ OPTION_target, "target" },
	{ OPTION_sni, "sni" },
	{ OPTION_protocol, "protocol" },
};

/* The path with all that was asked for, new. NULL: memory is out. */
static char *query(struct ctl *ctl, uint64_t limit)
{
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	if (!out)
		return NULL;
	fprintf(out, "/api/v1/flows?limit=%llu", (unsigned long long)limit);
	for (size_t i = 0; i < ARRAY_SIZE(filters); i++) {
		const char *value = ctl->args.option[filters[i].option];
		_cleanup_free_ char *escaped = value ? client_escape(ctl->client, value) : NULL;

		if (escaped)
			fprintf(out, "&%s=%s", filters[i].parameter, escaped);
	}
	if (ctl->args.option[OPTION_ended])
		fputs("&include=ended", out);
	fclose(out);
	return text;
}

void flows_print(FILE *out, const json_t *items)
{
	struct print_table table;
	const json_t *flow;
	size_t i;

	print_begin(
	        &table, out, "ID PROTO CLIENT ORIGINAL TARGET LISTENER >AGE >SENT >RECEIVED >RTT_MS MOVER LIMIT SNI");
	json_array_foreach(items, i, flow)
	{
		char text[3][PRINT_PLACE_BYTES], age[PRINT_UNIT_BYTES], sent[PRINT_UNIT_BYTES],
		        received[PRINT_UNIT_BYTES];

		print_cell(&table, "%s", print_text(flow, "id"));
		print_cell(&table, "%s", print_text(flow, "protocol"));
		print_cell(&table, "%s", print_place(json_object_get(flow, "client"), text[0]));
		print_cell(&table, "%s", print_place(json_object_get(flow, "original"), text[1]));
		print_cell(&table, "%s", print_place(json_object_get(flow, "target"), text[2]));
		print_cell(&table, "%s", *print_text(flow, "listener") ? print_text(flow, "listener") : "-");
		print_cell(&table, "%s", print_duration(print_number(flow, "age_ms") / 1000, age));
		print_cell(&table, "%s", print_amount(print_number(flow, "to_target.bytes"), sent));
		print_cell(&table, "%s", print_amount(print_number(flow, "to_client.bytes"), received));
		if (json_is_object(json_object_get(flow, "target_tcp")))
			print_cell(&table, "%.1f", print_number(flow, "target_tcp.rtt_us") / 1000);
		else
			print_cell(&table, "-");
		print_cell(&table, "%s", print_text(flow, "to_target.mover"));
		print_cell(&table, "%s",
		        json_is_object(json_object_get(flow, "shaping")) ? print_text(flow, "shaping.rate_limit")
		                                                         : "-");
		print_cell(&table, "%s", *print_text(flow, "sni") ? print_text(flow, "sni") : "-");
	}
	print_end(&table);
}

/* Sums: whatever the group has, the name first. ended: of those that have ended too. */
static void print_groups(const json_t *items, bool ended)
{
	struct print_table table;
	const json_t *group;
	size_t i;

	print_begin(&table, stdout,
	        ended ? "GROUP >FLOWS >ENDED >REFUSED >SENT >RECEIVED LAST_SEEN" : "GROUP >FLOWS >SENT >RECEIVED");
	json_array_foreach(items, i, group)
	{
		_cleanup_free_ char *name = print_value(json_object_get(group, "group"));
		char sent[PRINT_UNIT_BYTES], received[PRINT_UNIT_BYTES];

		print_cell(&table, "%s", name ? name : "?");
		print_cell(&table, "%.0f", print_number(group, "flows"));
		if (ended) {
			print_cell(&table, "%.0f", print_number(group, "ended"));
			print_cell(&table, "%.0f", print_number(group, "refused"));
		}
		print_cell(&table, "%s", print_amount(print_number(group, "bytes_to_target"), sent));
		print_cell(&table, "%s", print_amount(print_number(group, "bytes_to_client"), received));
		if (ended)
			print_cell(&table, "%s", print_text(group, "last_seen"));
	}
	print_end(&table);
}

static int list(struct ctl *ctl, uint64_t limit, json_t **ret)
{
	_cleanup_free_ char *path = query(ctl, limit);

	return path ? ctl_get(ctl, path, ret) : CTL_REFUSED;
}

/* Ends one flow. One that has ended meanwhile is no fault of a command for many. */
static int kill_one(struct ctl *ctl, const char *id)
{
	_cleanup_answer_ struct client_answer answer = { 0 };
	_cleanup_free_ char *path = ctl_path(ctl, "flows", id, NULL);

	return path ? ctl_ask(ctl, "DELETE", path, NULL, NULL, &answer) : CTL_REFUSED;
}

static bool has_filter(const struct args *args)
{
	return args->option[OPTION_client] || args->option[OPTION_listener] || args->option[OPTION_upstream] ||
	       args->option[OPTION_target] || args->option[OPTION_sni] || args->option[OPTION_protocol];
}

static int kill_filtered(struct ctl *ctl)
{
	_cleanup_json_ json_t *document = NULL;
	const json_t *items, *flow;
	char question[80];
	uint64_t limit;
	size_t i, n = 0, found;
	int code;

	if (args_number(&ctl->args, OPTION_limit, 1, KILL_MAX, KILL_MAX, &limit) < 0)
		return CTL_USAGE;
	code = list(ctl, limit, &document);
	if (code != CTL_OK)
		return code;
	items = json_object_get(document, "items");
	found = json_array_size(items);
	snprintf(question, sizeof(question), "End %zu flow%s?", found, found == 1 ? "" : "s");
	if (found > 0 && !ctl_may(ctl, question))
		return CTL_REFUSED;
	json_array_foreach(items, i, flow)
	{
		n += kill_one(ctl, print_text(flow, "id")) == CTL_OK;
	}
	printf("%zu flow%s ended\n", n, n == 1 ? "" : "s");
	return CTL_OK;
}

static int kill_flows(struct ctl *ctl)
{
	int code = CTL_OK;

	if (ctl->args.n_words == 1 && has_filter(&ctl->args))
		return kill_filtered(ctl);
	if (ctl->args.n_words == 1) {
		ctl_say("which flows? their ids, or a filter such as --client");
		return CTL_USAGE;
	}
	for (size_t i = 1; i < ctl->args.n_words; i++) {
		int one = kill_one(ctl, ctl->args.words[i]);

		code = one == CTL_OK ? code : one;
		if (one == CTL_UNREACHABLE)
			break;
	}
	return code;
}

int ctl_flows(struct ctl *ctl)
{
	_cleanup_json_ json_t *document = NULL;
	uint64_t limit;
	int code;

	if (ctl->args.n_words > 0 && strcmp(ctl->args.words[0], "kill") == 0)
		return kill_flows(ctl);
	if (ctl->args.n_words > 0) {
		ctl_say("usage: gatewayctl flows %s", ctl->args.command->usage);
		return CTL_USAGE;
	}
	if (args_number(&ctl->args, OPTION_limit, 1, 1000, 50, &limit) < 0)
		return CTL_USAGE;
	code = list(ctl, limit, &document);
	if (code != CTL_OK)
		return code;
	if (ctl->json)
		print_json(document);
	else if (ctl->args.option[OPTION_group])
		print_groups(json_object_get(document, "items"), ctl->args.option[OPTION_ended] != NULL);
	else
		flows_print(stdout, json_object_get(document, "items"));
	return CTL_OK;
}
