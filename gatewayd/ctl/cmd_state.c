/* status, doctor, explain: how it is, and why. */
#include <stdio.h>
#include <string.h>

#include "gatewayd/ctl/ctl.h"
#include "gatewayd/ctl/packet.h"
#include "gatewayd/ctl/print.h"

/* --- status --- */

static void line(const char *what, const char *value)
{
	printf("%-12s%s\n", what, value);
}

static void print_findings(const json_t *status)
{
	const json_t *item;
	size_t i;

	json_array_foreach(json_object_get(status, "warnings"), i, item)
	{
		printf("warning     %s: %s\n", print_text(item, "code"), print_text(item, "detail"));
	}
	json_array_foreach(print_find(status, "upstreams.not_up"), i, item)
	{
		printf("upstream    %s is %s: %.0f of %.0f targets usable; gatewayctl targets %s\n",
		        print_text(item, "name"), print_text(item, "state"), print_number(item, "usable"),
		        print_number(item, "targets"), print_text(item, "name"));
	}
	json_array_foreach(json_object_get(status, "prefilters"), i, item)
	{
		if (strcmp(print_text(item, "state"), "failed") == 0 ||
		        strcmp(print_text(item, "state"), "waiting") == 0)
			printf("prefilter   %s is not in force: %s\n", print_text(item, "interface"),
			        print_text(item, "why"));
	}
	json_array_foreach(json_object_get(status, "waiting"), i, item)
	{
		printf("waiting     listener %s for interface %s\n", print_text(item, "listener"),
		        print_text(item, "interface"));
	}
}

static void print_pending(const json_t *pending)
{
	if (json_is_object(pending))
		printf("pending     revision %.0f goes back to %.0f at %s unless confirmed\n",
		        print_number(pending, "revision"), print_number(pending, "base"),
		        print_text(pending, "deadline"));
}

static void print_status(const json_t *status)
{
	char uptime[PRINT_UNIT_BYTES], relay[PRINT_UNIT_BYTES];

	line("version", print_text(status, "version"));
	line("ready", json_is_true(json_object_get(status, "ready")) ? "yes" : "NO");
	line("uptime", print_duration(print_number(status, "uptime_s"), uptime));
	printf("revision    %.0f (nft %.0f, routing %.0f, relay %.0f)\n", print_number(status, "revision"),
	        print_number(status, "applied.nft"), print_number(status, "applied.routing"),
	        print_number(status, "applied.relay"));
	printf("relay       %s, process %.0f, up %s, restarts %.0f, flows %.0f, of them kept %.0f%s\n",
	        print_text(status, "relay.state"), print_number(status, "relay.pid"),
	        print_duration(print_number(status, "relay.uptime_s"), relay), print_number(status, "relay.restarts"),
	        print_number(status, "relay.flows"), print_number(status, "relay.kept.flows"),
	        json_is_true(print_find(status, "relay.overloaded")) ? ", OVERLOADED" : "");
	printf("drift       %s, put right %.0f times\n", print_text(status, "drift.state"),
	        print_number(status, "drift.healed"));
	print_pending(json_object_get(status, "pending"));
	print_findings(status);
}

int ctl_status(struct ctl *ctl)
{
	_cleanup_json_ json_t *status = NULL;
	int code = ctl_get(ctl, "/api/v1/status", &status);

	if (code != CTL_OK)
		return code;
	if (ctl->json)
		print_json(status);
	else
		print_status(status);
	return json_is_true(json_object_get(status, "ready")) &&
	                       json_array_size(json_object_get(status, "warnings")) == 0 &&
	                       json_array_size(print_find(status, "upstreams.not_up")) == 0
	               ? CTL_OK
	               : CTL_ATTENTION;
}

/* --- doctor --- */

int ctl_doctor(struct ctl *ctl)
{
	_cleanup_json_ json_t *document = NULL;
	const json_t *check;
	size_t i, bad = 0;
	int code = ctl_get(ctl, "/api/v1/doctor", &document);

	if (code != CTL_OK)
		return code;
	json_array_foreach(json_object_get(document, "checks"), i, check)
	{
		bool ok = json_is_true(json_object_get(check, "ok"));

		bad += !ok;
		if (ctl->json)
			continue;
		printf("%-5s %-20s %s\n", ok ? "ok" : "FAULT", print_text(check, "name"), print_text(check, "detail"));
		if (!ok && *print_text(check, "fix"))
			printf("      %-20s mend it: %s\n", "", print_text(check, "fix"));
	}
	if (ctl->json)
		print_json(document);
	else
		printf("%zu of %zu checks found a fault\n", bad, i);
	return bad > 0 ? CTL_ATTENTION : CTL_OK;
}

/* --- explain --- */

/* Targets that the flow is not given. */
static void print_left_out(const json_t *targets)
{
	const json_t *target;
	size_t i;

	json_array_foreach(targets, i, target)
	{
		char place[PRINT_PLACE_BYTES];

		printf("%-12s %-12s ", "", "not");
		printf("%s: %s\n", print_place(target, place), print_text(target, "state"));
	}
}

static void print_stages(const json_t *answer)
{
	const json_t *stage;
	size_t i;

	json_array_foreach(json_object_get(answer, "stages"), i, stage)
	{
		printf("%-12s %-12s %s\n", print_text(stage, "stage"), print_text(stage, "verdict"),
		        print_text(stage, "why"));
		print_left_out(json_object_get(stage, "left_out"));
	}
	printf("%-12s %s\n", "=>", print_text(answer, "verdict"));
}

int ctl_explain(struct ctl *ctl)
{
	_cleanup_answer_ struct client_answer answer = { 0 };
	_cleanup_json_ json_t *packet = packet_of(&ctl->args);
	int code;

	if (!packet)
		return CTL_USAGE;
	code = ctl_ask(ctl, "POST", "/api/v1/explain", packet, NULL, &answer);
	if (code != CTL_OK)
		return code;
	if (ctl->json)
		print_json(answer.json);
	else
		print_stages(answer.json);
	return CTL_OK;
}
