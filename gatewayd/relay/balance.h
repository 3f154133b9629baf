/*
 * The targets of one upstream and the choice between them. Called by route.c
 * for each new flow of TCP or UDP; each thread has tables of its own. What the
 * operator, the checks and failed connections say of a target is read from
 * shared memory (base/target_state.h); a choice takes no lock and, but for the
 * table of source_hash, no memory.
 *
 * Theory of operation: one look at all targets finds those that can be used
 * and, of these, the best kind: others before backups, and before both those
 * that are ejected (a target that has failed lately is better than none). Then
 * the algorithm chooses among them, each with its share: its weight, or the
 * part of it that slow start allows.
 *
 * round_robin: at every choice each gains its share, and the one that has
 * gained most is taken and pays the sum, which spreads a heavy target out
 * between the light ones. least_conn: the fewest flows for its share, the new
 * one included. random_two: two are drawn by their shares, and the better one
 * by least_conn is taken. source_hash: maglev.h by the client's address; the
 * places of a target that cannot be used fall to those that follow in the
 * table, so no other client's choice changes.
 */
#ifndef GW_RELAY_BALANCE_H
#define GW_RELAY_BALANCE_H

#include <stdbool.h>
#include <stddef.h>

#include "gatewayd/base/addr.h"
#include "gatewayd/base/proto.h"
#include "gatewayd/base/stats.h"

/* A weight of 1 in shares, which are whole numbers. */
#define BALANCE_SHARE_ONE 256
/* What a target in slow start has of its share at the least, so that it gets to do something: one part in so many. */
#define BALANCE_SLOW_PART 32
/* Pause between tables that are made because an operator has changed weights: each costs about a millisecond. */
#define BALANCE_TABLE_MS 1000

enum target_admin {
	TARGET_UP,
	TARGET_DRAIN, /* keeps its flows, gets no new ones */
	TARGET_DOWN,
	TARGET_STATES
};

struct target {
	uint32_t id;
	struct addr addr;
	uint16_t port;            /* 0: the packet's own */
	uint16_t weight;          /* 0: no new flows */
	bool backup;              /* only while no other target can be used */
	uint8_t state;            /* enum target_admin */
	uint32_t slot;            /* where it is counted (base/stats.h) */
	uint32_t max_connections; /* 0: any number */
	/* The choice's own; kept when the target is put again. */
	int64_t gained;       /* of the round robin */
	uint16_t hash_weight; /* in the table of source_hash */
	uint32_t share;       /* at this choice; 0: not one of those that can be used */
};

/* How an upstream chooses. */
struct balance_rules {
	uint8_t algorithm;         /* enum proto_algorithm */
	uint8_t max_retries;       /* other targets that a failed connect is tried at */
	uint32_t passive_failures; /* in a row that eject a target; 0: never */
	uint32_t slow_start_ms;
};

/* One that can be used, at this choice. */
struct candidate {
	struct target *target;
	uint32_t share, flows;
};

/* The table of the targets that are backups, or are not; made when it is first used. */
struct balance_table {
	uint16_t *place; /* NULL, or MAGLEV_SIZE indices of targets */
	bool is_current; /* of the targets as they are */
	uint64_t made_ms;
};

/* All zero is one without targets, in round robin. */
struct balance {
	struct target *targets;
	struct candidate *candidates; /* room for all targets */
	size_t n;
	struct balance_rules rules;
	struct balance_table table[2]; /* [1]: of the backups */
	uint64_t random;               /* state of the drawing of random_two */
	size_t turn;                   /* which of equals comes first */
};

/* For whom a target is chosen. */
struct balance_ask {
	const struct stats_place *place; /* where states are; its memory may be NULL: then targets are as configured */
	uint64_t now_ms;
	const struct addr *client;
	uint8_t family;        /* only targets of this family count; AF_UNSPEC: those of any */
	const uint32_t *tried; /* ids of targets that are not to be chosen again */
	size_t n_tried;
};

/* Removes all targets and frees what they took; the empty struct is legal again. */
void balance_clear(struct balance *balance);
void balance_configure(struct balance *balance, const struct balance_rules *rules);
/* Adds a target or changes the one of the same id; the choice's own members are ignored. 0 or -ENOMEM. */
int balance_put(struct balance *balance, const struct target *target);
/* 0 or -ENOENT. */
int balance_remove(struct balance *balance, uint32_t id);
/* The target of this id, valid as long as that of balance_pick; NULL if there is none. */
struct target *balance_target(const struct balance *balance, uint32_t id);
/* The target at this address whose port is the one given or the packet's own; NULL if there is none. */
const struct target *balance_find(const struct balance *balance, const struct addr *addr, uint16_t port);
/* The target of the next flow, valid until the next put or remove. -ENOENT if none can be used, -EBUSY if those that
 * could be have all the flows they may have: *ret is then as it was. */
int balance_pick(struct balance *balance, const struct balance_ask *ask, struct target **ret);

#endif
