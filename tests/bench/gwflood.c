/*
 * The bench's flood: frames that never were packets of a stack, sent by the
 * kernel itself (BPF_F_TEST_XDP_LIVE_FRAMES), each from another source.
 *
 *   gwflood syn|udp INTERFACE SINK ROUTER-MAC SOURCE SOURCES DESTINATION PORT RATE SECONDS THREADS
 *
 * Whatever comes in at the interface SINK is swallowed meanwhile: what comes
 * back, if it is INTERFACE; the flood, if it is the other end. SINK -: the
 * frames are made, and dropped without being sent. RATE 0: as many as go.
 * Each of the threads has a processor of its own and its share of the rate, and
 * goes before all other processes: a card does not wait until they have had
 * their turn. Says "ready" when it begins; at the end one line of JSON: sent,
 * seconds, per_second, swallowed.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <math.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "flood.skel.h"

/* Frames of one call when no rate is kept, and how long a call's share of a rate is. */
#define BURST  65536U
#define SLICES 500U
/* How many shares may be sent late, at once. */
#define LATE_MAX 10
/* Processors that send, at most: as in flood.bpf.c. */
#define SENDERS_MAX 64
/* Nice value. */
#define FIRST     (-20)
#define FRAME_MAX 128
#define SPARE     2 /* as in flood.bpf.c */

struct frame {
	uint8_t bytes[FRAME_MAX + SPARE];
	size_t n, source, transport, check, ip_check;
	uint32_t first_source;
};

static void fail(const char *what, int error)
{
	fprintf(stderr, "gwflood: %s: %s\n", what, strerror(error < 0 ? -error : error));
	exit(1);
}

static uint16_t sum(const void *bytes, size_t n, uint32_t start)
{
	const uint8_t *at = bytes;

	for (size_t i = 0; i < n; i += 2)
		start += (uint32_t)(at[i] << 8 | at[i + 1]);
	while (start >> 16)
		start = (start & 0xffff) + (start >> 16);
	return (uint16_t)start;
}

static void put_ip(struct frame *frame, uint8_t protocol, size_t length, const char *source, const char *destination)
{
	struct ether_header *ethernet = (struct ether_header *)frame->bytes;
	struct ip *v4 = (struct ip *)(frame->bytes + sizeof(*ethernet));
	struct ip6_hdr *v6 = (struct ip6_hdr *)(frame->bytes + sizeof(*ethernet));

	if (strchr(source, ':')) {
		ethernet->ether_type = htons(ETHERTYPE_IPV6);
		v6->ip6_flow = htonl(6U << 28);
		v6->ip6_plen = htons((uint16_t)length);
		v6->ip6_nxt = protocol;
		v6->ip6_hlim = 64;
		inet_pton(AF_INET6, source, &v6->ip6_src);
		inet_pton(AF_INET6, destination, &v6->ip6_dst);
		frame->source = sizeof(*ethernet) + 20;
		frame->transport = sizeof(*ethernet) + sizeof(*v6);
	} else {
		ethernet->ether_type = htons(ETHERTYPE_IP);
		*v4 = (struct ip){ .ip_v = 4,
			.ip_hl = 5,
			.ip_len = htons((uint16_t)(sizeof(*v4) + length)),
			.ip_ttl = 64,
			.ip_p = protocol,
			.ip_off = htons(IP_DF) };
		inet_pton(AF_INET, source, &v4->ip_src);
		inet_pton(AF_INET, destination, &v4->ip_dst);
		v4->ip_sum = htons((uint16_t)~sum(v4, sizeof(*v4), 0));
		frame->source = sizeof(*ethernet) + 12;
		frame->ip_check = sizeof(*ethernet) + 10;
		frame->transport = sizeof(*ethernet) + sizeof(*v4);
	}
	memcpy(&frame->first_source, frame->bytes + frame->source, 4);
	frame->first_source = ntohl(frame->first_source);
	frame->n = frame->transport + length;
}

