/*
 * What the tracing of packets is made of, pure: the nft text that arms it, the
 * look-up of rules by the handles that the kernel tells, and the words for
 * what became of a packet. Used by gatewayd/tracer.c; rules/kernel_trace.h
 * reads from the kernel what is judged here.
 */
#ifndef GW_RULES_TRACE_H
#define GW_RULES_TRACE_H

#include "gatewayd/base/addr.h"

/* Packets of one trace that the kernel tells about, a second, and at once after a pause: each makes some ten messages.
 */
#define TRACE_PACKETS_PER_S 20
/* Longest name of a chain or table that is kept; ours are shorter (LIMITS_NAME_MAX). */
#define TRACE_NAME_MAX 128
/* Our tables of this kind are called by this and a number. */
#define TRACE_TABLE "gatewayd_trace"

/* The packets of one flow, both ways. */
struct trace_filter {
	uint8_t protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	struct addr src, dst;
	uint16_t src_port, dst_port; /* src_port 0: any */
};

/* A packet as the kernel told it. protocol 0: behind headers that were not read, and the ports with it. */
struct trace_packet {
	uint8_t protocol;
	struct addr src, dst;
	uint16_t src_port, dst_port;
	uint8_t flags; /* TCP's */
	unsigned length;
};

/* nft's text: a table of our own (number tells several apart) that belongs to whoever commits it, and goes with the
 * socket over which that was done; what it arms ends by itself after so many seconds even so. New. -ENOMEM. */
int trace_render(const struct trace_filter *filter, unsigned number, unsigned seconds, char **ret);
enum trace_way { TRACE_NONE, TRACE_TO_SERVER, TRACE_TO_CLIENT };
/* Whether the packet is one of the flow, and which way it goes. */
enum trace_way trace_way_of(const struct trace_filter *filter, const struct trace_packet *packet);
/* The first bytes of network and transport header; transport may be empty. -EBADMSG if they are no IPv4 or IPv6. */
int trace_packet_parse(const uint8_t *network, size_t network_length, const uint8_t *transport, size_t transport_length,
        struct trace_packet *ret);

/* The rules of our table by handle. */
struct trace_rules;
/* From nft's listing with handles ("list ruleset", "# handle N" behind each rule), of which only our table is read.
 * -ENOMEM. */
int trace_rules_parse(const char *listing, struct trace_rules **ret);
void trace_rules_free(struct trace_rules *rules);
/* The rule's text, borrowed; NULL if there is no such rule. */
const char *trace_rules_find(const struct trace_rules *rules, uint64_t handle);
/* The rule of this chain that looks its packet up in a set, and its handle. NULL if there is none. */
const char *trace_rules_lookup(
        const struct trace_rules *rules, const char *chain, const char *set, uint64_t *ret_handle);
/* The name of the set that a rule looks its packet up in, behind its last '@'. False if it does not. */
bool trace_rule_set(const char *rule, char *ret, size_t size);

/* One step of a packet through the tables. */
enum trace_kind { TRACE_RULE, TRACE_RETURN, TRACE_POLICY };
enum trace_verdict {
	TRACE_CONTINUE,
	TRACE_ACCEPT,
	TRACE_DROP,
	TRACE_JUMP,
	TRACE_GOTO,
	TRACE_RETURNED,
	TRACE_OTHER, /* queued, stolen by reject or the like */
};
struct trace_step {
	enum trace_kind kind;
	enum trace_verdict verdict;
	const char *family; /* of the table: "inet", "ip", ... */
	char table[TRACE_NAME_MAX], chain[TRACE_NAME_MAX];
	char to[TRACE_NAME_MAX]; /* of JUMP and GOTO */
	uint64_t handle;         /* of RULE and RETURN */
};
/* "accept", "jump", ... */
const char *trace_verdict_name(enum trace_verdict verdict);
/* Whether the step was in our table. */
bool trace_step_is_ours(const struct trace_step *step);
/* Whether it was in a chain of ours that only counts, and decides nothing. */
bool trace_step_counts(const struct trace_step *step);

/* What the steps came to. */
struct trace_outcome {
	const char *verdict; /* relay, established, reject, drop, bypass, direct, ban, limit, no_socket, foreign_drop,
	                        pass: by none of ours */
	uint32_t listener;   /* row id of a limited listener whose chain was met; 0: none */
	char limit[64];      /* the limit that refused it; "" */
};
void trace_judge(const struct trace_step *steps, size_t n, struct trace_outcome *ret);

#endif
