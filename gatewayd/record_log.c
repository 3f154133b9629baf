/* Lines of records to a file or the journal; see record_log.h. */
#include "gatewayd/record_log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/log.h"
#include "gatewayd/files.h"

#define DIRECTORY_MODE 0755
#define FILE_MODE      0640

struct record_log {
	const char *directory;
	char path[PATH_MAX]; /* "": standard error */
	bool open;           /* lines are wanted at all */
	int fd;              /* -1: not open */
	struct stat known;   /* of the open file */
	char *buffer;
	size_t filled;
	bool inside; /* the buffer begins within a line, whose beginning is written */
	int error;   /* negative errno of the last try; 0: it went well */
};

int record_log_new(const char *directory, struct record_log **ret)
{
	struct record_log *log = calloc(1, sizeof(*log));

	if (!log)
		return -ENOMEM;
	log->directory = directory;
	log->fd = -1;
	log->buffer = malloc(RECORD_LOG_BUFFER);
	if (!log->buffer) {
		record_log_free(log);
		return -ENOMEM;
	}
	*ret = log;
	return 0;
}

void record_log_free(struct record_log *log)
{
	if (!log)
		return;
	record_log_close(log);
	free(log->buffer);
	free(log);
}

/* --- where to --- */

/* Said in the log too, but not where the log itself is what takes no more. */
static void set_error(struct record_log *log, int error)
{
	if (*log->path && error && error != log->error)
		log_warning("records of flows cannot be written to %s: %s", log->path, strerror(-error));
	else if (*log->path && !error && log->error)
		log_notice("records of flows are written again");
	log->error = error;
}

/* A regular file of this name, that of now or a new one. 0 or a negative errno. */
static int open_file(struct record_log *log)
{
	_cleanup_close_ int fd = -1;
	int r = files_make_directory(log->directory, DIRECTORY_MODE);

	if (r < 0)
		return r;
	fd = open(log->path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, FILE_MODE);
	if (fd < 0 || fstat(fd, &log->known) < 0)
		return -errno;
	if (!S_ISREG(log->known.st_mode))
		return -EINVAL;
	log->fd = TAKE_FD(fd);
	return 0;
}

/* The same description of standard error must not become non-blocking for others: a pipe is opened anew, a socket is
 * told with each message, and what is neither does not wait. */
static int open_standard_error(struct record_log *log)
{
	struct stat kind;

	if (fstat(STDERR_FILENO, &kind) < 0)
		return -errno;
	log->fd = S_ISFIFO(kind.st_mode) ? open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_CLOEXEC)
	                                 : fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
	log->known = kind;
	return log->fd < 0 ? -errno : 0;
}

/* The rest of a line whose beginning is in another file. */
static void drop_rest(struct record_log *log)
{
	const char *end = log->inside ? memchr(log->buffer, '\n', log->filled) : NULL;
	size_t length = end ? (size_t)(end + 1 - log->buffer) : 0;

	memmove(log->buffer, log->buffer + length, log->filled - length);
	log->filled -= length;
	log->inside = false;
}

static bool was_renamed(const struct record_log *log)
{
	struct stat now;

	if (lstat(log->path, &now) < 0)
		return errno == ENOENT;
	return now.st_ino != log->known.st_ino || now.st_dev != log->known.st_dev;
}

/* 0 when there is something to write to. */
static int ready(struct record_log *log)
{
	if (*log->path && log->fd >= 0 && was_renamed(log)) {
		close(TAKE_FD(log->fd));
		drop_rest(log);
	}
	if (log->fd >= 0)
		return 0;
	return *log->path ? open_file(log) : open_standard_error(log);
}

void record_log_open(struct record_log *log, const char *file)
{
	char path[PATH_MAX] = "";

	if (file && (size_t)snprintf(path, sizeof(path), "%s/%s", log->directory, file) >= sizeof(path))
		path[0] = '\0'; /* cannot be: the directory was made */
	if (log->open && strcmp(path, log->path) == 0)
		return;
	record_log_close(log);
	memcpy(log->path, path, sizeof(path));
	log->open = true;
	set_error(log, ready(log));
}

void record_log_close(struct record_log *log)
{
	if (log->open)
		(void)record_log_flush(log);
	if (log->fd >= 0)
		close(TAKE_FD(log->fd));
	log->filled = 0;
	log->inside = log->open = false;
	log->error = 0;
}

/* --- what --- */

bool record_log_put(struct record_log *log, const char *line, size_t length)
{
	if (!log->open || length > RECORD_LOG_BUFFER - log->filled)
		return false;
	memcpy(log->buffer + log->filled, line, length);
	log->filled += length;
	return true;
}

/* Whole lines of the buffer, as many as standard error takes as one; all of it for a file. */
static size_t piece(const struct record_log *log)
{
	const char *end = log->filled > RECORD_LOG_PIECE ? memrchr(log->buffer, '\n', RECORD_LOG_PIECE) : NULL;

	return *log->path || !end ? log->filled : (size_t)(end + 1 - log->buffer);
}

static ssize_t write_piece(const struct record_log *log, const char *bytes, size_t n)
{
	ssize_t written = S_ISSOCK(log->known.st_mode) ? send(log->fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL)
	                                               : write(log->fd, bytes, n);

	return written < 0 ? -errno : written;
}

static size_t lines_in(const char *bytes, size_t n)
{
	size_t lines = 0;

	for (const char *at = bytes; (at = memchr(at, '\n', n - (size_t)(at - bytes))); at++)
		lines++;
	return lines;
}

size_t record_log_flush(struct record_log *log)
{
	size_t lines = 0;
	int r = log->open && log->filled > 0 ? ready(log) : 0;

	while (r == 0 && log->open && log->filled > 0) {
		ssize_t written = write_piece(log, log->buffer, piece(log));

		if (written <= 0) {
			r = written < 0 ? (int)written : -EIO;
			break;
		}
		lines += lines_in(log->buffer, (size_t)written);
		log->inside = log->buffer[written - 1] != '\n';
		log->filled -= (size_t)written;
		memmove(log->buffer, log->buffer + written, log->filled);
	}
	if (log->open && (r < 0 || lines > 0))
		set_error(log, r);
	return lines;
}

const char *record_log_fault(const struct record_log *log)
{
	return log->error ? strerror(-log->error) : NULL;
}
