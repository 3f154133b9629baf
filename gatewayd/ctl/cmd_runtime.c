/* drain, ban, unban: what an operator does at night. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "gatewayd/ctl/ctl.h"
#include "gatewayd/ctl/print.h"

int ctl_drain(struct ctl *ctl)
{
	const char *state = ctl->args.option[OPTION_undo] ? NULL : ctl->args.option[OPTION_down] ? "down" : "drain";
	_cleanup_free_ char *path = ctl_path(ctl, "upstreams", ctl->args.words[0], "targets", ctl->args.words[1], NULL);
	_cleanup_json_ json_t *patch = json_pack("{s:s?}", "admin_state", state);
	_cleanup_answer_ struct client_answer answer = { 0 };
	_cleanup_free_ char *query = NULL;
	uint64_t seconds;
	int code;

	if (args_number(&ctl->args, OPTION_confirm_within, 1, 86400, 0, &seconds) < 0)
		return CTL_USAGE;
	if (!path || asprintf(&query, seconds ? "%s?confirm_within=%llu" : "%s", path, (unsigned long long)seconds) < 0)
		return CTL_REFUSED;
	code = ctl_ask(ctl, "PATCH", query, patch, NULL, &answer);
	if (code != CTL_OK)
		return code;
	ctl_say_written(&answer);
	if (ctl->json)
		print_json(answer.json);
	else
		printf("%s of %s: %s\n", ctl->args.words[1], ctl->args.words[0],
		        print_text(answer.json, "admin_state"));
	return CTL_OK;
}

int ctl_ban(struct ctl *ctl)
{
	_cleanup_json_ json_t *ban = json_pack("{s:s}", "address", ctl->args.words[0]);
	const char *reason = ctl->args.option[OPTION_reason];
	_cleanup_answer_ struct client_answer answer = { 0 };
	uint64_t seconds;
	int code;

	if (args_number(&ctl->args, OPTION_period, 1, INT32_MAX, 0, &seconds) < 0)
		return CTL_USAGE;
	if (reason)
		json_object_set_new(ban, "reason", json_string(reason));
	if (seconds > 0)
		json_object_set_new(ban, "ban_s", json_integer((json_int_t)seconds));
	code = ctl_ask(ctl, "POST", "/api/v1/bans", ban, NULL, &answer);
	if (code != CTL_OK)
		return code;
	if (ctl->json)
		print_json(answer.json);
	else
		printf("%s is banned\n", ctl->args.words[0]);
	return CTL_OK;
}

int ctl_unban(struct ctl *ctl)
{
	_cleanup_free_ char *path = ctl_path(ctl, "bans", ctl->args.words[0], NULL);
	_cleanup_answer_ struct client_answer answer = { 0 };
	int code = path ? ctl_ask(ctl, "DELETE", path, NULL, NULL, &answer) : CTL_REFUSED;

	if (code == CTL_OK && !ctl->json)
		printf("%s is not banned any more\n", ctl->args.words[0]);
	return code;
}
