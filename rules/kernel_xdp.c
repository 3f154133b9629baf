/*
 * XDP programs: loading, attaching, pinning; see kernel_xdp.h.
 *
 * Always by a link: one that is there cannot be replaced by others unnoticed,
 * and it goes with its last holder, which is the pin.
 */
#include "rules/kernel_xdp.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/magic.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "gatewayd/base/bpf_shortcut.h"
#include "gatewayd/base/log.h"
#include "rules/kernel_xdp_private.h"

#include "prefilter.skel.h"

static_assert(PREFILTER_LAYOUT == 3, "the names below say since which layout the maps are as they are");
static const char *const kept_names[] = {
	[XDP_KEPT_COUNTERS] = "counters_3",
	[XDP_KEPT_BANS] = "bans_2",
	[XDP_KEPT_EVENTS] = "events_3",
	[XDP_KEPT_BUCKETS] = "buckets_2",
	[XDP_KEPT_SHUT_V4] = "shut_v4_2",
	[XDP_KEPT_SHUT_V6] = "shut_v6_2",
	[XDP_KEPT_SHARES] = "shares_3",
	[XDP_KEPT_OVERS] = "overs_3",
};
/* What earlier releases have left. */
static const char *const former_names[] = { "counters_2", "events_2" };
static_assert(ARRAY_SIZE(kept_names) == XDP_KEPT, "one name each");

static struct bpf_map *kept_map(struct prefilter_bpf *program, enum xdp_kept which)
{
	switch (which) {
	case XDP_KEPT_COUNTERS:
		return program->maps.counters;
	case XDP_KEPT_BANS:
		return program->maps.bans;
	case XDP_KEPT_EVENTS:
		return program->maps.events;
	case XDP_KEPT_BUCKETS:
		return program->maps.buckets;
	case XDP_KEPT_SHUT_V4:
		return program->maps.shut_v4;
	case XDP_KEPT_SHUT_V6:
		return program->maps.shut_v6;
	case XDP_KEPT_SHARES:
		return program->maps.shares;
	case XDP_KEPT_OVERS:
		return program->maps.overs;
	case XDP_KEPT:
		break;
	}
	return NULL;
}

/* --- names and places --- */

/* The bpf file system takes no dots: "eth0.7" is "eth0%7". '%' cannot be in a name of a kernel that a person made. */
static void swap_dots(char *name, char from, char to)
{
	for (; *name; name++)
		if (*name == from)
			*name = to;
}

static bool is_on_bpf_fs(const char *path)
{
	char parent[PATH_MAX];
	struct statfs fs;

	if (statfs(path, &fs) < 0) {
		char *slash;

		snprintf(parent, sizeof(parent), "%s", path);
		slash = strrchr(parent, '/');
		if (!slash || slash == parent)
			return false;
		*slash = '\0';
		if (statfs(parent, &fs) < 0)
			return false;
	}
	return fs.f_type == (typeof(fs.f_type))BPF_FS_MAGIC;
}

static int path_of(const struct kernel_xdp *xdp, const char *name, char ret[PATH_MAX])
{
	return xdp->directory[0] && snprintf(ret, PATH_MAX, "%s/%s", xdp->directory, name) < PATH_MAX ? 0 : -ENOENT;
}

static int make_directories(const struct kernel_xdp *xdp)
{
	char path[PATH_MAX];

	if (!xdp->directory[0])
		return 0;
	snprintf(path, sizeof(path), "%s", xdp->directory);
	/* BPF-DIR, BPF-DIR/xdp, and the interface's own. */
	for (unsigned up = 3; up-- > 0;) {
		snprintf(path, sizeof(path), "%s", xdp->directory);
		for (unsigned i = 0; i < up; i++)
			*strrchr(path, '/') = '\0';
		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			return -errno;
	}
	return 0;
}

