/*
 * The monitor; see kernel_watch.h. With kernel_route.c and kernel_dump.c one
 * of the files that know libmnl.
 *
 * Theory of operation: one socket joined to nftables' group, one to those of
 * rules, routes, links and addresses, and an epoll descriptor over both. One
 * datagram at a time is taken in and walked message by message.
 *
 * nftables announces a transaction as a run of messages, one for each object,
 * and ends it with NEWGEN, which names the process. So what touches our table
 * is noted until NEWGEN says whose it was. Our own transactions come with the
 * port number of a socket of ours: once a NEWGEN of our own has shown it,
 * a socket filter keeps them out, or loading 100,000 elements would overrun
 * the receive buffer with 100,000 messages about our own doing. The process
 * number in NEWGEN is that of the first pid namespace, which getpid() is not
 * in a container; GETGEN answers with our own number in the same count.
 *
 * Rule and route messages carry the sender's port number only; the first
 * socket of a process has its process number, so a living process of that
 * number is taken for the sender.
 */
#include "rules/kernel_watch.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/fib_rules.h>
#include <linux/filter.h>
#include <linux/if_link.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "gatewayd/base/array.h"
#include "rules/kernel_ops.h"
#include "rules/render_nft.h"

/* Room for what others do at once while the loop is busy; a limit, not an allocation. */
#define RECEIVE_BUFFER (64 << 20)
/* The kernel's datagrams of events are at most 16 KiB; dumps use up to 32. */
#define DATAGRAM_MAX 32768

struct link {
	int index;
	uint32_t master; /* what it is part of; 0: nothing */
	uint32_t xdp;    /* its XDP program; 0: none. Of programs on a link the kernel tells nothing by itself */
	bool up;
	char name[IFNAMSIZ];
};

/* What a transaction did to our table, up to its NEWGEN. */
struct touched {
	unsigned messages;
	char first[96];
};

struct kernel_watch {
	struct mnl_socket *nft, *route;
	int epoll;
	int32_t own_pid; /* as NEWGEN counts */
	bool paused;
	uint32_t generation; /* of the namespace's nft, by the last GETGEN: the kernel counts transactions in it */
	uint32_t own_port;   /* of the socket that our last transaction came through; 0 until it is known */
	struct touched touched;
	struct link *links;
	size_t n_links, links_size;
	const struct nlmsghdr *at; /* the next message of the datagram in hand */
	int left;
	bool is_nft; /* where that datagram came from */
	bool has_second;
	struct watch_event second; /* a rename's appearance */
	char datagram[DATAGRAM_MAX] __attribute__((aligned(NLMSG_ALIGNTO)));
};

/* Names in the kernel may hold any bytes; what goes into JSON and logs may not. */
static void copy_printable(char *to, size_t size, const char *from, size_t length)
{
	size_t i = 0;

	for (; i + 1 < size && i < length && from[i]; i++)
		to[i] = (char)(from[i] < ' ' || from[i] > '~' ? '?' : from[i]);
	to[i] = '\0';
}

static void name_process(struct watch_event *event, uint32_t port)
{
	char path[48], name[32];
	FILE *file;

	/* Zero is the kernel; numbers beyond are a process's second sockets. */
	if (port == 0 || port > INT32_MAX)
		return;
	snprintf(path, sizeof(path), "/proc/%u/comm", port);
	file = fopen(path, "re");
	if (!file)
		return;
	if (fgets(name, sizeof(name), file)) {
		event->pid = (int32_t)port;
		copy_printable(event->process, sizeof(event->process), name, strcspn(name, "\n"));
	}
	fclose(file);
}

struct search {
	uint16_t type;
	const struct nlattr *found;
};

static int search_attribute(const struct nlattr *attribute, void *data)
{
	struct search *search = data;

	if (mnl_attr_get_type(attribute) != search->type)
		return MNL_CB_OK;
	search->found = attribute;
	return MNL_CB_STOP;
}

static const char *attribute_text(const struct nlmsghdr *message, unsigned offset, uint16_t type, uint16_t *ret_length)
{
	struct search search = { .type = type };

	*ret_length = 0;
	mnl_attr_parse(message, offset, search_attribute, &search);
	if (!search.found)
		return NULL;
	*ret_length = mnl_attr_get_payload_len(search.found);
	return mnl_attr_get_payload(search.found);
}

