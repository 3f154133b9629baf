/*
 * What the kernel tells of packets that are traced: the messages of the group
 * that "nft monitor trace" reads as well, one for each step of a packet. Used
 * by gatewayd/tracer.c.
 */
#ifndef GW_RULES_KERNEL_TRACE_H
#define GW_RULES_KERNEL_TRACE_H

#include "rules/trace.h"

struct kernel_trace;

/* One message. */
struct trace_event {
	uint32_t id; /* the same for all steps of one packet */
	struct trace_step step;
	bool has_packet; /* the first step in each hook's table */
	struct trace_packet packet;
	uint32_t interface; /* index of where it came in; 0: not told */
};

/* From now on, in the network namespace the process is in. -ENOMEM, or the error of a socket call. */
int kernel_trace_open(struct kernel_trace **ret);
void kernel_trace_free(struct kernel_trace *trace);
/* Readable while there is something to read; stays the trace's. */
int kernel_trace_fd(const struct kernel_trace *trace);
/* 1 and an event, 0 when there is none now, -ENOBUFS when some were lost, or another error. */
int kernel_trace_next(struct kernel_trace *trace, struct trace_event *ret);

#endif
