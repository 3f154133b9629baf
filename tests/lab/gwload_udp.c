/*
 * UDP round trips with IN_FLIGHT packets on their way at any time, however many
 * flows they belong to: no queue overflows by design, so what is measured is
 * the cost of a packet and not what is lost. A slot is one packet in flight; its
 * answer lets the next flow in turn send. A slot without an answer for LOST_NS is
 * counted as lost and used again.
 */
#include "gwload.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define IN_FLIGHT  64 /* 1200-byte packets of so many fit the default socket buffer */
#define SIZE_MAX_B 9000
#define BATCH      64
#define FLOWS_MAX  16000
#define LOST_NS    (NS_PER_S / 4)
#define SCAN_NS    (NS_PER_S / 20)
#define BUFFER     (4 << 20)

/* What a packet begins with. */
struct stamp {
	uint32_t slot;
	uint32_t serial;
};

static struct {
	int fds[FLOWS_MAX];
	unsigned n_flows, next_flow;
	size_t size;
	int epoll;
	struct {
		uint32_t serial;
		int64_t sent_ns;
	} slots[IN_FLIGHT];
	uint32_t waiting[IN_FLIGHT]; /* slots that are to be sent */
	unsigned n_waiting;
	uint64_t done, lost, stale, errors;
	struct latencies latencies;
} udp;

static void flow_open(const struct peer *peer, unsigned i)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = i };
	int room = BUFFER;

	udp.fds[i] = peer_connect(peer, SOCK_DGRAM);
	setsockopt(udp.fds[i], SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	if (epoll_ctl(udp.epoll, EPOLL_CTL_ADD, udp.fds[i], &event))
		die("epoll_ctl");
}

/* Stamps the slots that wait, as packets[0..]; returns how many. */
static unsigned stamp_waiting(char packets[][SIZE_MAX_B])
{
	int64_t now = now_ns();
	unsigned n = udp.n_waiting;

	for (unsigned i = 0; i < n; i++) {
		uint32_t slot = udp.waiting[i];
		struct stamp stamp = { .slot = slot, .serial = ++udp.slots[slot].serial };

		memcpy(packets[i], &stamp, sizeof(stamp));
		udp.slots[slot].sent_ns = now;
	}
	udp.n_waiting = 0;
	return n;
}

/* Sends what waits: of one flow at once, else each over the next flow in turn. What cannot be sent (an earlier packet's
 * ICMP error, no buffer) runs into its slot's time limit. */
static void send_waiting(void)
{
	static char packets[IN_FLIGHT][SIZE_MAX_B];
	static struct iovec vectors[IN_FLIGHT];
	static struct mmsghdr messages[IN_FLIGHT];
	unsigned n = stamp_waiting(packets);

	for (unsigned i = 0; i < n; i++) {
		vectors[i] = (struct iovec){ packets[i], udp.size };
		messages[i].msg_hdr = (struct msghdr){ .msg_iov = &vectors[i], .msg_iovlen = 1 };
	}
	if (udp.n_flows == 1) {
		int sent = n ? sendmmsg(udp.fds[0], messages, n, 0) : 0;

		udp.errors += n - (unsigned)(sent > 0 ? sent : 0);
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		udp.errors += send(udp.fds[udp.next_flow], packets[i], udp.size, 0) < 0;
		udp.next_flow = (udp.next_flow + 1) % udp.n_flows;
	}
}

static void packet_take(const char *packet, size_t length)
{
	struct stamp stamp;

	if (length != udp.size) {
		udp.errors++;
		return;
	}
	memcpy(&stamp, packet, sizeof(stamp));
	if (stamp.slot >= IN_FLIGHT || stamp.serial != udp.slots[stamp.slot].serial) {
		udp.stale++;
		return;
	}
	udp.done++;
	latencies_add(&udp.latencies, udp.slots[stamp.slot].sent_ns, now_ns());
	udp.slots[stamp.slot].serial++; /* answered: a second answer is stale */
	udp.waiting[udp.n_waiting++] = stamp.slot;
}

/* What waits on one flow's socket, at most BATCH packets; more is told again by epoll. */
static void flow_read(int fd)
{
	static char packets[BATCH][SIZE_MAX_B];
	static struct iovec vectors[BATCH];
	static struct mmsghdr messages[BATCH];
	int n;

	for (int i = 0; i < BATCH; i++) {
		vectors[i] = (struct iovec){ packets[i], SIZE_MAX_B };
		messages[i].msg_hdr = (struct msghdr){ .msg_iov = &vectors[i], .msg_iovlen = 1 };
	}
	n = recvmmsg(fd, messages, udp.n_flows == 1 ? BATCH : 4, MSG_DONTWAIT, NULL);
	if (n < 0 && errno != EAGAIN)
		udp.errors++;
	for (int i = 0; i < n; i++)
		packet_take(packets[i], messages[i].msg_len);
}

