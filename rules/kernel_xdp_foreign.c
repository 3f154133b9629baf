/*
 * Whose XDP program is in the way of ours. Names of programs are told by the
 * kernel to CAP_SYS_ADMIN, which the daemon does not have once it serves; what
 * libxdp pins says the rest: its dispatcher has the directory
 * "xdp/dispatch-INTERFACE-ID" in the bpf file system, with a pin
 * "progN-prog" for each program behind it.
 */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "gatewayd/base/cleanup.h"
#include "rules/kernel_xdp_private.h"

/* libxdp's own limit of programs behind one dispatcher. */
#define DISPATCHED_MAX 10

static const char *name_of(int program, struct bpf_prog_info *info)
{
	__u32 size = sizeof(*info);

	if (program < 0 || bpf_obj_get_info_by_fd(program, info, &size) < 0)
		return "";
	return info->name;
}

/* Our own pins are in DIRECTORY/gatewayd/xdp/INTERFACE of the same file system. */
static bool dispatch_directory(const struct kernel_xdp *xdp, uint32_t program, char ret[PATH_MAX])
{
	return xdp->directory[0] &&
	       snprintf(ret, PATH_MAX, "%s/../../../xdp/dispatch-%u-%u", xdp->directory, if_nametoindex(xdp->interface),
	               (unsigned)program) < PATH_MAX &&
	       access(ret, F_OK) == 0;
}

/* ", with a, b" in the order in which they run, as far as there is room; nothing if none is known. */
static void add_dispatched(const char *directory, char *why, size_t size)
{
	unsigned n = 0;

	for (unsigned i = 0; i < DISPATCHED_MAX; i++) {
		struct bpf_prog_info info = { 0 };
		_cleanup_close_ int program = -1;
		char path[PATH_MAX + 16];
		const char *name;

		snprintf(path, sizeof(path), "%s/prog%u-prog", directory, i);
		program = bpf_obj_get(path);
		name = name_of(program, &info);
		if (*name)
			snprintf(why + strlen(why), size - strlen(why), "%s%s", n++ ? ", " : ", with ", name);
	}
}

/* A lone program. Without its name there is a way to learn it. */
static void say_lone(const struct kernel_xdp *xdp, uint32_t program, const char *name, char *why, size_t size)
{
	if (*name)
		snprintf(
		        why, size, "%s has an XDP program of somebody else (id %u, %s)", xdp->interface, program, name);
	else
		snprintf(why, size, "%s has an XDP program of somebody else (id %u; bpftool prog show id %u names it)",
		        xdp->interface, program, program);
}

void kernel_xdp_foreign(const struct kernel_xdp *xdp, uint32_t program, char *why, size_t why_size)
{
	_cleanup_close_ int fd = program ? bpf_prog_get_fd_by_id(program) : -1;
	struct bpf_prog_info info = { 0 };
	const char *name = name_of(fd, &info);
	char directory[PATH_MAX];
	bool pinned = dispatch_directory(xdp, program, directory);

	if (!pinned && strcmp(name, "xdp_dispatcher") != 0) {
		say_lone(xdp, program, name, why, why_size);
		return;
	}
	/* The names come last: if something has no room, they are it. */
	snprintf(why, why_size,
	        "%s has XDP programs of somebody else: libxdp's dispatcher (id %u), which gatewayd does not join "
	        "(xdp-loader unload %s --all makes room)",
	        xdp->interface, program, xdp->interface);
	if (pinned)
		add_dispatched(directory, why, why_size);
}
