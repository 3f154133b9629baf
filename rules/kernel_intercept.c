/* Loading and filling the second interception engine; see kernel_intercept.h. */
#include "rules/kernel_intercept.h"

#include <arpa/inet.h>
#include <assert.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "gatewayd/base/cleanup.h"
#include "rules/kernel_bpf.h"
#include "rules/kernel_tc.h"

#include "intercept.skel.h"

/* Behind the short cut of flows (kernel_shortcut.c). */
#define FILTER_PRIORITY 0xc001
/* The first kernel that lets sockets of a group of several (SO_REUSEPORT) be handed over. */
#define KERNEL_MAJOR 6
#define KERNEL_MINOR 6
#define PORT_BITS    16

static_assert(INTERCEPT_ELEMENTS_MAX == PLAN_TOTAL_MAX, "any configuration fits");
static_assert(INTERCEPT_NAME == IFNAMSIZ, "names are compared whole");

struct kernel_intercept {
	struct intercept_bpf *skeleton;
	struct intercept_control control;
	char directory[PATH_MAX / 2];
};

static const struct kernel_tc place = { .name = "intercept", .priority = FILTER_PRIORITY };

/* --- loading --- */

static int check_kernel(char *why, size_t why_size)
{
	unsigned major = 0, minor = 0;
	struct utsname name;

	if (uname(&name) == 0 && sscanf(name.release, "%u.%u", &major, &minor) == 2 &&
	        (major > KERNEL_MAJOR || (major == KERNEL_MAJOR && minor >= KERNEL_MINOR)))
		return 0;
	snprintf(why, why_size,
	        "the kernel hands packets to sockets that share a port, as the relay's do, from %d.%d on only",
	        KERNEL_MAJOR, KERNEL_MINOR);
	return -EOPNOTSUPP;
}

int kernel_intercept_open(const char *directory, struct kernel_intercept **ret, char *why, size_t why_size)
{
	struct kernel_intercept *intercept = calloc(1, sizeof(*intercept));
	int r = check_kernel(why, why_size);

	if (!intercept || r < 0) {
		free(intercept);
		return r < 0 ? r : -ENOMEM;
	}
	kernel_bpf_quiet();
	snprintf(intercept->directory, sizeof(intercept->directory), "%s", directory);
	intercept->skeleton = intercept_bpf__open_and_load();
	if (!intercept->skeleton) {
		r = -errno;
		snprintf(why, why_size, "the kernel does not load the program: %s", strerror(-r));
		kernel_intercept_free(intercept);
		return r;
	}
	*ret = intercept;
	return 0;
}

void kernel_intercept_free(struct kernel_intercept *intercept)
{
	if (!intercept)
		return;
	intercept_bpf__destroy(intercept->skeleton);
	free(intercept);
}

/* --- maps --- */

static int put(const struct bpf_map *map, const void *key, const void *value)
{
	return bpf_map_update_elem(bpf_map__fd(map), key, value, BPF_ANY) < 0 ? -errno : 0;
}

static int put_control(struct kernel_intercept *intercept)
{
	__u32 zero = 0;

	return put(intercept->skeleton->maps.control, &zero, &intercept->control);
}

int kernel_intercept_set(struct kernel_intercept *intercept, const struct intercept_control *control)
{
	struct intercept_control before = intercept->control;
	int r;

	intercept->control = *control;
	memcpy(intercept->control.n_shapes, before.n_shapes, sizeof(before.n_shapes));
	r = put_control(intercept);
	if (r < 0)
		intercept->control = before;
	return r;
}

static enum intercept_kind kind_of(const struct match_shape *shape)
{
	if (shape->protocol == IPPROTO_TCP)
		return shape->family == AF_INET ? INTERCEPT_TCP4 : INTERCEPT_TCP6;
	return shape->family == AF_INET ? INTERCEPT_UDP4 : INTERCEPT_UDP6;
}

