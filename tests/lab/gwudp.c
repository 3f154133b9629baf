/*
 * The lab's datagram tool: a server that sends back what it gets, and a client
 * with many flows that checks every byte of what comes back. Results are one
 * line of JSON. Never sanitized: it must not be what is measured.
 *
 *   gwudp echo PORT                                     until it is ended; both families
 *   gwudp check ADDRESS PORT FLOWS ROUNDS SIZE WINDOW   FLOWS sockets, each sends ROUNDS datagrams of SIZE bytes
 *                                                       and has at most WINDOW on their way
 *   gwudp many ADDRESS PORT FLOWS AT_ONCE               FLOWS sockets one after another, AT_ONCE open at a time: a
 *                                                       question and an answer each
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH     64
#define SIZE_MAX_ 65507
/* A datagram that is not answered for so long is sent again. */
#define RESEND_MS 1000
/* And a flow that is not answered at all for so long has failed. */
#define GIVE_UP_MS 20000

struct header {
	uint32_t flow, sequence;
	uint64_t seed;
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static socklen_t address_of(const char *text, unsigned port, struct sockaddr_storage *ret)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;

	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)port);
		return sizeof(*v4);
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) != 1)
		exit(2);
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons((uint16_t)port);
	return sizeof(*v6);
}

/* --- the server --- */

static void echo_batch(int fd)
{
	static uint8_t bytes[BATCH][SIZE_MAX_];
	static struct sockaddr_storage names[BATCH];
	static union {
		struct cmsghdr header;
		uint8_t space[128];
	} controls[BATCH];
	struct mmsghdr messages[BATCH];
	struct iovec vectors[BATCH];
	int n;

	for (int i = 0; i < BATCH; i++) {
		vectors[i] = (struct iovec){ bytes[i], sizeof(bytes[i]) };
		messages[i].msg_hdr = (struct msghdr){ .msg_name = &names[i],
			.msg_namelen = sizeof(names[i]),
			.msg_iov = &vectors[i],
			.msg_iovlen = 1,
			.msg_control = &controls[i],
			.msg_controllen = sizeof(controls[i]) };
	}
	n = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
	/* The control message is the address that was written to: the answer comes from it. */
	for (int i = 0; i < n; i++)
		vectors[i].iov_len = messages[i].msg_len;
	for (int done = 0; done < n;) {
		int sent = sendmmsg(fd, &messages[done], (unsigned)(n - done), 0);

		done += sent > 0 ? sent : 1;
	}
}

static int echo_socket(int family, unsigned port)
{
	struct sockaddr_storage sa;
	socklen_t length = address_of(family == AF_INET ? "0.0.0.0" : "::", port, &sa);
	int fd = socket(family, SOCK_DGRAM, 0), on = 1, room = 8 << 20;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	if (family == AF_INET6) {
		setsockopt(fd, SOL_IPV6, IPV6_V6ONLY, &on, sizeof(on));
		setsockopt(fd, SOL_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on));
	} else {
		setsockopt(fd, SOL_IP, IP_PKTINFO, &on, sizeof(on));
	}
	if (bind(fd, (struct sockaddr *)&sa, length) < 0)
		exit(1);
	return fd;
}

static int echo(unsigned port)
{
	struct pollfd fds[2] = { { .fd = echo_socket(AF_INET, port), .events = POLLIN },
		{ .fd = echo_socket(AF_INET6, port), .events = POLLIN } };

	while (poll(fds, 2, -1) >= 0)
		for (int i = 0; i < 2; i++)
			if (fds[i].revents)
				echo_batch(fds[i].fd);
	return 1;
}

/* --- the client --- */

struct flow {
	int fd;
	uint32_t number, next; /* next: sequence number of the next datagram */
	uint32_t waiting;      /* on their way */
	uint32_t answered;
	uint8_t *seen; /* one bit for each datagram: the answer came */
	uint64_t heard_ms;
};

static struct {
	unsigned rounds, size, window;
	uint64_t received, resent, doubled, bad;
} run;

