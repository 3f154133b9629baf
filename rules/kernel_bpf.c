/* Loading and pinning BPF objects; see kernel_bpf.h. */
#include "rules/kernel_bpf.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "gatewayd/base/bpf_flow.h"
#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/log.h"
#include "relay.skel.h"

struct kernel_bpf {
	struct relay_bpf *skeleton;
	bool pinned;
	char directory[PATH_MAX / 2]; /* of this layout */
	int ring[BPF_FLOW_RINGS];     /* -1: not open */
};

/* libbpf's own words go to the debug log: what matters is told by the errno. */
__attribute__((format(printf, 2, 0))) static int print(
        enum libbpf_print_level level, const char *format, va_list arguments)
{
	char line[512];

	if (level == LIBBPF_DEBUG)
		return 0;
	vsnprintf(line, sizeof(line), format, arguments);
	line[strcspn(line, "\n")] = '\0';
	log_debug("%s", line);
	return 0;
}

void kernel_bpf_quiet(void)
{
	libbpf_set_print(print);
	libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
}

static bool on_bpf_fs(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && fs.f_type == (typeof(fs.f_type))BPF_FS_MAGIC;
}

int kernel_bpf_possible(const char *directory, char *why, size_t why_size)
{
	char parent[PATH_MAX / 2];
	char *slash;

	snprintf(parent, sizeof(parent), "%s", directory);
	slash = strrchr(parent, '/');
	if (slash && slash != parent)
		*slash = '\0';
	if (on_bpf_fs(directory) || on_bpf_fs(parent))
		return 0;
	snprintf(why, why_size, "%s is not on a mounted bpf file system", directory);
	return -EOPNOTSUPP;
}

bool kernel_bpf_is_pinned(const char *directory)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%d/rx", directory, BPF_FLOW_LAYOUT);
	return access(path, F_OK) == 0 && on_bpf_fs(path);
}

/* The directory of this layout, made if need be; for nobody but us. */
static int make_directory(struct kernel_bpf *bpf, const char *directory, char *why, size_t why_size)
{
	int r = kernel_bpf_possible(directory, why, why_size);

	if (r < 0)
		return r;
	if ((size_t)snprintf(bpf->directory, sizeof(bpf->directory), "%s/%d", directory, BPF_FLOW_LAYOUT) >=
	        sizeof(bpf->directory))
		return -ENAMETOOLONG;
	if ((mkdir(directory, 0700) < 0 && errno != EEXIST) || (mkdir(bpf->directory, 0700) < 0 && errno != EEXIST)) {
		r = -errno;
		snprintf(why, why_size, "%s cannot be made: %s", bpf->directory, strerror(-r));
		return r;
	}
	bpf->pinned = true;
	return 0;
}

/* Says where each map is pinned: libbpf takes what lies there, if it is of the same kind, and pins what does not. */
static int set_pins(struct kernel_bpf *bpf)
{
	struct bpf_map *map;
	int r = 0;

	bpf_object__for_each_map(map, bpf->skeleton->obj)
	{
		char path[PATH_MAX];

		snprintf(path, sizeof(path), "%s/%s", bpf->directory, bpf_map__name(map));
		/* Constants and the like belong to one load of the program. */
		if (!bpf_map__is_internal(map) && r == 0)
			r = bpf_map__set_pin_path(map, path);
	}
	return r;
}

static int load(struct kernel_bpf *bpf, char *why, size_t why_size)
{
	int r = bpf->pinned ? set_pins(bpf) : 0;

	if (r == 0)
		r = relay_bpf__load(bpf->skeleton);
	if (r == -EPERM || r == -EACCES)
		snprintf(why, why_size, "no right to load programs, or the kernel's verifier refused it: %s",
		        strerror(-r));
	else if (r < 0)
		snprintf(why, why_size, "the kernel does not load the program: %s", strerror(-r));
	if (r < 0)
		return r;
	r = bpf_prog_attach(
	        bpf_program__fd(bpf->skeleton->progs.relay_verdict), kernel_bpf_rx(bpf), BPF_SK_SKB_STREAM_VERDICT, 0);
	if (r < 0)
		snprintf(why, why_size, "the kernel does not attach the program: %s", strerror(-r));
	return r;
}

