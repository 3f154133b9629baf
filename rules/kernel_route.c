/*
 * Policy routing of our own: rules and routes with our protocol number, both
 * families, through libmnl, as kernel_watch.c and kernel_dump.c.
 *
 * Theory of operation: marked packets must be delivered locally although their
 * destination is not ours. Three rules, P being the configured priority:
 *
 *   P:   fwmark M/MASK iif lo goto P+2
 *   P+1: fwmark M/MASK lookup T               T: local default dev lo
 *   P+2: nop
 *
 * The first one is for the reverse-path check: with src_valid_mark=1 (wg-quick
 * and Tailscale set it) the kernel looks up the route back to the source with
 * the packet's mark and iif lo; if that ended in T, every source would look
 * like one of our own addresses and the packet would be dropped as martian.
 *
 * A sync dumps what carries our protocol number, keeps one of each object that
 * is exactly as wanted, deletes the rest by sending the dumped message back,
 * and adds what is missing. Nothing without our protocol number is touched.
 */
#include "rules/kernel.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "rules/kernel_netlink.h"
#include "rules/kernel_ops.h"

#define RULES 3

/* How many of our last sockets' port numbers are remembered: one for each sync whose messages may still be on the way
 * to kernel_watch.c. */
#define OWN_PORTS 64

/* Rules are found in order of priority, so the order of adding matters only to packets on the way: the target of the
 * jump first, the look-up last. */
static const unsigned rule_order[RULES] = { 2, 0, 1 };

static struct {
	uint32_t ports[OWN_PORTS];
	unsigned next;
} own;

bool kernel_route_port_is_own(uint32_t port)
{
	for (unsigned i = 0; port != 0 && i < OWN_PORTS; i++)
		if (own.ports[i] == port)
			return true;
	return false;
}

/* One pass over rules and routes. */
struct pass {
	struct mnl_socket *socket;
	const struct route_params *params; /* NULL: nothing of ours is wanted */
	bool look;                         /* only count, touch nothing */
	unsigned changed;
	unsigned mark_rules; /* as in struct route_look */
	uint32_t mark_priority;
};

struct message {
	struct message *next;
	struct nlmsghdr header; /* and the rest of the message behind it */
};

struct dump {
	struct message *first, **last;
};

static void dump_clear(struct dump *dump)
{
	for (struct message *message = dump->first, *next; message; message = next) {
		next = message->next;
		free(message);
	}
}

static int keep_message(const struct nlmsghdr *header, void *data)
{
	struct dump *dump = data;
	struct message *message = malloc(sizeof(*message) + header->nlmsg_len);

	if (!message) {
		errno = ENOMEM;
		return MNL_CB_ERROR;
	}
	message->next = NULL;
	memcpy(&message->header, header, header->nlmsg_len);
	*dump->last = message;
	dump->last = &message->next;
	return MNL_CB_OK;
}

/* Rules of all kinds; routes of our protocol or, with a table, of that table. */
static int dump_objects(struct mnl_socket *socket, uint16_t type, uint8_t family, uint32_t table, struct dump *dump)
{
	char buffer[256] __attribute__((aligned(NLMSG_ALIGNTO))) = { 0 };
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct rtmsg *head;

	request->nlmsg_type = type;
	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	/* Both heads have 12 bytes and begin with the family. */
	head = mnl_nlmsg_put_extra_header(request, sizeof(*head));
	head->rtm_family = family;
	/* With strict checking the kernel filters by protocol or table: a full routing table need not come through
	 * here. */
	if (type == RTM_GETROUTE && table)
		mnl_attr_put_u32(request, RTA_TABLE, table);
	else if (type == RTM_GETROUTE)
		head->rtm_protocol = KERNEL_ROUTE_PROTOCOL;
	dump->last = &dump->first;
	return kernel_netlink_talk(socket, request, keep_message, dump);
}

/* Deletes exactly what was dumped. */
static int delete_object(struct pass *pass, struct nlmsghdr *dumped, uint16_t type)
{
	int r;

	pass->changed++;
	if (pass->look)
		return 0;
	dumped->nlmsg_type = type;
	dumped->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	r = kernel_netlink_talk(pass->socket, dumped, NULL, NULL);
	return r == -ENOENT || r == -ESRCH ? 0 : r;
}

