/* trace: what real packets of a flow meet, as they come. */
#include <stdio.h>
#include <time.h>

#include "gatewayd/ctl/ctl.h"
#include "gatewayd/ctl/packet.h"
#include "gatewayd/ctl/print.h"

#define LOOK_MS 250

static void print_step(const json_t *step)
{
	const char *listener = print_text(step, "listener"), *rule = print_text(step, "rule"),
	           *reason = print_text(step, "reason");

	printf("  %-16s %-20s %-8s %s%s%s%s", print_text(step, "table"), print_text(step, "chain"),
	        print_text(step, "verdict"), print_text(step, "to"), *rule ? "  " : "", rule, reason);
	printf(*listener ? "  (listener %s)\n" : "\n", listener);
}

static void print_packet(const json_t *packet)
{
	const char *limit = print_text(packet, "limit"), *listener = print_text(packet, "listener");
	const json_t *step;
	size_t i;

	printf("%s %s %s port %.0f -> %s port %.0f %s in at %s: %s%s%s%s%s\n", print_text(packet, "at"),
	        print_text(packet, "protocol"), print_text(packet, "source"), print_number(packet, "source_port"),
	        print_text(packet, "destination"), print_number(packet, "destination_port"),
	        print_text(packet, "flags"), print_text(packet, "interface"), print_text(packet, "verdict"),
	        *listener ? ", listener " : "", listener, *limit ? ", rate limit " : "", limit);
	json_array_foreach(json_object_get(packet, "steps"), i, step)
	{
		print_step(step);
	}
}

/* Shows those behind the first `shown`; how many there are. */
static size_t show_packets(const struct ctl *ctl, const json_t *trace, size_t shown)
{
	const json_t *packets = json_object_get(trace, "packets");
	size_t n = json_array_size(packets);

	for (; shown < n; shown++) {
		const json_t *packet = json_array_get(packets, shown);

		if (ctl->json) {
			json_dumpf(packet, stdout, JSON_COMPACT);
			putchar('\n');
		} else {
			print_packet(packet);
		}
	}
	(void)fflush(stdout);
	return n;
}

/* Until it is over. */
static int follow(struct ctl *ctl, const char *path)
{
	static const struct timespec pause = { .tv_nsec = LOOK_MS * 1000000L };
	size_t shown = 0;

	for (;;) {
		_cleanup_json_ json_t *trace = NULL;
		int code = ctl_get(ctl, path, &trace);

		if (code != CTL_OK)
			return code;
		shown = show_packets(ctl, trace, shown);
		if (*print_text(trace, "why")) {
			if (!ctl->json)
				printf("%zu packet%s; over: %s\n", shown, shown == 1 ? "" : "s",
				        print_text(trace, "why"));
			return CTL_OK;
		}
		nanosleep(&pause, NULL);
	}
}

int ctl_trace(struct ctl *ctl)
{
	_cleanup_answer_ struct client_answer answer = { 0 };
	_cleanup_json_ json_t *order = NULL;
	uint64_t seconds = 0, packets = 0;
	int code;

	if (args_number(&ctl->args, OPTION_period, 1, INT32_MAX, 0, &seconds) < 0 ||
	        args_number(&ctl->args, OPTION_count, 1, INT32_MAX, 0, &packets) < 0)
		return CTL_USAGE;
	order = packet_of(&ctl->args);
	if (!order)
		return CTL_USAGE;
	if (seconds)
		json_object_set_new(order, "seconds", json_integer((json_int_t)seconds));
	if (packets)
		json_object_set_new(order, "packets", json_integer((json_int_t)packets));
	code = ctl_ask(ctl, "POST", "/api/v1/trace", order, NULL, &answer);
	return code == CTL_OK ? follow(ctl, answer.location) : code;
}