/* Both addresses stand before the transport header. */
static uint16_t transport_sum(const struct frame *frame, uint8_t protocol, size_t length)
{
	size_t addresses = frame->ip_check ? 8 : 32;

	return (uint16_t)~sum(
	        frame->bytes + frame->transport - addresses, addresses + length, (uint32_t)(protocol + length));
}

/* A SYN with the options that Linux sends. */
static void put_syn(struct frame *frame, const char *source, const char *destination, uint16_t port)
{
	static const uint8_t options[] = { 2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7 };
	struct tcphdr head = { .th_sport = htons(1024),
		.th_dport = htons(port),
		.th_seq = htonl(1),
		.th_off = 10,
		.th_flags = TH_SYN,
		.th_win = htons(64240) };

	put_ip(frame, IPPROTO_TCP, sizeof(head) + sizeof(options), source, destination);
	memcpy(frame->bytes + frame->transport, &head, sizeof(head));
	memcpy(frame->bytes + frame->transport + sizeof(head), options, sizeof(options));
	head.th_sum = htons(transport_sum(frame, IPPROTO_TCP, sizeof(head) + sizeof(options)));
	memcpy(frame->bytes + frame->transport, &head, sizeof(head));
	frame->check = frame->transport + 16;
}

static void put_udp(struct frame *frame, const char *source, const char *destination, uint16_t port)
{
	struct udphdr head = { .uh_sport = htons(1024), .uh_dport = htons(port), .uh_ulen = htons(26) };

	put_ip(frame, IPPROTO_UDP, 26, source, destination);
	memcpy(frame->bytes + frame->transport, &head, sizeof(head));
	head.uh_sum = htons(transport_sum(frame, IPPROTO_UDP, 26));
	memcpy(frame->bytes + frame->transport, &head, sizeof(head));
	frame->check = frame->transport + 6;
}

static void put_ethernet(struct frame *frame, const char *interface, const char *router)
{
	struct ether_header *ethernet = (struct ether_header *)frame->bytes;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const struct ether_addr *address = ether_aton(router);
	struct ifreq request = { 0 };

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", interface);
	if (!address || fd < 0 || ioctl(fd, SIOCGIFHWADDR, &request) < 0)
		fail(interface, errno);
	memcpy(ethernet->ether_shost, request.ifr_hwaddr.sa_data, ETH_ALEN);
	memcpy(ethernet->ether_dhost, address, ETH_ALEN);
	close(fd);
}

/* interface: 0 for none. */
static struct flood_bpf *load(const struct frame *frame, unsigned interface, unsigned sources, unsigned threads)
{
	struct flood_bpf *program = flood_bpf__open();
	int r;

	if (!program)
		fail("the program", errno);
	program->rodata->target = interface;
	program->rodata->threads = threads;
	program->rodata->sources = sources ? sources : 1;
	program->rodata->at_source = (uint32_t)frame->source;
	program->rodata->at_transport = (uint32_t)frame->transport;
	program->rodata->at_check = (uint32_t)frame->check;
	program->rodata->at_ip_check = (uint32_t)frame->ip_check;
	program->rodata->first_source = frame->first_source;
	program->rodata->length = (uint32_t)frame->n;
	static_assert(sizeof(program->bss->first) == FRAME_MAX, "as long as a frame can be");
	memcpy(program->bss->first, frame->bytes, FRAME_MAX);
	r = flood_bpf__load(program);
	if (r < 0)
		fail("the program", r);
	return program;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void send_frames(const struct flood_bpf *program, const struct frame *frame, unsigned n)
{
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame->bytes, .data_size_in = (uint32_t)frame->n + SPARE,
	        .repeat = (int)n, .flags = BPF_F_TEST_XDP_LIVE_FRAMES);
	int r = bpf_prog_test_run_opts(bpf_program__fd(program->progs.flood), &run);

	if (r < 0)
		fail("frames cannot be sent", r);
}