static void unpin(const struct kernel_xdp *xdp, const char *name)
{
	char path[PATH_MAX];

	if (path_of(xdp, name, path) == 0)
		(void)unlink(path);
}

void kernel_xdp_each_pinned(const char *directory, void (*visit)(void *userdata, const char *interface), void *userdata)
{
	char path[PATH_MAX];
	const struct dirent *entry;
	DIR *dir;

	if ((size_t)snprintf(path, sizeof(path), "%s/xdp", directory) >= sizeof(path) || !is_on_bpf_fs(path))
		return;
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		char name[NAME_MAX_BYTES + 1];

		if (entry->d_name[0] == '.' || strlen(entry->d_name) > NAME_MAX_BYTES)
			continue;
		memcpy(name, entry->d_name, strlen(entry->d_name) + 1);
		swap_dots(name, '%', '.');
		visit(userdata, name);
	}
	if (dir)
		closedir(dir);
}

int kernel_xdp_new(const char *directory, const char *interface, struct kernel_xdp **ret)
{
	struct kernel_xdp *xdp = calloc(1, sizeof(*xdp));
	char path[PATH_MAX], name[NAME_MAX_BYTES + 1];

	if (!xdp)
		return -ENOMEM;
	snprintf(xdp->interface, sizeof(xdp->interface), "%s", interface);
	snprintf(name, sizeof(name), "%s", interface);
	swap_dots(name, '.', '%');
	xdp->link = xdp->before_fd = -1;
	for (int i = 0; i < XDP_KEPT; i++)
		xdp->kept[i] = -1;
	if (directory && is_on_bpf_fs(directory) &&
	        snprintf(xdp->directory, sizeof(xdp->directory), "%s/xdp/%s", directory, name) >= PATH_MAX)
		xdp->directory[0] = '\0';
	if (directory && snprintf(xdp->ways, sizeof(xdp->ways), "%s/shortcut/%d/ways", directory,
	                         BPF_SHORTCUT_LAYOUT) >= PATH_MAX)
		xdp->ways[0] = '\0';
	if (path_of(xdp, "link", path) == 0)
		xdp->link = bpf_obj_get(path);
	if (xdp->link < 0)
		xdp->link = -1;
	*ret = xdp;
	return 0;
}

void kernel_xdp_free(struct kernel_xdp *xdp)
{
	if (!xdp)
		return;
	ring_buffer__free(xdp->ring);
	kernel_xdp_trial_end(xdp);
	prefilter_bpf__destroy(xdp->loaded);
	prefilter_bpf__destroy(xdp->now);
	prefilter_bpf__destroy(xdp->before);
	cleanup_close(&xdp->before_fd);
	cleanup_close(&xdp->link);
	for (int i = 0; i < XDP_KEPT; i++)
		cleanup_close(&xdp->kept[i]);
	free(xdp);
}

/* --- loading --- */

/* Interface index that the link is on; 0: none, the interface has gone. */
static unsigned link_interface(int link, uint32_t *ret_program)
{
	struct bpf_link_info info = { 0 };
	__u32 size = sizeof(info);

	if (link < 0 || bpf_obj_get_info_by_fd(link, &info, &size) < 0 || info.type != BPF_LINK_TYPE_XDP)
		return 0;
	if (ret_program)
		*ret_program = info.prog_id;
	return info.xdp.ifindex;
}

static bool is_attached(const struct kernel_xdp *xdp)
{
	unsigned index = if_nametoindex(xdp->interface);

	return index != 0 && link_interface(xdp->link, NULL) == index;
}

static bool is_like(int fd, const struct bpf_map *map)
{
	struct bpf_map_info info = { 0 };
	__u32 size = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &size) == 0 && info.type == bpf_map__type(map) &&
	       info.key_size == bpf_map__key_size(map) && info.value_size == bpf_map__value_size(map) &&
	       info.max_entries == bpf_map__max_entries(map);
}