/* Rules. */

struct rule {
	uint8_t action;
	uint32_t priority, mark, mask, table, target;
	bool from_lo;
	bool other; /* it has a selector that none of ours has */
	uint8_t protocol;
};

static void wanted_rule(const struct route_params *params, unsigned i, struct rule *ret)
{
	*ret = (struct rule){
		.priority = params->priority + i, .protocol = KERNEL_ROUTE_PROTOCOL, .action = FR_ACT_NOP
	};
	if (i == 2)
		return;
	ret->mark = params->mark;
	ret->mask = params->mark_mask;
	ret->action = i == 0 ? FR_ACT_GOTO : FR_ACT_TO_TBL;
	ret->from_lo = i == 0;
	ret->target = i == 0 ? params->priority + 2 : 0;
	ret->table = i == 0 ? 0 : params->table;
}

static int take_rule_attribute(const struct nlattr *attribute, void *data)
{
	struct rule *rule = data;

	switch (mnl_attr_get_type(attribute)) {
	case FRA_PRIORITY:
		rule->priority = mnl_attr_get_u32(attribute);
		break;
	case FRA_FWMARK:
		rule->mark = mnl_attr_get_u32(attribute);
		break;
	case FRA_FWMASK:
		rule->mask = mnl_attr_get_u32(attribute);
		break;
	case FRA_TABLE:
		rule->table = mnl_attr_get_u32(attribute);
		break;
	case FRA_GOTO:
		rule->target = mnl_attr_get_u32(attribute);
		break;
	case FRA_PROTOCOL:
		rule->protocol = mnl_attr_get_u8(attribute);
		break;
	case FRA_IIFNAME:
		rule->from_lo = strcmp(mnl_attr_get_str(attribute), "lo") == 0;
		rule->other |= !rule->from_lo;
		break;
	case FRA_SUPPRESS_PREFIXLEN:
	case FRA_SUPPRESS_IFGROUP:
		rule->other |= mnl_attr_get_u32(attribute) != UINT32_MAX;
		break;
	case FRA_PAD:
		break;
	default:
		rule->other = true;
	}
	return MNL_CB_OK;
}

static void parse_rule(const struct nlmsghdr *message, struct rule *ret)
{
	const struct fib_rule_hdr *head = mnl_nlmsg_get_payload(message);

	*ret = (struct rule){ .action = head->action, .table = head->table };
	ret->other = head->src_len || head->dst_len || head->tos || (head->flags & FIB_RULE_INVERT);
	mnl_attr_parse(message, sizeof(*head), take_rule_attribute, ret);
	/* A mask without a mark is how the kernel tells "no mark". */
	if (ret->mark == 0 && ret->mask == UINT32_MAX)
		ret->mask = 0;
}

static bool same_rule(const struct rule *a, const struct rule *b)
{
	return a->action == b->action && a->priority == b->priority && a->mark == b->mark && a->mask == b->mask &&
	       a->table == b->table && a->target == b->target && a->from_lo == b->from_lo && a->other == b->other;
}

static int add_rule(struct pass *pass, uint8_t family, const struct rule *rule)
{
	char buffer[512] __attribute__((aligned(NLMSG_ALIGNTO))) = { 0 };
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct fib_rule_hdr *head;

	pass->changed++;
	if (pass->look)
		return 0;
	request->nlmsg_type = RTM_NEWRULE;
	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
	head = mnl_nlmsg_put_extra_header(request, sizeof(*head));
	head->family = family;
	head->action = rule->action;
	mnl_attr_put_u32(request, FRA_PRIORITY, rule->priority);
	mnl_attr_put_u8(request, FRA_PROTOCOL, KERNEL_ROUTE_PROTOCOL);
	if (rule->mask) {
		mnl_attr_put_u32(request, FRA_FWMARK, rule->mark);
		mnl_attr_put_u32(request, FRA_FWMASK, rule->mask);
	}
	if (rule->from_lo)
		mnl_attr_put_strz(request, FRA_IIFNAME, "lo");
	if (rule->target)
		mnl_attr_put_u32(request, FRA_GOTO, rule->target);
	if (rule->table)
		mnl_attr_put_u32(request, FRA_TABLE, rule->table);
	return kernel_netlink_talk(pass->socket, request, NULL, NULL);
}

