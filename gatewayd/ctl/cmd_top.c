/* top: rates, the busiest listeners and the biggest flows, again and again. */
#include <stdio.h>
#include <string.h>

#include "gatewayd/ctl/ctl.h"
#include "gatewayd/ctl/flows.h"
#include "gatewayd/ctl/print.h"
#include "gatewayd/ctl/screen.h"

/* Lines of the page that are not flows: head, totals, the listeners with their head, gaps. */
#define LISTENERS_SHOWN 8
#define LINES_OF_HEAD   (LISTENERS_SHOWN + 8)

static void put_totals(FILE *out, const json_t *stats)
{
	char opened[PRINT_UNIT_BYTES], sent[PRINT_UNIT_BYTES], received[PRINT_UNIT_BYTES];

	fprintf(out, "gatewayd  %s   flows %.0f   new/s %s   to targets %sB/s   to clients %sB/s\n\n",
	        print_text(stats, "time"), print_number(stats, "flows_active"),
	        print_amount(print_number(stats, "rates.flows_opened"), opened),
	        print_amount(print_number(stats, "rates.bytes_to_target"), sent),
	        print_amount(print_number(stats, "rates.bytes_to_client"), received));
}

static void put_listeners(FILE *out, const json_t *stats)
{
	struct print_table table;
	const json_t *item;
	size_t i;

	print_begin(&table, out, "LISTENER >FLOWS >NEW/s >TO_TARGETS/s >TO_CLIENTS/s >REFUSED");
	json_array_foreach(json_object_get(stats, "listeners"), i, item)
	{
		char text[3][PRINT_UNIT_BYTES];

		print_cell(&table, "%s", print_text(item, "name"));
		print_cell(&table, "%.0f", print_number(item, "flows_active"));
		print_cell(&table, "%s", print_amount(print_number(item, "rates.flows_opened"), text[0]));
		print_cell(&table, "%s", print_amount(print_number(item, "rates.bytes_to_target"), text[1]));
		print_cell(&table, "%s", print_amount(print_number(item, "rates.bytes_to_client"), text[2]));
		print_cell(&table, "%.0f", print_number(item, "refused"));
	}
	print_end(&table);
	fputc('\n', out);
}

/* One look as text, new. */
static int page(struct ctl *ctl, uint64_t flows, char **ret)
{
	_cleanup_json_ json_t *stats = NULL, *list = NULL;
	_cleanup_free_ char *path = NULL;
	size_t length;
	FILE *out;
	int code = ctl_get(ctl, "/api/v1/stats?limit=8", &stats);

	if (code == CTL_OK && asprintf(&path, "/api/v1/flows?sort=bytes&limit=%llu", (unsigned long long)flows) < 0)
		code = CTL_REFUSED;
	if (code == CTL_OK)
		code = ctl_get(ctl, path, &list);
	if (code != CTL_OK)
		return code;
	out = open_memstream(ret, &length);
	if (!out)
		return CTL_REFUSED;
	put_totals(out, stats);
	put_listeners(out, stats);
	flows_print(out, json_object_get(list, "items"));
	return fclose(out) == 0 ? CTL_OK : CTL_REFUSED;
}

static uint64_t flows_that_fit(uint64_t wanted)
{
	unsigned lines, columns;

	screen_size(&lines, &columns);
	return wanted ? wanted : lines > LINES_OF_HEAD + 5 ? lines - LINES_OF_HEAD : 5;
}

int ctl_top(struct ctl *ctl)
{
	uint64_t interval, count, limit;
	int code = CTL_OK;

	if (args_number(&ctl->args, OPTION_interval, 1, 3600, 1, &interval) < 0 ||
	        args_number(&ctl->args, OPTION_count, 1, UINT32_MAX, 0, &count) < 0 ||
	        args_number(&ctl->args, OPTION_limit, 1, 1000, 0, &limit) < 0)
		return CTL_USAGE;
	if (ctl->json) {
		ctl_say("top is for people; \"gatewayctl get /api/v1/stats\" is its JSON");
		return CTL_USAGE;
	}
	screen_begin();
	for (uint64_t n = 1;; n++) {
		_cleanup_free_ char *text = NULL;

		code = page(ctl, flows_that_fit(limit), &text);
		if (code == CTL_OK)
			screen_show(text);
		if (code != CTL_OK || n == count || screen_wait((double)interval))
			break;
	}
	screen_end();
	return code;
}
