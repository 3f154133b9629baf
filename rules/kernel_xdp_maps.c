/* What is in the maps of an XDP program: lists, ports, counts, events, bans; see kernel_xdp.h. */
#include "rules/kernel_xdp_private.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "schema/prefixes.h"

#include "prefilter.skel.h"

/* Entries that go into a map with one call. */
#define BATCH     4096U
#define NS_PER_S  UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

/* --- lists and ports --- */

struct key {
	union {
		struct prefilter_key_v4 v4;
		struct prefilter_key_v6 v6;
	};
};

static void make_key(const struct prefix *prefix, struct key *ret)
{
	if (prefix->addr.family == AF_INET) {
		ret->v4.length = prefix->length;
		memcpy(ret->v4.addr, prefix->addr.bytes, sizeof(ret->v4.addr));
	} else {
		ret->v6.length = prefix->length;
		memcpy(ret->v6.addr, prefix->addr.bytes, sizeof(ret->v6.addr));
	}
}

static int put(int map, const void *keys, size_t key_size, const __u8 *values, __u32 n)
{
	LIBBPF_OPTS(bpf_map_batch_opts, options);
	__u32 done = n;

	if (bpf_map_update_batch(map, keys, values, &done, &options) == 0)
		return 0;
	/* A kernel that has no batches for this kind, or a batch that was cut short. */
	for (__u32 i = 0; i < n; i++) {
		int r = bpf_map_update_elem(map, (const char *)keys + i * key_size, &values[i], BPF_ANY);

		if (r < 0)
			return r;
	}
	return 0;
}

/* The next n prefixes, all of one family. */
static int fill_list(int map, struct prefixes_cursor *cursor, size_t n, size_t key_size)
{
	_cleanup_free_ char *keys = malloc(BATCH * key_size);
	static const __u8 values[BATCH];

	if (!keys)
		return -ENOMEM;
	for (size_t done = 0; done < n;) {
		__u32 now = (__u32)(n - done < BATCH ? n - done : BATCH);
		int r;

		for (__u32 i = 0; i < now; i++) {
			struct key key;

			make_key(prefixes_next(cursor), &key);
			memcpy(keys + i * key_size, &key, key_size);
		}
		r = put(map, keys, key_size, values, now);
		if (r < 0)
			return r;
		done += now;
	}
	return 0;
}

static int fill_lists(const struct prefixes *list, struct bpf_map *v4, struct bpf_map *v6)
{
	static const struct prefix first_v6 = { .addr = { .family = AF_INET6 } };
	struct prefixes_cursor cursor = prefixes_from(list, 0);
	size_t n = prefixes_lower_bound(list, &first_v6);
	int r = fill_list(bpf_map__fd(v4), &cursor, n, sizeof(struct prefilter_key_v4));

	return r < 0 ? r : fill_list(bpf_map__fd(v6), &cursor, list->n - n, sizeof(struct prefilter_key_v6));
}

static int adjust_ports(const struct prefilter_bpf *program, const uint64_t *from, const uint64_t *to)
{
	int r = 0;

	for (__u32 i = 0; i < PREFILTER_PORT_SLOTS && r == 0; i++)
		if (from[i] != to[i])
			r = bpf_map_update_elem(bpf_map__fd(program->maps.ports), &i, &to[i], BPF_ANY);
	return r;
}

static int adjust_relayed(void *userdata, const struct relayed_entry *entry, bool added)
{
	const struct prefilter_bpf *program = userdata;
	bool is_v4 = entry->family == AF_INET;
	int map = bpf_map__fd(is_v4 ? program->maps.relayed_v4 : program->maps.relayed_v6), r;
	const void *key = is_v4 ? (const void *)&entry->v4 : &entry->v6;

	r = added ? bpf_map_update_elem(map, key, &entry->value, BPF_ANY) : bpf_map_delete_elem(map, key);
	return r == -ENOENT ? 0 : r;
}

static int put_pairs(const struct prefilter_bpf *program, const struct xdp_limits *limits)
{
	int r = 0;

	for (__u32 i = 0; i < limits->n && r == 0; i++)
		r = bpf_map_update_elem(bpf_map__fd(program->maps.pairs), &i, &limits->pairs[i], BPF_ANY);
	return r;
}