static void scan_lost(int64_t now)
{
	for (uint32_t i = 0; i < IN_FLIGHT; i++) {
		if (now - udp.slots[i].sent_ns > LOST_NS) {
			udp.lost++;
			udp.waiting[udp.n_waiting++] = i;
		}
	}
}

static void run_until(int64_t deadline)
{
	struct epoll_event events[BATCH];
	int64_t now = now_ns(), scan = now + SCAN_NS;

	while (now < deadline) {
		int n = epoll_wait(udp.epoll, events, BATCH, 50);

		for (int i = 0; i < n; i++)
			flow_read(udp.fds[events[i].data.u32]);
		send_waiting();
		now = now_ns();
		if (now >= scan) {
			scan_lost(now);
			send_waiting();
			scan = now + SCAN_NS;
		}
	}
}

int load_udp(char **argument)
{
	struct peer peer;
	int64_t started;
	double seconds;

	peer_set(&peer, argument[0], argument[1]);
	udp.size = (size_t)atoi(argument[2]);
	udp.n_flows = (unsigned)atoi(argument[3]);
	if (udp.size < sizeof(struct stamp) || udp.size > SIZE_MAX_B || udp.n_flows < 1 || udp.n_flows > FLOWS_MAX)
		return 2;
	udp.epoll = epoll_create1(EPOLL_CLOEXEC);
	latencies_init(&udp.latencies);
	for (unsigned i = 0; i < udp.n_flows; i++)
		flow_open(&peer, i);
	for (uint32_t i = 0; i < IN_FLIGHT; i++)
		udp.waiting[udp.n_waiting++] = i;
	send_waiting();
	started = now_ns();
	run_until(started + (int64_t)(atof(argument[4]) * 1e9));
	seconds = (double)(now_ns() - started) / 1e9;
	printf("{\"done\": %llu, \"lost\": %llu, \"stale\": %llu, \"errors\": %llu, \"seconds\": %.3f, "
	       "\"per_second\": %.1f, ",
	        (unsigned long long)udp.done, (unsigned long long)udp.lost, (unsigned long long)udp.stale,
	        (unsigned long long)udp.errors, seconds, (double)udp.done / seconds);
	latencies_print(&udp.latencies);
	printf("}\n");
	return 0;
}

/* The answer to "who", the sender's address and port as they are seen here, in the packet's place; returns its length.
 */
static size_t answer_who(char *packet, const struct sockaddr_in6 *sender)
{
	char text[INET6_ADDRSTRLEN] = "";
	const char *address = inet_ntop(AF_INET6, &sender->sin6_addr, text, sizeof(text)) ? text : "?";

	if (IN6_IS_ADDR_V4MAPPED(&sender->sin6_addr))
		address += strlen("::ffff:");
	return (size_t)snprintf(packet, SIZE_MAX_B, "%s %u", address, ntohs(sender->sin6_port));
}

static void echo_batch(int fd)
{
	static char packets[BATCH][SIZE_MAX_B];
	static struct iovec vectors[BATCH];
	static struct mmsghdr messages[BATCH];
	static struct sockaddr_in6 senders[BATCH];
	/* The packet's destination: it goes back as the answer's source, which need not be the host's first address. */
	static char destinations[BATCH][CMSG_SPACE(sizeof(struct in6_pktinfo))];
	int n;

	for (int i = 0; i < BATCH; i++) {
		vectors[i] = (struct iovec){ packets[i], SIZE_MAX_B };
		messages[i].msg_hdr = (struct msghdr){ .msg_name = &senders[i],
			.msg_namelen = sizeof(senders[i]),
			.msg_iov = &vectors[i],
			.msg_iovlen = 1,
			.msg_control = destinations[i],
			.msg_controllen = sizeof(destinations[i]) };
	}
	n = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);
	for (int i = 0; i < n; i++) {
		vectors[i].iov_len = messages[i].msg_len;
		if (messages[i].msg_len == 3 && memcmp(packets[i], "who", 3) == 0)
			vectors[i].iov_len = answer_who(packets[i], &senders[i]);
	}
	for (int sent = 0; sent < n;) {
		int r = sendmmsg(fd, messages + sent, (unsigned)(n - sent), 0);

		sent += r > 0 ? r : 1; /* one that cannot be sent must not hold up the others */
	}
}

int load_udp_echo(char **argument)
{
	int fd = listen_on(argument[0], SOCK_DGRAM), room = BUFFER, one = 1;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	if (setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof(one)))
		die("gwload: udp-echo: pktinfo");
	for (;;)
		echo_batch(fd);
}