static __u8 port_of(const struct match_shape *shape)
{
	static const __u8 kinds[] = { [MATCH_PORT_EXACT] = INTERCEPT_PORT_EXACT,
		[MATCH_PORT_RANGE] = INTERCEPT_PORT_RANGE,
		[MATCH_PORT_ANY] = INTERCEPT_PORT_ANY };

	static_assert(ARRAY_SIZE(kinds) == MATCH_PORT_KINDS, "all of them");
	return kinds[shape->port_kind];
}

static void put_mask(__u32 mask[4], unsigned length)
{
	for (unsigned word = 0; word < 4; word++) {
		unsigned bits = length > 32 * word ? length - 32 * word : 0;

		mask[word] = bits == 0 ? 0 : htonl(bits >= 32 ? UINT32_MAX : ~(UINT32_MAX >> bits));
	}
}

static int put_shape(struct kernel_intercept *intercept, const struct match_shape *shape)
{
	enum intercept_kind kind = kind_of(shape);
	__u32 *n = &intercept->control.n_shapes[kind], at = (__u32)kind * INTERCEPT_SHAPES_MAX + *n;
	struct intercept_shape value = { .dst_len = shape->dst_len,
		.src_len = shape->src_len,
		.interface = shape->interface,
		.port = port_of(shape) };

	if (*n == INTERCEPT_SHAPES_MAX)
		return -E2BIG;
	put_mask(value.dst_mask, shape->dst_len);
	put_mask(value.src_mask, shape->src_len);
	++*n;
	return put(intercept->skeleton->maps.shapes, &at, &value);
}

static bool is_new_shape(const struct group *groups, size_t at)
{
	return at == 0 || match_shape_compare(&groups[at - 1].shape, &groups[at].shape) != 0;
}

int kernel_intercept_shapes(struct kernel_intercept *intercept, const struct group *groups, size_t n)
{
	int r = 0;

	memset(intercept->control.n_shapes, 0, sizeof(intercept->control.n_shapes));
	for (size_t i = 0; i < n && r == 0; i++)
		if (is_new_shape(groups, i))
			r = put_shape(intercept, &groups[i].shape);
	/* Of too many none counts. */
	if (r < 0)
		memset(intercept->control.n_shapes, 0, sizeof(intercept->control.n_shapes));
	return r == 0 ? put_control(intercept) : r;
}

static void make_key(const struct element *element, struct intercept_key *ret)
{
	const struct match_key *key = &element->key;

	*ret = (struct intercept_key){ .kind = (__u8)kind_of(&key->shape),
		.dst_len = key->shape.dst_len,
		.src_len = key->shape.src_len,
		.interface = key->shape.interface,
		.port = port_of(&key->shape),
		.dport = key->shape.port_kind == MATCH_PORT_ANY ? 0 : htons(key->port_lo) };
	memcpy(ret->dst, key->dst.bytes, sizeof(ret->dst));
	memcpy(ret->src, key->src.bytes, sizeof(ret->src));
	memcpy(ret->name, key->interface, sizeof(ret->name));
}

enum intercept_verdict intercept_verdict(const struct element *element)
{
	if (element->limited)
		return INTERCEPT_LEAVE;
	return element->verdict == VERDICT_RELAY          ? INTERCEPT_RELAY
	       : element->verdict == VERDICT_RELAY_DIRECT ? INTERCEPT_RELAY_DIRECT
	                                                  : INTERCEPT_LEAVE;
}

/* Adds (value), or takes away. What is not there any more is not missed. */
static int change(const struct bpf_map *map, const void *key, const __u32 *value)
{
	int r;

	if (value)
		return put(map, key, value);
	r = bpf_map_delete_elem(bpf_map__fd(map), key) < 0 ? -errno : 0;
	return r == -ENOENT ? 0 : r;
}

