/* Filters at the ingress of interfaces; see kernel_tc.h. */
#include "rules/kernel_tc.h"

#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"
#include "rules/kernel_bpf.h"
#include "rules/kernel_filters.h"
#include "rules/kernel_netlink.h"

#define FILTER_HANDLE 1
/* Bytes of a marker's path. */
#define MARKER_MAX (PATH_MAX + 32)

bool kernel_tc_fits(const char *interface)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = { 0 };

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", interface);
	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request) < 0 || !(request.ifr_flags & IFF_UP) ||
	        (request.ifr_flags & IFF_LOOPBACK))
		return false;
	return ioctl(fd, SIOCGIFHWADDR, &request) == 0 && request.ifr_hwaddr.sa_family == ARPHRD_ETHER;
}

struct part {
	bool is_part;
};

static int look_master(const struct nlattr *attribute, void *data)
{
	struct part *part = data;

	part->is_part |= mnl_attr_get_type(attribute) == IFLA_MASTER;
	return MNL_CB_OK;
}

static int look_link(const struct nlmsghdr *header, void *data)
{
	return header->nlmsg_type == RTM_NEWLINK ? mnl_attr_parse(header, sizeof(struct ifinfomsg), look_master, data)
	                                         : MNL_CB_OK;
}

bool kernel_tc_is_part(const char *interface)
{
	char buffer[MNL_NLMSG_HDRLEN + 64] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
	struct ifinfomsg *message;
	struct part part = { 0 };

	header->nlmsg_type = RTM_GETLINK;
	header->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	message = mnl_nlmsg_put_extra_header(header, sizeof(*message));
	message->ifi_index = (int)if_nametoindex(interface);
	return kernel_netlink_ask(NETLINK_ROUTE, header, look_link, &part) < 0 || part.is_part;
}

/* Says that the queueing discipline of the interface is ours. Where those of earlier releases are. */
static void marker_path(const char *directory, unsigned ifindex, char ret[MARKER_MAX])
{
	snprintf(ret, MARKER_MAX, "%s/shortcut/clsact_%u", directory, ifindex);
}

static int make_marker(const char *directory, unsigned ifindex)
{
	char path[MARKER_MAX];

	snprintf(path, sizeof(path), "%s/shortcut", directory);
	if ((mkdir(directory, 0700) < 0 && errno != EEXIST) || (mkdir(path, 0700) < 0 && errno != EEXIST))
		return -errno;
	marker_path(directory, ifindex, path);
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int make_discipline(const char *directory, unsigned ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS);
	int r = bpf_tc_hook_create(&hook);

	if (r == -EEXIST)
		return 0;
	return r < 0 ? r : make_marker(directory, ifindex);
}

static void remove_discipline(const char *directory, unsigned ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	struct kernel_filters filters;
	char marker[MARKER_MAX];

	marker_path(directory, ifindex, marker);
	/* The last of our programs, and of others', sees to it. */
	if (kernel_filters_look(ifindex, 0, 0, &filters) == 0 && filters.n == 0 && rmdir(marker) == 0)
		(void)bpf_tc_hook_destroy(&hook);
}

/* What is in our place: 1 ours, 0 nothing, -EBUSY somebody else's. */
static int place_look(const struct kernel_tc *tc, unsigned ifindex)
{
	struct kernel_filters filters;
	size_t length = strlen(tc->name);
	int r = kernel_filters_look(ifindex, tc->priority, FILTER_HANDLE, &filters);

	if (r < 0 || filters.there == 0)
		return r;
	/* The library adds the program's number. */
	return strncmp(filters.name, tc->name, length) == 0 && filters.name[length] == ':' ? 1 : -EBUSY;
}

bool kernel_tc_is_attached(const struct kernel_tc *tc, const char *interface)
{
	unsigned ifindex = if_nametoindex(interface);

	return ifindex != 0 && place_look(tc, ifindex) == 1;
}

int kernel_tc_attach(const struct kernel_tc *tc, const char *directory, int program, const char *interface)
{
	unsigned ifindex = if_nametoindex(interface);
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, filter, .handle = FILTER_HANDLE, .priority = tc->priority, .prog_fd = program,
	        .flags = BPF_TC_F_REPLACE);
	int r;

	if (ifindex == 0)
		return -ENODEV;
	r = make_discipline(directory, ifindex);
	if (r == 0)
		r = place_look(tc, ifindex);
	return r < 0 ? r : bpf_tc_attach(&hook, &filter);
}

static void detach(const struct kernel_tc *tc, const char *directory, unsigned ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, filter, .handle = FILTER_HANDLE, .priority = tc->priority);

	kernel_bpf_quiet();
	if (place_look(tc, ifindex) == 1)
		(void)bpf_tc_detach(&hook, &filter);
	remove_discipline(directory, ifindex);
}

void kernel_tc_detach(const struct kernel_tc *tc, const char *directory, const char *interface)
{
	unsigned ifindex = if_nametoindex(interface);

	if (ifindex != 0)
		detach(tc, directory, ifindex);
}

void kernel_tc_forget(const char *directory, unsigned ifindex)
{
	char marker[MARKER_MAX];

	marker_path(directory, ifindex, marker);
	(void)rmdir(marker);
}

static void forget_gone(const char *directory)
{
	char path[MARKER_MAX], name[IF_NAMESIZE];
	const struct dirent *entry;
	unsigned ifindex;
	DIR *markers;

	snprintf(path, sizeof(path), "%s/shortcut", directory);
	markers = opendir(path);
	while (markers && (entry = readdir(markers)))
		if (sscanf(entry->d_name, "clsact_%u", &ifindex) == 1 && !if_indextoname(ifindex, name))
			kernel_tc_forget(directory, ifindex);
	if (markers)
		closedir(markers);
}

void kernel_tc_detach_all(const struct kernel_tc *tc, const char *directory)
{
	struct if_nameindex *names = if_nameindex();

	for (const struct if_nameindex *name = names; name && name->if_index; name++)
		detach(tc, directory, name->if_index);
	if (names)
		if_freenameindex(names);
	forget_gone(directory);
}
