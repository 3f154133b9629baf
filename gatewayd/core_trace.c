/* POST /trace and what it has seen: between webapi/core.h and the tracer. */
#include <errno.h>

#include "gatewayd/base/log.h"
#include "gatewayd/core.h"

int core_trace_start(
        struct core *core, const struct core_trace_order *order, const char *actor, json_t **ret, char **ret_reason)
{
	struct trace_filter filter = { .protocol = order->packet.protocol,
		.src = order->packet.src,
		.dst = order->packet.dst,
		.src_port = order->source_port,
		.dst_port = order->packet.dst_port };
	uint64_t number;
	int r;

	*ret_reason = NULL;
	r = core->tracer
	            ? tracer_start(core->tracer, &filter, order->seconds, order->packets, actor, &number, ret_reason)
	            : -EOPNOTSUPP;
	if (r < 0)
		return r;
	log_info("trace %llu armed for %u seconds by %s", (unsigned long long)number, order->seconds, actor);
	*ret = tracer_get(core->tracer, number);
	return *ret ? 0 : -ENOMEM;
}

json_t *core_traces(struct core *core)
{
	return core->tracer ? tracer_list(core->tracer) : json_pack("{s:[]}", "items");
}

int core_trace_get(struct core *core, uint64_t number, json_t **ret)
{
	if (!core->tracer || !tracer_has(core->tracer, number))
		return -ENOENT;
	*ret = tracer_get(core->tracer, number);
	return *ret ? 0 : -ENOMEM;
}

int core_trace_end(struct core *core, uint64_t number)
{
	return core->tracer ? tracer_end(core->tracer, number) : -ENOENT;
}