/* The short cut's flows, if there is a short cut; the daemon opens it before any prefilter. */
static int reuse_ways(const struct kernel_xdp *xdp, struct prefilter_bpf *program)
{
	_cleanup_close_ int fd = -1;

	if (xdp->ways[0])
		fd = bpf_obj_get(xdp->ways);
	if (fd < 0 || !is_like(fd, program->maps.ways))
		return bpf_map__set_max_entries(program->maps.ways, 1);
	return bpf_map__reuse_fd(program->maps.ways, fd);
}

/* Accounts cost memory, so a program without a rate has a map of one. */
static bool is_kept(const struct prefilter_bpf *program, enum xdp_kept which)
{
	if (which == XDP_KEPT_SHARES || which == XDP_KEPT_OVERS)
		return program->rodata->params.limits;
	return which != XDP_KEPT_BUCKETS || program->rodata->params.interval != 0;
}

static int reuse(struct kernel_xdp *xdp, struct prefilter_bpf *program, enum xdp_kept which)
{
	struct bpf_map *map = kept_map(program, which);
	char path[PATH_MAX];

	if (!is_kept(program, which))
		return bpf_map__set_max_entries(map, 1);
	if (xdp->kept[which] < 0 && path_of(xdp, kept_names[which], path) == 0) {
		int fd = bpf_obj_get(path);

		if (fd >= 0 && !is_like(fd, map)) {
			close(TAKE_FD(fd));
			(void)unlink(path);
		}
		xdp->kept[which] = fd < 0 ? -1 : fd;
	}
	return xdp->kept[which] < 0 ? 0 : bpf_map__reuse_fd(map, xdp->kept[which]);
}

/* After a load: what is new is kept from now on. */
static int keep(struct kernel_xdp *xdp, struct prefilter_bpf *program, enum xdp_kept which)
{
	if (!is_kept(program, which) || xdp->kept[which] >= 0)
		return 0;
	xdp->kept[which] = fcntl(bpf_map__fd(kept_map(program, which)), F_DUPFD_CLOEXEC, 3);
	return xdp->kept[which] < 0 ? -errno : 0;
}

/* Pins are made when something is in force: a dry run leaves none. */
static int pin_kept(struct kernel_xdp *xdp)
{
	char path[PATH_MAX];
	int r = make_directories(xdp);

	for (size_t i = 0; i < ARRAY_SIZE(former_names); i++)
		unpin(xdp, former_names[i]);
	for (int i = 0; i < XDP_KEPT && r == 0; i++) {
		if (xdp->kept[i] < 0 || path_of(xdp, kept_names[i], path) < 0 || access(path, F_OK) == 0)
			continue;
		r = bpf_obj_pin(xdp->kept[i], path);
	}
	return r;
}

static int load(struct kernel_xdp *xdp, const struct xdp_config *config, bool cookies, struct prefilter_bpf *program)
{
	int r;

	program->rodata->params = config->params;
	if (!cookies)
		program->rodata->params.listener_port = 0;
	/* One that is not attached hears of no flows. */
	r = kernel_xdp_seen(program, kernel_xdp_has_cookies(xdp) && is_attached(xdp) ? xdp->now : NULL);
	if (xdp->now)
		program->bss->cookie_at = xdp->now->bss->cookie_at;
	if (r == 0)
		r = bpf_map__set_max_entries(program->maps.pairs, config->limits.n ? (__u32)config->limits.n : 1);
	for (int i = 0; i < XDP_KEPT && r == 0; i++)
		r = reuse(xdp, program, (enum xdp_kept)i);
	if (r == 0)
		r = reuse_ways(xdp, program);
	if (r == 0)
		r = prefilter_bpf__load(program);
	for (int i = 0; i < XDP_KEPT && r == 0; i++)
		r = keep(xdp, program, (enum xdp_kept)i);
	if (r == 0)
		r = kernel_xdp_fill(program, config);
	if (r == 0)
		r = kernel_xdp_make_overs(xdp, config);
	if (r == 0)
		kernel_xdp_note_bans(xdp, program);
	return r;
}

