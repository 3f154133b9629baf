/*
 * Our named counters, asked for by netlink directly: nft would list every
 * rule and map of the table to tell them, a tenth of a second with ten
 * thousand listeners, and they are looked at each second. Called through
 * kernel_nft.c.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include "rules/kernel_netlink.h"
#include "rules/kernel_ops.h"
#include "rules/render_nft.h"

/* A dump that met a change is begun again, at most so often. */
#define DUMP_TRIES 5

struct counter {
	const char *name;
	uint64_t packets, bytes;
};

static int keep_value(const struct nlattr *attribute, void *data)
{
	struct counter *counter = data;
	uint64_t value;

	if (mnl_attr_validate(attribute, MNL_TYPE_U64) < 0)
		return MNL_CB_OK;
	value = be64toh(mnl_attr_get_u64(attribute));
	if (mnl_attr_get_type(attribute) == NFTA_COUNTER_BYTES)
		counter->bytes = value;
	else if (mnl_attr_get_type(attribute) == NFTA_COUNTER_PACKETS)
		counter->packets = value;
	return MNL_CB_OK;
}

static int keep_attribute(const struct nlattr *attribute, void *data)
{
	struct counter *counter = data;

	if (mnl_attr_get_type(attribute) == NFTA_OBJ_NAME && mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) == 0)
		counter->name = mnl_attr_get_str(attribute);
	else if (mnl_attr_get_type(attribute) == NFTA_OBJ_DATA)
		return mnl_attr_parse_nested(attribute, keep_value, counter);
	return MNL_CB_OK;
}

/* One counter of the dump into the JSON object. */
static int keep(const struct nlmsghdr *message, void *data)
{
	struct counter counter = { 0 };
	json_t *counters = data;

	if (mnl_attr_parse(message, sizeof(struct nfgenmsg), keep_attribute, &counter) < 0 || !counter.name)
		return MNL_CB_OK;
	if (json_object_set_new(counters, counter.name,
	            json_pack("{s:I, s:I}", "packets", (json_int_t)counter.packets, "bytes",
	                    (json_int_t)counter.bytes)) < 0) {
		errno = ENOMEM;
		return MNL_CB_ERROR;
	}
	return MNL_CB_OK;
}

static void make_request(char *buffer, struct nlmsghdr **ret)
{
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct nfgenmsg *head;

	request->nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETOBJ;
	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	head = mnl_nlmsg_put_extra_header(request, sizeof(*head));
	head->nfgen_family = NFPROTO_INET;
	head->version = NFNETLINK_V0;
	mnl_attr_put_strz(request, NFTA_OBJ_TABLE, NFT_TABLE);
	mnl_attr_put_u32(request, NFTA_OBJ_TYPE, htonl(NFT_OBJECT_COUNTER));
	*ret = request;
}

/* -EINTR: something has changed meanwhile, and the answer may lack a counter. */
static int dump(json_t *counters)
{
	char buffer[MNL_NLMSG_HDRLEN + 128] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *request;

	make_request(buffer, &request);
	return kernel_netlink_ask(NETLINK_NETFILTER, request, keep, counters);
}

int kernel_counters_read(json_t **ret)
{
	json_t *counters = json_object();
	int r = counters ? -EINTR : -ENOMEM;

	for (int i = 0; i < DUMP_TRIES && r == -EINTR; i++) {
		(void)json_object_clear(counters);
		r = dump(counters);
	}
	if (r < 0)
		json_decref(counters);
	else
		*ret = counters;
	return r;
}
