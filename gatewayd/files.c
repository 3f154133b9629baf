/* Directories, the lock and the admin token on disk; see files.h. */
#include "gatewayd/files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/hex.h"

int files_make_directory(const char *path, unsigned mode)
{
	char part[PATH_MAX];
	size_t length = strlen(path);

	if (length == 0 || length >= sizeof(part))
		return -ENAMETOOLONG;
	memcpy(part, path, length + 1);
	for (size_t i = 1; i < length; i++) {
		if (part[i] != '/')
			continue;
		part[i] = '\0';
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return -errno;
		part[i] = '/';
	}
	return mkdir(part, mode) < 0 && errno != EEXIST ? -errno : 0;
}

int files_lock(const char *runtime_dir, int *ret_holder)
{
	char path[PATH_MAX], text[16] = "";
	_cleanup_close_ int fd = -1;
	int length;

	snprintf(path, sizeof(path), "%s/gatewayd.lock", runtime_dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int error = errno;

		*ret_holder = read(fd, text, sizeof(text) - 1) > 0 ? atoi(text) : 0;
		return -error;
	}
	length = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)length, 0) != length)
		return -EIO;
	return TAKE_FD(fd);
}

static int make_token(const char *path, char *ret_token)
{
	_cleanup_close_ int fd = -1;
	uint8_t bytes[FILES_TOKEN_LENGTH / 2];

	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return -EIO;
	hex_format(bytes, sizeof(bytes), ret_token);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (write(fd, ret_token, FILES_TOKEN_LENGTH) != FILES_TOKEN_LENGTH || write(fd, "\n", 1) != 1 || fsync(fd) < 0)
		return -EIO;
	return 0;
}

int files_admin_token(const char *state_dir, char ret_token[FILES_TOKEN_LENGTH + 1])
{
	char path[PATH_MAX];
	_cleanup_close_ int fd = -1;
	ssize_t length;

	snprintf(path, sizeof(path), "%s/admin.token", state_dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? make_token(path, ret_token) : -errno;
	length = read(fd, ret_token, FILES_TOKEN_LENGTH);
	if (length != FILES_TOKEN_LENGTH)
		return -EINVAL; /* a cut-off file must not become a short token */
	ret_token[FILES_TOKEN_LENGTH] = '\0';
	return strspn(ret_token, "0123456789abcdef") == FILES_TOKEN_LENGTH ? 0 : -EINVAL;
}

long files_read_number(const char *path)
{
	_cleanup_fclose_ FILE *file = fopen(path, "re");
	long value;

	return file && fscanf(file, "%ld", &value) == 1 ? value : -1;
}