static int load_new(struct kernel_xdp *xdp, const struct xdp_config *config, bool cookies, struct prefilter_bpf **ret)
{
	struct prefilter_bpf *program = prefilter_bpf__open();
	int r = program ? load(xdp, config, cookies, program) : -errno;

	if (r < 0)
		prefilter_bpf__destroy(program);
	else
		*ret = program;
	return r;
}

int kernel_xdp_load(struct kernel_xdp *xdp, const struct xdp_config *config, char *why, size_t why_size)
{
	bool cookies = config->params.listener_port != 0;
	struct prefilter_bpf *program;
	int r;

	kernel_xdp_discard(xdp);
	libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
	r = load_new(xdp, config, cookies, &program);
	/* A kernel may lack only what makes cookies. */
	if (r < 0 && r != -ENOMEM && cookies)
		r = load_new(xdp, config, false, &program);
	if (r < 0) {
		snprintf(why, why_size, "%s: %s",
		        r == -EPERM || r == -EACCES ? "no right to load programs, or the kernel's verifier refused it"
		        : r == -ENOMEM || r == -ENOSPC ? "no memory for the lists"
		                                       : "the kernel does not load the program",
		        strerror(-r));
		return r;
	}
	xdp->loaded = program;
	(void)kernel_xdp_refresh(xdp);
	return 0;
}

void kernel_xdp_discard(struct kernel_xdp *xdp)
{
	prefilter_bpf__destroy(TAKE_PTR(xdp->loaded));
}

/* --- attaching --- */

/* On a veth the native mode takes segmentation away from both ends: streams become several times slower. */
static bool is_veth(const char *interface)
{
	struct ethtool_drvinfo driver = { .cmd = ETHTOOL_GDRVINFO };
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = { .ifr_data = (void *)&driver };

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%.*s", IFNAMSIZ - 1, interface);
	return fd >= 0 && ioctl(fd, SIOCETHTOOL, &request) == 0 && strcmp(driver.driver, "veth") == 0;
}

static int attach_in(struct kernel_xdp *xdp, int program, __u32 flags)
{
	LIBBPF_OPTS(bpf_link_create_opts, options, .flags = flags);
	int index = (int)if_nametoindex(xdp->interface), fd;

	if (index == 0)
		return -ENODEV;
	fd = bpf_link_create(program, index, BPF_XDP, &options);
	if (fd < 0)
		return fd;
	xdp->link = fd;
	return 0;
}

static int attach(struct kernel_xdp *xdp, int program, enum prefilter_mode mode, char *why, size_t why_size)
{
	bool first_native = mode == PREFILTER_MODE_NATIVE || (mode == PREFILTER_MODE_AUTO && !is_veth(xdp->interface));
	int r;

	xdp->why[0] = '\0';
	if (mode == PREFILTER_MODE_AUTO && !first_native)
		snprintf(xdp->why, sizeof(xdp->why), "native on a veth takes segmentation offload from both ends");
	r = attach_in(xdp, program, first_native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE);
	if (r < 0 && r != -EBUSY && r != -EEXIST && r != -ENODEV && mode == PREFILTER_MODE_AUTO && first_native) {
		snprintf(xdp->why, sizeof(xdp->why), "not native: %s", strerror(-r));
		r = attach_in(xdp, program, XDP_FLAGS_SKB_MODE);
	}
	if (r == -EBUSY || r == -EEXIST) {
		struct xdp_look look;

		kernel_xdp_look(xdp, &look);
		kernel_xdp_foreign(xdp, look.foreign, why, why_size);
		return -EBUSY;
	}
	if (r == -ENODEV)
		snprintf(why, why_size, "waiting for interface");
	else if (r < 0)
		snprintf(why, why_size, "%s does not take the program%s: %s", xdp->interface,
		        first_native ? " in its driver" : "", strerror(-r));
	return r;
}

