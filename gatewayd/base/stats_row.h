/*
 * One flow as the relay shows it to the daemon in shared memory (stats.h). A
 * row is written whole under a sequence number when a flow begins; afterwards
 * single words of it change by plain stores. The writer never waits; a reader
 * copies and looks whether the sequence number is still the same.
 *
 * Theory of operation: an idle flow costs its row, so a row has what every flow
 * has, packed, and IPv4 addresses. What only some have lies beside it, in arrays
 * with a place for each row: IPv6 addresses, the server name, what the kernel
 * says of the connections once somebody has asked. The memory is sparse, so a
 * place costs something once it is written; the row says whether it was for this
 * flow, and nobody looks otherwise. These places belong to what the sequence
 * number covers: they are written for another flow only after it has changed.
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
/* Most relay threads; a named limit so that the memory has a fixed size. */
#define STATS_THREADS_MAX 64
/* Tables of flows that a thread has. */
#define STATS_THREAD_TABLES 2
/* A table's rows begin at a multiple of so many: whole pairs of lines of the cache, so that no two threads write to
 * one. */
#define STATS_ROWS_ALIGN 4
/* Rows of one bank, shared among its threads: as many connections as a relay can be told to hold, rounded up per
 * thread, and half as many UDP flows. */
#define STATS_ROWS_MAX ((1U << 24) + (1U << 23) + STATS_THREAD_TABLES * STATS_ROWS_ALIGN * STATS_THREADS_MAX)
/* No row. */
#define STATS_ROW_NONE UINT32_MAX

enum stats_flow_state { STATS_FLOW_NONE, STATS_FLOW_CONNECTING, STATS_FLOW_RELAYING, STATS_FLOW_STATES };

/* The two directions of a flow in all pairs below. */
enum { STATS_TO_TARGET, STATS_TO_CLIENT, STATS_DIRECTIONS };

/* What moves the bytes of a direction (relay/mover.h), and why it is that: as a row has them, and their names. */
enum stats_mover {
#define MOVER(member, name) STATS_MOVER_##member,
#define REASON(member, name)
#include "gatewayd/base/stats_mover.def"
#undef MOVER
#undef REASON
	STATS_MOVERS
};

enum stats_reason {
#define MOVER(member, name)
#define REASON(member, name) STATS_REASON_##member,
#include "gatewayd/base/stats_mover.def"
#undef MOVER
#undef REASON
	STATS_REASONS
};

/* How far a flow is: what changes of it beside bytes. */
struct stats_flow_status {
	uint8_t state; /* enum stats_flow_state */
	bool ended[STATS_DIRECTIONS];
	bool at_rate;                     /* it has come to the rate of its limit */
	uint8_t mover[STATS_DIRECTIONS];  /* enum stats_mover */
	uint8_t reason[STATS_DIRECTIONS]; /* enum stats_reason */
	uint8_t retries;                  /* targets that were tried before */
	uint32_t connect_us;              /* how long the connect took; 0: not known */
};

struct stats_flow_tcp {
	uint32_t rtt_us;      /* smoothed, as the kernel has it */
	uint32_t retransmits; /* segments in all */
};

/* A flow, as the daemon reads it. */
struct stats_flow {
	uint64_t id;         /* 0: the row is free */
	uint64_t started_ms; /* CLOCK_MONOTONIC, as all times here */
	uint64_t active_ms;  /* when bytes last moved */
	uint64_t bytes[STATS_DIRECTIONS];
	struct stats_flow_status status;
	struct stats_flow_tcp client_tcp, target_tcp; /* as of sampled_ms */
	uint64_t sampled_ms;                          /* 0: never */
	uint32_t listener, upstream, target_id;       /* ids; 0: none */
	uint32_t limit;                               /* id of the rate limit of key flow that it has; 0: none */
	uint32_t ifindex;                             /* where the client's packets come in; 0: not known */
	uint16_t client_port, original_port, target_port;
	uint8_t protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	uint8_t route;    /* number of the listener's route that it took, from 1; 0: none */
	struct addr client, original, target;
	char sni[STATS_SNI_MAX];
};

/* --- as it lies in memory --- */

#define STATS_ROW_WORDS    11
#define STATS_IPV6_WORDS   (16 / 8)
#define STATS_NAME_WORDS   (STATS_SNI_MAX / 8)
#define STATS_SAMPLE_WORDS 3

