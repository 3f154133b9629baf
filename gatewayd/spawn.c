/* Starting the relay's process; see spawn.h. */
#include "gatewayd/spawn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/isolate.h"
#include "gatewayd/base/log.h"

/* Where the relay expects its channel and relay.sock. */
#define CHANNEL_FD 3
#define CONTROL_FD 4
/* Descriptors that the relay needs besides two per flow: pipes in flight, epoll, sockets, checks of
 * targets, a reserve. */
#define DESCRIPTORS_RESERVED 3072
/* The fewest flows that make sense, and the most that the table is laid out for. */
#define FLOWS_LEAST 64
#define FLOWS_MOST  1000000

/* What the child needs to know, prepared before the fork: after it only plain system calls are made. */
struct child {
	const char *path;
	char *argv[12];
	char threads[16], max_flows[16], uid[16];
	struct isolate_params isolate;
	bool drop;
	int channel, control;
};

unsigned spawn_max_flows(const struct options *options)
{
	struct rlimit limit;
	rlim_t flows;

	if (options->max_flows > 0)
		return options->max_flows;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_max <= DESCRIPTORS_RESERVED)
		return FLOWS_LEAST;
	flows = (limit.rlim_max - DESCRIPTORS_RESERVED) / 2;
	return flows < FLOWS_LEAST ? FLOWS_LEAST : flows > FLOWS_MOST ? FLOWS_MOST : (unsigned)flows;
}

static const char *level_name(int level)
{
	switch (level) {
	case LOG_ERR:
		return "error";
	case LOG_WARNING:
		return "warning";
	case LOG_NOTICE:
		return "notice";
	case LOG_DEBUG:
		return "debug";
	default:
		return "info";
	}
}

static void fill_arguments(struct child *child, const struct options *options)
{
	const char *arguments[] = { options->relay, "--threads", child->threads, "--max-flows", child->max_flows,
		"--mover", options->mover, "--log-level", level_name(options->log_level), "--daemon-uid", child->uid };

	static_assert(ARRAY_SIZE(arguments) < ARRAY_SIZE(child->argv), "the list ends with a NULL");
	for (size_t i = 0; i < ARRAY_SIZE(arguments); i++)
		child->argv[i] = (char *)arguments[i];
}

/* NULL: there is none. */
static const struct passwd *relay_user(void)
{
	const struct passwd *user = getpwnam(SPAWN_RELAY_USER);

	return user ? user : getpwnam("nobody");
}

uid_t spawn_relay_uid(void)
{
	const struct passwd *user = geteuid() == 0 ? relay_user() : NULL;

	return user ? user->pw_uid : geteuid();
}

/* The relay's own user if there is one. Only root can change users; started otherwise, the relay shares ours. */
static void choose_user(struct child *child)
{
	const struct passwd *user = relay_user();

	child->drop = geteuid() == 0 && user;
	if (child->drop) {
		child->isolate.uid = user->pw_uid;
		child->isolate.gid = user->pw_gid;
	}
}

/* Moves both descriptors out of the way first: either may stand where the other must go. */
static void place_descriptors(const struct child *child)
{
	int channel = fcntl(child->channel, F_DUPFD, CONTROL_FD + 1);
	int control = fcntl(child->control, F_DUPFD, CONTROL_FD + 1);

	if (channel < 0 || control < 0 || dup2(channel, CHANNEL_FD) < 0 || dup2(control, CONTROL_FD) < 0)
		_exit(127);
	if (close_range(CONTROL_FD + 1, ~0U, 0) < 0)
		_exit(127);
}

static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

static void run_child(const struct child *child)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	raise_descriptor_limit();
	place_descriptors(child);
	if (child->drop && isolate_drop(&child->isolate) < 0)
		_exit(126);
	execv(child->path, child->argv);
	_exit(127);
}

static void run_probe(const struct child *child)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (close_range(3, ~0U, 0) < 0 || (child->drop && isolate_drop(&child->isolate) < 0))
		_exit(126);
	execv(child->path, child->argv);
	_exit(127);
}

int spawn_probe(const struct options *options)
{
	struct child child = { .path = options->relay, .argv = { (char *)options->relay, (char *)"--probe" } };
	struct pollfd end = { .events = POLLIN };
	siginfo_t info = { 0 };
	bool in_time;
	pid_t pid;

	choose_user(&child);
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0)
		run_probe(&child);
	end.fd = pidfd_open(pid, 0);
	in_time = end.fd >= 0 && poll(&end, 1, SPAWN_PROBE_MS) == 1;
	cleanup_close(&end.fd);
	if (!in_time)
		kill(pid, SIGKILL);
	if (waitid(P_PID, (id_t)pid, &info, WEXITED) < 0)
		return -errno;
	if (!in_time)
		return -ETIMEDOUT;
	return info.si_code == CLD_EXITED && info.si_status == 0 ? 0 : -ENOEXEC;
}

int spawn_relay(const struct options *options, unsigned threads, unsigned max_flows, int channel, int control,
        pid_t *ret_pid, int *ret_pidfd)
{
	struct child child = { .path = options->relay, .channel = channel, .control = control };
	pid_t pid;
	int pidfd;

	snprintf(child.threads, sizeof(child.threads), "%u", threads);
	snprintf(child.max_flows, sizeof(child.max_flows), "%u", max_flows);
	snprintf(child.uid, sizeof(child.uid), "%u", (unsigned)geteuid());
	fill_arguments(&child, options);
	choose_user(&child);
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0)
		run_child(&child);
	pidfd = pidfd_open(pid, 0);
	if (pidfd < 0) {
		int error = errno;

		kill(pid, SIGKILL);
		return -error;
	}
	*ret_pid = pid;
	*ret_pidfd = pidfd;
	return 0;
}