static uint32_t attribute_number(const struct nlmsghdr *message, unsigned offset, uint16_t type, uint32_t otherwise)
{
	uint16_t length;
	const char *payload = attribute_text(message, offset, type, &length);
	uint32_t number = otherwise;

	if (payload && length == 1)
		number = (uint8_t)*payload;
	else if (payload && length == sizeof(number))
		memcpy(&number, payload, sizeof(number));
	return number;
}

/* nftables. */

static const struct object_kind {
	uint8_t message;
	uint16_t name; /* attribute */
	const char *what;
} object_kinds[] = {
	{ NFT_MSG_NEWTABLE, 0, "table added" },
	{ NFT_MSG_DELTABLE, 0, "table deleted" },
	{ NFT_MSG_NEWCHAIN, NFTA_CHAIN_NAME, "chain added or changed:" },
	{ NFT_MSG_DELCHAIN, NFTA_CHAIN_NAME, "chain deleted:" },
	{ NFT_MSG_NEWRULE, NFTA_RULE_CHAIN, "rule added to chain" },
	{ NFT_MSG_DELRULE, NFTA_RULE_CHAIN, "rule deleted from chain" },
	{ NFT_MSG_NEWSET, NFTA_SET_NAME, "set or map added:" },
	{ NFT_MSG_DELSET, NFTA_SET_NAME, "set or map deleted:" },
	{ NFT_MSG_NEWSETELEM, NFTA_SET_ELEM_LIST_SET, "element added to" },
	{ NFT_MSG_DELSETELEM, NFTA_SET_ELEM_LIST_SET, "element deleted from" },
	{ NFT_MSG_NEWOBJ, NFTA_OBJ_NAME, "counter or other object added:" },
	{ NFT_MSG_DELOBJ, NFTA_OBJ_NAME, "counter or other object deleted:" },
	{ NFT_MSG_NEWFLOWTABLE, NFTA_FLOWTABLE_NAME, "flowtable added:" },
	{ NFT_MSG_DELFLOWTABLE, NFTA_FLOWTABLE_NAME, "flowtable deleted:" },
};

/* Whether the message is about our table. The table's name is attribute 1 in messages of every kind. */
static bool touches_our_table(const struct nlmsghdr *message)
{
	const struct nfgenmsg *head = mnl_nlmsg_get_payload(message);
	uint16_t length;
	const char *table = attribute_text(message, sizeof(*head), NFTA_TABLE_NAME, &length);

	return head->nfgen_family == NFPROTO_INET && table && length == sizeof(NFT_TABLE) &&
	       memcmp(table, NFT_TABLE, sizeof(NFT_TABLE)) == 0;
}

static void note_object(struct touched *touched, const struct nlmsghdr *message)
{
	char name[64] = "";
	uint16_t length;
	const char *text;

	for (size_t i = 0; i < ARRAY_SIZE(object_kinds); i++) {
		const struct object_kind *kind = &object_kinds[i];

		if (kind->message != (message->nlmsg_type & 0xff) || !touches_our_table(message))
			continue;
		if (touched->messages++ > 0)
			return;
		text = kind->name ? attribute_text(message, sizeof(struct nfgenmsg), kind->name, &length) : NULL;
		if (text)
			copy_printable(name, sizeof(name), text, length);
		snprintf(touched->first, sizeof(touched->first), "%s%s%s", kind->what, name[0] ? " " : "", name);
		return;
	}
}

/* The process number of a NEWGEN, from either GETGEN or an announcement; 0 if it has none. */
static int32_t generation_pid(const struct nlmsghdr *message)
{
	return (int32_t)ntohl(attribute_number(message, sizeof(struct nfgenmsg), NFTA_GEN_PROC_PID, 0));
}