static int pin_link(struct kernel_xdp *xdp)
{
	char path[PATH_MAX];

	if (path_of(xdp, "link", path) < 0)
		return 0;
	(void)unlink(path);
	return bpf_obj_pin(xdp->link, path);
}

void kernel_xdp_detach(struct kernel_xdp *xdp)
{
	unpin(xdp, "link");
	if (xdp->link >= 0) {
		/* Whoever else holds it: it is off the interface from here on. */
		(void)bpf_link_detach(xdp->link);
		close(TAKE_FD(xdp->link));
	}
}

static enum xdp_mode mode_now(const struct kernel_xdp *xdp)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);
	int index = (int)if_nametoindex(xdp->interface);

	if (!is_attached(xdp) || bpf_xdp_query(index, 0, &query) < 0)
		return XDP_MODE_NONE;
	return query.attach_mode == XDP_ATTACHED_SKB ? XDP_MODE_GENERIC : XDP_MODE_NATIVE;
}

static bool mode_fits(enum xdp_mode now, enum prefilter_mode wanted)
{
	return now != XDP_MODE_NONE &&
	       (wanted == PREFILTER_MODE_AUTO || (now == XDP_MODE_NATIVE) == (wanted == PREFILTER_MODE_NATIVE));
}

/* In another mode there is no way to replace: for a moment there is none. The old one comes back if that fails. */
static int attach_anew(struct kernel_xdp *xdp, int program, enum prefilter_mode mode, char *why, size_t why_size)
{
	enum xdp_mode old_mode = mode_now(xdp);
	int old = xdp->now ? bpf_program__fd(xdp->now->progs.prefilter) : -1, r;

	kernel_xdp_detach(xdp);
	r = attach(xdp, program, mode, why, why_size);
	if (r == 0)
		r = pin_link(xdp);
	if (r < 0 && old >= 0 && old_mode != XDP_MODE_NONE &&
	        attach_in(xdp, old, old_mode == XDP_MODE_NATIVE ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE) == 0)
		(void)pin_link(xdp);
	return r;
}

/* The program that is on the interface without an object of ours: of an earlier daemon. */
static int earlier_program(const struct kernel_xdp *xdp)
{
	uint32_t id = 0;
	int fd;

	if (xdp->now || link_interface(xdp->link, &id) == 0)
		return -1;
	fd = bpf_prog_get_fd_by_id(id);
	return fd < 0 ? -1 : fd;
}

int kernel_xdp_switch(struct kernel_xdp *xdp, enum prefilter_mode mode, char *why, size_t why_size)
{
	int program, r;

	if (!xdp->loaded)
		return -EINVAL;
	program = bpf_program__fd(xdp->loaded->progs.prefilter);
	r = pin_kept(xdp);
	xdp->was_attached = is_attached(xdp);
	xdp->before_fd = earlier_program(xdp);
	if (r == 0)
		r = mode_fits(mode_now(xdp), mode) ? bpf_link_update(xdp->link, program, NULL)
		                                   : attach_anew(xdp, program, mode, why, why_size);
	if (r < 0) {
		if (xdp->before_fd >= 0)
			close(TAKE_FD(xdp->before_fd));
		if (!*why)
			snprintf(why, why_size, "the program cannot be put in force: %s", strerror(-r));
		return r;
	}
	kernel_xdp_trial_end(xdp);
	xdp->before = xdp->now;
	xdp->now = TAKE_PTR(xdp->loaded);
	xdp->is_switched = true;
	kernel_xdp_open_ring(xdp);
	return 0;
}

int kernel_xdp_undo(struct kernel_xdp *xdp)
{
	int before = xdp->before ? bpf_program__fd(xdp->before->progs.prefilter) : xdp->before_fd, r = 0;

	if (!xdp->is_switched)
		return 0;
	if (xdp->was_attached && before >= 0)
		r = bpf_link_update(xdp->link, before, NULL);
	else
		kernel_xdp_detach(xdp);
	if (r < 0)
		return r;
	prefilter_bpf__destroy(xdp->now);
	kernel_xdp_trial_end(xdp);
	xdp->now = TAKE_PTR(xdp->before);
	kernel_xdp_settle(xdp);
	return 0;
}

