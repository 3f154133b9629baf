/* What tracer.c (arming, gathering) and tracer_view.c (documents) share. */
#ifndef GW_TRACER_PRIVATE_H
#define GW_TRACER_PRIVATE_H

#include <net/if.h>

#include "gatewayd/core.h"
#include "gatewayd/tracer.h"
#include "rules/kernel_trace.h"

/* A packet whose steps are being gathered. */
struct gathered {
	uint64_t trace; /* number; 0: free */
	uint32_t id;
	enum trace_way way;
	struct trace_packet packet;
	char interface[IFNAMSIZ];
	char begun[TRACE_NAME_MAX]; /* the table of ours where it was chosen: the first that it meets */
	uint64_t last_us;           /* when the newest step came */
	struct trace_step steps[TRACER_STEPS_MAX];
	size_t n;
	bool closed; /* its number is another packet's by now */
	bool more;   /* than TRACER_STEPS_MAX */
};

struct trace {
	uint64_t number; /* 0: free */
	struct trace_filter filter;
	unsigned seconds, packets_max;
	int64_t started_at; /* seconds since 1970 */
	char actor[80];
	struct kernel_hold *hold; /* NULL: over */
	const char *why;          /* it is over: "time", "packets", "ended" */
	sd_event_source *timer;
	struct tracer *tracer;
	json_t *packets;
};

/* The document of a packet, new, with what the rules (may be NULL) say of its steps. NULL: no memory. */
json_t *tracer_packet_document(struct core *core, const struct trace_rules *rules, const struct gathered *gathered);
/* The same of one that a prefilter has dropped; limit: the one that it was over, or NULL. */
json_t *tracer_drop_document(const struct trace *trace, enum trace_way way, const struct trace_packet *packet,
        const char *interface, const char *reason, const char *limit);
/* The document of a trace. NULL: no memory. */
json_t *tracer_document(const struct trace *trace, bool with_packets);

#endif