int kernel_bpf_open(const char *directory, struct kernel_bpf **ret, char *why, size_t why_size)
{
	struct kernel_bpf *bpf = calloc(1, sizeof(*bpf));
	int r = 0;

	if (!bpf) {
		snprintf(why, why_size, "out of memory");
		return -ENOMEM;
	}
	for (unsigned i = 0; i < BPF_FLOW_RINGS; i++)
		bpf->ring[i] = -1;
	kernel_bpf_quiet();
	bpf->skeleton = relay_bpf__open();
	if (!bpf->skeleton) {
		r = -errno;
		snprintf(why, why_size, "the program cannot be read: %s", strerror(-r));
	}
	if (r == 0 && directory)
		r = make_directory(bpf, directory, why, why_size);
	if (r == 0)
		r = load(bpf, why, why_size);
	if (r < 0) {
		kernel_bpf_free(bpf);
		return r;
	}
	*ret = bpf;
	return 0;
}

void kernel_bpf_free(struct kernel_bpf *bpf)
{
	for (unsigned i = 0; i < BPF_FLOW_RINGS; i++)
		cleanup_close(&bpf->ring[i]);
	if (bpf->skeleton)
		relay_bpf__destroy(bpf->skeleton);
	free(bpf);
}

int kernel_bpf_rx(const struct kernel_bpf *bpf)
{
	return bpf_map__fd(bpf->skeleton->maps.rx);
}

int kernel_bpf_tx(const struct kernel_bpf *bpf)
{
	return bpf_map__fd(bpf->skeleton->maps.tx);
}

int kernel_bpf_directions(const struct kernel_bpf *bpf)
{
	return bpf_map__fd(bpf->skeleton->maps.directions);
}

int kernel_bpf_controls(const struct kernel_bpf *bpf)
{
	return bpf_map__fd(bpf->skeleton->maps.controls);
}

/* A ring that an earlier daemon has made lies in the map of rings already; a new one is put there. */
static int ring_make(const struct kernel_bpf *bpf, unsigned number)
{
	char path[PATH_MAX];
	int fd, r;

	snprintf(path, sizeof(path), "%s/ring_%u", bpf->directory, number);
	fd = bpf->pinned ? bpf_obj_get(path) : -ENOENT;
	if (fd >= 0)
		return fd;
	fd = bpf_map_create(BPF_MAP_TYPE_RINGBUF, "ring", 0, 0, BPF_FLOW_RING_SIZE, NULL);
	if (fd < 0)
		return fd;
	r = bpf_map_update_elem(bpf_map__fd(bpf->skeleton->maps.rings), &number, &fd, BPF_ANY);
	if (r == 0 && bpf->pinned)
		r = bpf_obj_pin(fd, path);
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

int kernel_bpf_ring(struct kernel_bpf *bpf, unsigned number)
{
	if (number >= BPF_FLOW_RINGS)
		return -EINVAL;
	if (bpf->ring[number] < 0)
		bpf->ring[number] = ring_make(bpf, number);
	return bpf->ring[number];
}

unsigned kernel_bpf_sweep(struct kernel_bpf *bpf)
{
	int directions = kernel_bpf_directions(bpf), controls = kernel_bpf_controls(bpf);
	__u64 key, socket, last = 0;
	bool first = true;
	unsigned swept = 0;

	while (bpf_map_get_next_key(directions, first ? NULL : &last, &key) == 0) {
		if (bpf_map_lookup_elem(kernel_bpf_rx(bpf), &key, &socket) != -ENOENT) {
			last = key;
			first = false;
			continue;
		}
		/* Goes on behind the last one that stays. */
		(void)bpf_map_delete_elem(controls, &key);
		if (bpf_map_delete_elem(directions, &key) < 0)
			break;
		swept++;
	}
	return swept;
}

/* --- the end --- */

/* Removes what lies in the directory, and it. depth: of directories below. */
static int remove_below(const char *directory, unsigned depth)
{
	DIR *dir = opendir(directory);
	const struct dirent *entry;
	int r = 0;

	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	while ((entry = readdir(dir))) {
		char path[PATH_MAX];

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
		if (unlink(path) == 0)
			continue;
		if (depth == 0 || (errno != EISDIR && errno != EPERM))
			r = -errno;
		else if (remove_below(path, depth - 1) < 0)
			r = -EIO;
	}
	closedir(dir);
	return rmdir(directory) < 0 && r == 0 ? -errno : r;
}

int kernel_bpf_cleanup(const char *directory)
{
	/* Never below a path of another kind, whatever was given. */
	return on_bpf_fs(directory) ? remove_below(directory, 2) : 0;
}
