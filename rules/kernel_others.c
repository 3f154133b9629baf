/* What others have put in the way; see kernel_others.h. */
#include "rules/kernel_others.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/xfrm.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"
#include "rules/kernel_netlink.h"

/* Our tables begin with it: the ruleset, and those of traces. */
#define OWN_TABLES "gatewayd"

struct found {
	char *words;
	size_t size;
	bool any;
};

/* --- nft --- */

struct chain {
	const char *table, *name;
	bool is_base;
	uint32_t hook;
};

static int read_hook(const struct nlattr *attribute, void *data)
{
	struct chain *chain = data;

	if (mnl_attr_get_type(attribute) == NFTA_HOOK_HOOKNUM && mnl_attr_validate(attribute, MNL_TYPE_U32) == 0)
		chain->hook = ntohl(mnl_attr_get_u32(attribute));
	return MNL_CB_OK;
}

static int read_chain(const struct nlattr *attribute, void *data)
{
	struct chain *chain = data;

	switch (mnl_attr_get_type(attribute)) {
	case NFTA_CHAIN_TABLE:
		chain->table = mnl_attr_get_str(attribute);
		break;
	case NFTA_CHAIN_NAME:
		chain->name = mnl_attr_get_str(attribute);
		break;
	case NFTA_CHAIN_HOOK:
		chain->is_base = true;
		return mnl_attr_parse_nested(attribute, read_hook, chain);
	default:
		break;
	}
	return MNL_CB_OK;
}

static bool sees_relayed_packets(uint8_t family, const struct chain *chain)
{
	if (family == NFPROTO_ARP)
		return false;
	return chain->hook != NF_INET_FORWARD || family == NFPROTO_NETDEV || family == NFPROTO_BRIDGE;
}

static int look_chain(const struct nlmsghdr *header, void *data)
{
	const struct nfgenmsg *message = mnl_nlmsg_get_payload(header);
	struct chain chain = { "", "", .is_base = false };
	struct found *found = data;

	if (mnl_attr_parse(header, sizeof(*message), read_chain, &chain) < 0)
		return MNL_CB_ERROR;
	if (found->any || !chain.is_base || !sees_relayed_packets(message->nfgen_family, &chain) ||
	        strncmp(chain.table, OWN_TABLES, strlen(OWN_TABLES)) == 0)
		return MNL_CB_OK;
	found->any = true;
	snprintf(found->words, found->size, "the nft chain %s of table %s may want to see each packet", chain.name,
	        chain.table);
	return MNL_CB_OK;
}

static int look_at_nft(struct found *found)
{
	char buffer[MNL_NLMSG_HDRLEN + sizeof(struct nfgenmsg) + 64] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
	struct nfgenmsg *message;

	header->nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN;
	header->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	message = mnl_nlmsg_put_extra_header(header, sizeof(*message));
	message->nfgen_family = NFPROTO_UNSPEC;
	message->version = NFNETLINK_V0;
	return kernel_netlink_ask(NETLINK_NETFILTER, header, look_chain, found);
}

/* --- IPsec --- */

static int look_policies(const struct nlattr *attribute, void *data)
{
	struct found *found = data;
	struct xfrmu_spdinfo info;

	if (mnl_attr_get_type(attribute) != XFRMA_SPD_INFO || mnl_attr_get_payload_len(attribute) < sizeof(info))
		return MNL_CB_OK;
	memcpy(&info, mnl_attr_get_payload(attribute), sizeof(info));
	if (info.incnt + info.outcnt > 0 && !found->any) {
		found->any = true;
		snprintf(found->words, found->size, "there are IPsec policies");
	}
	return MNL_CB_OK;
}

static int look_info(const struct nlmsghdr *header, void *data)
{
	return header->nlmsg_type == XFRM_MSG_NEWSPDINFO &&
	                       mnl_attr_parse(header, sizeof(uint32_t), look_policies, data) < 0
	               ? MNL_CB_ERROR
	               : MNL_CB_STOP;
}

static int look_at_ipsec(struct found *found)
{
	char buffer[MNL_NLMSG_HDRLEN + 64] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
	uint32_t *flags;
	int r;

	header->nlmsg_type = XFRM_MSG_GETSPDINFO;
	header->nlmsg_flags = NLM_F_REQUEST;
	flags = mnl_nlmsg_put_extra_header(header, sizeof(*flags));
	*flags = 0;
	r = kernel_netlink_ask(NETLINK_XFRM, header, look_info, found);
	return r == -EPROTONOSUPPORT ? 0 : r; /* a kernel without IPsec */
}

/* --- files --- */

/* The first byte of a file; '\0' if it is empty or not there. */
static char first_byte(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	char byte = '\0';

	return fd >= 0 && read(fd, &byte, 1) == 1 ? byte : '\0';
}

bool kernel_others_track(void)
{
	char digit = first_byte("/proc/sys/net/netfilter/nf_conntrack_count");

	return digit && digit != '0';
}

static void look_at_files(struct found *found)
{
	const char *words = NULL;

	if (first_byte("/proc/net/ip_tables_names") || first_byte("/proc/net/ip6_tables_names"))
		words = "iptables has tables of its own, which may want to see each packet";
	else if (kernel_others_track())
		words = "connections are tracked, and their addresses may be translated";
	if (!words || found->any)
		return;
	found->any = true;
	snprintf(found->words, found->size, "%s", words);
}

int kernel_others_look(char *ret, size_t size)
{
	struct found found = { ret, size, .any = false };
	int r;

	ret[0] = '\0';
	r = look_at_nft(&found);
	if (r == 0)
		r = look_at_ipsec(&found);
	if (r < 0)
		return r;
	look_at_files(&found);
	return found.any;
}
