/*
 * What a chain of others at the forward hook does with packets that the gateway
 * leaves alone, as far as its rules can be read: pure, over nft's JSON. What
 * only some packets meet (a port, a mark, a set) is left out of account, so
 * this is the fate of a packet that nothing speaks of in particular. Called by
 * rules/kernel_chains.c, which finds the chains, and by those who know which
 * interfaces matter: rules/doctor.c and rules/explain.c.
 */
#ifndef GW_RULES_FORWARD_FATE_H
#define GW_RULES_FORWARD_FATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Rules that are looked at for one packet, each as often as a jump leads to it: chains may jump to others many times
 * over. What comes later is not seen. */
#define FATE_RULES_MAX 10000

/* A finding's `code`. */
#define FATE_CODE "forward_drop"

/* A table's rules by chain, from nft's JSON listing of it: a new object {chain: [expr, ...]}. NULL when memory is out.
 */
json_t *fate_rules(const json_t *listing);

/* Whether the chain of a finding {"chain", "policy", "rules"} drops, or rejects, unless a rule is more particular: the
 * first packet of a flow that comes in at this interface, NULL being one that no rule names. */
bool fate_drops_first(const json_t *finding, const char *interface);
/* The same of the answers, which go out there. */
bool fate_drops_answers(const json_t *finding, const char *interface);
/* Whether a table of this family ("ip", "ip6", "inet") judges packets of an address family. */
bool fate_is_of_family(const json_t *finding, uint8_t family);

#endif
