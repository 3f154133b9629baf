/* Bytes through a TCP socket; see tcp_counters.h. */
#include "gatewayd/base/tcp_counters.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* Tries to read two counters of a socket as of one moment: packets come in microseconds, a try takes one. */
#define EXACT_TRIES 256

static int info_get(int fd, struct tcp_info *ret)
{
	socklen_t length = sizeof(*ret);

	*ret = (struct tcp_info){ 0 };
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, ret, &length) < 0 ? -errno : 0;
}

int tcp_counters_received(int fd, uint64_t *ret)
{
	struct tcp_info info;
	int r = info_get(fd, &info);

	if (r == 0)
		*ret = info.tcpi_bytes_received;
	return r;
}

/* tcpi_bytes_sent would not do: it counts a packet that the local firewall refused, and then once more. */
int tcp_counters_written(int fd, uint64_t *ret)
{
	struct tcp_info info;
	int queued, r = info_get(fd, &info);

	if (r == 0 && ioctl(fd, SIOCOUTQ, &queued) < 0)
		r = -errno;
	if (r == 0)
		*ret = info.tcpi_bytes_acked + (uint64_t)queued;
	return r;
}

int tcp_counters_written_exactly(int fd, uint64_t *ret)
{
	uint64_t first = 0, second = 1;
	int r = 0;

	for (unsigned i = 0; i < EXACT_TRIES && r == 0 && first != second; i++) {
		r = tcp_counters_written(fd, &first);
		if (r == 0)
			r = tcp_counters_written(fd, &second);
	}
	if (r == 0 && first != second)
		r = -EAGAIN;
	if (r == 0)
		*ret = first;
	return r;
}