static void put_limited_ports(struct prefilter_bpf *program, const struct xdp_limits *limits)
{
	memcpy(program->bss->limited_ports, limits->ports, sizeof(limits->ports));
}

int kernel_xdp_fill(struct prefilter_bpf *program, const struct xdp_config *config)
{
	static const uint64_t no_ports[PREFILTER_PORT_SLOTS];
	static const struct relayed no_relayed;
	int r = fill_lists(&config->deny, program->maps.deny_v4, program->maps.deny_v6);

	if (r == 0)
		r = fill_lists(&config->allow, program->maps.allow_v4, program->maps.allow_v6);
	if (r == 0)
		r = relayed_differences(&no_relayed, &config->relayed, adjust_relayed, program);
	if (r == 0)
		r = put_pairs(program, &config->limits);
	put_limited_ports(program, &config->limits);
	return r < 0 ? r : adjust_ports(program, no_ports, config->ports);
}

struct adjust {
	int v4, v6;
};

static int adjust_entry(void *userdata, const struct prefix *prefix, bool added)
{
	const struct adjust *adjust = userdata;
	int map = prefix->addr.family == AF_INET ? adjust->v4 : adjust->v6, r;
	const __u8 value = 0;
	struct key key;

	make_key(prefix, &key);
	r = added ? bpf_map_update_elem(map, &key, &value, BPF_ANY) : bpf_map_delete_elem(map, &key);
	/* On the way back what was not reached yet is as it must be. */
	return r == -ENOENT ? 0 : r;
}

int kernel_xdp_adjust(struct kernel_xdp *xdp, const struct xdp_config *from, const struct xdp_config *to)
{
	struct prefilter_bpf *program = xdp->now;
	struct adjust allow, deny;
	int r;

	if (!program)
		return -ENODEV;
	allow = (struct adjust){ bpf_map__fd(program->maps.allow_v4), bpf_map__fd(program->maps.allow_v6) };
	deny = (struct adjust){ bpf_map__fd(program->maps.deny_v4), bpf_map__fd(program->maps.deny_v6) };
	/* What is allowed first: nobody who is in both is dropped meanwhile. */
	r = prefixes_differences(&from->allow, &to->allow, adjust_entry, &allow);
	if (r == 0)
		r = prefixes_differences(&from->deny, &to->deny, adjust_entry, &deny);
	if (r == 0)
		r = relayed_differences(&from->relayed, &to->relayed, adjust_relayed, program);
	put_limited_ports(program, &to->limits);
	return r < 0 ? r : adjust_ports(program, from->ports, to->ports);
}

/* --- which flows have been heard of --- */

/* The kernel's ticks are as long as its coarse clocks' resolution. */
static __u32 period_shift(void)
{
	struct timespec tick = { 0 };
	__u32 shift = 0;

	if (clock_getres(CLOCK_MONOTONIC_COARSE, &tick) < 0 || tick.tv_nsec <= 0)
		tick.tv_nsec = 1000000;
	while (((uint64_t)tick.tv_nsec << shift) < PREFILTER_SEEN_PERIOD_S * NS_PER_S)
		shift++;
	return shift;
}

int kernel_xdp_seen(struct prefilter_bpf *program, const struct prefilter_bpf *from)
{
	struct prefilter_seen *params = &program->rodata->seen_params;
	size_t chance = offsetof(struct prefilter_seen, shift); /* what is before it */

	params->shift = period_shift();
	if (program->rodata->params.listener_port == 0)
		return bpf_map__set_max_entries(program->maps.seen, 1);
	if (from) {
		*params = from->rodata->seen_params;
		program->bss->seen_since = *(volatile __u64 *)&from->bss->seen_since;
		return bpf_map__reuse_fd(program->maps.seen, bpf_map__fd(from->maps.seen));
	}
	if (getrandom(params, chance, 0) != (ssize_t)chance)
		return -EIO;
	params->factor |= 1;
	return 0;
}

