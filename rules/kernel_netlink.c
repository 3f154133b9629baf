/* Questions by netlink; see kernel_netlink.h. */
#include "rules/kernel_netlink.h"

#include <errno.h>
#include <stdbool.h>
#include <unistd.h>

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

struct mnl_socket *kernel_netlink_open(int bus)
{
	struct mnl_socket *socket = mnl_socket_open2(bus, SOCK_CLOEXEC);

	if (socket && mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0) {
		int error = errno;

		mnl_socket_close(socket);
		errno = error;
		return NULL;
	}
	return socket;
}

/* Closing a socket of this bus waits for the end of all that was removed in nft shortly before: after each change of
 * ours ten milliseconds and more, where the processors have little to do. A child does not share it, and does not close
 * it either: by then the number may be another descriptor's. */
static struct mnl_socket **kept_socket(void)
{
	static struct mnl_socket *socket;
	static pid_t owner;

	if (owner != getpid())
		socket = NULL;
	owner = getpid();
	return &socket;
}

int kernel_netlink_ask(int bus, struct nlmsghdr *request, mnl_cb_t callback, void *data)
{
	struct mnl_socket *own = NULL, **socket = bus == NETLINK_NETFILTER ? kept_socket() : &own;
	int r;

	if (!*socket)
		*socket = kernel_netlink_open(bus);
	if (!*socket)
		return -errno;
	r = kernel_netlink_talk(*socket, request, callback, data);
	if (bus != NETLINK_NETFILTER || r < 0) {
		mnl_socket_close(*socket);
		*socket = NULL;
	}
	return r;
}
