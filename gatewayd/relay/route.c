/* Listener and target of a packet; see route.h. */
#include "gatewayd/relay/route.h"

#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>

#include "gatewayd/relay/connect.h"

bool route_is_loopback(const struct addr *addr)
{
	struct in6_addr in6;

	if (addr->family == AF_INET)
		return addr->bytes[0] == 127;
	memcpy(&in6, addr->bytes, sizeof(in6));
	return IN6_IS_ADDR_LOOPBACK(&in6);
}

const struct config_listener *route_classify(
        const struct config *config, const struct match_packet *packet, int ifindex, int fd)
{
	struct match_packet named = *packet;
	struct ifreq ingress = { .ifr_ifindex = ifindex };
	uint32_t id;

	if (match_table_uses_interface(config->match)) {
		if (ifindex <= 0 || ioctl(fd, SIOCGIFNAME, &ingress) < 0)
			ingress.ifr_name[0] = '\0';
		named.interface = ingress.ifr_name;
	}
	if (match_table_find(config->match, &named, &id) == 0)
		return NULL;
	return config_listener(config, id);
}

int route_find(const struct config *config, const struct config_listener *listener, struct flow_origin *origin)
{
	struct config_upstream *upstream;
	const struct target *target;

	origin->target = origin->original;
	origin->target_port = origin->original_port;
	if (listener->upstream == 0) /* the client that a proxy has named may be of another family */
		return listener->source == CONNECT_AS_GATEWAY || origin->client.family == origin->target.family
		               ? 0
		               : -ENOENT;
	upstream = config_upstream(config, listener->upstream);
	if (!upstream)
		return -ENOENT;
	origin->upstream = upstream->id;
	/* The client's address can only be the source of packets of its own family. */
	target = balance_pick(
	        &upstream->balance, listener->source != CONNECT_AS_GATEWAY ? origin->client.family : AF_UNSPEC);
	if (!target)
		return -ENOENT;
	origin->target = target->addr;
	if (target->port != 0)
		origin->target_port = target->port;
	origin->target_id = target->id;
	return 0;
}