static int change_range(struct kernel_intercept *intercept, const struct element *element, const __u32 *value)
{
	struct intercept_range_key key = { 0 };
	uint32_t port = element->key.port_lo, last = element->key.port_hi;
	int r = 0;

	make_key(element, &key.key);
	while (port <= last && r == 0) {
		unsigned bits = port_block_bits(port, last);

		key.prefix = INTERCEPT_RANGE_BITS + PORT_BITS - bits;
		key.key.dport = htons((uint16_t)port);
		r = change(intercept->skeleton->maps.ranges, &key, value);
		port += 1U << bits;
	}
	return r == -ENOSPC ? -E2BIG : r;
}

bool kernel_intercept_takes(const struct group *groups, size_t n, const struct elements *elements)
{
	unsigned shapes[INTERCEPT_KINDS] = { 0 };
	size_t prefixes = 0;

	for (size_t i = 0; i < n; i++)
		if (is_new_shape(groups, i) && ++shapes[kind_of(&groups[i].shape)] > INTERCEPT_SHAPES_MAX)
			return false;
	for (size_t i = 0; i < elements->n; i++) {
		const struct match_key *key = &elements->items[i].key;

		if (key->shape.port_kind != MATCH_PORT_RANGE)
			continue;
		for (uint32_t port = key->port_lo; port <= key->port_hi;
		        port += 1U << port_block_bits(port, key->port_hi))
			prefixes++;
	}
	return prefixes <= INTERCEPT_ELEMENTS_MAX;
}

static int change_element(struct kernel_intercept *intercept, const struct element *element, const __u32 *value)
{
	struct intercept_key key;

	if (element->key.shape.port_kind == MATCH_PORT_RANGE)
		return change_range(intercept, element, value);
	make_key(element, &key);
	return change(intercept->skeleton->maps.elements, &key, value);
}

int kernel_intercept_put(struct kernel_intercept *intercept, const struct element *element)
{
	__u32 verdict = intercept_verdict(element);

	return change_element(intercept, element, &verdict);
}

int kernel_intercept_remove(struct kernel_intercept *intercept, const struct element *element)
{
	return change_element(intercept, element, NULL);
}

void kernel_intercept_counts(const struct kernel_intercept *intercept, uint64_t ret[INTERCEPT_COUNTS])
{
	int processors = libbpf_num_possible_cpus();
	_cleanup_free_ __u64 *each = processors > 0 ? calloc((size_t)processors, sizeof(*each)) : NULL;

	for (__u32 i = 0; i < INTERCEPT_COUNTS; i++) {
		ret[i] = 0;
		if (!each || bpf_map_lookup_elem(bpf_map__fd(intercept->skeleton->maps.counts), &i, each) < 0)
			continue;
		for (int p = 0; p < processors; p++)
			ret[i] += each[p];
	}
}

/* --- interfaces --- */

void kernel_intercept_forget(struct kernel_intercept *intercept, unsigned ifindex)
{
	__u32 key = ifindex;

	(void)bpf_map_delete_elem(bpf_map__fd(intercept->skeleton->maps.interfaces), &key);
	kernel_tc_forget(intercept->directory, ifindex);
}

int kernel_intercept_attach(struct kernel_intercept *intercept, const char *interface)
{
	__u32 ifindex = if_nametoindex(interface);
	char name[INTERCEPT_NAME] = { 0 };
	int r;

	snprintf(name, sizeof(name), "%s", interface);
	r = put(intercept->skeleton->maps.interfaces, &ifindex, name);
	if (r < 0)
		return r;
	return kernel_tc_attach(
	        &place, intercept->directory, bpf_program__fd(intercept->skeleton->progs.intercept), interface);
}

bool kernel_intercept_is_attached(const char *interface)
{
	return kernel_tc_is_attached(&place, interface);
}

void kernel_intercept_detach(const char *directory, const char *interface)
{
	kernel_tc_detach(&place, directory, interface);
}

void kernel_intercept_detach_all(const char *directory)
{
	kernel_tc_detach_all(&place, directory);
}