/* Whether a dumped rule is one of those wanted, and the first of its kind. */
static bool keep_rule(const struct rule *rule, const struct route_params *params, bool found[RULES])
{
	for (unsigned i = 0; params && i < RULES; i++) {
		struct rule wanted;

		wanted_rule(params, i, &wanted);
		if (found[i] || !same_rule(rule, &wanted))
			continue;
		found[i] = true;
		return true;
	}
	return false;
}

/* Somebody else's rule that may take a marked packet, or not, for the sake of our own bits. */
static void note_mark_rule(struct pass *pass, const struct rule *rule)
{
	const struct route_params *params = pass->params;

	if (!params || rule->priority > params->priority + 1 || !(rule->mask & params->mark_mask))
		return;
	pass->mark_rules++;
	pass->mark_priority = rule->priority;
}

static int sync_rules(struct pass *pass, uint8_t family)
{
	const struct route_params *params = pass->params;
	_cleanup_(dump_clear) struct dump dump = { 0 };
	bool found[RULES] = { false };
	struct rule rule;
	int r = dump_objects(pass->socket, RTM_GETRULE, family, 0, &dump);

	for (struct message *message = dump.first; r == 0 && message; message = message->next) {
		parse_rule(&message->header, &rule);
		if (rule.protocol != KERNEL_ROUTE_PROTOCOL)
			note_mark_rule(pass, &rule);
		if (rule.protocol != KERNEL_ROUTE_PROTOCOL || keep_rule(&rule, params, found))
			continue;
		r = delete_object(pass, &message->header, RTM_DELRULE);
	}
	for (unsigned i = 0; params && r == 0 && i < RULES; i++) {
		if (found[rule_order[i]])
			continue;
		wanted_rule(params, rule_order[i], &rule);
		r = add_rule(pass, family, &rule);
	}
	return r;
}

/* Routes. */

struct route {
	uint32_t table, device;
	bool other; /* it has an attribute that ours has not */
};

static int take_route_attribute(const struct nlattr *attribute, void *data)
{
	struct route *route = data;

	switch (mnl_attr_get_type(attribute)) {
	case RTA_TABLE:
		route->table = mnl_attr_get_u32(attribute);
		break;
	case RTA_OIF:
		route->device = mnl_attr_get_u32(attribute);
		break;
	case RTA_GATEWAY:
	case RTA_VIA:
	case RTA_MULTIPATH:
	case RTA_PREFSRC:
		route->other = true;
		break;
	default:
		break;
	}
	return MNL_CB_OK;
}

static bool is_wanted_route(const struct nlmsghdr *message, const struct route_params *params, unsigned lo)
{
	const struct rtmsg *head = mnl_nlmsg_get_payload(message);
	struct route route = { .table = head->rtm_table };

	mnl_attr_parse(message, sizeof(*head), take_route_attribute, &route);
	return params && head->rtm_type == RTN_LOCAL && head->rtm_dst_len == 0 && head->rtm_src_len == 0 &&
	       head->rtm_tos == 0 && route.table == params->table && route.device == lo && !route.other;
}

static int add_route(struct pass *pass, uint8_t family, unsigned lo)
{
	char buffer[512] __attribute__((aligned(NLMSG_ALIGNTO))) = { 0 };
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct rtmsg *head;

	pass->changed++;
	if (pass->look)
		return 0;
	request->nlmsg_type = RTM_NEWROUTE;
	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
	head = mnl_nlmsg_put_extra_header(request, sizeof(*head));
	head->rtm_family = family;
	head->rtm_table = RT_TABLE_UNSPEC;
	head->rtm_protocol = KERNEL_ROUTE_PROTOCOL;
	head->rtm_scope = family == AF_INET ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE;
	head->rtm_type = RTN_LOCAL;
	mnl_attr_put_u32(request, RTA_TABLE, pass->params->table);
	mnl_attr_put_u32(request, RTA_OIF, lo);
	return kernel_netlink_talk(pass->socket, request, NULL, NULL);
}

