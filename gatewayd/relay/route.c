/* Listener and target of a packet; see route.h. */
#include "gatewayd/relay/route.h"

#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>

#include "gatewayd/relay/account.h"
#include "gatewayd/relay/loop.h"

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

/* Two threads may want the last place that a target has: the one that comes late chooses again, at most so often. */
#define CHOICES_MAX 8

/* A target for the origin, and the flow's part in its count. 0 or the counter of the refusal. */
static int choose(struct loop *loop, struct config_upstream *upstream, const struct balance_ask *ask,
        struct target **ret, struct load_hold *ret_hold)
{
	for (unsigned i = 0; i < CHOICES_MAX; i++) {
		struct target *target;
		int r = balance_pick(&upstream->balance, ask, &target);

		if (r < 0)
			return r == -EBUSY ? STATS_refused_target_full : STATS_refused_no_target;
		if (!load_take(&loop->place, target->slot, target->id, target->max_connections, ret_hold))
			continue;
		*ret = target;
		return 0;
	}
	return STATS_refused_target_full;
}

/* The client's address can only be the source of packets of its own family. */
static struct balance_ask ask_for(const struct loop *loop, const struct flow_origin *origin, uint8_t source)
{
	return (struct balance_ask){ .place = &loop->place,
		.now_ms = loop->now_ms,
		.client = &origin->client,
		.family = source != CONNECT_AS_GATEWAY ? origin->client.family : AF_UNSPEC };
}

static void set_target(struct flow_origin *origin, const struct target *target)
{
	origin->target = target->addr;
	origin->target_port = target->port ? target->port : origin->original_port;
	origin->objects.target = target->id;
}

int route_find(struct loop *loop, const struct config_listener *listener, struct flow_origin *origin,
        struct load_hold *ret_hold)
{
	struct balance_ask ask = ask_for(loop, origin, listener->source);
	struct config_upstream *upstream;
	struct target *target;
	int r;

	origin->target = origin->original;
	origin->target_port = origin->original_port;
	*ret_hold = (struct load_hold){ 0 };
	if (listener->upstream == 0) /* the client that a proxy has named may be of another family */
		return listener->source == CONNECT_AS_GATEWAY || origin->client.family == origin->target.family
		               ? 0
		               : STATS_refused_no_target;
	upstream = config_upstream(loop->config, listener->upstream);
	if (!upstream)
		return STATS_refused_no_target;
	origin->objects.upstream = upstream->id;
	r = choose(loop, upstream, &ask, &target, ret_hold);
	if (r == 0)
		set_target(origin, target);
	return r;
}

int route_again(struct loop *loop, struct flow *flow, enum connect_source source)
{
	struct flow_origin origin = flow_get_origin(&loop->flows, flow);
	struct balance_ask ask = ask_for(loop, &origin, (uint8_t)source);
	struct config_upstream *upstream = config_upstream(loop->config, origin.objects.upstream);
	struct load_hold hold;
	struct target *target;
	int r;

	ask.tried = flow_making(&loop->flows, flow)->tried;
	ask.n_tried = flow->n_tried;
	r = upstream ? choose(loop, upstream, &ask, &target, &hold) : STATS_refused_no_target;
	if (r != 0)
		return r;
	account_target_left(loop, flow);
	flow->account.hold_run = hold.run;
	set_target(&origin, target);
	flow_put_origin(&loop->flows, flow, &origin);
	account_routed_again(loop, flow);
	return 0;
}
