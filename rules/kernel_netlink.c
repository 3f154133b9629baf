/* Questions by netlink; see kernel_netlink.h. */
#include "rules/kernel_netlink.h"

#include <errno.h>

int kernel_netlink_talk(struct mnl_socket *socket, struct nlmsghdr *request, mnl_cb_t callback, void *data)
{
	static unsigned sequence;
	char buffer[32768] __attribute__((aligned(NLMSG_ALIGNTO)));
	int r = MNL_CB_OK;

	request->nlmsg_seq = ++sequence;
	request->nlmsg_pid = 0;
	if (mnl_socket_sendto(socket, request, request->nlmsg_len) < 0)
		return -errno;
	while (r > MNL_CB_STOP) {
		ssize_t n = mnl_socket_recvfrom(socket, buffer, sizeof(buffer));

		if (n < 0)
			return -errno;
		r = mnl_cb_run(buffer, (size_t)n, request->nlmsg_seq, mnl_socket_get_portid(socket), callback, data);
		if (r < 0)
			return -errno;
	}
	return 0;
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
