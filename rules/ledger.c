/* Names and texts of the ledger; see ledger.h. */
#include "rules/ledger.h"

#include <assert.h>

#include "gatewayd/base/cleanup.h"
#include "rules/render_nft.h"

static const struct {
	const char *name, *doc;
	enum ledger_part part;
} outcomes[] = {
#define LEDGER(name, part, doc) { #name, doc, LEDGER_##part },
#include "rules/ledger.def"
#undef LEDGER
};
static_assert(ARRAY_SIZE(outcomes) == LEDGER_OUTCOMES, "one row each");

const char *ledger_name(enum ledger_outcome outcome)
{
	return outcomes[outcome].name;
}

const char *ledger_doc(enum ledger_outcome outcome)
{
	return outcomes[outcome].doc;
}

enum ledger_part ledger_part(enum ledger_outcome outcome)
{
	return outcomes[outcome].part;
}

void ledger_put_count(FILE *out, enum ledger_outcome outcome)
{
	fprintf(out, "add @" LEDGER_SET " { iifname . 0x%08x counter }", (unsigned)outcome);
}

void ledger_put_set(FILE *out)
{
	fprintf(out, "{ type ifname . mark; size %d; flags dynamic; }", LEDGER_INTERFACES_MAX * (int)LEDGER_IN_TABLE);
}

void ledger_put_forget(FILE *out, const struct ledger_counts *counts)
{
	const char *comma = "";

	fputs("delete element inet " NFT_TABLE " " LEDGER_SET " { ", out);
	for (unsigned i = 0; i < LEDGER_IN_TABLE; i++)
		if (counts->outcome[i].packets) {
			fprintf(out, "%s\"%s\" . 0x%08x", comma, counts->interface, i);
			comma = ", ";
		}
	fputs(" }\n", out);
}
