/*
 * The elements of one of our sets, asked for over netlink; what an element
 * is, kernel_dump.c, kernel_addresses.c and kernel_ledger.c know.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include "rules/kernel_netlink.h"
#include "rules/kernel_ops.h"
#include "rules/render_nft.h"

struct walk {
	kernel_element_visitor visitor;
	void *userdata;
};

static int take_element(const struct nlattr *attribute, void *data)
{
	const struct walk *walk = data;
	int r = walk->visitor(walk->userdata, attribute);

	errno = r < 0 ? -r : 0;
	return r < 0 ? MNL_CB_ERROR : MNL_CB_OK;
}

static int take_list(const struct nlattr *attribute, void *data)
{
	if (mnl_attr_get_type(attribute) != NFTA_SET_ELEM_LIST_ELEMENTS)
		return MNL_CB_OK;
	return mnl_attr_parse_nested(attribute, take_element, data);
}

static int take_message(const struct nlmsghdr *message, void *data)
{
	if (message->nlmsg_type != (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWSETELEM))
		return MNL_CB_OK;
	return mnl_attr_parse(message, sizeof(struct nfgenmsg), take_list, data);
}

/* Begins a request for elements of this set. */
static struct nlmsghdr *begin(char *buffer, uint16_t flags, const char *set)
{
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct nfgenmsg *head;

	request->nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETSETELEM;
	request->nlmsg_flags = NLM_F_REQUEST | flags;
	head = mnl_nlmsg_put_extra_header(request, sizeof(*head));
	head->nfgen_family = NFPROTO_INET;
	mnl_attr_put_strz(request, NFTA_SET_ELEM_LIST_TABLE, NFT_TABLE);
	mnl_attr_put_strz(request, NFTA_SET_ELEM_LIST_SET, set);
	return request;
}

static void put_key(struct nlmsghdr *request, const void *key, size_t length)
{
	struct nlattr *list = mnl_attr_nest_start(request, NFTA_SET_ELEM_LIST_ELEMENTS),
	              *element = mnl_attr_nest_start(request, NFTA_LIST_ELEM),
	              *nest = mnl_attr_nest_start(request, NFTA_SET_ELEM_KEY);

	mnl_attr_put(request, NFTA_DATA_VALUE, length, key);
	mnl_attr_nest_end(request, nest);
	mnl_attr_nest_end(request, element);
	mnl_attr_nest_end(request, list);
}

/* Asked for one: the element, or an error, and (for both) an acknowledgement. */
int kernel_elements_walk(
        const char *set, const void *key, size_t key_length, kernel_element_visitor visitor, void *userdata)
{
	char buffer[MNL_NLMSG_HDRLEN + 512] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *request = begin(buffer, key ? NLM_F_ACK : NLM_F_DUMP, set);
	struct walk walk = { visitor, userdata };

	if (key)
		put_key(request, key, key_length);
	return kernel_netlink_ask(NETLINK_NETFILTER, request, take_message, &walk);
}
