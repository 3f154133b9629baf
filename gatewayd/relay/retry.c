/* Failed connects; see retry.h. */
#include "gatewayd/relay/retry.h"

#include <errno.h>
#include <unistd.h>

#include "gatewayd/relay/account_object.h"
#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/passive.h"
#include "gatewayd/relay/route.h"

/* Whether the cause lies here and not with the target. */
static bool is_our_own(int error)
{
	return error == -EADDRNOTAVAIL || error == -EADDRINUSE || error == -EACCES || error == -EPERM ||
	       error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM || error == -EXFULL ||
	       error == -EXDEV || error == -EOWNERDEAD;
}

/* Whether another target would meet with the same. */
static bool is_hopeless(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM || error == -EXFULL ||
	       error == -EOWNERDEAD;
}

void retry_target_failed(struct loop *loop, const struct flow_objects *objects, const uint32_t slot[STATS_KINDS])
{
	const struct config_upstream *upstream = config_upstream(loop->config, objects->upstream);

	if (!upstream || !passive_failed(&upstream->balance, &loop->place, objects->target, loop->now_ms))
		return;
	stats_add(loop->stats, STATS_targets_ejected, 1);
	account_objects_count(loop, objects, slot, STATS_OBJECT_ejected, 1);
	loop_warn(loop, STATS_targets_ejected, 0);
}

void retry_target_answered(
        const struct loop *loop, const struct flow_objects *objects, const uint32_t slot[STATS_KINDS])
{
	passive_succeeded(&loop->place, slot[STATS_TARGET], objects->target, loop->now_ms);
}

static void forget_socket(struct flow_end *end)
{
	if (end->fd >= 0)
		close(end->fd);
	*end = (struct flow_end){ .fd = -1 };
}

bool retry_next(struct loop *loop, struct flow *flow, const struct config_listener *listener, int error)
{
	const struct flow_way *way = flow_way(&loop->flows, flow);
	const struct config_upstream *upstream = config_upstream(loop->config, way->objects.upstream);

	if (!is_our_own(error))
		retry_target_failed(loop, &way->objects, way->slot);
	if (!upstream || is_hopeless(error) || flow->n_tried >= upstream->balance.rules.max_retries ||
	        flow->n_tried >= FLOW_RETRIES_MAX)
		return false;
	flow_making(&loop->flows, flow)->tried[flow->n_tried++] = way->objects.target;
	if (route_again(loop, flow, (enum connect_source)listener->source) != 0)
		return false;
	stats_add(loop->stats, STATS_connect_retried, 1);
	forget_socket(&flow->end[FLOW_TARGET]);
	return true;
}
