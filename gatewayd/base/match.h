/*
 * Tuple-space packet classification: which value (a listener's id) belongs to
 * a packet. Entries are grouped by shape: family, protocol, prefix lengths,
 * whether the interface counts, and how the port is matched. Within one shape
 * entries never overlap, so one look-up per shape finds at most one; shapes
 * are tried in order of precedence (match_shape_compare) and the first hit
 * wins. Cost: constant in the number of entries, linear in the shapes in use.
 * The same entries are rendered as nft maps by rules/ and looked up here by
 * the relay, so that kernel and relay cannot disagree.
 */
#ifndef GW_BASE_MATCH_H
#define GW_BASE_MATCH_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "gatewayd/base/addr.h"

enum match_port_kind {
	MATCH_PORT_EXACT, /* port_lo == port_hi */
	MATCH_PORT_RANGE, /* disjoint ranges within otherwise equal keys */
	MATCH_PORT_ANY,   /* port_lo = 0, port_hi = 65535, not part of the key */
	MATCH_PORT_KINDS
};

struct match_shape {
	uint8_t protocol;  /* IPPROTO_TCP or IPPROTO_UDP */
	uint8_t family;    /* AF_INET or AF_INET6 */
	uint8_t dst_len;   /* 0: any destination */
	uint8_t src_len;   /* 0: any source */
	uint8_t interface; /* 1: the ingress interface's name is part of the key */
	uint8_t port_kind;
};

struct match_key {
	struct match_shape shape;
	struct addr dst, src;     /* masked to the shape's lengths */
	char interface[IFNAMSIZ]; /* zero-filled to the end; all zero where the shape does not use it */
	uint16_t port_lo, port_hi;
};

struct match_packet {
	uint8_t protocol;
	struct addr dst, src; /* of one family */
	uint16_t dst_port;
	const char *interface; /* ingress; may be NULL if match_table_uses_interface is false */
};

/* Order of precedence: protocol and family first (they separate), then the longer destination prefix,
 * the longer source prefix, a named interface before none, exact port before range before any. */
int match_shape_compare(const struct match_shape *a, const struct match_shape *b);
/* Total order over keys, shapes first. */
int match_key_compare(const struct match_key *a, const struct match_key *b);

/* Faults in a key that came over a wire: unknown protocol or family, lengths beyond the family, unmasked
 * bits, an interface name without a terminator, ports out of order. 0 or -EBADMSG. */
int match_key_check(const struct match_key *key);

struct match_table;

/* An empty table. -ENOMEM. */
int match_table_new(struct match_table **ret);
void match_table_free(struct match_table *table);
/* Adds an entry, or gives an existing equal key another value. -ENOMEM, -EINVAL (a faulty key),
 * -EEXIST (a range that overlaps another one of the same cell). */
int match_table_put(struct match_table *table, const struct match_key *key, uint32_t value);
/* -ENOENT if there is no such entry. */
int match_table_remove(struct match_table *table, const struct match_key *key);
/* 1 and the value, or 0 if nothing matches. */
int match_table_find(const struct match_table *table, const struct match_packet *packet, uint32_t *ret_value);
/* Whether any entry looks at the interface (finding it costs the relay a system call). */
bool match_table_uses_interface(const struct match_table *table);
uint32_t match_table_count(const struct match_table *table);

#endif