/* Keeps messages of this sender out of the socket. A failure costs room in the buffer only. */
static void keep_out(struct mnl_socket *socket, uint32_t port)
{
	struct sock_filter code[] = {
		/* Loads are in network byte order, the field is in the host's. */
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct nlmsghdr, nlmsg_pid)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(port), 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	struct sock_fprog program = { ARRAY_SIZE(code), code };

	(void)setsockopt(mnl_socket_get_fd(socket), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

static void learn_own_port(struct kernel_watch *watch, uint32_t port)
{
	if (port == 0 || port == watch->own_port)
		return;
	watch->own_port = port;
	keep_out(watch->nft, port);
}

static int take_generation(struct kernel_watch *watch, const struct nlmsghdr *message, struct watch_event *ret)
{
	struct touched touched = watch->touched;
	int32_t pid = generation_pid(message);
	uint16_t length;
	const char *name;

	watch->touched = (struct touched){ 0 };
	if (pid == watch->own_pid) {
		/* Not that of what we do beside our table. */
		if (touched.messages > 0)
			learn_own_port(watch, message->nlmsg_pid);
		return 0;
	}
	if (touched.messages == 0)
		return 0;
	*ret = (struct watch_event){ .kind = WATCH_NFT, .pid = pid };
	name = attribute_text(message, sizeof(struct nfgenmsg), NFTA_GEN_PROC_NAME, &length);
	if (name)
		copy_printable(ret->process, sizeof(ret->process), name, length);
	if (touched.messages > 1)
		snprintf(ret->detail, sizeof(ret->detail), "%s and %u more", touched.first, touched.messages - 1);
	else
		snprintf(ret->detail, sizeof(ret->detail), "%s", touched.first);
	return 1;
}

static int take_nft(struct kernel_watch *watch, const struct nlmsghdr *message, struct watch_event *ret)
{
	if (message->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES || message->nlmsg_len < MNL_NLMSG_HDRLEN + 4)
		return 0;
	if ((message->nlmsg_type & 0xff) == NFT_MSG_NEWGEN)
		return take_generation(watch, message, ret);
	note_object(&watch->touched, message);
	return 0;
}

/* Rules and routes. */

static int take_rule(const struct nlmsghdr *message, const struct route_params *ours, struct watch_event *ret)
{
	const struct fib_rule_hdr *head = mnl_nlmsg_get_payload(message);
	uint32_t protocol = attribute_number(message, sizeof(*head), FRA_PROTOCOL, 0);
	uint32_t priority = attribute_number(message, sizeof(*head), FRA_PRIORITY, 0);
	uint32_t table = attribute_number(message, sizeof(*head), FRA_TABLE, head->table);

	if ((head->family != AF_INET && head->family != AF_INET6) ||
	        (protocol != KERNEL_ROUTE_PROTOCOL && table != ours->table) ||
	        kernel_route_port_is_own(message->nlmsg_pid))
		return 0;
	*ret = (struct watch_event){ .kind = WATCH_RULE, .removed = message->nlmsg_type == RTM_DELRULE };
	name_process(ret, message->nlmsg_pid);
	snprintf(ret->detail, sizeof(ret->detail), "IPv%c rule with priority %u %s",
	        head->family == AF_INET ? '4' : '6', priority, ret->removed ? "deleted" : "added");
	return 1;
}

static int take_route(const struct nlmsghdr *message, const struct route_params *ours, struct watch_event *ret)
{
	const struct rtmsg *head = mnl_nlmsg_get_payload(message);
	uint32_t table = attribute_number(message, sizeof(*head), RTA_TABLE, head->rtm_table);

	if ((head->rtm_family != AF_INET && head->rtm_family != AF_INET6) ||
	        (head->rtm_protocol != KERNEL_ROUTE_PROTOCOL && table != ours->table) ||
	        kernel_route_port_is_own(message->nlmsg_pid))
		return 0;
	*ret = (struct watch_event){ .kind = WATCH_ROUTE, .removed = message->nlmsg_type == RTM_DELROUTE };
	name_process(ret, message->nlmsg_pid);
	snprintf(ret->detail, sizeof(ret->detail), "IPv%c route in table %u %s",
	        head->rtm_family == AF_INET ? '4' : '6', table, ret->removed ? "deleted" : "added");
	return 1;
}

/* Links and addresses. */

static struct link *find_link(struct kernel_watch *watch, int index)
{
	for (size_t i = 0; i < watch->n_links; i++)
		if (watch->links[i].index == index)
			return &watch->links[i];
	return NULL;
}

static void link_event(const struct link *link, bool removed, const char *what, struct watch_event *ret)
{
	*ret = (struct watch_event){ .kind = WATCH_LINK, .up = link->up && !removed, .removed = removed };
	memcpy(ret->interface, link->name, sizeof(ret->interface));
	snprintf(ret->detail, sizeof(ret->detail), "%s", what);
}

static uint32_t xdp_program(const struct nlmsghdr *message)
{
	struct search outer = { .type = IFLA_XDP }, inner = { .type = IFLA_XDP_PROG_ID };

	mnl_attr_parse(message, sizeof(struct ifinfomsg), search_attribute, &outer);
	if (outer.found)
		mnl_attr_parse_nested(outer.found, search_attribute, &inner);
	return inner.found && mnl_attr_get_payload_len(inner.found) == sizeof(uint32_t) ? mnl_attr_get_u32(inner.found)
	                                                                                : 0;
}

static bool parse_link(const struct nlmsghdr *message, struct link *ret)
{
	const struct ifinfomsg *head = mnl_nlmsg_get_payload(message);
	uint16_t length;
	const char *name = attribute_text(message, sizeof(*head), IFLA_IFNAME, &length);
	const unsigned up = IFF_UP | IFF_RUNNING;

	/* A bridge tells about its ports in messages of its own family. */
	if (head->ifi_family != AF_UNSPEC || !name || length == 0 || length > IFNAMSIZ)
		return false;
	*ret = (struct link){ .index = head->ifi_index,
		.master = attribute_number(message, sizeof(*head), IFLA_MASTER, 0),
		.xdp = xdp_program(message),
		.up = (head->ifi_flags & up) == up };
	memcpy(ret->name, name, length);
	ret->name[IFNAMSIZ - 1] = '\0';
	return true;
}

static int take_new_link(struct kernel_watch *watch, const struct link *new, struct watch_event *ret)
{
	struct link *old = find_link(watch, new->index);

	if (!old) {
		if (array_reserve(&watch->links, &watch->links_size, watch->n_links + 1, sizeof(*new)) < 0)
			return -ENOMEM;
		watch->links[watch->n_links++] = *new;
		link_event(new, false, new->up ? "appeared, up" : "appeared, down", ret);
		return 1;
	}
	if (strcmp(old->name, new->name) != 0) {
		link_event(old, true, "renamed", ret);
		link_event(new, false, "appeared under a new name", &watch->second);
		watch->has_second = true;
	} else if (old->up != new->up) {
		link_event(new, false, new->up ? "went up" : "went down", ret);
	} else if (old->master != new->master) {
		link_event(new, false, new->master ? "became part of another one" : "is no part of another one", ret);
	} else if (old->xdp != new->xdp) {
		link_event(new, false, new->xdp ? "got another XDP program" : "lost its XDP program", ret);
	} else {
		return 0;
	}
	*old = *new;
	return 1;
}

static int take_link(struct kernel_watch *watch, const struct nlmsghdr *message, struct watch_event *ret)
{
	struct link link, *known;

	if (!parse_link(message, &link))
		return 0;
	if (message->nlmsg_type == RTM_NEWLINK)
		return take_new_link(watch, &link, ret);
	known = find_link(watch, link.index);
	if (!known)
		return 0;
	link_event(known, true, "disappeared", ret);
	*known = watch->links[--watch->n_links];
	return 1;
}

static int take_address(struct kernel_watch *watch, const struct nlmsghdr *message, struct watch_event *ret)
{
	const struct ifaddrmsg *head = mnl_nlmsg_get_payload(message);
	struct addr addr = { .family = head->ifa_family };
	char text[ADDR_TEXT_MAX];
	uint16_t length;
	const char *bytes = attribute_text(message, sizeof(*head), IFA_LOCAL, &length);
	struct link *link = find_link(watch, (int)head->ifa_index);

	if (!bytes)
		bytes = attribute_text(message, sizeof(*head), IFA_ADDRESS, &length);
	if ((addr.family != AF_INET && addr.family != AF_INET6) || !bytes || length != addr_bits(addr.family) / 8)
		return 0;
	memcpy(addr.bytes, bytes, length);
	*ret = (struct watch_event){ .kind = WATCH_ADDRESS, .removed = message->nlmsg_type == RTM_DELADDR };
	if (link)
		memcpy(ret->interface, link->name, sizeof(ret->interface));
	name_process(ret, message->nlmsg_pid);
	snprintf(ret->detail, sizeof(ret->detail), "%s/%u %s", addr_format(&addr, text), head->ifa_prefixlen,
	        ret->removed ? "removed" : "added");
	return 1;
}

static int take_routing(struct kernel_watch *watch, const struct nlmsghdr *message, const struct route_params *ours,
        struct watch_event *ret)
{
	/* The shortest of the heads: struct ifaddrmsg; the others' lengths are checked by their first attribute. */
	if (mnl_nlmsg_get_payload_len(message) < sizeof(struct rtmsg) && message->nlmsg_type != RTM_NEWADDR &&
	        message->nlmsg_type != RTM_DELADDR)
		return 0;
	switch (message->nlmsg_type) {
	case RTM_NEWRULE:
	case RTM_DELRULE:
		return take_rule(message, ours, ret);
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		return take_route(message, ours, ret);
	case RTM_NEWLINK:
	case RTM_DELLINK:
		return take_link(watch, message, ret);
	case RTM_NEWADDR:
	case RTM_DELADDR:
		return take_address(watch, message, ret);
	default:
		return 0;
	}
}

/* Reading. */

/* 1 and a datagram in hand, 0 when there is none, -ENOBUFS when some were lost, or another error. */
static int receive(struct kernel_watch *watch, struct mnl_socket *socket)
{
	ssize_t n = mnl_socket_recvfrom(socket, watch->datagram, sizeof(watch->datagram));

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	watch->at = (const struct nlmsghdr *)watch->datagram;
	watch->left = (int)n;
	watch->is_nft = socket == watch->nft;
	return 1;
}

static int walk_datagram(struct kernel_watch *watch, const struct route_params *ours, struct watch_event *ret)
{
	int r = 0;

	while (r == 0 && mnl_nlmsg_ok(watch->at, watch->left)) {
		const struct nlmsghdr *message = watch->at;

		watch->at = mnl_nlmsg_next(message, &watch->left);
		r = watch->is_nft ? take_nft(watch, message, ret) : take_routing(watch, message, ours, ret);
	}
	if (r == 0)
		watch->left = 0;
	return r;
}

static int dump_links(struct kernel_watch *watch);

/* The lost messages may have held links; the table is read anew, so that names go on being right. */
static int overrun(struct kernel_watch *watch, struct watch_event *ret)
{
	watch->touched = (struct touched){ 0 };
	*ret = (struct watch_event){ .kind = WATCH_OVERRUN, .detail = "the kernel had more to tell than was read" };
	return dump_links(watch) < 0 ? -EIO : 1;
}

int kernel_watch_next(struct kernel_watch *watch, const struct route_params *ours, struct watch_event *ret)
{
	int r;

	if (watch->has_second) {
		watch->has_second = false;
		*ret = watch->second;
		return 1;
	}
	do {
		r = walk_datagram(watch, ours, ret);
		if (r != 0)
			return r;
		r = receive(watch, watch->nft);
		if (r == 0)
			r = receive(watch, watch->route);
	} while (r > 0);
	return r == -ENOBUFS ? overrun(watch, ret) : r;
}

int kernel_watch_fd(const struct kernel_watch *watch)
{
	return watch->epoll;
}

/* Opening. */

static int keep_link(const struct nlmsghdr *message, void *data)
{
	struct kernel_watch *watch = data;
	struct watch_event event;
	struct link link;

	if (message->nlmsg_type == RTM_NEWLINK && parse_link(message, &link) && take_new_link(watch, &link, &event) < 0)
		return MNL_CB_ERROR;
	return MNL_CB_OK;
}

static int keep_generation(const struct nlmsghdr *message, void *data)
{
	struct kernel_watch *watch = data;

	if (message->nlmsg_len >= MNL_NLMSG_HDRLEN + 4) {
		watch->own_pid = generation_pid(message);
		watch->generation = ntohl(attribute_number(message, sizeof(struct nfgenmsg), NFTA_GEN_ID, 0));
	}
	return MNL_CB_STOP;
}

/* One request on a socket of its own, up to the end of its answer. */
static int ask(int bus, struct nlmsghdr *request, mnl_cb_t callback, struct kernel_watch *watch)
{
	char buffer[DATAGRAM_MAX] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct mnl_socket *socket = mnl_socket_open2(bus, SOCK_CLOEXEC);
	int r = MNL_CB_OK;

	if (!socket)
		return -errno;
	if (mnl_socket_sendto(socket, request, request->nlmsg_len) < 0)
		r = -errno;
	while (r > MNL_CB_STOP) {
		ssize_t n = mnl_socket_recvfrom(socket, buffer, sizeof(buffer));

		if (n >= 0)
			r = mnl_cb_run(buffer, (size_t)n, 0, 0, callback, watch);
		if (n < 0 || r < 0)
			r = errno ? -errno : -EIO;
	}
	mnl_socket_close(socket);
	return r;
}

static int dump_links(struct kernel_watch *watch)
{
	char buffer[64] __attribute__((aligned(NLMSG_ALIGNTO))) = { 0 };
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);

	request->nlmsg_type = RTM_GETLINK;
	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	(void)mnl_nlmsg_put_extra_header(request, sizeof(struct ifinfomsg));
	watch->n_links = 0;
	return ask(NETLINK_ROUTE, request, keep_link, watch);
}

static int ask_generation(struct kernel_watch *watch)
{
	char buffer[64] __attribute__((aligned(NLMSG_ALIGNTO))) = { 0 };
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);

	request->nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN;
	request->nlmsg_flags = NLM_F_REQUEST;
	(void)mnl_nlmsg_put_extra_header(request, sizeof(struct nfgenmsg));
	return ask(NETLINK_NETFILTER, request, keep_generation, watch);
}

