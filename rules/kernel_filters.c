/* Filters by netlink; see kernel_filters.h. */
#include "rules/kernel_filters.h"

#include <libmnl/libmnl.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <stdio.h>

#include "rules/kernel_netlink.h"

/* One dump of one direction. */
struct dump {
	unsigned parent;
	uint16_t priority; /* 0: of no interest */
	uint32_t handle;
	struct kernel_filters *found;
};

/* Of the attributes within a filter's options, the program's name. */
static int look_name(const struct nlattr *attribute, void *data)
{
	struct kernel_filters *found = data;

	if (mnl_attr_get_type(attribute) == TCA_BPF_NAME && mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) == 0)
		snprintf(found->name, sizeof(found->name), "%s", mnl_attr_get_str(attribute));
	return MNL_CB_OK;
}

static int look_options(const struct nlattr *attribute, void *data)
{
	if (mnl_attr_get_type(attribute) == TCA_OPTIONS)
		(void)mnl_attr_parse_nested(attribute, look_name, data);
	return MNL_CB_OK;
}

static int look_filter(const struct nlmsghdr *header, void *data)
{
	const struct tcmsg *message = mnl_nlmsg_get_payload(header);
	const struct dump *dump = data;

	/* A chain of filters is told of, too, without a handle: it is none. */
	if (header->nlmsg_type != RTM_NEWTFILTER || message->tcm_handle == 0)
		return MNL_CB_OK;
	dump->found->n++;
	if (dump->priority == 0 || TC_H_MAJ(message->tcm_info) >> 16 != dump->priority ||
	        message->tcm_handle != dump->handle)
		return MNL_CB_OK;
	dump->found->there++;
	(void)mnl_attr_parse(header, sizeof(*message), look_options, dump->found);
	return MNL_CB_OK;
}

static int run(unsigned ifindex, struct dump *dump)
{
	char buffer[MNL_NLMSG_HDRLEN + 64] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
	struct tcmsg *message;

	header->nlmsg_type = RTM_GETTFILTER;
	header->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	message = mnl_nlmsg_put_extra_header(header, sizeof(*message));
	message->tcm_family = AF_UNSPEC;
	message->tcm_ifindex = (int)ifindex;
	message->tcm_parent = TC_H_MAKE(TC_H_CLSACT, dump->parent);
	return kernel_netlink_ask(NETLINK_ROUTE, header, look_filter, dump);
}

int kernel_filters_look(unsigned ifindex, uint16_t priority, uint32_t handle, struct kernel_filters *ret)
{
	struct dump ingress = { TC_H_MIN_INGRESS, priority, handle, ret };
	struct dump egress = { .parent = TC_H_MIN_EGRESS, .found = ret };
	int r;

	*ret = (struct kernel_filters){ 0 };
	r = run(ifindex, &ingress);
	return r < 0 ? r : run(ifindex, &egress);
}