/* Bytes that follow from flow and number alone. */
static void fill(uint8_t *bytes, size_t size, uint32_t flow, uint32_t sequence)
{
	struct header header = { flow, sequence,
		((uint64_t)flow << 32 | sequence) * UINT64_C(0x9e3779b97f4a7c15) + size };
	uint64_t word = header.seed;

	memcpy(bytes, &header, size < sizeof(header) ? size : sizeof(header));
	for (size_t i = sizeof(header); i < size; i += 8) {
		word = word * UINT64_C(6364136223846793005) + 1442695040888963407;
		memcpy(bytes + i, &word, size - i < 8 ? size - i : 8);
	}
}

static void send_some(struct flow *flow, uint32_t first, uint32_t n)
{
	static uint8_t bytes[BATCH][SIZE_MAX_];
	struct mmsghdr messages[BATCH];
	struct iovec vectors[BATCH];

	memset(messages, 0, sizeof(messages));
	for (uint32_t i = 0; i < n; i++) {
		fill(bytes[i], run.size, flow->number, first + i);
		vectors[i] = (struct iovec){ bytes[i], run.size };
		messages[i].msg_hdr.msg_iov = &vectors[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	(void)sendmmsg(flow->fd, messages, n, MSG_DONTWAIT);
}

static void send_new(struct flow *flow)
{
	uint32_t n = run.window - flow->waiting;

	if (n > run.rounds - flow->next)
		n = run.rounds - flow->next;
	if (n > BATCH)
		n = BATCH;
	if (n == 0)
		return;
	send_some(flow, flow->next, n);
	flow->next += n;
	flow->waiting += n;
}

static void take(struct flow *flow, const uint8_t *bytes, size_t size)
{
	static uint8_t wanted[SIZE_MAX_];
	struct header header;

	memcpy(&header, bytes, size < sizeof(header) ? size : sizeof(header));
	if (size != run.size || header.flow != flow->number || header.sequence >= flow->next) {
		run.bad++;
		return;
	}
	fill(wanted, size, flow->number, header.sequence);
	if (memcmp(wanted, bytes, size) != 0) {
		run.bad++;
		return;
	}
	flow->heard_ms = now_ms();
	if (flow->seen[header.sequence / 8] & 1U << header.sequence % 8) {
		run.doubled++;
		return;
	}
	flow->seen[header.sequence / 8] |= (uint8_t)(1U << header.sequence % 8);
	flow->answered++;
	flow->waiting--;
	run.received++;
}

static void receive(struct flow *flow)
{
	static uint8_t bytes[BATCH][SIZE_MAX_];
	struct mmsghdr messages[BATCH];
	struct iovec vectors[BATCH];
	int n;

	memset(messages, 0, sizeof(messages));
	for (int i = 0; i < BATCH; i++) {
		vectors[i] = (struct iovec){ bytes[i], sizeof(bytes[i]) };
		messages[i].msg_hdr.msg_iov = &vectors[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	n = recvmmsg(flow->fd, messages, run.window > 1 ? BATCH : 1, MSG_DONTWAIT, NULL);
	for (int i = 0; i < n; i++)
		take(flow, bytes[i], messages[i].msg_len);
	send_new(flow);
}

/* Sends again what a flow that is silent waits for. */
static void resend(struct flow *flow)
{
	for (uint32_t i = 0, n = 0; i < flow->next && n < flow->waiting; i++)
		if (!(flow->seen[i / 8] & 1U << i % 8)) {
			send_some(flow, i, 1);
			run.resent++;
			n++;
		}
}

static int open_flow(const char *address, unsigned port)
{
	struct sockaddr_storage sa;
	socklen_t length = address_of(address, port, &sa);
	int fd = socket(sa.ss_family, SOCK_DGRAM | SOCK_NONBLOCK, 0), room = 4 << 20;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, length) < 0) {
		perror("gwudp");
		exit(1);
	}
	return fd;
}

static bool finished(const struct flow *flows, unsigned n, bool *ret_failed)
{
	uint64_t now = now_ms();

	for (unsigned i = 0; i < n; i++) {
		if (flows[i].answered == run.rounds)
			continue;
		if (now - flows[i].heard_ms < GIVE_UP_MS)
			return false;
		*ret_failed = true;
	}
	return true;
}

static void print(double seconds, unsigned failed)
{
	printf("{\"received\": %llu, \"resent\": %llu, \"doubled\": %llu, \"bad\": %llu, \"failed\": %u, "
	       "\"seconds\": %.3f, \"rate\": %.0f}\n",
	        (unsigned long long)run.received, (unsigned long long)run.resent, (unsigned long long)run.doubled,
	        (unsigned long long)run.bad, failed, seconds, (double)run.received / seconds);
}

static int check(const char *address, unsigned port, unsigned n)
{
	struct flow *flows = calloc(n, sizeof(*flows));
	struct epoll_event events[BATCH];
	int epoll_fd = epoll_create1(0);
	uint64_t started = now_ms(), looked = started;
	unsigned failed = 0;
	bool failing = false;

	for (unsigned i = 0; i < n; i++) {
		struct epoll_event event = { .events = EPOLLIN, .data.ptr = &flows[i] };

		flows[i] = (struct flow){ .fd = open_flow(address, port), .number = i, .heard_ms = started };
		flows[i].seen = calloc(run.rounds / 8 + 1, 1);
		epoll_ctl(epoll_fd, EPOLL_CTL_ADD, flows[i].fd, &event);
	}
	for (unsigned i = 0; i < n; i++)
		send_new(&flows[i]);
	while (run.received < (uint64_t)n * run.rounds && !failing) {
		int ready = epoll_wait(epoll_fd, events, BATCH, 100);

		for (int i = 0; i < ready; i++)
			receive(events[i].data.ptr);
		if (now_ms() - looked < 100)
			continue;
		looked = now_ms();
		for (unsigned i = 0; i < n; i++)
			if (flows[i].waiting > 0 && looked - flows[i].heard_ms >= RESEND_MS)
				resend(&flows[i]);
		if (finished(flows, n, &failing))
			break;
	}
	for (unsigned i = 0; i < n; i++)
		failed += flows[i].answered != run.rounds;
	print((double)(now_ms() - started) / 1000, failed);
	return failed || run.bad ? 1 : 0;
}

static int many(const char *address, unsigned port, unsigned n, unsigned at_once)
{
	uint64_t started = now_ms();
	unsigned failed = 0;
	struct flow *flows = calloc(at_once, sizeof(*flows));

	for (unsigned done = 0; done < n; done += at_once) {
		for (unsigned i = 0; i < at_once; i++) {
			flows[i] = (struct flow){ .fd = open_flow(address, port), .number = done + i };
			flows[i].seen = calloc(1, 1);
			send_new(&flows[i]);
		}
		for (unsigned i = 0; i < at_once; i++) {
			struct pollfd fd = { .fd = flows[i].fd, .events = POLLIN };

			for (int tries = 0; flows[i].answered == 0 && tries < 5; tries++)
				if (poll(&fd, 1, RESEND_MS) > 0)
					receive(&flows[i]);
				else
					resend(&flows[i]);
			failed += flows[i].answered == 0;
			close(flows[i].fd);
			free(flows[i].seen);
		}
	}
	print((double)(now_ms() - started) / 1000, failed);
	return failed || run.bad ? 1 : 0;
}

static unsigned number(const char *text)
{
	return (unsigned)strtoul(text, NULL, 10);
}

int main(int argc, char **argv)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	run.rounds = run.window = 1;
	run.size = 64;
	if (argc == 3 && strcmp(argv[1], "echo") == 0)
		return echo(number(argv[2]));
	if (argc == 6 && strcmp(argv[1], "many") == 0)
		return many(argv[2], number(argv[3]), number(argv[4]), number(argv[5]));
	if (argc != 8 || strcmp(argv[1], "check") != 0)
		return 2;
	run.rounds = number(argv[5]);
	run.size = number(argv[6]);
	run.window = number(argv[7]);
	if (run.size < sizeof(struct header) || run.size > SIZE_MAX_ || run.window == 0)
		return 2;
	return check(argv[2], number(argv[3]), number(argv[4]));
}