static int sync_routes(struct pass *pass, uint8_t family)
{
	_cleanup_(dump_clear) struct dump dump = { 0 };
	unsigned lo = if_nametoindex("lo");
	bool found = false;
	int r = lo ? dump_objects(pass->socket, RTM_GETROUTE, family, 0, &dump) : -ENODEV;

	for (struct message *message = dump.first; r == 0 && message; message = message->next) {
		const struct rtmsg *head = mnl_nlmsg_get_payload(&message->header);

		if (head->rtm_protocol != KERNEL_ROUTE_PROTOCOL)
			continue;
		if (!found && is_wanted_route(&message->header, pass->params, lo)) {
			found = true;
			continue;
		}
		r = delete_object(pass, &message->header, RTM_DELROUTE);
	}
	if (pass->params && r == 0 && !found)
		r = add_route(pass, family, lo);
	return r;
}

static int sync_families(struct pass *pass)
{
	static const uint8_t families[] = { AF_INET, AF_INET6 };
	int r = 0;

	/* A route that no rule leads to does nothing; a rule that leads to an empty table does not either. */
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(families); i++) {
		r = sync_routes(pass, families[i]);
		if (r == 0)
			r = sync_rules(pass, families[i]);
	}
	return r;
}

/* Others' routes in our table. */

static int take_destination(const struct nlattr *attribute, void *data)
{
	struct addr *addr = data;

	if (mnl_attr_get_type(attribute) == RTA_DST && mnl_attr_get_payload_len(attribute) <= sizeof(addr->bytes))
		memcpy(addr->bytes, mnl_attr_get_payload(attribute), mnl_attr_get_payload_len(attribute));
	return MNL_CB_OK;
}

static void note_foreign(const struct nlmsghdr *message, struct route_look *look)
{
	const struct rtmsg *head = mnl_nlmsg_get_payload(message);
	struct addr addr = { .family = head->rtm_family };
	char text[ADDR_TEXT_MAX];

	if (head->rtm_protocol == KERNEL_ROUTE_PROTOCOL || look->foreign++ > 0)
		return;
	mnl_attr_parse(message, sizeof(*head), take_destination, &addr);
	snprintf(look->first, sizeof(look->first), "%s/%u", addr_format(&addr, text), head->rtm_dst_len);
}

static int look_for_foreign(struct pass *pass, uint8_t family, struct route_look *look)
{
	_cleanup_(dump_clear) struct dump dump = { 0 };
	int r = dump_objects(pass->socket, RTM_GETROUTE, family, pass->params->table, &dump);

	for (struct message *message = dump.first; r == 0 && message; message = message->next)
		note_foreign(&message->header, look);
	return r == -ENOENT ? 0 : r; /* no such table yet */
}

static int open_pass(struct pass *pass)
{
	int one = 1;

	pass->socket = kernel_netlink_open(NETLINK_ROUTE);
	if (!pass->socket)
		return -errno;
	own.ports[own.next++ % OWN_PORTS] = mnl_socket_get_portid(pass->socket);
	(void)mnl_socket_setsockopt(pass->socket, NETLINK_GET_STRICT_CHK, &one, sizeof(one));
	return 0;
}

int kernel_route_apply(const struct route_params *params, unsigned *ret_changed)
{
	struct pass pass = { .params = params };
	int r = open_pass(&pass);

	if (r == 0)
		r = sync_families(&pass);
	if (pass.socket)
		mnl_socket_close(pass.socket);
	if (r == 0)
		*ret_changed = pass.changed;
	return r;
}

int kernel_route_examine(const struct route_params *params, struct route_look *ret)
{
	struct pass pass = { .params = params, .look = true };
	struct route_look look = { 0 };
	int r = open_pass(&pass);

	if (r == 0)
		r = sync_families(&pass);
	if (r == 0)
		r = look_for_foreign(&pass, AF_INET, &look);
	if (r == 0)
		r = look_for_foreign(&pass, AF_INET6, &look);
	if (pass.socket)
		mnl_socket_close(pass.socket);
	look.wrong = pass.changed;
	look.mark_rules = pass.mark_rules;
	look.mark_priority = pass.mark_priority;
	if (r == 0)
		*ret = look;
	return r;
}
