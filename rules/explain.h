/*
 * What would happen to a packet, and why: the stages that it meets, from the
 * model that the kernel's sets were made of and the rows of the configuration.
 * Pure, and changes nothing: the choice between targets is told as those that
 * may be chosen, for the next turn of the rotation is the relay's alone.
 */
#ifndef GW_RULES_EXPLAIN_H
#define GW_RULES_EXPLAIN_H

#include <jansson.h>

#include "rules/plan.h"

struct explain_facts {
	const struct model *model;
	const struct snapshot *snapshot;
	bool destination_is_local; /* an address of the gateway's own, a broadcast or multicast one */
	bool gate_open, relay_runs, routing_right;
	uint32_t table, mark;
	bool forwarding; /* of the packet's family */
};

/* {"verdict", "listener", "stages": [{"stage", "verdict", "why", ...}]} of the first packet of a flow, new. verdict:
 * relay, reject, drop, bypass, direct, forward or local. NULL when memory is out. */
json_t *explain_packet(const struct explain_facts *facts, const struct match_packet *packet, uint16_t source_port);

#endif
