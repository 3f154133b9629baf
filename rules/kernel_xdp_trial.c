/*
 * What the program in force would do with a frame, without doing it: another
 * copy of it runs on the same lists, ports and bans, but with counters, a ring
 * and no rate of its own; see kernel_xdp.h.
 */
#include "rules/kernel_xdp.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <time.h>

#include "rules/kernel_xdp_private.h"

#include "prefilter.skel.h"

void kernel_xdp_trial_end(struct kernel_xdp *xdp)
{
	prefilter_bpf__destroy(TAKE_PTR(xdp->trial));
}

/* What changes while a program runs. */
static void follow(struct prefilter_bpf *trial, const struct prefilter_bpf *now)
{
	memcpy(trial->bss->limited_ports, now->bss->limited_ports, sizeof(trial->bss->limited_ports));
	memcpy(trial->bss->hardware, now->bss->hardware, sizeof(trial->bss->hardware));
}

/* The maps that it only reads. Bans that are over it removes, as any look does. */
static int share(struct prefilter_bpf *trial, const struct prefilter_bpf *now)
{
	struct bpf_map *const pairs[][2] = {
		{ trial->maps.deny_v4, now->maps.deny_v4 },
		{ trial->maps.deny_v6, now->maps.deny_v6 },
		{ trial->maps.allow_v4, now->maps.allow_v4 },
		{ trial->maps.allow_v6, now->maps.allow_v6 },
		{ trial->maps.ports, now->maps.ports },
		{ trial->maps.ways, now->maps.ways },
		{ trial->maps.bans, now->maps.bans },
		{ trial->maps.shut_v4, now->maps.shut_v4 },
		{ trial->maps.shut_v6, now->maps.shut_v6 },
		{ trial->maps.relayed_v4, now->maps.relayed_v4 },
		{ trial->maps.relayed_v6, now->maps.relayed_v6 },
		{ trial->maps.pairs, now->maps.pairs },
		{ trial->maps.shares, now->maps.shares },
	};

	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		int r = bpf_map__reuse_fd(pairs[i][0], bpf_map__fd(pairs[i][1]));

		if (r < 0)
			return r;
	}
	follow(trial, now);
	return bpf_map__set_max_entries(trial->maps.buckets, 1);
}

static int make_trial(struct kernel_xdp *xdp)
{
	struct prefilter_bpf *trial;
	int r;

	if (xdp->trial && xdp->trial_of == xdp->now) {
		follow(xdp->trial, xdp->now);
		return 0;
	}
	kernel_xdp_trial_end(xdp);
	trial = prefilter_bpf__open();
	if (!trial)
		return -errno;
	trial->rodata->params = xdp->now->rodata->params;
	trial->rodata->params.interval = 0;
	trial->rodata->params.dry = 1;
	trial->bss->bans_used = 1;
	trial->bss->shut_used = 1;
	r = share(trial, xdp->now);
	if (r == 0)
		r = kernel_xdp_seen(trial, xdp->now);
	if (r == 0)
		r = prefilter_bpf__load(trial);
	if (r < 0) {
		prefilter_bpf__destroy(trial);
		return r;
	}
	xdp->trial = trial;
	xdp->trial_of = xdp->now;
	return 0;
}

/* Which reason has counted a packet; all are set to zero. */
static int take_reason(struct prefilter_bpf *trial, enum prefilter_reason *ret)
{
	int cpus = libbpf_num_possible_cpus(), map = bpf_map__fd(trial->maps.counters), r = -ENOENT;
	_cleanup_free_ struct prefilter_count *counts = cpus > 0 ? calloc((size_t)cpus, sizeof(*counts)) : NULL;

	if (!counts)
		return -ENOMEM;
	for (__u32 reason = 0; reason < PREFILTER_REASONS; reason++) {
		bool any = false;

		if (bpf_map_lookup_elem(map, &reason, counts) < 0)
			return -errno;
		for (int i = 0; i < cpus; i++)
			any |= counts[i].packets > 0;
		if (!any)
			continue;
		*ret = (enum prefilter_reason)reason;
		r = 0;
		memset(counts, 0, (size_t)cpus * sizeof(*counts));
		if (bpf_map_update_elem(map, &reason, counts, BPF_ANY) < 0)
			return -errno;
	}
	return r;
}

/* Whether the source has used up its rate at this moment. */
static bool is_over_rate(const struct kernel_xdp *xdp, const struct addr *source)
{
	const struct prefilter_params *params = &xdp->now->rodata->params;
	struct prefilter_source key = kernel_xdp_source(source);
	struct timespec boot;
	__u64 used, now;

	if (!params->interval || xdp->kept[XDP_KEPT_BUCKETS] < 0 ||
	        bpf_map_lookup_elem(xdp->kept[XDP_KEPT_BUCKETS], &key, &used) < 0)
		return false;
	clock_gettime(CLOCK_BOOTTIME, &boot);
	now = ((__u64)boot.tv_sec * 1000000000 + (__u64)boot.tv_nsec) << PREFILTER_TIME_SHIFT;
	return used > now && used + params->interval - now > params->depth;
}

int kernel_xdp_judge(struct kernel_xdp *xdp, const struct addr *source, const void *frame, size_t length,
        enum prefilter_reason *ret, uint32_t *ret_limit)
{
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame, .data_size_in = (__u32)length, .repeat = 1);
	enum prefilter_reason reason = PREFILTER_passed;
	int r = xdp->now ? make_trial(xdp) : -ENODEV;

	if (r == 0)
		r = bpf_prog_test_run_opts(bpf_program__fd(xdp->trial->progs.prefilter), &run);
	if (r == 0)
		r = take_reason(xdp->trial, &reason);
	if (r < 0)
		return r;
	/* The rate comes behind lists and bans, and before all else. */
	if (reason != PREFILTER_malformed && reason != PREFILTER_allowed && reason != PREFILTER_denied &&
	        reason != PREFILTER_banned && is_over_rate(xdp, source))
		reason = PREFILTER_rate;
	*ret_limit = reason == PREFILTER_limited ? *(volatile __u32 *)&xdp->trial->bss->limited : 0;
	*ret = reason;
	return PREFILTER_PASSES(reason);
}
