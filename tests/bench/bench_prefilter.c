/*
 * What the prefilter spends on one packet, path by path, as
 * BPF_PROG_TEST_RUN measures it; in a network namespace of its own. Prints
 * JSON: {path: nanoseconds}.
 *
 *   bench_prefilter             the prefilter's own paths
 *   bench_prefilter ID          those of the program with this number, of
 *                               somebody else: "pass" and "deny", whose source
 *                               is 192.0.2.1
 */
#include <bpf/bpf.h>
#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rules/frame.h"
#include "rules/kernel_xdp.h"
#include "schema/prefixes.h"

#define ENTRIES 100000
/* Runs of one measurement, and how many are made: the least counts, for others use the processor, too. */
#define REPEAT 1000000
#define TRIES  7
/* Single runs, of which the median counts: an answer changes the frame, so it can be run but once. */
#define SINGLES 20001

struct bench {
	struct kernel_xdp *xdp;
	int program;      /* of somebody else, instead */
	unsigned verdict; /* what it said last */
	unsigned singles[SINGLES];
};

static void must(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(-r));
	exit(1);
}

static unsigned run(struct bench *bench, const void *frame, size_t length, unsigned repeat)
{
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame, .data_size_in = (__u32)length, .repeat = (int)repeat);
	unsigned nanoseconds = 0;

	if (bench->xdp) {
		must(kernel_xdp_try(bench->xdp, frame, length, repeat, &nanoseconds, NULL, NULL), "run");
		return nanoseconds;
	}
	must(bpf_prog_test_run_opts(bench->program, &options), "run");
	bench->verdict = options.retval;
	return options.duration;
}

/* What a packet of TCP is. */
enum segment { PLAIN_SYN, LINUX_SYN /* with the options that Linux sends */, PLAIN_ACK };

static const uint8_t linux_options[] = { 2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7 };
#define FRAME_ROOM (FRAME_MAX + sizeof(linux_options))

/* The sums are as they were: the prefilter does not look at them. */
static size_t make_frame(const char *source, const char *destination, enum segment segment, uint8_t *ret)
{
	struct match_packet packet = { .protocol = IPPROTO_TCP, .dst_port = 443 };
	size_t length, tcp, more = sizeof(linux_options);
	uint8_t *field;

	must(addr_parse(source, &packet.src), source);
	must(addr_parse(destination, &packet.dst), destination);
	length = frame_build(&packet, 40000, ret);
	tcp = length - sizeof(struct tcphdr);
	if (segment == PLAIN_ACK)
		ret[tcp + 13] = TH_ACK;
	if (segment != LINUX_SYN)
		return length;
	memcpy(ret + length, linux_options, more);
	ret[tcp + 12] = (uint8_t)((sizeof(struct tcphdr) + more) / 4 << 4);
	field = ret + sizeof(struct ether_header) + (packet.src.family == AF_INET ? 3 : 5);
	*field = (uint8_t)(*field + more);
	return length + more;
}

static void tell(const char *path, double nanoseconds)
{
	static bool any;

	printf("%s\"%s\": %.1f", any ? ", " : "{", path, nanoseconds);
	any = true;
}

static void measure_segment(
        struct bench *bench, const char *path, const char *source, const char *destination, enum segment segment)
{
	uint8_t frame[FRAME_ROOM];
	size_t length = make_frame(source, destination, segment, frame);
	unsigned least = UINT32_MAX;

	for (unsigned i = 0; i < TRIES; i++) {
		unsigned once = run(bench, frame, length, REPEAT);

		least = once < least ? once : least;
	}
	tell(path, least);
}

static void measure(struct bench *bench, const char *path, const char *source, const char *destination)
{
	measure_segment(bench, path, source, destination, PLAIN_SYN);
}

static int compare(const void *a, const void *b)
{
	const unsigned *one = a, *other = b;

	return (*one > *other) - (*one < *other);
}

static unsigned median_single(struct bench *bench, const char *source, const char *destination, enum segment segment)
{
	uint8_t frame[FRAME_ROOM];
	size_t length = make_frame(source, destination, segment, frame);

	for (unsigned i = 0; i < SINGLES; i++)
		bench->singles[i] = run(bench, frame, length, 1);
	qsort(bench->singles, SINGLES, sizeof(*bench->singles), compare);
	return bench->singles[SINGLES / 2];
}

static void load(struct bench *bench, const struct xdp_config *config)
{
	char why[XDP_WHY_MAX] = "";
	int r;

	kernel_xdp_free(bench->xdp);
	must(kernel_xdp_new(NULL, "gwnone", &bench->xdp), "program");
	r = kernel_xdp_load(bench->xdp, config, why, sizeof(why));
	must(r, why);
}

static void fill(struct prefixes *list)
{
	struct prefixes_builder builder = { 0 };
	struct errs errs = { 0 };
	char text[64];

	for (unsigned i = 0; i < ENTRIES; i++) {
		if (i % 2)
			snprintf(text, sizeof(text), "198.%u.%u.%u", 18 + (i >> 17), i >> 9 & 255, i >> 1 & 255);
		else
			snprintf(text, sizeof(text), "2001:db8:%x:%x::/64", i >> 16, i & 0xffff);
		must(prefixes_add_text(&builder, text, "", &errs), text);
	}
	must(prefixes_add_text(&builder, "192.0.2.0/24", "", &errs), "entry");
	must(prefixes_add_text(&builder, "2001:db8:ffff::/48", "", &errs), "entry");
	must(prefixes_finish(&builder, list), "list");
}

