/* The sockmap mover from the daemon's side; see movers.h. */
#include "gatewayd/movers.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gatewayd/base/bpf_flow.h"
#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/log.h"
#include "gatewayd/base/stats.h"
#include "rules/bpf_check.h"
#include "rules/kernel_bpf.h"

static_assert(2 * STATS_THREADS_MAX <= BPF_FLOW_RINGS, "two relays have a ring per thread");

struct movers {
	sd_event *event;
	const struct options *options;
	void (*ready)(void *userdata);
	void *userdata;
	enum movers_state state;
	char why[256];
	struct kernel_bpf *bpf;
	unsigned relays; /* that were given the maps: every other one has the upper half of the rings */
	int pidfd, output;
	pid_t pid;
	sd_event_source *source;
};

static void set_state(struct movers *movers, enum movers_state state, const char *why)
{
	movers->state = state;
	if (why != movers->why)
		snprintf(movers->why, sizeof(movers->why), "%s", why);
	if (state != MOVERS_TESTING)
		log_info("sockmap mover: %s%s%s", movers_state_name(state), *why ? ": " : "", why);
}

int movers_new(sd_event *event, const struct options *options, void (*ready)(void *userdata), void *userdata,
        struct movers **ret)
{
	struct movers *movers = calloc(1, sizeof(*movers));

	if (!movers)
		return -ENOMEM;
	movers->event = event;
	movers->options = options;
	movers->ready = ready;
	movers->userdata = userdata;
	movers->pidfd = movers->output = -1;
	*ret = movers;
	return 0;
}

/* Ends the check's process if it is still there. */
static void forget_check(struct movers *movers)
{
	movers->source = sd_event_source_disable_unref(movers->source);
	if (movers->pidfd >= 0) {
		(void)pidfd_send_signal(movers->pidfd, SIGKILL, NULL, 0);
		(void)waitpid(movers->pid, NULL, 0);
		close(TAKE_FD(movers->pidfd));
	}
	if (movers->output >= 0)
		close(TAKE_FD(movers->output));
}

void movers_free(struct movers *movers)
{
	if (!movers)
		return;
	forget_check(movers);
	if (movers->bpf)
		kernel_bpf_free(movers->bpf);
	free(movers);
}

static void load(struct movers *movers)
{
	int r = kernel_bpf_open(movers->options->bpf_dir, &movers->bpf, movers->why, sizeof(movers->why));

	if (r < 0) {
		set_state(movers, MOVERS_FAILED, movers->why);
		return;
	}
	set_state(movers, MOVERS_ON, "");
	movers->ready(movers->userdata);
}

/* What the check said, without the line's end. */
static void read_output(const struct movers *movers, char *ret, size_t size)
{
	ssize_t got = read(movers->output, ret, size - 1);

	ret[got > 0 ? got : 0] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
}

static int on_check_end(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct movers *movers = userdata;
	siginfo_t info = { 0 };
	char words[sizeof(movers->why)];

	(void)source;
	(void)events;
	read_output(movers, words, sizeof(words));
	if (waitid(P_PIDFD, (id_t)fd, &info, WEXITED) < 0)
		snprintf(words, sizeof(words), "the check cannot be waited for: %s", strerror(errno));
	close(TAKE_FD(movers->pidfd));
	forget_check(movers);
	if (info.si_code == CLD_EXITED && info.si_status == EXIT_SUCCESS) {
		if (!movers->bpf)
			load(movers);
		return 0;
	}
	if (info.si_code == CLD_KILLED && info.si_status == SIGALRM)
		set_state(movers, MOVERS_FAILED, "the check took too long");
	else
		set_state(movers, MOVERS_FAILED, *words ? words : "the check ended without a word");
	return 0;
}

