/*
 * What lies in a set whose elements are single addresses: the sources of a
 * rate limit, bans. Asked for over netlink, as in kernel_dump.c; called
 * through kernel_nft.c.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <string.h>

#include "gatewayd/base/cleanup.h"
#include "rules/kernel_ops.h"
#include "rules/render_nft.h"

/* The kernel fills messages of a dump up to 32 KiB. */
#define ANSWER_MAX 65536

struct walk {
	kernel_address_visitor visitor;
	void *userdata;
	int error;
};

struct found {
	struct addr addr;
	int64_t left_ms;
	bool has_address;
};

static void cleanup_socket(struct mnl_socket **socket)
{
	if (*socket)
		mnl_socket_close(*socket);
}

static int take_value(const struct nlattr *attribute, void *data)
{
	struct found *found = data;
	size_t length = mnl_attr_get_payload_len(attribute);

	if (mnl_attr_get_type(attribute) != NFTA_DATA_VALUE || (length != 4 && length != 16))
		return MNL_CB_OK;
	found->addr.family = length == 4 ? AF_INET : AF_INET6;
	memcpy(found->addr.bytes, mnl_attr_get_payload(attribute), length);
	found->has_address = true;
	return MNL_CB_OK;
}

static int take_attribute(const struct nlattr *attribute, void *data)
{
	struct found *found = data;

	if (mnl_attr_get_type(attribute) == NFTA_SET_ELEM_KEY)
		return mnl_attr_parse_nested(attribute, take_value, found);
	if (mnl_attr_get_type(attribute) == NFTA_SET_ELEM_EXPIRATION && mnl_attr_validate(attribute, MNL_TYPE_U64) == 0)
		found->left_ms = (int64_t)be64toh(mnl_attr_get_u64(attribute));
	return MNL_CB_OK;
}

static int take_element(const struct nlattr *attribute, void *data)
{
	struct walk *walk = data;
	struct found found = { .left_ms = -1 };

	(void)mnl_attr_parse_nested(attribute, take_attribute, &found);
	walk->error = found.has_address ? walk->visitor(walk->userdata, &found.addr, found.left_ms) : 0;
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

/* All elements of the set, or (addr not NULL) one. */
static int ask(struct mnl_socket *socket, char *buffer, const char *set, const struct addr *addr)
{
	struct nlmsghdr *request = begin(buffer, addr ? NLM_F_ACK : NLM_F_DUMP, set);

	if (addr) {
		struct nlattr *list = mnl_attr_nest_start(request, NFTA_SET_ELEM_LIST_ELEMENTS),
		              *element = mnl_attr_nest_start(request, NFTA_LIST_ELEM),
		              *key = mnl_attr_nest_start(request, NFTA_SET_ELEM_KEY);

		mnl_attr_put(request, NFTA_DATA_VALUE, addr_bits(addr->family) / 8, addr->bytes);
		mnl_attr_nest_end(request, key);
		mnl_attr_nest_end(request, element);
		mnl_attr_nest_end(request, list);
	}
	return mnl_socket_sendto(socket, request, request->nlmsg_len) < 0 ? -errno : 0;
}

/* Asks, and hands all that is answered to the visitor. */
static int walk_elements(const char *set, const struct addr *addr, kernel_address_visitor visitor, void *userdata)
{
	_cleanup_(cleanup_socket) struct mnl_socket *socket = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
	_cleanup_free_ char *buffer = malloc(ANSWER_MAX);
	struct walk walk = { visitor, userdata, 0 };
	int r = socket && buffer ? ask(socket, buffer, set, addr) : -ENOMEM, more = MNL_CB_OK;

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

static int take_left(void *userdata, const struct addr *addr, int64_t left_ms)
{
	(void)addr;
	*(int64_t *)userdata = left_ms;
	return 0;
}

/* The element, or an error, and (for both) an acknowledgement. */
int kernel_address_find(const char *set, const struct addr *addr, int64_t *ret_left_ms)
{
	int64_t left_ms = 0;
	int r = walk_elements(set, addr, take_left, &left_ms);

	if (r == 0)
		*ret_left_ms = left_ms;
	return r;
}

/* An element may be missed, or told twice, when the set is changed meanwhile; packets do that all the time. */
int kernel_addresses_read(const char *set, kernel_address_visitor visitor, void *userdata)
{
	return walk_elements(set, NULL, visitor, userdata);
}
