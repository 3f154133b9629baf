/* What an interface's program must know of the interface to tell which frames are for it; see kernel_xdp_private.h. */
#include "rules/kernel_xdp_private.h"

#include <errno.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>

#include "rules/kernel_netlink.h"

struct look {
	unsigned index;
	struct xdp_place place;
	bool carries_vlan;
};

/* What is read of one link. */
struct link {
	uint32_t below;
	const uint8_t *address;
	bool is_vlan;
};

static int take_kind(const struct nlattr *attribute, void *data)
{
	struct link *link = data;

	if (mnl_attr_get_type(attribute) == IFLA_INFO_KIND && mnl_attr_get_payload_len(attribute) >= sizeof("vlan"))
		link->is_vlan = memcmp(mnl_attr_get_payload(attribute), "vlan", sizeof("vlan")) == 0;
	return MNL_CB_OK;
}

static int take_attribute(const struct nlattr *attribute, void *data)
{
	struct link *link = data;

	switch (mnl_attr_get_type(attribute)) {
	case IFLA_LINK:
		if (mnl_attr_validate(attribute, MNL_TYPE_U32) == 0)
			link->below = mnl_attr_get_u32(attribute);
		break;
	case IFLA_ADDRESS:
		if (mnl_attr_get_payload_len(attribute) == XDP_HARDWARE_BYTES)
			link->address = mnl_attr_get_payload(attribute);
		break;
	case IFLA_LINKINFO:
		return mnl_attr_parse_nested(attribute, take_kind, link);
	default:
		break;
	}
	return MNL_CB_OK;
}

static int take_link(const struct nlmsghdr *header, void *data)
{
	const struct ifinfomsg *message = mnl_nlmsg_get_payload(header);
	struct look *look = data;
	struct link link = { 0 };

	if (header->nlmsg_type != RTM_NEWLINK ||
	        mnl_attr_parse(header, sizeof(*message), take_attribute, &link) != MNL_CB_OK)
		return MNL_CB_OK;
	look->carries_vlan |= link.is_vlan && link.below == look->index;
	if ((unsigned)message->ifi_index != look->index || !link.address ||
	        (message->ifi_type != ARPHRD_ETHER && message->ifi_type != ARPHRD_LOOPBACK))
		return MNL_CB_OK;
	memcpy(look->place.hardware, link.address, XDP_HARDWARE_BYTES);
	look->place.known = true;
	return MNL_CB_OK;
}

void kernel_xdp_place(const char *interface, struct xdp_place *ret)
{
	char buffer[MNL_NLMSG_HDRLEN + 64] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
	struct look look = { .index = if_nametoindex(interface) };

	header->nlmsg_type = RTM_GETLINK;
	header->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	(void)mnl_nlmsg_put_extra_header(header, sizeof(struct ifinfomsg));
	*ret = (struct xdp_place){ 0 };
	if (look.index == 0 || kernel_netlink_ask(NETLINK_ROUTE, header, take_link, &look) < 0 || look.carries_vlan)
		return;
	*ret = look.place;
}
