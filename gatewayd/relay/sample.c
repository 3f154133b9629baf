/* Round-trip times into rows; see sample.h. */
#include "gatewayd/relay/sample.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "gatewayd/relay/account.h"
#include "gatewayd/relay/loop.h"

static struct stats_flow_tcp look(const struct flow_end *end)
{
	struct tcp_info info;
	socklen_t length = sizeof(info);

	if (end->fd < 0 || getsockopt(end->fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0)
		return (struct stats_flow_tcp){ 0 };
	return (struct stats_flow_tcp){ .rtt_us = info.tcpi_rtt, .retransmits = info.tcpi_total_retrans };
}

/* What flow.account.sampled says of a time: about a second is as fine as it has to be. 0 is before any time. */
static uint32_t age(uint64_t at_ms)
{
	return (uint32_t)(at_ms >> 10) + 1;
}

/* Whether the flow had to be looked at. */
static bool sample(struct loop *loop, struct flow *flow)
{
	/* Of one that the kernel carries the sockets know nothing. */
	if (flow->state != FLOW_RELAYING || flow->carried || age(flow->active_ms) < flow->account.sampled)
		return false;
	flow->account.sampled = age(loop->now_ms);
	account_sampled(loop, flow, look(&flow->end[FLOW_CLIENT]), look(&flow->end[FLOW_TARGET]));
	return true;
}

void sample_begin(struct loop *loop)
{
	loop->sample_next = loop->flows.touched ? 0 : FLOW_NONE;
}

void sample_continue(struct loop *loop)
{
	unsigned sampled = 0;

	for (unsigned i = 0; i < SAMPLE_PASS && sampled < SAMPLE_SLICE; i++) {
		if (loop->sample_next >= loop->flows.touched) {
			loop->sample_next = FLOW_NONE;
			return;
		}
		sampled += sample(loop, &loop->flows.flows[loop->sample_next++]);
	}
}