/* The words of a row. Those that change with every packet come first, in one line of the cache with the sequence. */
struct stats_packed {
	uint64_t bytes[STATS_DIRECTIONS];
	uint64_t active_ms;
	uint64_t id;
	uint64_t started_ms;
	struct stats_packed_status {
		_Alignas(8) uint32_t connect_us;
		uint8_t state : 2;
		uint8_t ended_to_target : 1, ended_to_client : 1;
		uint8_t at_rate : 1;
		uint8_t named : 1, sampled : 1; /* the places beside the row have something */
		uint8_t mover_to_target : 4, mover_to_client : 4;
		uint8_t reason_to_target : 4, reason_to_client : 4;
		uint8_t retries;
	} status;
	uint32_t listener, upstream, target_id, ifindex;
	uint16_t client_port, original_port, target_port;
	uint8_t protocol, route;
	uint8_t families; /* two bits for each address: 0 none, 1 IPv4, 2 IPv6, 3 IPv6 and the same as the one before */
	uint8_t ipv4[3][4]; /* client, original, target */
	uint8_t spare[3];
};

struct stats_row {
	_Alignas(32) _Atomic uint32_t sequence; /* odd: being written */
	_Atomic uint32_t limit;
	_Atomic uint64_t word[STATS_ROW_WORDS];
};
static_assert(sizeof(struct stats_row) == 96, "a flow that is idle is small");
static_assert(sizeof(struct stats_packed) == STATS_ROW_WORDS * 8, "words cover it exactly");
static_assert(offsetof(struct stats_packed, status) % 8 == 0 && sizeof(struct stats_packed_status) == 8, "one word");
static_assert(offsetof(struct stats_packed, id) + 8 <= 32, "what each packet changes is in the first half of a line");
static_assert(STATS_ROWS_ALIGN * sizeof(struct stats_row) % 128 == 0, "tables share no line");

/* The rows of a bank, and what lies beside them. */
struct stats_rows {
	struct stats_row row[STATS_ROWS_MAX];
	struct {
		_Atomic uint64_t word[STATS_IPV6_WORDS];
	} ipv6[3][STATS_ROWS_MAX]; /* client, original, target; those that are IPv6 and not the same */
	struct {
		_Atomic uint64_t word[STATS_NAME_WORDS];
	} name[STATS_ROWS_MAX];
	struct {
		_Atomic uint64_t word[STATS_SAMPLE_WORDS];
	} sample[STATS_ROWS_MAX];
};

/* --- the writer --- */

/* Puts the flow into the row of this number; with id 0 the row becomes free. */
void stats_row_write(struct stats_rows *rows, uint32_t number, const struct stats_flow *flow);
void stats_row_clear(struct stats_row *row);
/* Changes one member that is a word; readers see the old value or the new one. */
#define stats_row_set(row, member, value) stats_row_set_word((row), offsetof(struct stats_packed, member), (value))
static inline void stats_row_set_word(struct stats_row *row, size_t offset, uint64_t value)
{
	atomic_store_explicit(&row->word[offset / 8], value, memory_order_relaxed);
}
/* Changes what the status says; all of it at once. */
void stats_row_set_status(struct stats_row *row, const struct stats_flow_status *status);
/* And what moves the bytes of both directions, alone. */
void stats_row_set_mover(struct stats_row *row, enum stats_mover mover);
/* And what the kernel says of the connections. */
void stats_row_set_sample(struct stats_rows *rows, uint32_t number, struct stats_flow_tcp client,
        struct stats_flow_tcp target, uint64_t now_ms);

/* A copy of the writer's own row, which nobody else changes; and of the name alone. */
void stats_row_copy(const struct stats_rows *rows, uint32_t number, struct stats_flow *ret);
void stats_row_get_name(const struct stats_rows *rows, uint32_t number, char ret[STATS_SNI_MAX]);

/* --- readers --- */

/* A copy of the row that is of one flow throughout. False if the row is free, or written all the time. Nothing in it
 * is trusted to be well-formed but this: text is printable and terminated, families, movers and reasons are known or
 * 0. */
bool stats_row_read(const struct stats_rows *rows, uint32_t number, struct stats_flow *ret);
/* Makes a flow that somebody else has written as well-formed as that. */
void stats_flow_clean(struct stats_flow *flow);
/* The id alone, without a copy: 0 if the row is free. */
static inline uint64_t stats_row_id(const struct stats_row *row)
{
	return atomic_load_explicit(&row->word[offsetof(struct stats_packed, id) / 8], memory_order_relaxed);
}

/* "copy", "much"; "" for none. */
const char *stats_mover_name(enum stats_mover mover);
const char *stats_reason_name(enum stats_reason reason);

#endif
