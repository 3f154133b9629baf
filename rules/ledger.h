/*
 * The ledger: what became of each packet that came in by an interface, counted
 * in the kernel by interface and outcome. render_chains.c and limits_text.c
 * write the rules that count, kernel_ledger.c reads what they counted;
 * docs/ledger.md says what must add up to what.
 */
#ifndef GW_RULES_LEDGER_H
#define GW_RULES_LEDGER_H

#include <net/if.h>
#include <stdint.h>
#include <stdio.h>

#define LEDGER_SET "ledger"
/* Interfaces that have a place in the set, with all that can become of their packets. */
#define LEDGER_INTERFACES_MAX 256

enum ledger_outcome {
#define LEDGER(name, part, doc) LEDGER_##name,
#include "rules/ledger.def"
#undef LEDGER
	LEDGER_OUTCOMES
};

/* How many of these our table counts; the others, the program of the short cut. */
#define LEDGER_IN_TABLE LEDGER_shortcut_udp

enum ledger_part { LEDGER_IN, LEDGER_ENDED, LEDGER_PASSED, LEDGER_FATE };

/* The outcome's name in the API, what it means, and which part of the ledger it belongs to. */
const char *ledger_name(enum ledger_outcome outcome);
const char *ledger_doc(enum ledger_outcome outcome);
enum ledger_part ledger_part(enum ledger_outcome outcome);

struct ledger_count {
	uint64_t packets, bytes;
};

/* One interface. */
struct ledger_counts {
	char interface[IFNAMSIZ];
	struct ledger_count outcome[LEDGER_OUTCOMES];
};

/* The statement that counts. It must be a rule of its own, for one that finds no place in the set ends its rule. */
void ledger_put_count(FILE *out, enum ledger_outcome outcome);
/* The set's declaration, after "add set TABLE NAME". */
void ledger_put_set(FILE *out);
/* A command that forgets what was counted of an interface, in all outcomes that are not 0. */
void ledger_put_forget(FILE *out, const struct ledger_counts *counts);

#endif
