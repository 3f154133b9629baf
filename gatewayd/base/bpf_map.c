/* Elements of BPF maps; see bpf_map.h. */
#include "gatewayd/base/bpf_map.h"

#include <errno.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int element(enum bpf_cmd command, int map, const void *key, const void *value)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr)); /* the kernel refuses what is not zero in the parts that it does not know */
	attr.map_fd = (uint32_t)map;
	attr.key = (uintptr_t)key;
	attr.value = (uintptr_t)value;
	attr.flags = BPF_ANY;
	return syscall(SYS_bpf, command, &attr, sizeof(attr)) < 0 ? -errno : 0;
}

int bpf_map_put(int map, const void *key, const void *value)
{
	return element(BPF_MAP_UPDATE_ELEM, map, key, value);
}

int bpf_map_get(int map, const void *key, void *ret_value)
{
	return element(BPF_MAP_LOOKUP_ELEM, map, key, ret_value);
}

int bpf_map_delete(int map, const void *key)
{
	return element(BPF_MAP_DELETE_ELEM, map, key, NULL);
}

int bpf_map_next(int map, const void *key, void *ret_key)
{
	return element(BPF_MAP_GET_NEXT_KEY, map, key, ret_key);
}

int bpf_program_call(int program, const void *packet, size_t size)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.test.prog_fd = (uint32_t)program;
	attr.test.data_in = (uintptr_t)packet;
	attr.test.data_size_in = (uint32_t)size;
	return syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attr, sizeof(attr)) < 0 ? -errno
	                                                                    : (int)(attr.test.retval & INT32_MAX);
}