int kernel_xdp_age(struct kernel_xdp *xdp, unsigned periods)
{
	struct prefilter_bpf *program = xdp->now ? xdp->now : xdp->loaded;
	int n = 0, r = program ? 0 : -ENODEV;
	__u8 slots[8];

	if (r == 0 && program->bss->seen_since)
		program->bss->seen_since -= periods;
	for (__u32 i = 0; r == 0 && i < PREFILTER_SEEN_SLOTS / sizeof(slots); i++) {
		bool any = false;

		r = bpf_map_lookup_elem(bpf_map__fd(program->maps.seen), &i, slots);
		for (size_t k = 0; r == 0 && k < sizeof(slots); k++) {
			n += slots[k] != 0;
			any |= slots[k] != 0;
			if (slots[k])
				slots[k] = (__u8)(PREFILTER_SEEN_EVER | (slots[k] - periods));
		}
		if (r == 0 && any)
			r = bpf_map_update_elem(bpf_map__fd(program->maps.seen), &i, slots, BPF_ANY);
	}
	return r < 0 ? r : n;
}

/* --- what is seen --- */

/* All processors together; zeros if there is no map, or no such entry. */
static struct prefilter_count sum_of(int map, const void *key)
{
	int processors = libbpf_num_possible_cpus();
	_cleanup_free_ struct prefilter_count *parts =
	        processors > 0 ? calloc((size_t)processors, sizeof(*parts)) : NULL;
	struct prefilter_count sum = { 0 };

	if (!parts || map < 0 || bpf_map_lookup_elem(map, key, parts) < 0)
		return sum;
	for (int i = 0; i < processors; i++) {
		sum.packets += parts[i].packets;
		sum.bytes += parts[i].bytes;
	}
	return sum;
}

static struct prefilter_count count_of(const struct kernel_xdp *xdp, enum prefilter_reason reason)
{
	const __u32 key = reason;

	return sum_of(xdp->kept[XDP_KEPT_COUNTERS], &key);
}

void kernel_xdp_counts(struct kernel_xdp *xdp, struct prefilter_count ret[PREFILTER_REASONS])
{
	for (unsigned reason = 0; reason < PREFILTER_REASONS; reason++)
		ret[reason] = count_of(xdp, (enum prefilter_reason)reason);
}

/* --- rate limits of listeners --- */

int kernel_xdp_make_overs(struct kernel_xdp *xdp, const struct xdp_config *config)
{
	int processors = libbpf_num_possible_cpus(), map = xdp->kept[XDP_KEPT_OVERS], r = 0;
	_cleanup_free_ struct prefilter_count *zeros =
	        processors > 0 ? calloc((size_t)processors, sizeof(*zeros)) : NULL;

	if (!zeros)
		return -ENOMEM;
	for (size_t i = 0; i < config->limits.n && map >= 0 && r == 0; i++) {
		const struct prefilter_over key = { config->limits.pairs[i].listener, config->limits.pairs[i].limit };

		r = bpf_map_update_elem(map, &key, zeros, BPF_NOEXIST);
		/* Without a place it is not counted, and limited all the same. */
		r = r == -EEXIST || r == -E2BIG ? 0 : r;
	}
	return r;
}

struct prefilter_count kernel_xdp_over(const struct kernel_xdp *xdp, const struct prefilter_over *pair)
{
	return sum_of(xdp->kept[XDP_KEPT_OVERS], pair);
}

void kernel_xdp_forget_over(struct kernel_xdp *xdp, const struct prefilter_over *pair)
{
	if (xdp->kept[XDP_KEPT_OVERS] >= 0)
		(void)bpf_map_delete_elem(xdp->kept[XDP_KEPT_OVERS], pair);
}

static void put_place(struct prefilter_bpf *program, const struct xdp_place *place)
{
	volatile __u8 *to = program->bss->hardware;

	if (to[XDP_HARDWARE_BYTES] == place->known &&
	        (!place->known || memcmp(program->bss->hardware, place->hardware, sizeof(place->hardware)) == 0))
		return;
	to[XDP_HARDWARE_BYTES] = 0;
	for (size_t i = 0; i < sizeof(place->hardware); i++)
		to[i] = place->hardware[i];
	to[XDP_HARDWARE_BYTES] = place->known;
}

bool kernel_xdp_refresh(struct kernel_xdp *xdp)
{
	struct prefilter_bpf *const programs[] = { xdp->now, xdp->loaded };
	struct xdp_place place = { 0 };
	bool asked = false;

	for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
		if (!programs[i] || !programs[i]->rodata->params.limits)
			continue;
		if (!asked)
			kernel_xdp_place(xdp->interface, &place);
		asked = true;
		put_place(programs[i], &place);
	}
	return place.known;
}

