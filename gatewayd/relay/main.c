/*
 * gateway-relay: the process that moves the bytes of relayed connections.
 * Started by gatewayd with a channel at descriptor 3 and a listening socket
 * for later daemons at descriptor 4; see docs and proto.def. Main only reads
 * the arguments, makes the threads and gives up its rights.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/enclose.h"
#include "gatewayd/base/isolate.h"
#include "gatewayd/base/log.h"
#include "gatewayd/base/program.h"
#include "gatewayd/relay/control.h"
#include "gatewayd/relay/health_check.h"
#include "gatewayd/relay/loop.h"
#include "gatewayd/relay/tcp_forge.h"

/* Under AddressSanitizer: a leak check at exit would need calls that the filter forbids. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}

#define MAX_FLOWS_DEFAULT 65536
#define MAX_FLOWS_MOST    (1U << 24)
/* Descriptors that are no flows': channel, listening sockets, pipes of the first few threads. */
#define DESCRIPTORS_BESIDE 1024

struct options {
	unsigned threads;
	unsigned max_flows;
	unsigned max_checks; /* at once, of targets' health */
	enum proto_mover mode;
	unsigned daemon_uid;
	int log_level;
	bool probe;
};

static int number_parse(const char *text, unsigned least, unsigned most, unsigned *ret)
{
	char *end;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || *end || end == text || *text == '-' || value < least || value > most)
		return -EINVAL;
	*ret = (unsigned)value;
	return 0;
}

static int mode_parse(const char *text, enum proto_mover *ret)
{
	static const char *const names[] = { [PROTO_MOVER_AUTO] = "auto",
		[PROTO_MOVER_COPY] = "copy",
		[PROTO_MOVER_SPLICE] = "splice",
		[PROTO_MOVER_SOCKMAP] = "sockmap",
		[PROTO_MOVER_KERNEL] = "kernel" };

	static_assert(ARRAY_SIZE(names) == PROTO_MOVERS, "one word each");
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(text, names[i]) == 0) {
			*ret = (enum proto_mover)i;
			return 0;
		}
	return -EINVAL;
}

static int option_apply(struct options *options, int option, const char *text)
{
	int r;

	switch (option) {
	case 't':
		return number_parse(text, 1, STATS_THREADS_MAX, &options->threads);
	case 'f':
		return number_parse(text, 1, MAX_FLOWS_MOST, &options->max_flows);
	case 'm':
		return mode_parse(text, &options->mode);
	case 'p':
		options->probe = true;
		return 0;
	case 'u':
		return number_parse(text, 0, UINT32_MAX - 1, &options->daemon_uid);
	case 'l':
		r = log_level_parse(text);
		if (r < 0)
			return r;
		options->log_level = r;
		return 0;
	default:
		return -EINVAL;
	}
}

static int options_parse(int argc, char **argv, struct options *options)
{
	static const struct option known[] = { { "threads", required_argument, NULL, 't' },
		{ "max-flows", required_argument, NULL, 'f' }, { "mover", required_argument, NULL, 'm' },
		{ "daemon-uid", required_argument, NULL, 'u' }, { "log-level", required_argument, NULL, 'l' },
		{ "probe", no_argument, NULL, 'p' }, { 0 } };
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) >= 0)
		if (option_apply(options, option, optarg) < 0)
			return -EINVAL;
	return optind == argc ? 0 : -EINVAL;
}

/* Where descriptors are scarce, this part of them at most is for checks of targets. */
#define DESCRIPTORS_CHECKS_PART 16

/* Raises the limit of descriptors as far as it goes and bounds checks and flows by it: a flow has two. */
static void limit_flows(struct options *options)
{
	struct rlimit limit;
	rlim_t flows, beside = DESCRIPTORS_BESIDE;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
		return;
	if (limit.rlim_cur / DESCRIPTORS_CHECKS_PART < options->max_checks)
		options->max_checks = (unsigned)(limit.rlim_cur / DESCRIPTORS_CHECKS_PART) + 1;
	beside += options->max_checks;
	flows = limit.rlim_cur > 2 * beside ? (limit.rlim_cur - beside) / 2 : limit.rlim_cur / 4;
	if (flows < options->max_flows) {
		log_notice("%u flows need more than %llu descriptors; the limit is %llu flows", options->max_flows,
		        (unsigned long long)limit.rlim_cur, (unsigned long long)flows);
		options->max_flows = (unsigned)flows;
	}
}

