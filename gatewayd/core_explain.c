/* POST /explain: the facts about this machine that rules/explain.h needs beside the configuration. */
#include <ifaddrs.h>
#include <stdio.h>
#include <string.h>

#include "gatewayd/core.h"
#include "rules/explain.h"

/* As nft's "fib daddr type { local, broadcast, multicast }". */
static bool is_own(const struct addr *addr)
{
	struct ifaddrs *all = NULL;
	bool found = addr->family == AF_INET && (addr->bytes[0] >> 4 == 14 || addr->bytes[0] == 127);

	if (getifaddrs(&all) < 0)
		return found;
	for (struct ifaddrs *one = all; one && !found; one = one->ifa_next) {
		struct sockaddr_storage own = { 0 }, wide = { 0 };
		struct addr address;
		uint16_t port;
		size_t size = one->ifa_addr && one->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in)
		                                                                   : sizeof(struct sockaddr_in6);

		if (!one->ifa_addr || one->ifa_addr->sa_family != addr->family)
			continue;
		memcpy(&own, one->ifa_addr, size);
		found = addr_from_sockaddr(&own, &address, &port) == 0 && addr_equal(&address, addr);
		if (found || addr->family != AF_INET || !(one->ifa_flags & IFF_BROADCAST) || !one->ifa_broadaddr)
			continue;
		memcpy(&wide, one->ifa_broadaddr, size);
		found = addr_from_sockaddr(&wide, &address, &port) == 0 && addr_equal(&address, addr);
	}
	freeifaddrs(all);
	return found;
}

static bool forwards(uint8_t family)
{
	_cleanup_fclose_ FILE *file = fopen(
	        family == AF_INET ? "/proc/sys/net/ipv4/ip_forward" : "/proc/sys/net/ipv6/conf/all/forwarding", "re");

	return file && fgetc(file) != '0';
}

json_t *core_explain(struct core *core, const struct match_packet *packet, uint16_t source_port)
{
	struct route_look routes;
	struct explain_facts facts = { .model = apply_model(core->apply),
		.snapshot = apply_snapshot(core->apply),
		.destination_is_local = is_own(&packet->dst),
		.gate_open = apply_render_params(core->apply)->gate_open,
		.relay_runs = worker_state(core->worker) == WORKER_RUNNING,
		.routing_right = apply_look_at_routing(core->apply, &routes) == 0 && routes.wrong == 0,
		.table = core->options->route_table,
		.mark = core->options->mark,
		.forwarding = forwards(packet->dst.family) };

	return explain_packet(&facts, packet, source_port);
}
