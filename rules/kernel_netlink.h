/*
 * One question to the kernel by netlink, and all that it answers. Used by the
 * files rules/kernel_*.c that ask seldom and keep no socket for it. Not for
 * more than one thread.
 */
#ifndef GW_RULES_KERNEL_NETLINK_H
#define GW_RULES_KERNEL_NETLINK_H

#include <libmnl/libmnl.h>

/* A socket with a port number of its own, closed on exec; NULL: see errno. */
struct mnl_socket *kernel_netlink_open(int bus);
/* Sends the request, whose number and sender are filled in, and gives each message of the answer to the callback (may
 * be NULL), up to the acknowledgement, the end of the dump, or MNL_CB_STOP. 0, or a negative errno: the kernel's, or
 * what errno was when the callback returned MNL_CB_ERROR. -EINTR: the callback has had all of a dump, in which things
 * may be missing, or twice, since somebody changed them meanwhile. */
int kernel_netlink_talk(struct mnl_socket *socket, struct nlmsghdr *request, mnl_cb_t callback, void *data);
/* The same on a socket that is opened for it; bus: NETLINK_ROUTE or another. That of NETLINK_NETFILTER is kept, unless
 * the answer was an error, the rest of which may still come; there a callback must not return MNL_CB_STOP. */
int kernel_netlink_ask(int bus, struct nlmsghdr *request, mnl_cb_t callback, void *data);

#endif
