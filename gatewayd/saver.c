/* Saving the configuration, if need be in a child process; see saver.h. */
#include "gatewayd/saver.h"

#include <errno.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gatewayd/base/clock.h"
#include "gatewayd/base/log.h"
#include "gatewayd/open.h"

/* The relay and the daemon come first. */
#define CHILD_NICE 10

struct saver {
	sd_event *event;
	const struct options *options;
	int64_t revision; /* that is on disk, or was tried; -1: unknown */
	pid_t child;      /* 0: there is none */
	int pidfd;
	sd_event_source *end;
	uint64_t begun_us, not_before_us; /* of the child; of the next one */
};

int saver_new(sd_event *event, const struct options *options, struct saver **ret)
{
	struct saver *saver = calloc(1, sizeof(*saver));

	if (!saver)
		return -ENOMEM;
	*saver = (struct saver){ .event = event, .options = options, .revision = -1, .pidfd = -1 };
	*ret = saver;
	return 0;
}

static void forget_child(struct saver *saver)
{
	saver->end = sd_event_source_disable_unref(saver->end);
	if (saver->pidfd >= 0)
		close(TAKE_FD(saver->pidfd));
	saver->child = 0;
}

static void end_child(struct saver *saver)
{
	if (saver->child > 0) {
		(void)kill(saver->child, SIGKILL);
		(void)waitpid(saver->child, NULL, 0);
	}
	forget_child(saver);
}

void saver_free(struct saver *saver)
{
	if (!saver)
		return;
	end_child(saver);
	free(saver);
}

/* In entries of address sets. */
static size_t size_of(const struct snapshot *snapshot)
{
	const struct rows *sets = &snapshot->rows[RESOURCE_ADDRESS_SET];
	size_t n = 0;

	for (unsigned resource = 0; resource < RESOURCES; resource++)
		n += snapshot->rows[resource].n * SAVER_ROW;
	for (size_t i = 0; i < sets->n; i++)
		n += ((const struct address_set *)sets->items[i])->entries.n;
	return n;
}

/* Holds nothing of the daemon's but where it logs: no socket must outlive it here. */
_Noreturn static void child_main(const struct options *options, const struct snapshot *snapshot)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (close_range(STDERR_FILENO + 1, UINT32_MAX, 0) < 0)
		_exit(EXIT_FAILURE);
	(void)!nice(CHILD_NICE);
	_exit(open_save_last_good(options, snapshot) < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

static int on_child_end(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct saver *saver = userdata;
	uint64_t now = clock_us(), pause = (now - saver->begun_us) * SAVER_SHARE;
	const uint64_t latest = SAVER_LATEST_S * UINT64_C(1000000);
	int status = 0;

	(void)source;
	(void)fd;
	(void)events;
	/* What went wrong it has said itself, unless it was killed. */
	if (waitpid(saver->child, &status, 0) == saver->child && WIFSIGNALED(status))
		log_warning("the process that saves the configuration was ended by signal %d", WTERMSIG(status));
	saver->not_before_us = now + (pause < latest ? pause : latest);
	forget_child(saver);
	return 0;
}

static int start_child(struct saver *saver, const struct snapshot *snapshot)
{
	int r;

	saver->begun_us = clock_us();
	saver->child = fork();
	if (saver->child == 0)
		child_main(saver->options, snapshot);
	if (saver->child < 0) {
		saver->child = 0;
		return -errno;
	}
	saver->pidfd = pidfd_open(saver->child, 0);
	r = saver->pidfd < 0 ? -errno
	                     : sd_event_add_io(saver->event, &saver->end, saver->pidfd, EPOLLIN, on_child_end, saver);
	if (r < 0)
		end_child(saver);
	return r < 0 ? r : 0;
}

void saver_look(struct saver *saver, const struct snapshot *snapshot)
{
	if (snapshot->revision == saver->revision || saver->child > 0 || clock_us() < saver->not_before_us)
		return;
	if (size_of(snapshot) < SAVER_LARGE || start_child(saver, snapshot) < 0)
		(void)open_save_last_good(saver->options, snapshot);
	saver->revision = snapshot->revision;
}

void saver_finish(struct saver *saver, const struct snapshot *snapshot)
{
	bool unfinished = saver->child > 0;

	end_child(saver);
	if (unfinished || snapshot->revision != saver->revision)
		(void)open_save_last_good(saver->options, snapshot);
	saver->revision = snapshot->revision;
}
