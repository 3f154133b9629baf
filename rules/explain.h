/*
 * What would happen to a packet, and why: the stages that it meets, from the
 * model that the kernel's sets were made of, the rows of the configuration and
 * what the caller has found out about the kernel's state. Pure, and changes
 * nothing: the choice between targets is told as those that may be chosen, for
 * the next turn of the rotation is the relay's alone.
 */
#ifndef GW_RULES_EXPLAIN_H
#define GW_RULES_EXPLAIN_H

#include <jansson.h>

#include "gatewayd/base/first.h"
#include "rules/plan.h"
#include "rules/trace.h"

/* What the prefilter of the interface says. */
struct explain_prefilter {
	enum {
		EXPLAIN_PREFILTER_NONE,
		EXPLAIN_PREFILTER_PASS,
		EXPLAIN_PREFILTER_DROP,
		EXPLAIN_PREFILTER_COOKIE, /* answers it; what follows holds for the ACK that brings the cookie back */
		EXPLAIN_PREFILTER_UNKNOWN
	} verdict;
	const char *reason; /* of PASS, DROP and COOKIE: its word (prefilter_reason.def) */
	const char *limit;  /* the rate limit that the packet is over; NULL: none */
};

/* An element of a set in the kernel. */
struct explain_element {
	char set[LIMITS_NAME_MAX];
	struct prefix prefix;
	int64_t left_ms; /* -1: without end */
};

/* What is observed of a target, and what operators say of it. */
struct explain_target {
	bool usable;     /* it gets new flows, as far as its own state goes */
	int64_t weight;  /* in force */
	char state[192]; /* why it is so, in words */
};

struct explain_facts {
	const struct model *model;
	const struct snapshot *snapshot;
	bool destination_is_local; /* an address of the gateway's own, a broadcast or multicast one */
	const char *no_interface;  /* the packet's interface, if there is none of that name now; else NULL */
	bool gate_open, relay_runs, routing_right;
	bool ebpf; /* the engine ebpf is at the packet's interface */
	uint32_t table, mark;
	bool forwarding; /* of the packet's family */
	struct explain_prefilter prefilter;
	const struct trace_rules *rules;    /* of our table; NULL: cannot be read */
	const struct explain_element *ban;  /* the first that shuts the source out; NULL: none does */
	const char *ban_reason, *ban_limit; /* "" if they are not known */
	bool ban_exempt;                    /* the source is one that is never banned */
	/* Whether the source is known to a limit, whose name, place and time are then told. */
	bool (*find_source)(void *userdata, const struct rate_limit *limit, struct explain_element *ret);
	void (*look_at_target)(void *userdata, const struct upstream *upstream, const struct target *target,
	        struct explain_target *ret);
	/* The chains of others that judge what is forwarded (kernel_nft_foreign's findings), new; NULL if they cannot
	 * be read. Asked for when a packet is left to the kernel. */
	json_t *(*look_at_foreign)(void *userdata);
	void *userdata;
	const struct first *first; /* what the client is to say first; NULL: that is not said */
};

/* {"verdict", "listener", "stages": [{"stage", "verdict", "why", ...}]} of the first packet of a flow, new. verdict:
 * relay, reject, drop, bypass, direct, forward, local, ban or prefilter. NULL when memory is out. */
json_t *explain_packet(const struct explain_facts *facts, const struct match_packet *packet, uint16_t source_port);

#endif
