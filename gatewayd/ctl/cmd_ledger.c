/* ledger: what became of what came in. */
#include <stdio.h>
#include <string.h>

#include "gatewayd/ctl/ctl.h"
#include "gatewayd/ctl/print.h"

static void put_row(struct print_table *table, const json_t *row, const char *part, const char *what, double packets,
        const char *bytes)
{
	print_cell(table, "%s", print_text(row, "interface"));
	print_cell(table, "%s", part);
	print_cell(table, "%s", what);
	print_cell(table, "%.0f", packets);
	print_cell(table, "%s", bytes);
}

static void put_count(
        struct print_table *table, const json_t *row, const char *part, const char *what, const json_t *count)
{
	char bytes[PRINT_UNIT_BYTES];

	put_row(table, row, part, what, print_number(count, "packets"),
	        print_amount(print_number(count, "bytes"), bytes));
}

/* Those that have counted anything. */
static void put_counts(struct print_table *table, const json_t *row, const char *part, json_t *counts)
{
	const char *name;
	json_t *count;

	json_object_foreach(counts, name, count)
	{
		if (print_number(count, "packets") > 0)
			put_count(table, row, part, name, count);
	}
}

static void put_interface(struct print_table *table, const json_t *row)
{
	const json_t *link = json_object_get(row, "link");

	if (json_is_object(link)) {
		put_count(table, row, "link", "in", json_object_get(link, "in"));
		put_counts(table, row, "link", json_object_get(link, "prefilter"));
		put_row(table, row, "link", "rest", print_number(link, "rest"), "-");
		put_row(table, row, "link", "not_taken", print_number(link, "not_taken"), "-");
	}
	put_count(table, row, "stack", "in", print_find(row, "stack.in"));
	put_counts(table, row, "stack", print_find(row, "stack.outcomes"));
	put_row(table, row, "stack", "rest", print_number(row, "stack.rest"), "-");
	put_row(table, row, "passed_on", "in", print_number(row, "passed_on.in"), "-");
	put_counts(table, row, "passed_on", print_find(row, "passed_on.outcomes"));
	put_row(table, row, "passed_on", "rest", print_number(row, "passed_on.rest"), "-");
}

static void print_ledger(const json_t *document)
{
	struct print_table table;
	const json_t *row;
	const char *name;
	json_t *count;
	size_t i;

	print_begin(&table, stdout, "INTERFACE PART OUTCOME >PACKETS >BYTES");
	json_array_foreach(json_object_get(document, "interfaces"), i, row)
	{
		put_interface(&table, row);
	}
	print_end(&table);
	json_object_foreach(print_find(document, "relay.refused"), name, count)
	{
		if (json_integer_value(count) > 0)
			printf("the relay: %s %" JSON_INTEGER_FORMAT "\n", name, json_integer_value(count));
	}
}

int ctl_ledger(struct ctl *ctl)
{
	const char *interface = ctl->args.n_words > 0 ? ctl->args.words[0] : NULL;
	_cleanup_free_ char *escaped = interface ? client_escape(ctl->client, interface) : NULL, *path = NULL;
	_cleanup_json_ json_t *document = NULL;
	int code;

	if ((interface && !escaped) ||
	        asprintf(&path, "/api/v1/stats/ledger%s%s", escaped ? "?interface=" : "", escaped ? escaped : "") < 0)
		return CTL_REFUSED;
	code = ctl_get(ctl, path, &document);
	if (code != CTL_OK)
		return code;
	if (interface && json_array_size(json_object_get(document, "interfaces")) == 0) {
		ctl_say("there is no interface %s, and none of that name has counted anything", interface);
		return CTL_REFUSED;
	}
	if (ctl->json)
		print_json(document);
	else
		print_ledger(document);
	return CTL_OK;
}
