/*
 * Elements of BPF maps, and programs that are called, by bpf(2) alone, on
 * descriptors that somebody with the rights to load programs handed over: this
 * takes no capability. Used by the relay, which links no library for it.
 */
#ifndef GW_BASE_BPF_MAP_H
#define GW_BASE_BPF_MAP_H

#include <stddef.h>

/* Key and value have the sizes that the map was made with. Each: 0 or a negative errno (-ENOENT: no such element). */
int bpf_map_put(int map, const void *key, const void *value);
int bpf_map_get(int map, const void *key, void *ret_value);
int bpf_map_delete(int map, const void *key);
/* The key behind this one, in no order; NULL: the first one. -ENOENT: it was the last. */
int bpf_map_next(int map, const void *key, void *ret_key);

/* A packet that fits into a page with all that the kernel puts around it. */
#define BPF_PACKET_MAX 3072

/* Runs a program of type XDP with these bytes (14 to BPF_PACKET_MAX) as its packet, which it only reads. What it
 * returned (not negative), or a negative errno. */
int bpf_program_call(int program, const void *packet, size_t size);

#endif
