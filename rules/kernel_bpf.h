/*
 * The BPF objects in the kernel: loading the programs, and pinning their maps
 * under a directory of ours on a bpf file system, from where the next daemon
 * takes them. Flows in the maps, and the program that judges their packets, go
 * on whatever becomes of the daemon.
 */
#ifndef GW_RULES_KERNEL_BPF_H
#define GW_RULES_KERNEL_BPF_H

#include <stdbool.h>
#include <stddef.h>

/* The maps of the sockmap mover (gatewayd/base/bpf_flow.h). */
struct kernel_bpf;

/* Whether maps can be pinned in the directory: it, or its parent, is on a bpf file system. 0, or -EOPNOTSUPP with words
 * in why. */
int kernel_bpf_possible(const char *directory, char *why, size_t why_size);
/* Whether maps of this layout are pinned there. */
bool kernel_bpf_is_pinned(const char *directory);
/* Loads the program, with the maps that are pinned below `directory`, or new ones that are pinned there; the program
 * replaces that of an earlier daemon for sockets that enter from now on. directory NULL: nothing is pinned, all goes
 * with kernel_bpf_free. 0, or a negative errno with words in why: -EOPNOTSUPP (no bpf file system there), -EPERM
 * (no rights), others. */
int kernel_bpf_open(const char *directory, struct kernel_bpf **ret, char *why, size_t why_size);
/* Lets go; what is pinned stays. */
void kernel_bpf_free(struct kernel_bpf *bpf);

/* Descriptors, borrowed. */
int kernel_bpf_rx(const struct kernel_bpf *bpf);
int kernel_bpf_tx(const struct kernel_bpf *bpf);
int kernel_bpf_directions(const struct kernel_bpf *bpf);
int kernel_bpf_controls(const struct kernel_bpf *bpf);
/* The ring buffer of this number below BPF_FLOW_RINGS, made if need be. A descriptor, borrowed, or a negative errno. */
int kernel_bpf_ring(struct kernel_bpf *bpf, unsigned number);

/* Deletes directions and controls whose socket is in `rx` no more: their relay died before it could. Only while no
 * relay writes to the maps. How many directions. */
unsigned kernel_bpf_sweep(struct kernel_bpf *bpf);

/* From here on libbpf's own words go to the debug log. */
void kernel_bpf_quiet(void);

/* Unpins everything below the directory, of every layout, and removes it. 0 (also if there is nothing) or a negative
 * errno. */
int kernel_bpf_cleanup(const char *directory);

#endif