/* --- events --- */

static int on_event(void *userdata, void *data, size_t size)
{
	struct kernel_xdp *xdp = userdata;

	if (size >= sizeof(struct prefilter_event) && xdp->visit)
		xdp->visit(xdp->userdata, data);
	return 0;
}

void kernel_xdp_open_ring(struct kernel_xdp *xdp)
{
	if (!xdp->ring && xdp->kept[XDP_KEPT_EVENTS] >= 0)
		xdp->ring = ring_buffer__new(xdp->kept[XDP_KEPT_EVENTS], on_event, xdp, NULL);
}

int kernel_xdp_ring(const struct kernel_xdp *xdp)
{
	return xdp->ring ? ring_buffer__epoll_fd(xdp->ring) : -1;
}

void kernel_xdp_events(
        struct kernel_xdp *xdp, void (*visit)(void *userdata, const struct prefilter_event *event), void *userdata)
{
	xdp->visit = visit;
	xdp->userdata = userdata;
	if (xdp->ring)
		(void)ring_buffer__consume(xdp->ring);
	xdp->visit = NULL;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

int64_t kernel_xdp_cookie_age(const struct kernel_xdp *xdp)
{
	uint64_t at = xdp->now ? *(volatile __u64 *)&xdp->now->bss->cookie_at : 0;

	return at == 0 ? -1 : (int64_t)((now_ns() - at) / NS_PER_S);
}

/* --- bans --- */

struct prefilter_source kernel_xdp_source(const struct addr *addr)
{
	struct prefilter_source source = { .family = addr->family };

	memcpy(source.addr, addr->bytes, addr_bits(addr->family) / 8);
	return source;
}

static int shut_map(const struct kernel_xdp *xdp, uint8_t family)
{
	return xdp->kept[family == AF_INET ? XDP_KEPT_SHUT_V4 : XDP_KEPT_SHUT_V6];
}

void kernel_xdp_note_bans(struct kernel_xdp *xdp, struct prefilter_bpf *program)
{
	struct prefilter_source first;
	struct key key;

	if (xdp->kept[XDP_KEPT_BANS] >= 0 && bpf_map_get_next_key(xdp->kept[XDP_KEPT_BANS], NULL, &first) == 0)
		program->bss->bans_used = 1;
	for (enum xdp_kept i = XDP_KEPT_SHUT_V4; i <= XDP_KEPT_SHUT_V6; i++)
		if (xdp->kept[i] >= 0 && bpf_map_get_next_key(xdp->kept[i], NULL, &key) == 0)
			program->bss->shut_used = 1;
}

int kernel_xdp_unban(struct kernel_xdp *xdp, const struct addr *source)
{
	struct prefilter_source key = kernel_xdp_source(source);

	xdp->bans.known = false;
	return xdp->kept[XDP_KEPT_BANS] < 0 ? -ENOENT : bpf_map_delete_elem(xdp->kept[XDP_KEPT_BANS], &key);
}

int kernel_xdp_shut(struct kernel_xdp *xdp, const struct prefix *prefix, int64_t seconds)
{
	struct prefilter_bpf *const programs[] = { xdp->now, xdp->loaded };
	struct prefilter_shut value = { .until = UINT64_MAX, .length = prefix->length };
	struct key key;
	int r;

	if (shut_map(xdp, prefix->addr.family) < 0)
		return -ENODEV;
	if (seconds >= 0)
		value.until = now_ns() + (uint64_t)seconds * NS_PER_S;
	make_key(prefix, &key);
	r = bpf_map_update_elem(shut_map(xdp, prefix->addr.family), &key, &value, BPF_ANY);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(programs); i++)
		if (programs[i])
			programs[i]->bss->shut_used = 1;
	return r;
}

int kernel_xdp_unshut(struct kernel_xdp *xdp, const struct prefix *prefix)
{
	int map = shut_map(xdp, prefix->addr.family);
	struct key key;

	make_key(prefix, &key);
	return map < 0 ? -ENOENT : bpf_map_delete_elem(map, &key);
}

/* A look-up finds what is longest; whether that is this very one, its length says. */
bool kernel_xdp_is_shut(const struct kernel_xdp *xdp, const struct prefix *prefix)
{
	int map = shut_map(xdp, prefix->addr.family);
	struct prefilter_shut value;
	struct key key;

	make_key(prefix, &key);
	return map >= 0 && bpf_map_lookup_elem(map, &key, &value) == 0 && value.length == prefix->length &&
	       value.until > now_ns();
}

