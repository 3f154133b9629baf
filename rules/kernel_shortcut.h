/*
 * The short cut of UDP flows in the kernel: loading the program, pinning its
 * maps, and attaching it to the ingress of interfaces, where it stays whatever
 * becomes of the daemon. Used by gatewayd/shortcut.c.
 */
#ifndef GW_RULES_KERNEL_SHORTCUT_H
#define GW_RULES_KERNEL_SHORTCUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gatewayd/base/proto.h"

struct kernel_shortcut;

/* Loads the program, with the maps that are pinned below `directory`, or new ones that are pinned there. 0, or a
 * negative errno with words in why (at most why_size bytes). */
int kernel_shortcut_open(const char *directory, struct kernel_shortcut **ret, char *why, size_t why_size);
/* Lets go; what is pinned and attached stays. Legal for NULL. */
void kernel_shortcut_free(struct kernel_shortcut *shortcut);

/* The descriptor of a map or program, borrowed. */
int kernel_shortcut_fd(const struct kernel_shortcut *shortcut, enum proto_shortcut_kind kind);
/* No SYN is taken until a relay that serves says so again. */
int kernel_shortcut_straight_stop(struct kernel_shortcut *shortcut);
/* The ports for which SYNs may be, and always are taken: BPF_STRAIGHT_WORDS words, a bit each. */
int kernel_shortcut_straight_ports(struct kernel_shortcut *shortcut, const uint64_t *words);

/* From here on only UDP flows of this many-th epoch take the short cut, and none if it is not open; then no TCP flow
 * begins to, either. */
int kernel_shortcut_set(struct kernel_shortcut *shortcut, uint32_t epoch, bool open);
/* The epoch that was set last, by whatever daemon; 0: never. */
uint32_t kernel_shortcut_epoch(const struct kernel_shortcut *shortcut);
/* Deletes UDP flows of other epochs. Only while no relay lives that has made them. How many directions. */
unsigned kernel_shortcut_sweep(struct kernel_shortcut *shortcut, uint32_t epoch);

/* How a TCP flow in the maps is treated. */
enum kernel_stitch_verdict {
	KERNEL_STITCH_STAYS,
	KERNEL_STITCH_HELD, /* its packets go by way of the rules for now */
	KERNEL_STITCH_OVER  /* it is taken out */
};
struct bpf_stitch;
/* Asks about each TCP flow in the maps and does as is said; of how many. */
unsigned kernel_shortcut_review(struct kernel_shortcut *shortcut,
        enum kernel_stitch_verdict (*judge)(void *userdata, uint64_t id, const struct bpf_stitch *flow),
        void *userdata);

/* How many straight flows in the maps have not ended, or have, and their relay has not counted that. */
uint64_t kernel_shortcut_straight_open(const struct kernel_shortcut *shortcut);
/* Whether there is any TCP flow in the maps. */
bool kernel_shortcut_has_stitches(const struct kernel_shortcut *shortcut);
/* Tells what the program has done with packets that the rules have not seen, by interface and kind
 * (base/bpf_shortcut.h); interfaces that have gone are forgotten. */
void kernel_shortcut_tally(const struct kernel_shortcut *shortcut,
        void (*tell)(void *userdata, const char *interface, unsigned kind, uint64_t packets, uint64_t bytes),
        void *userdata);

/* To the ingress of an interface (kernel_tc.h), whether it is there, and off all. */
int kernel_shortcut_attach(struct kernel_shortcut *shortcut, const char *interface);
bool kernel_shortcut_is_attached(const char *interface);
void kernel_shortcut_detach_all(const char *directory);
/* It is off all interfaces. */
void kernel_shortcut_forget_all(struct kernel_shortcut *shortcut);
/* An interface is gone. */
void kernel_shortcut_forget(struct kernel_shortcut *shortcut, unsigned ifindex);

#endif