static int loops_start(const struct options *options, int reply_fd, struct loop *loops[STATS_THREADS_MAX])
{
	unsigned share = (options->max_flows + options->threads - 1) / options->threads;

	for (unsigned i = 0; i < options->threads; i++) {
		int r = loop_new(i, options->mode, share, reply_fd, &loops[i]);

		if (r == 0)
			r = loop_start(loops[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Signals are read from a descriptor by the control thread; blocked before the other threads exist. */
static int signals_open(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* ret: what the daemon is to be told of it. */
static void files_give_up(struct proto_enclosed *ret)
{
	int r = enclose();

	if (r < 0)
		log_notice("only the filter of system calls keeps this process from files: %s", enclose_fault(r));
	ret->landlock = r < 0 ? 0 : (uint32_t)r;
	snprintf(ret->fault, sizeof(ret->fault), "%s", enclose_fault(r));
}

static int rights_reduce(struct proto_enclosed *ret_enclosed)
{
	int r = isolate_verify_relay();

	if (r < 0)
		return r;
	files_give_up(ret_enclosed);
	if (r & ISOLATE_HAD_MORE)
		log_notice("started with more rights than CAP_NET_RAW and CAP_NET_BIND_SERVICE; the rest has been "
		           "given up");
	if (r & ISOLATE_NO_NET_RAW)
		log_warning("CAP_NET_RAW is missing: only listeners with source_address gateway can work");
	return 0;
}

/* Whether the daemon has handed this descriptor down; it is made close-on-exec and non-blocking. */
static bool inherited(int fd)
{
	return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0;
}

static int run(const struct options *options)
{
	static struct loop *loops[STATS_THREADS_MAX];
	struct health *health = NULL;
	static char program[PROGRAM_ID_MAX + 1];
	static struct proto_message enclosed = { .type = PROTO_ENCLOSED };
	struct control_params params = { .loops = loops,
		.program = program,
		.enclosed = &enclosed,
		.n_loops = options->threads,
		.max_flows = options->max_flows,
		.daemon_uid = options->daemon_uid,
		.has_channel = inherited(CONTROL_CHANNEL_FD),
		.has_listen = inherited(CONTROL_LISTEN_FD) };
	int r;

	(void)program_id("/proc/self/exe", program); /* if it cannot be told, the daemon takes it for another one */
	params.signal_fd = signals_open();
	params.reply_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (params.signal_fd < 0 || params.reply_fd < 0)
		r = -errno;
	else
		r = rights_reduce(&enclosed.enclosed);
	if (r == 0 && tcp_forge_open() < 0)
		log_warning("no raw sockets: TCP flows that the kernel carries cannot be reset");
	if (r == 0)
		r = loops_start(options, params.reply_fd, loops);
	if (r == 0)
		r = health_new(params.reply_fd, options->max_checks, &health);
	if (r == 0)
		r = health_start(health);
	params.health = health;
	if (r == 0)
		r = isolate_filter_relay();
	if (r < 0) {
		log_error("cannot start: %s", strerror(-r));
		return EXIT_FAILURE;
	}
	return control_run(&params);
}

int main(int argc, char **argv)
{
	struct options options = {
		.threads = 1, .max_flows = MAX_FLOWS_DEFAULT, .max_checks = HEALTH_CHECKS_MAX, .log_level = LOG_INFO
	};

	if (options_parse(argc, argv, &options) < 0) {
		fprintf(stderr,
		        "usage: %s [--threads N] [--max-flows N] [--mover auto|copy|splice|sockmap]\n"
		        "       [--daemon-uid N] [--log-level error|warning|notice|info|debug] [--probe]\n",
		        argv[0]);
		return EXIT_FAILURE;
	}
	/* The daemon asks a new program to do just this before it lets the old one go. */
	if (options.probe)
		return EXIT_SUCCESS;
	log_setup("gateway-relay", options.log_level);
	limit_flows(&options);
	return run(&options);
}
