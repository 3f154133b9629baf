/* Questions by netlink; see kernel_netlink.h. */
#include "rules/kernel_netlink.h"

#include <errno.h>
#include <stdbool.h>

/* libmnl skips a message that says so, and what stands behind it. */
static bool clear_interruption(void *buffer, size_t length)
{
	struct nlmsghdr *message = buffer;
	bool found = false;

	for (int left = (int)length; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
		found |= (message->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
		message->nlmsg_flags &= (uint16_t)~NLM_F_DUMP_INTR;
	}
	return found;
}

int kernel_netlink_talk(struct mnl_socket *socket, struct nlmsghdr *request, mnl_cb_t callback, void *data)
{
	static unsigned sequence;
	char buffer[32768] __attribute__((aligned(NLMSG_ALIGNTO))); /* more the kernel never sends at once */
	bool interrupted = false;
	int r = MNL_CB_OK;

	request->nlmsg_seq = ++sequence;
	request->nlmsg_pid = 0;
	if (mnl_socket_sendto(socket, request, request->nlmsg_len) < 0)
		return -errno;
	while (r > MNL_CB_STOP) {
		ssize_t n = mnl_socket_recvfrom(socket, buffer, sizeof(buffer));

		if (n < 0)
			return -errno;
		interrupted |= clear_interruption(buffer, (size_t)n);
		r = mnl_cb_run(buffer, (size_t)n, request->nlmsg_seq, mnl_socket_get_portid(socket), callback, data);
		if (r < 0)
			return -errno;
	}
	return interrupted ? -EINTR : 0;
}

int kernel_netlink_ask(int bus, struct nlmsghdr *request, mnl_cb_t callback, void *data)
{
	struct mnl_socket *socket = mnl_socket_open2(bus, SOCK_CLOEXEC);
	int r;

	if (!socket)
		return -errno;
	r = mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0 ? -errno
	                                                       : kernel_netlink_talk(socket, request, callback, data);
	mnl_socket_close(socket);
	return r;
}
