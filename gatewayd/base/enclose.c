/*
 * Landlock without a rule; see enclose.h. Each version of it knows more rights
 * that can be handled; what is handled and has no rule is forbidden. It needs
 * no capability, and neither a mount namespace nor a root of its own, which
 * would: the daemon has neither CAP_SYS_ADMIN nor CAP_SYS_CHROOT to give.
 */
#include "gatewayd/base/enclose.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gatewayd/base/cleanup.h"

/* The kernel's struct landlock_ruleset_attr as of version 6; headers may be older than the kernel. */
struct ruleset {
	uint64_t files, net, scopes;
};

/* The first version that has them, and the bits of all rights and scopes up to it. */
static const struct {
	int version;
	size_t size;
	uint64_t files, scopes;
} versions[] = {
	{ 6, sizeof(struct ruleset), 0xffff, 3 },           /* abstract sockets, signals */
	{ 5, offsetof(struct ruleset, scopes), 0xffff, 0 }, /* ioctl of devices */
	{ 3, offsetof(struct ruleset, net), 0x7fff, 0 },    /* truncating */
	{ 2, offsetof(struct ruleset, net), 0x3fff, 0 },    /* moving from one directory to another */
	{ 1, offsetof(struct ruleset, net), 0x1fff, 0 },
};

#define CREATE_RULESET_VERSION 1U

int enclose(void)
{
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);
	struct ruleset ruleset = { 0 };
	_cleanup_close_ int fd = -1;
	size_t i = 0;

	if (version < 1)
		return version < 0 ? -errno : -EOPNOTSUPP;
	while (versions[i].version > version)
		i++;
	ruleset.files = versions[i].files;
	ruleset.scopes = versions[i].scopes;
	fd = (int)syscall(SYS_landlock_create_ruleset, &ruleset, versions[i].size, 0);
	if (fd < 0 || syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		return -errno;
	return (int)version;
}

const char *enclose_fault(int result)
{
	switch (-result) {
	case ENOSYS:
		return "the kernel has no Landlock";
	case EOPNOTSUPP:
		return "Landlock is switched off at boot";
	case EPERM:
		return "a filter of system calls forbids Landlock";
	default:
		return result < 0 ? strerror(-result) : "";
	}
}