/* A socket joined to the groups, in the epoll descriptor. */
static int open_socket(int bus, const int *groups, size_t n_groups, int epoll, struct mnl_socket **ret)
{
	struct mnl_socket *socket = mnl_socket_open2(bus, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct epoll_event event = { .events = EPOLLIN };
	int size = RECEIVE_BUFFER, fd;

	if (!socket)
		return -errno;
	*ret = socket; /* closed by kernel_watch_free */
	fd = mnl_socket_get_fd(socket);
	/* With the right to exceed the system's limit; without it, as much as is allowed. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	if (mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0)
		return -errno;
	for (size_t i = 0; i < n_groups; i++) {
		int group = groups[i];

		if (mnl_socket_setsockopt(socket, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
			return -errno;
	}
	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int open_sockets(struct kernel_watch *watch)
{
	static const int nft_groups[] = { NFNLGRP_NFTABLES };
	static const int route_groups[] = { RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE, RTNLGRP_IPV4_ROUTE,
		RTNLGRP_IPV6_ROUTE, RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR };
	int r;

	watch->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (watch->epoll < 0)
		return -errno;
	r = open_socket(NETLINK_NETFILTER, nft_groups, ARRAY_SIZE(nft_groups), watch->epoll, &watch->nft);
	if (r == 0)
		r = open_socket(NETLINK_ROUTE, route_groups, ARRAY_SIZE(route_groups), watch->epoll, &watch->route);
	return r;
}

int kernel_watch_open(struct kernel_watch **ret)
{
	struct kernel_watch *watch = calloc(1, sizeof(*watch));
	int r;

	if (!watch)
		return -ENOMEM;
	watch->epoll = -1;
	/* Sockets first: what happens from here on is told, even if it is in the dump as well. */
	r = open_sockets(watch);
	if (r == 0)
		r = ask_generation(watch);
	if (r == 0)
		r = dump_links(watch);
	if (r < 0) {
		kernel_watch_free(watch);
		return r;
	}
	watch->has_second = false;
	*ret = watch;
	return 0;
}

static int set_member(struct kernel_watch *watch, int option)
{
	int group = NFNLGRP_NFTABLES;

	return mnl_socket_setsockopt(watch->nft, option, &group, sizeof(group)) < 0 ? -errno : 0;
}

/* What others do between the question and the end of listening is both told and counted, which costs a look; but for
 * one whose transaction is counted as we ask, and told as we leave. */
int kernel_watch_pause(struct kernel_watch *watch)
{
	int r = ask_generation(watch);

	if (r == 0)
		r = set_member(watch, NETLINK_DROP_MEMBERSHIP);
	watch->paused = r == 0;
	return r;
}

int kernel_watch_resume(struct kernel_watch *watch, uint64_t commits, struct watch_event *ret)
{
	uint32_t before = watch->generation;
	int r;

	if (!watch->paused)
		return 0;
	r = set_member(watch, NETLINK_ADD_MEMBERSHIP);
	watch->paused = r < 0; /* the next time, then */
	if (r == 0)
		r = ask_generation(watch);
	if (r == 0 && watch->generation - before == commits)
		return 0;
	*ret = (struct watch_event){ .kind = WATCH_OVERRUN,
		.detail = "somebody changed nft while a large change of our own went on" };
	return 1;
}

void kernel_watch_free(struct kernel_watch *watch)
{
	if (!watch)
		return;
	if (watch->nft)
		mnl_socket_close(watch->nft);
	if (watch->route)
		mnl_socket_close(watch->route);
	if (watch->epoll >= 0)
		close(watch->epoll);
	free(watch->links);
	free(watch);
}
