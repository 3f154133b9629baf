/* The document of GET /stats/ledger, and the same for Prometheus; docs/ledger.md has what must add up to what. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "gatewayd/core.h"
#include "gatewayd/document.h"
#include "gatewayd/ledger.h"
#include "schema/value.h"

/* Interfaces with series of their own, the first by name: some thirty series for one. */
#define METRICS_INTERFACES_MAX 32

static json_t *time_text(int64_t at)
{
	char text[32];

	return json_string(value_time_format(at, text));
}

static json_t *count_document(uint64_t packets, uint64_t bytes)
{
	return json_pack("{s:o, s:o}", "packets", document_number(packets), "bytes", document_number(bytes));
}

static json_t *reasons_document(const struct ledger_link *link)
{
	json_t *object = json_object();
	bool failed = object == NULL;

	for (unsigned i = 0; i < PREFILTER_REASONS; i++)
		document_set(object, shield_reason_name((enum prefilter_reason)i),
		        count_document(link->reasons[i].packets, link->reasons[i].bytes), &failed);
	return document_done(object, failed);
}

static json_t *link_document(const struct ledger_row *row)
{
	const struct ledger_link *link = &row->link;

	if (!link->present)
		return json_null();
	return json_pack("{s:o, s:o, s:o, s:o, s:I, s:o, s:I}", "since", time_text(link->since), "in",
	        count_document(link->in.packets, link->in.bytes), "prefilter",
	        link->filtered ? reasons_document(link) : json_null(), "to_stack", document_number(link->to_stack),
	        "rest", (json_int_t)ledger_rest_link(row), "taken", document_number(link->taken), "not_taken",
	        (json_int_t)(link->to_stack - link->taken));
}

/* The outcomes of some parts. */
static json_t *outcomes_document(const struct ledger_counts *counts, unsigned parts)
{
	json_t *object = json_object();
	bool failed = object == NULL;

	for (unsigned i = 0; i < LEDGER_OUTCOMES; i++)
		if (parts >> ledger_part((enum ledger_outcome)i) & 1)
			document_set(object, ledger_name((enum ledger_outcome)i),
			        count_document(counts->outcome[i].packets, counts->outcome[i].bytes), &failed);
	return document_done(object, failed);
}

static json_t *row_document(const struct ledger_row *row)
{
	const struct ledger_counts *counts = &row->counts;
	json_int_t link = ledger_rest_link(row), stack = ledger_rest_stack(row), passed = ledger_rest_passed(row);

	return json_pack("{s:s, s:I, s:o, s:{s:o, s:o, s:I}, s:{s:o, s:o, s:I}}", "interface", counts->interface,
	        "rest", link + stack + passed, "link", link_document(row), "stack", "in",
	        count_document(counts->outcome[LEDGER_in].packets, counts->outcome[LEDGER_in].bytes), "outcomes",
	        outcomes_document(counts, 1 << LEDGER_ENDED | 1 << LEDGER_PASSED), "rest", stack, "passed_on", "in",
	        document_number(ledger_passed(row)), "outcomes", outcomes_document(counts, 1 << LEDGER_FATE), "rest",
	        passed);
}

/* --- the relay --- */

static const enum stats_counter refusals[] = { STATS_refused_no_listener, STATS_refused_no_target,
	STATS_refused_target_full, STATS_refused_table_full, STATS_refused_no_descriptor, STATS_refused_loop,
	STATS_route_rejected, STATS_proxy_missing, STATS_proxy_malformed, STATS_proxy_timeout, STATS_connect_failed,
	STATS_connect_timeout, STATS_source_ports_exhausted };
static const enum stats_counter datagrams[] = { STATS_datagrams_to_target, STATS_datagrams_to_client, STATS_udp_dropped,
	STATS_udp_malformed, STATS_udp_late_answers };

static json_t *counters_document(struct core *core, const enum stats_counter *which, size_t n)
{
	json_t *object = json_object();
	bool failed = object == NULL;

	for (size_t i = 0; i < n; i++)
		document_set(object, stats_name(which[i]),
		        document_number(stats_sum(worker_stats(core->worker), which[i])), &failed);
	return document_done(object, failed);
}

