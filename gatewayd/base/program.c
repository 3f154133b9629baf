/* The identity of a program file; see program.h. */
#include "gatewayd/base/program.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

int program_id(const char *path, char ret[PROGRAM_ID_MAX + 1])
{
	struct stat found;

	if (stat(path, &found) < 0)
		return -errno;
	snprintf(ret, PROGRAM_ID_MAX + 1, "%" PRIx64 ":%" PRIx64 ":%" PRIx64 ":%" PRIx64 ".%lx", (uint64_t)found.st_dev,
	        (uint64_t)found.st_ino, (uint64_t)found.st_size, (uint64_t)found.st_mtim.tv_sec, found.st_mtim.tv_nsec);
	return 0;
}
