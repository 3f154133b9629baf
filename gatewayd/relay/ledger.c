/* The kernel's counters of a socket; see ledger.h. */
#include "gatewayd/relay/ledger.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* tcpi_state, as in the kernel's include/net/tcp_states.h. */
enum {
	STATE_ESTABLISHED = 1,
	STATE_FIN_WAIT1 = 4,
	STATE_FIN_WAIT2 = 5,
	STATE_TIME_WAIT = 6,
	STATE_CLOSE = 7,
	STATE_CLOSE_WAIT = 8,
	STATE_LAST_ACK = 9,
	STATE_CLOSING = 11
};

static enum ledger_life life_of(uint8_t state)
{
	switch (state) { /* a number of the kernel's */
	case STATE_ESTABLISHED:
		return LEDGER_OPEN;
	case STATE_CLOSE_WAIT:
		return LEDGER_RECEIVED;
	case STATE_FIN_WAIT1:
	case STATE_FIN_WAIT2:
		return LEDGER_SENT;
	case STATE_CLOSING:
	case STATE_LAST_ACK:
	case STATE_TIME_WAIT:
		return LEDGER_BOTH;
	case STATE_CLOSE:
		return LEDGER_CLOSED;
	default:
		return LEDGER_NO_STREAM;
	}
}

static int info_read(int fd, struct tcp_info *ret)
{
	socklen_t length = sizeof(*ret);

	memset(ret, 0, sizeof(*ret));
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, ret, &length) < 0 ? -errno : 0;
}

static void ledger_fill(const struct tcp_info *info, int unread, int unacknowledged, struct ledger *ret)
{
	uint32_t received = info->tcpi_last_data_recv, sent = info->tcpi_last_data_sent;

	*ret = (struct ledger){ .life = (uint8_t)life_of(info->tcpi_state),
		.taken = info->tcpi_bytes_received - (uint64_t)unread,
		.given = info->tcpi_bytes_acked + (uint64_t)unacknowledged,
		.unread = (uint32_t)unread,
		.quiet_ms = received < sent ? received : sent };
	if (ledger_received_end(ret))
		ret->taken--;
}

int ledger_read(int fd, struct ledger *ret)
{
	struct tcp_info before, after;
	int unread, unacknowledged;
	int r = info_read(fd, &before);

	for (unsigned i = 0; r == 0 && i < LEDGER_TRIES; i++) {
		if (ioctl(fd, SIOCINQ, &unread) < 0 || ioctl(fd, SIOCOUTQ, &unacknowledged) < 0)
			return -errno;
		r = info_read(fd, &after);
		if (r == 0 && before.tcpi_bytes_received == after.tcpi_bytes_received &&
		        before.tcpi_bytes_acked == after.tcpi_bytes_acked) {
			ledger_fill(&after, unread, unacknowledged, ret);
			return 0;
		}
		before = after;
	}
	return r < 0 ? r : -EAGAIN;
}

bool ledger_received_end(const struct ledger *ledger)
{
	return ledger->life == LEDGER_RECEIVED || ledger->life == LEDGER_BOTH;
}

bool ledger_sent_end(const struct ledger *ledger)
{
	return ledger->life == LEDGER_SENT || ledger->life == LEDGER_BOTH;
}

bool ledger_has_error(int fd)
{
	struct pollfd poll_fd = { .fd = fd };

	return poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & POLLERR);
}