static void measure_plain(struct bench *bench, struct xdp_config *config)
{
	load(bench, config);
	measure(bench, "pass, nothing to judge, v4", "10.1.0.1", "10.0.0.5");
	measure(bench, "pass, nothing to judge, v6", "fd01::1", "fd00::5");
	fill(&config->deny);
	config->params.deny_v4 = config->params.deny_v6 = 1;
	load(bench, config);
	measure(bench, "pass, 100,000 denied, v4", "10.1.0.1", "10.0.0.5");
	measure(bench, "pass, 100,000 denied, v6", "fd01::1", "fd00::5");
	measure(bench, "deny, 100,000 denied, v4", "192.0.2.1", "10.0.0.5");
	measure(bench, "deny, 100,000 denied, v6", "2001:db8:ffff::1", "fd00::5");
	prefixes_clear(&config->deny);
	config->params.deny_v4 = config->params.deny_v6 = 0;
	config->params.interval = UINT64_C(1000000000000) << PREFILTER_TIME_SHIFT;
	config->params.depth = config->params.interval;
	load(bench, config);
	measure(bench, "rate-limited, v4", "10.1.0.1", "10.0.0.5");
	measure(bench, "rate-limited, v6", "fd01::1", "fd00::5");
	config->params.interval = config->params.depth = 0;
}

static uint16_t listen_v4_and_v6(void)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	int one = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
	    other = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct ifreq up = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	socklen_t length = sizeof(v4);
	FILE *file = fopen("/proc/sys/net/ipv4/tcp_syncookies", "we");

	if (!file || fputs("2", file) < 0 || fclose(file) != 0 || ioctl(one, SIOCSIFFLAGS, &up) < 0 ||
	        bind(one, (struct sockaddr *)&v4, sizeof(v4)) < 0 ||
	        getsockname(one, (struct sockaddr *)&v4, &length) < 0)
		must(-errno, "network");
	v6.sin6_port = v4.sin_port;
	if (bind(other, (struct sockaddr *)&v6, sizeof(v6)) < 0 || listen(one, 4096) < 0 || listen(other, 4096) < 0)
		must(-errno, "listen");
	return ntohs(v4.sin_port);
}

/* A single run costs more than one of many, for it begins cold: what a packet that passes costs in the same way, with
 * nothing to judge, is taken off, and put back as it is among many. */
static void measure_cookies(struct bench *bench, struct xdp_config *config)
{
	static const char *const source[] = { "10.1.0.1", "fd01::1" }, *const destination[] = { "10.0.0.5", "fd00::5" };
	static const char *const names[][4] = {
		{ "pass, with cookies ready, v4", "SYN cookie, beyond a packet that passes, v4",
		        "SYN cookie, request with options, v4", "ACK without a flow, while cookies are out, v4" },
		{ "pass, with cookies ready, v6", "SYN cookie, beyond a packet that passes, v6",
		        "SYN cookie, request with options, v6", "ACK without a flow, while cookies are out, v6" },
	};
	struct snapshot *snapshot = snapshot_new();
	struct listener *listener = (struct listener *)row_new(RESOURCE_LISTENER);
	double pass[2];

	load(bench, config);
	for (unsigned i = 0; i < 2; i++)
		pass[i] = median_single(bench, source[i], destination[i], PLAIN_SYN);
	snprintf(listener->name, sizeof(listener->name), "web");
	strings_append(&listener->destinations, "10.0.0.5");
	strings_append(&listener->destinations, "fd00::5");
	must(snapshot_put(snapshot, &listener->row), "listener");
	config->params.listener_port = listen_v4_and_v6();
	must(relayed_of(snapshot, "in0", &config->params, &config->relayed), "listeners");
	load(bench, config);
	for (unsigned i = 0; i < 2; i++)
		measure_segment(bench, names[i][0], source[i], destination[i], PLAIN_ACK);
	/* It is not new any more, and does not know of these flows. */
	(void)median_single(bench, source[0], destination[0], PLAIN_SYN);
	must(kernel_xdp_age(bench->xdp, 1 + PREFILTER_SEEN_PERIODS), "age");
	for (unsigned i = 0; i < 2; i++) {
		tell(names[i][1], median_single(bench, source[i], destination[i], PLAIN_SYN) - pass[i]);
		tell(names[i][2], median_single(bench, source[i], destination[i], LINUX_SYN) - pass[i]);
	}
	for (unsigned i = 0; i < 2; i++)
		measure_segment(bench, names[i][3], source[i], destination[i], PLAIN_ACK);
	snapshot_unref(snapshot);
	row_unref(&listener->row);
}

int main(int argc, char **argv)
{
	struct xdp_config *config = calloc(1, sizeof(*config));
	struct bench *bench = calloc(1, sizeof(*bench));

	if (!config || !bench)
		return 1;
	if (argc > 1) {
		bench->program = bpf_prog_get_fd_by_id((__u32)atoi(argv[1]));
		must(bench->program, argv[1]);
		measure(bench, "pass", "10.1.0.1", "10.0.0.5");
		must(bench->verdict == XDP_PASS ? 0 : -EINVAL, "it does not pass");
		measure(bench, "deny", "192.0.2.1", "10.0.0.5");
		must(bench->verdict == XDP_DROP ? 0 : -EINVAL, "it is not denied");
	} else {
		must(unshare(CLONE_NEWNET) < 0 ? -errno : 0, "a network namespace");
		measure_plain(bench, config);
		measure_cookies(bench, config);
	}
	printf("}\n");
	kernel_xdp_free(bench->xdp);
	xdp_config_free(config);
	free(bench);
	return 0;
}