void kernel_xdp_settle(struct kernel_xdp *xdp)
{
	prefilter_bpf__destroy(TAKE_PTR(xdp->before));
	if (xdp->before_fd >= 0)
		close(TAKE_FD(xdp->before_fd));
	xdp->is_switched = false;
}

void kernel_xdp_remove(struct kernel_xdp *xdp)
{
	kernel_xdp_detach(xdp);
	kernel_xdp_discard(xdp);
	kernel_xdp_settle(xdp);
	prefilter_bpf__destroy(TAKE_PTR(xdp->now));
	ring_buffer__free(TAKE_PTR(xdp->ring));
	for (int i = 0; i < XDP_KEPT; i++) {
		unpin(xdp, kept_names[i]);
		if (xdp->kept[i] >= 0)
			close(TAKE_FD(xdp->kept[i]));
	}
	for (size_t i = 0; i < ARRAY_SIZE(former_names); i++)
		unpin(xdp, former_names[i]);
	if (xdp->directory[0])
		(void)rmdir(xdp->directory);
	xdp->why[0] = '\0';
}

/* --- what is seen --- */

void kernel_xdp_look(struct kernel_xdp *xdp, struct xdp_look *ret)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);
	int index = (int)if_nametoindex(xdp->interface);
	uint32_t own = 0;

	*ret = (struct xdp_look){ .present = index != 0, .mode = mode_now(xdp) };
	if (ret->mode != XDP_MODE_NONE) {
		char path[PATH_MAX];

		(void)link_interface(xdp->link, &own);
		ret->program = own;
		ret->pinned = path_of(xdp, "link", path) == 0 && access(path, F_OK) == 0;
	} else if (index != 0 && bpf_xdp_query(index, 0, &query) == 0) {
		ret->foreign = query.prog_id       ? query.prog_id
		               : query.drv_prog_id ? query.drv_prog_id
		                                   : query.skb_prog_id;
	}
}

bool kernel_xdp_is_attached(const struct kernel_xdp *xdp)
{
	return is_attached(xdp);
}

const char *kernel_xdp_why(const struct kernel_xdp *xdp)
{
	return xdp->why;
}

bool kernel_xdp_has_cookies(const struct kernel_xdp *xdp)
{
	return xdp->now && xdp->now->rodata->params.listener_port != 0;
}

const char *xdp_mode_name(enum xdp_mode mode)
{
	static const char *const names[] = {
		[XDP_MODE_NONE] = "off", [XDP_MODE_NATIVE] = "native", [XDP_MODE_GENERIC] = "generic"
	};

	static_assert(ARRAY_SIZE(names) == XDP_MODES, "one name for each mode");
	return names[mode];
}

int kernel_xdp_try(struct kernel_xdp *xdp, const void *frame, size_t length, unsigned repeat, unsigned *ret_nanoseconds,
        void *answer, size_t *answer_length)
{
	const struct prefilter_bpf *program = xdp->now ? xdp->now : xdp->loaded;
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame, .data_size_in = (__u32)length, .repeat = (int)repeat);
	int r;

	if (answer) {
		run.data_out = answer;
		run.data_size_out = (__u32)*answer_length;
	}
	r = program ? bpf_prog_test_run_opts(bpf_program__fd(program->progs.prefilter), &run) : -ENODEV;
	if (r < 0)
		return r;
	if (ret_nanoseconds)
		*ret_nanoseconds = run.duration;
	if (answer)
		*answer_length = run.data_size_out;
	return run.retval == XDP_PASS ? 1 : run.retval == XDP_TX ? 2 : 0;
}
