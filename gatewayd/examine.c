/* A look at our table in a child process; see examine.h. */
#include "gatewayd/examine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"

/* The pipe's place in the child, behind the standard descriptors; everything else is closed there, so that no flow or
 * listening socket is held by a process that nobody asks to let go. */
#define PIPE_FD 3

/* What the child sends first; the text follows. */
struct report {
	int error;
	bool needed, replaces, chains;
	size_t added, removed, strays, text_length;
};

struct examine {
	examine_done done;
	void *userdata;
	pid_t child;
	int pipe;
	sd_event_source *io, *timer;
	struct report report;
	char *text;
	size_t received; /* of report and text together */
};

static int write_all(int fd, const void *data, size_t size)
{
	const char *bytes = data;

	while (size > 0) {
		ssize_t n = write(fd, bytes, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		bytes += n;
		size -= (size_t)n;
	}
	return 0;
}

_Noreturn static void child_main(struct apply *apply, int pipe)
{
	struct heal heal = { 0 };
	struct report report = { 0 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (pipe != PIPE_FD && dup2(pipe, PIPE_FD) < 0)
		_exit(EXIT_FAILURE);
	if (close_range(PIPE_FD + 1, UINT32_MAX, 0) < 0)
		_exit(EXIT_FAILURE);
	report.error = apply_examine_in_child(apply, &heal);
	report.needed = heal.needed;
	report.replaces = heal.replaces;
	report.chains = heal.chains;
	report.added = heal.added;
	report.removed = heal.removed;
	report.strays = heal.strays;
	report.text_length = heal.needed && heal.text ? strlen(heal.text) : 0;
	if (write_all(PIPE_FD, &report, sizeof(report)) < 0 || write_all(PIPE_FD, heal.text, report.text_length) < 0)
		_exit(EXIT_FAILURE);
	_exit(EXIT_SUCCESS);
}

void examine_free(struct examine *examine)
{
	if (!examine)
		return;
	sd_event_source_disable_unref(examine->io);
	sd_event_source_disable_unref(examine->timer);
	if (examine->pipe >= 0)
		close(examine->pipe);
	if (examine->child > 0) {
		(void)kill(examine->child, SIGKILL);
		(void)waitpid(examine->child, NULL, 0);
	}
	free(examine->text);
	free(examine);
}

static void finish(struct examine *examine, int error)
{
	const struct report *report = &examine->report;
	struct heal heal = { .text = TAKE_PTR(examine->text),
		.needed = report->needed,
		.replaces = report->replaces,
		.chains = report->chains,
		.added = report->added,
		.removed = report->removed,
		.strays = report->strays };
	examine_done done = examine->done;
	void *userdata = examine->userdata;

	examine_free(examine);
	done(userdata, error, &heal);
	heal_clear(&heal);
}

/* Where the next bytes go, and how many belong there; 0 when all are in. */
static int next_part(struct examine *examine, char **ret, size_t *ret_size)
{
	size_t head = sizeof(examine->report), whole;

	if (examine->received < head) {
		*ret = (char *)&examine->report + examine->received;
		*ret_size = head - examine->received;
		return 0;
	}
	if (!examine->text)
		examine->text = calloc(1, examine->report.text_length + 1);
	if (!examine->text)
		return -ENOMEM;
	whole = head + examine->report.text_length;
	*ret = examine->text + (examine->received - head);
	*ret_size = whole - examine->received;
	return 0;
}

static int on_pipe(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct examine *examine = userdata;
	char *to, end;
	size_t size;
	ssize_t n;
	int r = next_part(examine, &to, &size);

	(void)source;
	(void)events;
	if (r < 0) {
		finish(examine, r);
		return 0;
	}
	n = size > 0 ? read(fd, to, size) : read(fd, &end, 1);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n > 0 && size > 0) {
		examine->received += (size_t)n;
		return 0;
	}
	/* The end, which is in its place only behind the last byte. */
	finish(examine, n == 0 && size == 0 ? examine->report.error : -EIO);
	return 0;
}

static int on_late(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	finish(userdata, -ETIMEDOUT);
	return 0;
}

static int watch(struct examine *examine, sd_event *event)
{
	int r = sd_event_add_io(event, &examine->io, examine->pipe, EPOLLIN, on_pipe, examine);

	if (r >= 0)
		r = sd_event_add_time_relative(
		        event, &examine->timer, CLOCK_MONOTONIC, EXAMINE_MAX_MS * UINT64_C(1000), 0, on_late, examine);
	return r < 0 ? r : 0;
}

int examine_start(sd_event *event, struct apply *apply, examine_done done, void *userdata, struct examine **ret)
{
	struct examine *examine = calloc(1, sizeof(*examine));
	int pipes[2], r;

	if (!examine)
		return -ENOMEM;
	*examine = (struct examine){ .done = done, .userdata = userdata, .pipe = -1 };
	if (pipe2(pipes, O_CLOEXEC) < 0) {
		r = -errno;
		examine_free(examine);
		return r;
	}
	examine->pipe = pipes[0];
	(void)fcntl(pipes[0], F_SETFL, O_NONBLOCK);
	examine->child = fork();
	if (examine->child == 0)
		child_main(apply, pipes[1]);
	r = examine->child < 0 ? -errno : 0;
	close(pipes[1]);
	if (r == 0)
		r = watch(examine, event);
	if (r < 0) {
		examine_free(examine);
		return r;
	}
	*ret = examine;
	return 0;
}
