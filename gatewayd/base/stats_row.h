/*
 * One flow as the relay shows it to the daemon in shared memory (stats.h). A
 * row is written whole under a sequence number when a flow begins; afterwards
 * single words of it change by plain stores. The writer never waits; a reader
 * copies and looks whether the sequence number is still the same.
 */
#ifndef GW_BASE_STATS_ROW_H
#define GW_BASE_STATS_ROW_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gatewayd/base/addr.h"

/* Most bytes of a server name that a row shows, with the terminator; a longer one is cut. */
#define STATS_SNI_MAX 64
/* Bytes of a mover's name and of the reason for it; padded with NULs, cut if longer. */
#define STATS_WORD_MAX 8

enum stats_flow_state { STATS_FLOW_NONE, STATS_FLOW_CONNECTING, STATS_FLOW_RELAYING, STATS_FLOW_STATES };

/* The two directions of a flow in all pairs below. */
enum { STATS_TO_TARGET, STATS_TO_CLIENT, STATS_DIRECTIONS };

/* A flow, as the daemon reads it. Each member that changes while the flow lives is one aligned word of 8 bytes. */
struct stats_flow {
	uint64_t id;         /* 0: the row is free */
	uint64_t started_ms; /* CLOCK_MONOTONIC, as all times here */
	uint64_t active_ms;  /* when bytes last moved */
	uint64_t bytes[STATS_DIRECTIONS];
	char mover[STATS_DIRECTIONS][STATS_WORD_MAX];
	char reason[STATS_DIRECTIONS][STATS_WORD_MAX];
	struct stats_flow_status {
		_Alignas(8) uint8_t state; /* enum stats_flow_state */
		uint8_t ended[STATS_DIRECTIONS];
		uint8_t at_rate;     /* it has come to the rate of its limit */
		uint32_t connect_us; /* how long the connect took; 0: not known */
	} status;
	struct stats_flow_tcp {
		_Alignas(8) uint32_t rtt_us;    /* smoothed, as the kernel has it */
		uint32_t retransmits;           /* segments in all */
	} client_tcp, target_tcp;               /* as of sampled_ms */
	uint64_t sampled_ms;                    /* 0: never */
	uint32_t listener, upstream, target_id; /* ids; 0: none */
	uint32_t ifindex;                       /* where the client's packets come in; 0: not known */
	uint16_t client_port, original_port, target_port;
	uint8_t protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	uint8_t route;    /* number of the listener's route that it took, from 1; 0: none */
	uint8_t retries;  /* targets that were tried before */
	struct addr client, original, target;
	char sni[STATS_SNI_MAX];
	uint32_t limit; /* id of the rate limit of key flow that it has; 0: none */
};

#define STATS_FLOW_WORDS ((sizeof(struct stats_flow) + 7) / 8)

struct stats_row {
	_Alignas(64) _Atomic uint64_t sequence; /* odd: being written */
	_Atomic uint64_t word[STATS_FLOW_WORDS];
};
static_assert(sizeof(struct stats_row) == 256, "four lines of the cache");
static_assert(offsetof(struct stats_flow, status) % 8 == 0 && sizeof(struct stats_flow_status) == 8, "one word");
static_assert(offsetof(struct stats_flow, client_tcp) % 8 == 0 && sizeof(struct stats_flow_tcp) == 8, "one word");

/* --- the writer --- */

/* Puts the flow there; with id 0 the row becomes free. */
void stats_row_write(struct stats_row *row, const struct stats_flow *flow);
void stats_row_clear(struct stats_row *row);
/* Changes one member that is a word; readers see the old value or the new one. */
#define stats_row_set(row, member, value) stats_row_set_word((row), offsetof(struct stats_flow, member), (value))
static inline void stats_row_set_word(struct stats_row *row, size_t offset, uint64_t value)
{
	atomic_store_explicit(&row->word[offset / 8], value, memory_order_relaxed);
}
/* The same for members that are no numbers: from 8 bytes. */
#define stats_row_set_bytes(row, member, bytes)                                                                        \
	stats_row_set_word((row), offsetof(struct stats_flow, member), stats_word_from(bytes))
static inline uint64_t stats_word_from(const void *bytes)
{
	uint64_t word;

	__builtin_memcpy(&word, bytes, sizeof(word));
	return word;
}

/* A copy of the writer's own row, which nobody else changes; and of the name alone. */
void stats_row_copy(const struct stats_row *row, struct stats_flow *ret);
void stats_row_get_name(const struct stats_row *row, char ret[STATS_SNI_MAX]);

/* --- readers --- */

/* A copy of the row that is of one flow throughout. False if the row is free, or written all the time. Nothing in it
 * is trusted to be well-formed but this: text is printable and terminated, families are known or 0. */
bool stats_row_read(const struct stats_row *row, struct stats_flow *ret);
/* Makes a flow that somebody else has written as well-formed as that. */
void stats_flow_clean(struct stats_flow *flow);
/* The id alone, without a copy: 0 if the row is free. */
static inline uint64_t stats_row_id(const struct stats_row *row)
{
	return atomic_load_explicit(&row->word[offsetof(struct stats_flow, id) / 8], memory_order_relaxed);
}

#endif
