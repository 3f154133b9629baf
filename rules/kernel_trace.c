/* Traced packets over netlink; see kernel_trace.h. One of the files that know libmnl. */
#include "rules/kernel_trace.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <string.h>

#include "gatewayd/base/cleanup.h"

/* Twenty packets a second of each trace, ten messages of some 300 bytes each: room for many seconds of a busy loop. */
#define RECEIVE_BUFFER (4 << 20)
/* The kernel's datagrams of events are at most 16 KiB. */
#define DATAGRAM_MAX 32768

struct kernel_trace {
	struct mnl_socket *socket;
	const struct nlmsghdr *at; /* the next message of the datagram in hand */
	int left;
	char datagram[DATAGRAM_MAX] __attribute__((aligned(NLMSG_ALIGNTO)));
};

/* What one message says, as far as it has been read. */
struct reading {
	struct trace_event *event;
	uint32_t type, policy;
	int32_t code;
	bool has_code;
	const uint8_t *network, *transport;
	size_t network_length, transport_length;
};

int kernel_trace_open(struct kernel_trace **ret)
{
	struct kernel_trace *trace = calloc(1, sizeof(*trace));
	int size = RECEIVE_BUFFER, r;

	if (!trace)
		return -ENOMEM;
	trace->socket = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC | SOCK_NONBLOCK);
	r = trace->socket && mnl_socket_bind(trace->socket, 0, MNL_SOCKET_AUTOPID) == 0 ? 0 : -errno;
	if (r == 0) {
		int group = NFNLGRP_NFTRACE;

		(void)setsockopt(mnl_socket_get_fd(trace->socket), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
		if (mnl_socket_setsockopt(trace->socket, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
			r = -errno;
	}
	if (r < 0)
		kernel_trace_free(trace);
	else
		*ret = trace;
	return r;
}

void kernel_trace_free(struct kernel_trace *trace)
{
	if (!trace)
		return;
	if (trace->socket)
		mnl_socket_close(trace->socket);
	free(trace);
}

int kernel_trace_fd(const struct kernel_trace *trace)
{
	return mnl_socket_get_fd(trace->socket);
}

static void copy_name(char to[TRACE_NAME_MAX], const struct nlattr *attribute)
{
	size_t length = strnlen(mnl_attr_get_payload(attribute), mnl_attr_get_payload_len(attribute));

	if (length >= TRACE_NAME_MAX)
		length = TRACE_NAME_MAX - 1;
	for (size_t i = 0; i < length; i++) {
		char c = ((const char *)mnl_attr_get_payload(attribute))[i];

		to[i] = (char)(c < ' ' || c > '~' ? '?' : c);
	}
	to[length] = '\0';
}

/* In network byte order; 0 if it is no such number. */
static uint32_t number_of(const struct nlattr *attribute)
{
	return mnl_attr_get_payload_len(attribute) == sizeof(uint32_t) ? ntohl(mnl_attr_get_u32(attribute)) : 0;
}

static int take_verdict(const struct nlattr *attribute, void *data)
{
	struct reading *reading = data;

	if (mnl_attr_get_type(attribute) == NFTA_VERDICT_CODE) {
		reading->code = (int32_t)number_of(attribute);
		reading->has_code = true;
	} else if (mnl_attr_get_type(attribute) == NFTA_VERDICT_CHAIN) {
		copy_name(reading->event->step.to, attribute);
	}
	return MNL_CB_OK;
}

static int take_attribute(const struct nlattr *attribute, void *data)
{
	struct reading *reading = data;
	struct trace_step *step = &reading->event->step;

	switch (mnl_attr_get_type(attribute)) {
	case NFTA_TRACE_ID:
		reading->event->id = number_of(attribute);
		break;
	case NFTA_TRACE_TYPE:
		reading->type = number_of(attribute);
		break;
	case NFTA_TRACE_TABLE:
		copy_name(step->table, attribute);
		break;
	case NFTA_TRACE_CHAIN:
		copy_name(step->chain, attribute);
		break;
	case NFTA_TRACE_RULE_HANDLE:
		if (mnl_attr_get_payload_len(attribute) == sizeof(uint64_t))
			step->handle = be64toh(mnl_attr_get_u64(attribute));
		break;
	case NFTA_TRACE_VERDICT:
		return mnl_attr_parse_nested(attribute, take_verdict, reading);
	case NFTA_TRACE_POLICY:
		reading->policy = number_of(attribute);
		break;
	case NFTA_TRACE_IIF:
		reading->event->interface = number_of(attribute);
		break;
	case NFTA_TRACE_NETWORK_HEADER:
		reading->network = mnl_attr_get_payload(attribute);
		reading->network_length = mnl_attr_get_payload_len(attribute);
		break;
	case NFTA_TRACE_TRANSPORT_HEADER:
		reading->transport = mnl_attr_get_payload(attribute);
		reading->transport_length = mnl_attr_get_payload_len(attribute);
		break;
	default:
		break;
	}
	return MNL_CB_OK;
}

static enum trace_verdict verdict_of(int32_t code)
{
	switch (code) {
	case NFT_CONTINUE:
	case NFT_BREAK:
		return TRACE_CONTINUE;
	case NFT_JUMP:
		return TRACE_JUMP;
	case NFT_GOTO:
		return TRACE_GOTO;
	case NFT_RETURN:
		return TRACE_RETURNED;
	case NF_ACCEPT:
		return TRACE_ACCEPT;
	case NF_DROP:
		return TRACE_DROP;
	default:
		return TRACE_OTHER;
	}
}

static const char *family_name(uint8_t family)
{
	switch (family) {
	case NFPROTO_INET:
		return "inet";
	case NFPROTO_IPV4:
		return "ip";
	case NFPROTO_IPV6:
		return "ip6";
	case NFPROTO_NETDEV:
		return "netdev";
	case NFPROTO_BRIDGE:
		return "bridge";
	default:
		return "other";
	}
}

/* Whether the message is an event. */
static bool take(const struct nlmsghdr *message, struct trace_event *ret)
{
	struct reading reading = { .event = ret };
	const struct nfgenmsg *head = mnl_nlmsg_get_payload(message);

	*ret = (struct trace_event){ 0 };
	if (message->nlmsg_type != (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_TRACE) ||
	        mnl_nlmsg_get_payload_len(message) < sizeof(*head))
		return false;
	(void)mnl_attr_parse(message, sizeof(*head), take_attribute, &reading);
	ret->step.family = family_name(head->nfgen_family);
	ret->step.kind = reading.type == NFT_TRACETYPE_RULE     ? TRACE_RULE
	                 : reading.type == NFT_TRACETYPE_RETURN ? TRACE_RETURN
	                                                        : TRACE_POLICY;
	if (ret->step.kind == TRACE_POLICY)
		ret->step.verdict = reading.policy == NF_DROP ? TRACE_DROP : TRACE_ACCEPT;
	else
		ret->step.verdict = reading.has_code ? verdict_of(reading.code) : TRACE_CONTINUE;
	ret->has_packet = reading.network && trace_packet_parse(reading.network, reading.network_length,
	                                             reading.transport, reading.transport_length, &ret->packet) == 0;
	return true;
}

/* 1 and a datagram in hand, 0 when there is none, or an error. */
static int receive(struct kernel_trace *trace)
{
	ssize_t n = mnl_socket_recvfrom(trace->socket, trace->datagram, sizeof(trace->datagram));

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	trace->at = (const struct nlmsghdr *)trace->datagram;
	trace->left = (int)n;
	return 1;
}

int kernel_trace_next(struct kernel_trace *trace, struct trace_event *ret)
{
	for (;;) {
		while (mnl_nlmsg_ok(trace->at, trace->left)) {
			const struct nlmsghdr *message = trace->at;

			trace->at = mnl_nlmsg_next(message, &trace->left);
			if (take(message, ret))
				return 1;
		}
		int r = receive(trace);

		if (r <= 0)
			return r;
	}
}
