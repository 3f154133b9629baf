/* Loading and attaching the short cut; see kernel_shortcut.h. */
#include "rules/kernel_shortcut.h"

#include <assert.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gatewayd/base/bpf_shortcut.h"
#include "gatewayd/base/bpf_stitch.h"
#include "gatewayd/base/bpf_straight.h"
#include "gatewayd/base/cleanup.h"
#include "gatewayd/base/stitch_map.h"
#include "rules/kernel_bpf.h"
#include "rules/kernel_tc.h"

#include "shortcut.skel.h"

/* Behind the filters that people and other programs put there, and before kernel_intercept.c's: what it takes needs no
 * socket. */
#define FILTER_PRIORITY 0xc000

struct kernel_shortcut {
	struct shortcut_bpf *skeleton;
	struct bpf_shortcut_control control;
	uint64_t ports[BPF_STRAIGHT_WORDS]; /* as they were told last */
	bool ports_told;
	char directory[PATH_MAX / 2]; /* where others' maps are pinned, too; ours below "shortcut" */
};

/* --- maps --- */

/* The directory below another, made if need be. */
static int make_below(char path[PATH_MAX], const char *name)
{
	size_t length = strlen(path);

	snprintf(path + length, PATH_MAX - length, "%s", name);
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int set_pins(struct kernel_shortcut *shortcut)
{
	char path[PATH_MAX], layout[16];
	struct bpf_map *map;
	int r;

	snprintf(path, sizeof(path), "%s", shortcut->directory);
	snprintf(layout, sizeof(layout), "/%d", BPF_SHORTCUT_LAYOUT);
	r = make_below(path, "");
	if (r == 0)
		r = make_below(path, "/shortcut");
	if (r == 0)
		r = make_below(path, layout);
	bpf_object__for_each_map(map, shortcut->skeleton->obj)
	{
		snprintf(path, sizeof(path), "%s/shortcut/%d/%s", shortcut->directory, BPF_SHORTCUT_LAYOUT,
		        bpf_map__name(map));
		if (!bpf_map__is_internal(map) && r == 0)
			r = bpf_map__set_pin_path(map, path);
	}
	return r;
}

int kernel_shortcut_open(const char *directory, struct kernel_shortcut **ret, char *why, size_t why_size)
{
	struct kernel_shortcut *shortcut = calloc(1, sizeof(*shortcut));
	int r = kernel_bpf_possible(directory, why, why_size);
	__u32 zero = 0;

	if (!shortcut || r < 0) {
		free(shortcut);
		return r < 0 ? r : -ENOMEM;
	}
	kernel_bpf_quiet();
	snprintf(shortcut->directory, sizeof(shortcut->directory), "%s", directory);
	shortcut->skeleton = shortcut_bpf__open();
	r = shortcut->skeleton ? set_pins(shortcut) : -errno;
	if (r == 0)
		r = shortcut_bpf__load(shortcut->skeleton);
	if (r < 0) {
		snprintf(why, why_size, "the kernel does not load the program: %s", strerror(-r));
		kernel_shortcut_free(shortcut);
		return r;
	}
	(void)bpf_map_lookup_elem(kernel_shortcut_fd(shortcut, PROTO_SHORTCUT_CONTROL), &zero, &shortcut->control);
	*ret = shortcut;
	return 0;
}

void kernel_shortcut_free(struct kernel_shortcut *shortcut)
{
	if (!shortcut)
		return;
	if (shortcut->skeleton)
		shortcut_bpf__destroy(shortcut->skeleton);
	free(shortcut);
}

int kernel_shortcut_fd(const struct kernel_shortcut *shortcut, enum proto_shortcut_kind kind)
{
	const struct shortcut_bpf *own = shortcut->skeleton;
	const struct bpf_program *const programs[PROTO_SHORTCUT_KINDS] = { [PROTO_SHORTCUT_SYNS] = own->progs.take_syn,
		[PROTO_SHORTCUT_BEGIN] = own->progs.straight_begin,
		[PROTO_SHORTCUT_SETTLE] = own->progs.straight_settle };
	const struct bpf_map *const maps[PROTO_SHORTCUT_KINDS] = { [PROTO_SHORTCUT_FLOWS] = own->maps.shortcuts,
		[PROTO_SHORTCUT_CONTROL] = own->maps.control,
		[PROTO_SHORTCUT_WAYS] = own->maps.ways,
		[PROTO_SHORTCUT_STITCHES] = own->maps.stitches,
		[PROTO_SHORTCUT_STRAIGHT] = own->maps.straight,
		[PROTO_SHORTCUT_RING_0] = own->maps.ring_0,
		[PROTO_SHORTCUT_RING_1] = own->maps.ring_1,
		[PROTO_SHORTCUT_RING_2] = own->maps.ring_2,
		[PROTO_SHORTCUT_RING_3] = own->maps.ring_3,
		[PROTO_SHORTCUT_CHOICE] = own->maps.straight_choices,
		[PROTO_SHORTCUT_INTERFACES] = own->maps.straight_interfaces };

	static_assert(PROTO_SHORTCUT_RING_3 - PROTO_SHORTCUT_RING_0 + 1 == BPF_STRAIGHT_RINGS, "all of them");
	return programs[kind] ? bpf_program__fd(programs[kind]) : bpf_map__fd(maps[kind]);
}

int kernel_shortcut_straight_stop(struct kernel_shortcut *shortcut)
{
	const struct bpf_straight_control none = { 0 };
	__u32 zero = 0;

	return bpf_map_update_elem(kernel_shortcut_fd(shortcut, PROTO_SHORTCUT_STRAIGHT), &zero, &none, BPF_ANY);
}

int kernel_shortcut_straight_ports(struct kernel_shortcut *shortcut, const uint64_t *words)
{
	int map = bpf_map__fd(shortcut->skeleton->maps.straight_ports), r = 0;

	for (__u32 i = 0; i < BPF_STRAIGHT_WORDS && r == 0; i++) {
		if (shortcut->ports_told && words[i] == shortcut->ports[i])
			continue;
		r = bpf_map_update_elem(map, &i, &words[i], BPF_ANY);
		shortcut->ports[i] = words[i];
	}
	shortcut->ports_told = r == 0;
	return r;
}

static int control_write(struct kernel_shortcut *shortcut)
{
	__u32 zero = 0;

	return bpf_map_update_elem(
	        kernel_shortcut_fd(shortcut, PROTO_SHORTCUT_CONTROL), &zero, &shortcut->control, BPF_ANY);
}

int kernel_shortcut_set(struct kernel_shortcut *shortcut, uint32_t epoch, bool open)
{
	shortcut->control.epoch = epoch;
	shortcut->control.open = open;
	return control_write(shortcut);
}

uint32_t kernel_shortcut_epoch(const struct kernel_shortcut *shortcut)
{
	return shortcut->control.epoch;
}

unsigned kernel_shortcut_sweep(struct kernel_shortcut *shortcut, uint32_t epoch)
{
	struct bpf_shortcut_key key, last;
	int map = kernel_shortcut_fd(shortcut, PROTO_SHORTCUT_FLOWS);
	struct bpf_shortcut value;
	bool first = true;
	unsigned swept = 0;

	while (bpf_map_get_next_key(map, first ? NULL : &last, &key) == 0) {
		if (bpf_map_lookup_elem(map, &key, &value) < 0 || value.epoch == epoch) {
			last = key;
			first = false;
			continue;
		}
		/* Goes on behind the last one that stays. */
		if (bpf_map_delete_elem(map, &key) < 0)
			break;
		swept++;
	}
	return swept;
}

/* How many are in `held`: one more or less, or the same. */
static unsigned hold(struct kernel_shortcut *shortcut, __u64 id, bool on)
{
	int held = bpf_map__fd(shortcut->skeleton->maps.held);
	__u8 one = 1;

	if (!on)
		(void)bpf_map_delete_elem(held, &id);
	return on && bpf_map_update_elem(held, &id, &one, BPF_ANY) == 0;
}

/* Ids that are held although their flows are gone. */
static void held_clean(struct kernel_shortcut *shortcut)
{
	int held = bpf_map__fd(shortcut->skeleton->maps.held),
	    stitches = kernel_shortcut_fd(shortcut, PROTO_SHORTCUT_STITCHES);
	struct bpf_stitch flow;
	bool first = true;
	__u64 id, last = 0;

	while (bpf_map_get_next_key(held, first ? NULL : &last, &id) == 0) {
		if (bpf_map_lookup_elem(stitches, &id, &flow) < 0) {
			/* Goes on behind the last one that stays. */
			if (bpf_map_delete_elem(held, &id) < 0)
				return;
			continue;
		}
		last = id;
		first = false;
	}
}

bool kernel_shortcut_has_stitches(const struct kernel_shortcut *shortcut)
{
	__u64 id;

	return bpf_map_get_next_key(kernel_shortcut_fd(shortcut, PROTO_SHORTCUT_STITCHES), NULL, &id) == 0;
}

unsigned kernel_shortcut_review(struct kernel_shortcut *shortcut,
        enum kernel_stitch_verdict (*judge)(void *userdata, uint64_t id, const struct bpf_stitch *flow), void *userdata)
{
	int stitches = kernel_shortcut_fd(shortcut, PROTO_SHORTCUT_STITCHES);
	bool first = true, had_held = shortcut->control.held > 0;
	unsigned n = 0, n_held = 0;
	struct bpf_stitch flow;
	__u64 id, last = 0;

	while (bpf_map_get_next_key(stitches, first ? NULL : &last, &id) == 0) {
		enum kernel_stitch_verdict verdict = KERNEL_STITCH_STAYS;

		if (bpf_map_lookup_elem(stitches, &id, &flow) == 0)
			verdict = judge(userdata, id, &flow);
		if (verdict == KERNEL_STITCH_HELD || had_held)
			n_held += hold(shortcut, id, verdict == KERNEL_STITCH_HELD);
		if (verdict == KERNEL_STITCH_OVER) {
			/* Goes on behind the last one that stays. */
			stitch_map_delete(kernel_shortcut_fd(shortcut, PROTO_SHORTCUT_WAYS), stitches, id, &flow);
			continue;
		}
		n++;
		last = id;
		first = false;
	}
	if (had_held)
		held_clean(shortcut);
	if (n_held != shortcut->control.held) {
		shortcut->control.held = n_held;
		(void)control_write(shortcut);
	}
	return n;
}

/* Whether the end of a flow, which is over, is still to be counted by a relay. */
static bool is_uncounted(const struct kernel_shortcut *shortcut, uint64_t id, const struct bpf_stitch *flow)
{
	struct bpf_stitch_way way;

	return stitch_map_way(kernel_shortcut_fd(shortcut, PROTO_SHORTCUT_WAYS), &flow->side[0].in, id, &way) &&
	       way.ring != BPF_STITCH_COUNTED;
}

uint64_t kernel_shortcut_straight_open(const struct kernel_shortcut *shortcut)
{
	int stitches = kernel_shortcut_fd(shortcut, PROTO_SHORTCUT_STITCHES);
	uint64_t n = 0;
	struct bpf_stitch flow;
	__u64 id, last = 0;

	for (bool first = true; bpf_map_get_next_key(stitches, first ? NULL : &last, &id) == 0; first = false) {
		last = id;
		if (bpf_map_lookup_elem(stitches, &id, &flow) < 0 || !(flow.options & BPF_STITCH_STRAIGHT))
			continue;
		n += (!flow.closed_ns && !flow.reset_ns && flow.state != BPF_STITCH_GONE) ||
		     is_uncounted(shortcut, id, &flow);
	}
	return n;
}

/* --- what it has carried --- */

/* Of all processors. False: nothing is known. */
static bool tally_read(int map, const struct bpf_shortcut_tally_key *key, struct bpf_shortcut_tally *ret)
{
	int processors = libbpf_num_possible_cpus();
	_cleanup_free_ struct bpf_shortcut_tally *each =
	        processors > 0 ? calloc((size_t)processors, sizeof(*each)) : NULL;

	if (!each || bpf_map_lookup_elem(map, key, each) < 0)
		return false;
	*ret = (struct bpf_shortcut_tally){ 0 };
	for (int i = 0; i < processors; i++) {
		ret->packets += each[i].packets;
		ret->bytes += each[i].bytes;
	}
	return true;
}

void kernel_shortcut_tally(const struct kernel_shortcut *shortcut,
        void (*tell)(void *userdata, const char *interface, unsigned kind, uint64_t packets, uint64_t bytes),
        void *userdata)
{
	int map = bpf_map__fd(shortcut->skeleton->maps.tallies);
	struct bpf_shortcut_tally_key key, last;
	struct bpf_shortcut_tally sum;
	char interface[IF_NAMESIZE];
	bool first = true;

	while (bpf_map_get_next_key(map, first ? NULL : &last, &key) == 0) {
		if (!if_indextoname(key.ifindex, interface)) {
			if (bpf_map_delete_elem(map, &key) < 0)
				break;
			continue; /* goes on behind the last one that stays */
		}
		if (tally_read(map, &key, &sum))
			tell(userdata, interface, key.kind, sum.packets, sum.bytes);
		last = key;
		first = false;
	}
}

/* --- interfaces --- */

static const struct kernel_tc place = { .name = "shortcut", .priority = FILTER_PRIORITY };

int kernel_shortcut_attach(struct kernel_shortcut *shortcut, const char *interface)
{
	__u32 ifindex = if_nametoindex(interface), one = 1;
	int r = kernel_tc_attach(
	        &place, shortcut->directory, bpf_program__fd(shortcut->skeleton->progs.shortcut), interface);

	if (r == 0 && ifindex)
		(void)bpf_map_update_elem(
		        kernel_shortcut_fd(shortcut, PROTO_SHORTCUT_INTERFACES), &ifindex, &one, BPF_ANY);
	else
		(void)bpf_map_delete_elem(kernel_shortcut_fd(shortcut, PROTO_SHORTCUT_INTERFACES), &ifindex);
	return r;
}

bool kernel_shortcut_is_attached(const char *interface)
{
	return kernel_tc_is_attached(&place, interface);
}

void kernel_shortcut_detach_all(const char *directory)
{
	kernel_tc_detach_all(&place, directory);
}

void kernel_shortcut_forget_all(struct kernel_shortcut *shortcut)
{
	int map = kernel_shortcut_fd(shortcut, PROTO_SHORTCUT_INTERFACES);
	__u32 ifindex;

	while (bpf_map_get_next_key(map, NULL, &ifindex) == 0)
		if (bpf_map_delete_elem(map, &ifindex) < 0)
			return;
}

void kernel_shortcut_forget(struct kernel_shortcut *shortcut, unsigned ifindex)
{
	__u32 key = ifindex;

	(void)bpf_map_delete_elem(kernel_shortcut_fd(shortcut, PROTO_SHORTCUT_INTERFACES), &key);
	kernel_tc_forget(shortcut->directory, ifindex);
}