static void unshut_strangers(int map, uint8_t family, bool (*keep)(void *, const struct prefix *), void *userdata)
{
	struct key key, next;
	bool has_key = false;

	/* Bounded, for others may add while this walks. */
	for (unsigned i = 0; i < 2 * PREFILTER_BANS_MAX; i++) {
		struct prefix prefix = { .addr = { .family = family } };

		if (bpf_map_get_next_key(map, has_key ? &key : NULL, &next) < 0)
			return;
		prefix.length = (uint8_t)next.v4.length;
		memcpy(prefix.addr.bytes, family == AF_INET ? next.v4.addr : next.v6.addr, addr_bits(family) / 8);
		if (keep(userdata, &prefix)) {
			key = next;
			has_key = true;
		} else if (bpf_map_delete_elem(map, &next) < 0) {
			return;
		}
	}
}

void kernel_xdp_unshut_others(
        struct kernel_xdp *xdp, bool (*keep)(void *userdata, const struct prefix *prefix), void *userdata)
{
	if (shut_map(xdp, AF_INET) >= 0)
		unshut_strangers(shut_map(xdp, AF_INET), AF_INET, keep, userdata);
	if (shut_map(xdp, AF_INET6) >= 0)
		unshut_strangers(shut_map(xdp, AF_INET6), AF_INET6, keep, userdata);
}

/* One ban of the program's own: removed if it is over, else counted, and shown to the visitor. */
struct bans_walk {
	int map;
	uint64_t now, next_end; /* of those that are left the first end */
	size_t n;
	void (*visit)(void *userdata, const struct addr *source, uint64_t left_ms);
	void *userdata;
};

static void take_ban(struct bans_walk *walk, const struct prefilter_source *key, uint64_t until)
{
	struct addr addr = { .family = (uint8_t)key->family };

	if (until <= walk->now) {
		(void)bpf_map_delete_elem(walk->map, key);
		return;
	}
	walk->n++;
	if (until < walk->next_end)
		walk->next_end = until;
	memcpy(addr.bytes, key->addr, sizeof(addr.bytes));
	if (walk->visit)
		walk->visit(walk->userdata, &addr, (until - walk->now + NS_PER_MS - 1) / NS_PER_MS);
}

/* Some thousand with one call. Bounded, for the program may add while this walks. */
static void walk_bans(struct bans_walk *walk, struct prefilter_source *keys, uint64_t *untils)
{
	LIBBPF_OPTS(bpf_map_batch_opts, options);
	__u32 place;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < 2 * PREFILTER_BANS_MAX / BATCH; i++) {
		__u32 n = BATCH;

		r = bpf_map_lookup_batch(walk->map, i ? &place : NULL, &place, keys, untils, &n, &options);
		for (__u32 k = 0; (r == 0 || r == -ENOENT) && k < n; k++)
			take_ban(walk, &keys[k], untils[k]);
	}
}

size_t kernel_xdp_bans(struct kernel_xdp *xdp,
        void (*visit)(void *userdata, const struct addr *source, uint64_t left_ms), void *userdata)
{
	_cleanup_free_ struct prefilter_source *keys = malloc(BATCH * sizeof(*keys));
	_cleanup_free_ uint64_t *untils = malloc(BATCH * sizeof(*untils));
	struct bans_walk walk = { xdp->kept[XDP_KEPT_BANS], now_ns(), UINT64_MAX, 0, visit, userdata };
	uint64_t over = count_of(xdp, PREFILTER_rate).packets;

	if (walk.map >= 0 && keys && untils)
		walk_bans(&walk, keys, untils);
	xdp->bans = (struct xdp_bans){ keys && untils, walk.n, over, walk.next_end };
	return walk.n;
}

/* Whoever is banned by the program was over its rate, and counted. */
size_t kernel_xdp_ban_count(struct kernel_xdp *xdp)
{
	if (xdp->bans.known && xdp->bans.over == count_of(xdp, PREFILTER_rate).packets && now_ns() < xdp->bans.next_end)
		return xdp->bans.n;
	return kernel_xdp_bans(xdp, NULL, NULL);
}
