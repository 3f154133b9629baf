/* What the movers have in common; see mover.h. */
#include "gatewayd/relay/mover.h"

#include <assert.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "gatewayd/base/cleanup.h"

static const struct mover none = { 0 };

const struct mover *const mover_table[] = {
	[MOVER_NONE] = &none,
	[MOVER_COPY] = &tcp_copy,
	[MOVER_SPLICE] = &tcp_splice,
	[MOVER_SOCKMAP] = &tcp_sockmap,
	[MOVER_KERNEL] = &tcp_kernel,
};
static_assert(ARRAY_SIZE(mover_table) == MOVERS, "one per kind");
static_assert((int)MOVER_COPY == (int)STATS_MOVER_COPY && (int)MOVER_SPLICE == (int)STATS_MOVER_SPLICE &&
                      (int)MOVER_SOCKMAP == (int)STATS_MOVER_SOCKMAP && (int)MOVER_KERNEL == (int)STATS_MOVER_KERNEL &&
                      (int)MOVERS == (int)STATS_MOVERS,
        "a row has the same numbers");

void mover_take_urgent(int fd)
{
	static const int on = 1;

	(void)setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on));
}

bool mover_nothing_waits(int fd)
{
	int unread;

	return ioctl(fd, SIOCINQ, &unread) == 0 && unread == 0;
}

enum stats_reason mover_reason_shown(enum mover_reason reason)
{
	static_assert((int)STATS_REASON_START + (int)MOVER_REASON_OFTEN == (int)STATS_REASON_OFTEN &&
	                      (int)STATS_REASON_START + (int)MOVER_REASONS == (int)STATS_REASONS,
	        "a row has them in the same order");
	return (enum stats_reason)((int)STATS_REASON_START + (int)reason);
}
