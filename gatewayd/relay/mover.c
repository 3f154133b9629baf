/* What the movers have in common; see mover.h. */
#include "gatewayd/relay/mover.h"

#include <assert.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "gatewayd/base/cleanup.h"

static const struct mover none = { .name = "" };

const struct mover *const mover_table[] = {
	[MOVER_NONE] = &none,
	[MOVER_COPY] = &tcp_copy,
	[MOVER_SPLICE] = &tcp_splice,
	[MOVER_SOCKMAP] = &tcp_sockmap,
	[MOVER_KERNEL] = &tcp_kernel,
};
static_assert(ARRAY_SIZE(mover_table) == MOVERS, "one per kind");

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

const char *mover_reason_name(enum mover_reason reason)
{
	static const char *const names[] = {
		[MOVER_REASON_START] = "start",
		[MOVER_REASON_FORCED] = "forced",
		[MOVER_REASON_MUCH] = "much",
		[MOVER_REASON_LITTLE] = "little",
		[MOVER_REASON_NO_PIPE] = "no_pipe",
		[MOVER_REASON_URGENT] = "urgent",
		[MOVER_REASON_STEADY] = "steady",
		[MOVER_REASON_NO_MAP] = "no_map",
	};

	static_assert(ARRAY_SIZE(names) == MOVER_REASONS, "one name per reason");
	return names[reason < MOVER_REASONS ? reason : MOVER_REASON_START];
}
