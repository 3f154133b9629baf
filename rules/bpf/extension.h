/*
 * Extension headers of IPv6 (RFC 8200), as far as programs of rules/bpf go past
 * them.
 */
#ifndef GW_RULES_BPF_EXTENSION_H
#define GW_RULES_BPF_EXTENSION_H

#include <linux/types.h>

struct extension {
	__u8 next, length; /* in units of eight bytes, without the first */
};

struct fragment {
	__u8 next, reserved;
	__be16 offset; /* in bytes, but for the last three bits */
	__be32 id;
};

#endif