/* Starts this very program once more, its standard output on a pipe. */
static int spawn_check(int output, pid_t *ret)
{
	char name[] = "gatewayd", option[] = "--bpf-check";
	char *const argv[] = { name, option, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none;
	int r;

	sigemptyset(&none);
	r = posix_spawn_file_actions_init(&actions);
	if (r != 0)
		return -r;
	r = posix_spawnattr_init(&attributes);
	if (r == 0) {
		r = posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
		if (r == 0)
			r = posix_spawnattr_setsigmask(&attributes, &none);
		if (r == 0)
			r = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
		if (r == 0)
			r = posix_spawn(ret, "/proc/self/exe", &actions, &attributes, argv, environ);
		posix_spawnattr_destroy(&attributes);
	}
	posix_spawn_file_actions_destroy(&actions);
	return -r;
}

static int start_check(struct movers *movers)
{
	_cleanup_close_ int theirs = -1;
	int fds[2], r;

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	movers->output = fds[0];
	theirs = fds[1];
	r = spawn_check(theirs, &movers->pid);
	if (r < 0)
		return r;
	movers->pidfd = pidfd_open(movers->pid, 0);
	if (movers->pidfd < 0)
		return -errno;
	return sd_event_add_io(movers->event, &movers->source, movers->pidfd, EPOLLIN, on_check_end, movers);
}

void movers_start(struct movers *movers)
{
	const char *mover = movers->options->mover;
	int r;

	if (strcmp(mover, "copy") == 0 || strcmp(mover, "splice") == 0) {
		set_state(movers, MOVERS_OFF, "forbidden by --mover");
		return;
	}
	if (kernel_bpf_possible(movers->options->bpf_dir, movers->why, sizeof(movers->why)) < 0) {
		set_state(movers, MOVERS_OFF, movers->why);
		return;
	}
	set_state(movers, MOVERS_TESTING, "");
	/* Pins do not outlive the kernel that they were made on: an earlier daemon has tried this one. Relays must have
	 * the maps before they are handed flows that are in them, so the next trial comes after that. */
	if (kernel_bpf_is_pinned(movers->options->bpf_dir))
		load(movers);
	r = start_check(movers);
	if (r < 0) {
		forget_check(movers);
		snprintf(movers->why, sizeof(movers->why), "the check cannot be started: %s", strerror(-r));
		set_state(movers, MOVERS_FAILED, movers->why);
	}
}

static int send_map(struct msg_channel *channel, enum proto_sockmap_kind kind, unsigned ring, unsigned thread, int fd,
        int timeout_ms)
{
	struct proto_message message = { .type = PROTO_SOCKMAP };

	message.sockmap.layout = BPF_FLOW_LAYOUT;
	message.sockmap.kind = (uint8_t)kind;
	message.sockmap.ring = ring;
	message.sockmap.thread = thread;
	return msg_send(channel, &message, fd, timeout_ms);
}

int movers_send(struct movers *movers, struct msg_channel *channel, unsigned threads, int timeout_ms)
{
	unsigned first = movers->relays % 2 * STATS_THREADS_MAX;
	int r;

	if (movers->state != MOVERS_ON)
		return 0;
	movers->relays++;
	r = send_map(channel, PROTO_SOCKMAP_RX, 0, 0, kernel_bpf_rx(movers->bpf), timeout_ms);
	if (r == 0)
		r = send_map(channel, PROTO_SOCKMAP_TX, 0, 0, kernel_bpf_tx(movers->bpf), timeout_ms);
	if (r == 0)
		r = send_map(channel, PROTO_SOCKMAP_DIRECTIONS, 0, 0, kernel_bpf_directions(movers->bpf), timeout_ms);
	if (r == 0)
		r = send_map(channel, PROTO_SOCKMAP_CONTROLS, 0, 0, kernel_bpf_controls(movers->bpf), timeout_ms);
	for (unsigned i = 0; i < threads && r == 0; i++) {
		int fd = kernel_bpf_ring(movers->bpf, first + i);

		if (fd < 0) {
			log_error("a ring of notices cannot be made: %s", strerror(-fd));
			return 0; /* the relay goes on without the sockmap */
		}
		r = send_map(channel, PROTO_SOCKMAP_RING, first + i, i, fd, timeout_ms);
	}
	return r;
}

void movers_sweep(struct movers *movers)
{
	unsigned swept = movers->state == MOVERS_ON ? kernel_bpf_sweep(movers->bpf) : 0;

	if (swept > 0)
		log_info("removed what %u directions of flows left in the maps", swept);
}

enum movers_state movers_state(const struct movers *movers)
{
	return movers->state;
}

const char *movers_state_name(enum movers_state state)
{
	static const char *const names[] = {
		[MOVERS_OFF] = "off", [MOVERS_TESTING] = "testing", [MOVERS_ON] = "on", [MOVERS_FAILED] = "failed"
	};

	static_assert(ARRAY_SIZE(names) == MOVERS_STATES, "one name for each state");
	return names[state];
}

const char *movers_why(const struct movers *movers)
{
	return movers->why;
}

int movers_check(void)
{
	char why[256] = "";

	alarm(BPF_CHECK_S);
	if (bpf_check_run(why, sizeof(why)) == 0) {
		puts("ok");
		return EXIT_SUCCESS;
	}
	puts(why);
	return EXIT_FAILURE;
}