static json_t *relay_document(struct core *core)
{
	const struct stats_memory *memory = worker_stats(core->worker);

	return json_pack("{s:o, s:o, s:o, s:o}", "flows_opened", document_number(stats_sum(memory, STATS_flows_opened)),
	        "udp_flows_opened", document_number(stats_sum(memory, STATS_udp_flows_opened)), "refused",
	        counters_document(core, refusals, ARRAY_SIZE(refusals)), "datagrams",
	        counters_document(core, datagrams, ARRAY_SIZE(datagrams)));
}

int core_ledger(struct core *core, const char *interface, json_t **ret)
{
	_cleanup_free_ struct ledger_row *rows = NULL;
	json_t *items = json_array(), *document;
	size_t n = 0, omitted = 0;
	bool failed = !items;
	int r = core->ledger ? ledger_look(core->ledger, &rows, &n, &omitted) : 0;

	for (size_t i = 0; r == 0 && i < n && !failed; i++)
		if (!interface || strcmp(rows[i].counts.interface, interface) == 0)
			failed = json_array_append_new(items, row_document(&rows[i])) < 0;
	if (r < 0) {
		json_decref(items);
		return r;
	}
	document = document_done(json_pack("{s:o, s:o, s:I, s:o}", "time", time_text(time(NULL)), "interfaces", items,
	                                 "omitted", (json_int_t)omitted, "relay", relay_document(core)),
	        failed);
	*ret = document;
	return document ? 0 : -ENOMEM;
}

/* --- for Prometheus --- */

static void write_outcomes(FILE *out, const struct ledger_row *rows, size_t n, bool bytes)
{
	const char *unit = bytes ? "bytes" : "packets";

	fprintf(out,
	        "# HELP gateway_ledger_%s_total %s that came in by an interface (outcome in), and what became of them\n"
	        "# TYPE gateway_ledger_%s_total counter\n",
	        unit, unit, unit);
	for (size_t i = 0; i < n; i++)
		for (unsigned k = 0; k < LEDGER_OUTCOMES; k++) {
			const struct ledger_count *count = &rows[i].counts.outcome[k];

			fprintf(out, "gateway_ledger_%s_total{interface=\"%s\",outcome=\"%s\"} %" PRIu64 "\n", unit,
			        rows[i].counts.interface, ledger_name((enum ledger_outcome)k),
			        bytes ? count->bytes : count->packets);
		}
}

static void write_rests(FILE *out, const struct ledger_row *rows, size_t n)
{
	fputs("# HELP gateway_ledger_rest_packets what is not accounted for, in each part of the way\n"
	      "# TYPE gateway_ledger_rest_packets gauge\n",
	        out);
	for (size_t i = 0; i < n; i++) {
		const char *interface = rows[i].counts.interface;

		fprintf(out,
		        "gateway_ledger_rest_packets{interface=\"%s\",part=\"link\"} %" PRId64 "\n"
		        "gateway_ledger_rest_packets{interface=\"%s\",part=\"stack\"} %" PRId64 "\n"
		        "gateway_ledger_rest_packets{interface=\"%s\",part=\"passed_on\"} %" PRId64 "\n",
		        interface, ledger_rest_link(&rows[i]), interface, ledger_rest_stack(&rows[i]), interface,
		        ledger_rest_passed(&rows[i]));
	}
}

void core_ledger_metrics(struct core *core, FILE *out)
{
	_cleanup_free_ struct ledger_row *rows = NULL;
	size_t n = 0, omitted = 0, shown;

	if (!core->ledger || ledger_look(core->ledger, &rows, &n, &omitted) < 0 || n == 0)
		return;
	shown = n < METRICS_INTERFACES_MAX ? n : METRICS_INTERFACES_MAX;
	write_outcomes(out, rows, shown, false);
	write_outcomes(out, rows, shown, true);
	write_rests(out, rows, shown);
	fprintf(out,
	        "# HELP gateway_ledger_omitted_interfaces interfaces beyond those that have series of their own\n"
	        "# TYPE gateway_ledger_omitted_interfaces gauge\ngateway_ledger_omitted_interfaces %zu\n",
	        omitted + n - shown);
}
