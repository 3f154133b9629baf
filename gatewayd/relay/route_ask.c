/* Ways to addresses; see route_ask.h. */
#include "gatewayd/relay/route_ask.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

int route_ask_open(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);

	return fd < 0 ? -errno : fd;
}

static int look_way(const struct nlattr *attribute, void *data)
{
	uint32_t *ifindex = data;

	if (mnl_attr_get_type(attribute) == RTA_OIF && mnl_attr_validate(attribute, MNL_TYPE_U32) == 0)
		*ifindex = mnl_attr_get_u32(attribute);
	return MNL_CB_OK;
}

uint32_t route_ask(int fd, const struct addr *to)
{
	char buffer[1024];
	struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
	struct rtmsg *asked = mnl_nlmsg_put_extra_header(header, sizeof(*asked));
	size_t size = to->family == AF_INET ? 4 : 16;
	const struct rtmsg *way;
	uint32_t ifindex = 0;
	ssize_t n;

	header->nlmsg_type = RTM_GETROUTE;
	header->nlmsg_flags = NLM_F_REQUEST;
	asked->rtm_family = (unsigned char)to->family;
	asked->rtm_dst_len = (unsigned char)(8 * size);
	mnl_attr_put(header, RTA_DST, size, to->bytes);
	if (fd < 0 || send(fd, buffer, header->nlmsg_len, 0) < 0)
		return 0;
	/* The kernel answers before it comes back. */
	n = recv(fd, buffer, sizeof(buffer), 0);
	if (n < 0 || !mnl_nlmsg_ok(header, (int)n) || header->nlmsg_type != RTM_NEWROUTE ||
	        mnl_nlmsg_get_payload_len(header) < sizeof(*way))
		return 0;
	way = mnl_nlmsg_get_payload(header);
	if (way->rtm_type != RTN_UNICAST || mnl_attr_parse(header, sizeof(*way), look_way, &ifindex) < 0)
		return 0;
	return ifindex;
}
