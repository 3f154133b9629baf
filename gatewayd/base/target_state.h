/*
 * What is observed of a target and what an operator has said about it while
 * the gateway runs: apart from the configuration, in the memory that daemon
 * and relay share (stats.h), one struct per target's slot, so that it outlives
 * each relay and each daemon alone.
 *
 * Theory of operation: every word has one kind of writer. The daemon writes
 * the operator's wishes, the relay's health thread what its checks found, the
 * relay's loops what happened to connections; everybody reads, without locks.
 * A struct belongs to the target whose id stands in stats_memory.id of its
 * slot; the daemon clears it before it gives the slot to another. Times are
 * CLOCK_MONOTONIC in milliseconds, which all processes share; 0: never.
 */
#ifndef GW_BASE_TARGET_STATE_H
#define GW_BASE_TARGET_STATE_H

#include <stdatomic.h>
#include <stdint.h>

enum target_health {
	TARGET_HEALTH_UNKNOWN, /* not checked, or not yet: counts as healthy */
	TARGET_HEALTH_UP,
	TARGET_HEALTH_DOWN,
	TARGET_HEALTHS
};

/* Why the health is what it is: the last check that spoke, or would speak, for a change. */
enum target_cause {
	TARGET_CAUSE_NONE,
	TARGET_CAUSE_OK,       /* detail: HTTP status, or 0 */
	TARGET_CAUSE_CONNECT,  /* detail: errno */
	TARGET_CAUSE_TIMEOUT,  /* detail: the limit in ms */
	TARGET_CAUSE_STATUS,   /* detail: HTTP status that was not wanted */
	TARGET_CAUSE_BODY,     /* the wanted text was not there; detail: HTTP status */
	TARGET_CAUSE_PROTOCOL, /* not an HTTP answer, or ended early */
	TARGET_CAUSE_LOCAL,    /* the check could not be made here; detail: errno */
	TARGET_CAUSES
};

struct target_state {
	/* The daemon's. */
	_Alignas(128) _Atomic uint32_t
	        admin;                /* the operator's word: 0 none, else enum target_admin + 1 (relay/balance.h) */
	_Atomic uint32_t weight;      /* 0: as configured, else the weight + 1 */
	_Atomic uint32_t reset_per_s; /* flows of a drained target to reset per second after the deadline; 0: none */
	_Atomic uint64_t drain_deadline_ms; /* 0: flows may take as long as they want */
	/* The health thread's. */
	_Atomic uint32_t health; /* enum target_health */
	_Atomic uint32_t cause;  /* enum target_cause */
	_Atomic uint32_t detail;
	_Atomic uint32_t latency_us; /* of the last check that succeeded */
	_Atomic uint64_t since_ms;   /* when health became what it is; slow start counts from here */
	_Atomic uint64_t checked_ms;
	_Atomic uint64_t checks, failures;
	/* The loops', by compare and swap: there are several of them. */
	_Atomic uint32_t failing; /* connections in a row that the target failed */
	_Atomic uint32_t ejections;
	_Atomic uint64_t ejected_until_ms; /* 0, or passed: not ejected */
	/* Flows now, of all threads, in the lower half, and above it the run that counts them (relay/load.h). */
	_Atomic uint64_t flows;
};

_Static_assert(sizeof(struct target_state) == 128, "two lines of the cache");

#endif