struct sender {
	pthread_t thread;
	const struct flood_bpf *program;
	const struct frame *frame;
	unsigned processor, rate;
	double seconds;
	uint64_t sent;
};

/* To its processor, and before all others. */
static void take_processor(unsigned processor)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(processor, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		fail("no processor of its own", errno);
	if (setpriority(PRIO_PROCESS, 0, FIRST) < 0)
		fail("no priority", errno);
}

/* What the processor had no time for is lost, but for a few shares. */
static void *run_sender(void *arg)
{
	struct sender *sender = arg;
	double begin = now(), at = begin, last = begin, owed = 0, share = (double)sender->rate / SLICES;

	take_processor(sender->processor);
	for (; at - begin < sender->seconds; last = at, at = now()) {
		owed = sender->rate ? fmin(owed + (at - last) * sender->rate, share * LATE_MAX) : BURST;
		if (owed < share) {
			usleep(1000000 / SLICES);
			continue;
		}
		send_frames(sender->program, sender->frame, (unsigned)owed);
		sender->sent += (unsigned)owed;
		owed -= (unsigned)owed;
	}
	return NULL;
}

/* How many were sent. */
static uint64_t run(
        const struct flood_bpf *program, const struct frame *frame, unsigned rate, double seconds, unsigned n)
{
	struct sender senders[SENDERS_MAX];
	uint64_t sent = 0;
	int r;

	for (unsigned i = 0; i < n; i++) {
		senders[i] = (struct sender){
			.program = program, .frame = frame, .processor = i, .rate = rate / n, .seconds = seconds
		};
		r = pthread_create(&senders[i].thread, NULL, run_sender, &senders[i]);
		if (r != 0)
			fail("a thread", r);
	}
	for (unsigned i = 0; i < n; i++) {
		(void)pthread_join(senders[i].thread, NULL);
		sent += senders[i].sent;
	}
	return sent;
}

static uint64_t swallowed(const struct flood_bpf *program)
{
	uint64_t n = 0;

	for (size_t i = 0; i < sizeof(program->bss->counts) / sizeof(program->bss->counts[0]); i++)
		n += program->bss->counts[i].swallowed;
	return n;
}

int main(int argc, char **argv)
{
	struct frame frame = { 0 };
	struct flood_bpf *program;
	struct bpf_link *swallow;
	const char *sink;
	unsigned threads;
	double seconds, begin;
	uint64_t sent;

	threads = argc == 12 ? (unsigned)atoi(argv[11]) : 0;
	if (threads < 1 || threads > SENDERS_MAX) {
		fprintf(stderr, "usage: gwflood syn|udp INTERFACE SINK ROUTER-MAC SOURCE SOURCES DESTINATION PORT RATE "
		                "SECONDS THREADS\n");
		return 2;
	}
	put_ethernet(&frame, argv[2], argv[4]);
	(strcmp(argv[1], "syn") == 0 ? put_syn : put_udp)(&frame, argv[5], argv[7], (uint16_t)atoi(argv[8]));
	sink = strcmp(argv[3], "-") == 0 ? NULL : argv[3];
	program = load(&frame, sink ? if_nametoindex(argv[2]) : 0, (unsigned)atoi(argv[6]), threads);
	swallow = bpf_program__attach_xdp(program->progs.flood, (int)if_nametoindex(sink ? sink : argv[2]));
	if (!swallow)
		fail("nothing can be swallowed", errno);
	printf("ready\n");
	fflush(stdout);
	begin = now();
	sent = run(program, &frame, (unsigned)atoi(argv[9]), atof(argv[10]), threads);
	seconds = now() - begin;
	printf("{\"sent\": %llu, \"seconds\": %.3f, \"per_second\": %.0f, \"swallowed\": %llu}\n",
	        (unsigned long long)sent, seconds, (double)sent / seconds, (unsigned long long)swallowed(program));
	bpf_link__destroy(swallow);
	flood_bpf__destroy(program);
	return 0;
}
