/*
 * The elements of one of our sets, asked for over netlink as kernel_dump.c
 * does; what an element is, kernel_addresses.c and kernel_ledger.c know.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include "gatewayd/base/cleanup.h"
#include "rules/kernel_ops.h"
#include "rules/render_nft.h"

/* The kernel fills messages of a dump up to 32 KiB. */
#define ANSWER_MAX 65536

struct walk {
	kernel_element_visitor visitor;
	void *userdata;
	int error;
};

static void cleanup_socket(struct mnl_socket **socket)
{
	if (*socket)
		mnl_socket_close(*socket);
}

static int take_element(const struct nlattr *attribute, void *data)
{
	struct walk *walk = data;

	walk->error = walk->visitor(walk->userdata, attribute);
	return walk->error < 0 ? MNL_CB_ERROR : MNL_CB_OK;
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

/* All elements of the set, or (key not NULL) one. */
static int ask(struct mnl_socket *socket, char *buffer, const char *set, const void *key, size_t key_length)
{
	struct nlmsghdr *request = begin(buffer, key ? NLM_F_ACK : NLM_F_DUMP, set);

	if (key) {
		struct nlattr *list = mnl_attr_nest_start(request, NFTA_SET_ELEM_LIST_ELEMENTS),
		              *element = mnl_attr_nest_start(request, NFTA_LIST_ELEM),
		              *nest = mnl_attr_nest_start(request, NFTA_SET_ELEM_KEY);

		mnl_attr_put(request, NFTA_DATA_VALUE, key_length, key);
		mnl_attr_nest_end(request, nest);
		mnl_attr_nest_end(request, element);
		mnl_attr_nest_end(request, list);
	}
	return mnl_socket_sendto(socket, request, request->nlmsg_len) < 0 ? -errno : 0;
}

/* Asked for one: the element, or an error, and (for both) an acknowledgement. */
int kernel_elements_walk(
        const char *set, const void *key, size_t key_length, kernel_element_visitor visitor, void *userdata)
{
	_cleanup_(cleanup_socket) struct mnl_socket *socket = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
	_cleanup_free_ char *buffer = malloc(ANSWER_MAX);
	struct walk walk = { visitor, userdata, 0 };
	int r = socket && buffer ? ask(socket, buffer, set, key, key_length) : -ENOMEM, more = MNL_CB_OK;

	while (r == 0 && more > MNL_CB_STOP) {
		ssize_t n = mnl_socket_recvfrom(socket, buffer, ANSWER_MAX);

		if (n < 0)
			return -errno;
		more = mnl_cb_run(buffer, (size_t)n, 0, 0, take_message, &walk);
		if (more < 0)
			r = walk.error < 0 ? walk.error : errno == EINTR ? 0 : -errno;
		if (more < 0 && r == 0)
			more = MNL_CB_OK; /* a change meanwhile, said at the end of each message of a dump */
	}
	return r;
}
