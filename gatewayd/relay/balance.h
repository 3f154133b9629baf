/*
 * The targets of one upstream and the choice between them: smooth weighted
 * round robin. Among the targets that may be used each gains its weight at
 * every pick and the one that has gained most is taken and pays the sum, so
 * that a heavy target is spread out between the light ones.
 */
#ifndef GW_RELAY_BALANCE_H
#define GW_RELAY_BALANCE_H

#include <stdbool.h>
#include <stddef.h>

#include "gatewayd/base/addr.h"

enum target_admin {
	TARGET_UP,
	TARGET_DRAIN, /* keeps its flows, gets no new ones */
	TARGET_DOWN,
	TARGET_STATES
};

struct target {
	uint32_t id;
	struct addr addr;
	uint16_t port;   /* 0: the packet's own */
	uint16_t weight; /* 0: no new flows */
	bool backup;     /* only while no other target can be used */
	uint8_t state;   /* enum target_admin */
	uint32_t slot;   /* where it is counted (base/stats.h) */
	int64_t gained;  /* of the round robin; kept when the target is put again */
};

/* All zero is one without targets. */
struct balance {
	struct target *targets;
	size_t n;
};

/* Removes all targets and frees what they took; the empty struct is legal again. */
void balance_clear(struct balance *balance);
/* Adds a target or changes the one of the same id; its `gained` is ignored. 0 or -ENOMEM. */
int balance_put(struct balance *balance, const struct target *target);
/* 0 or -ENOENT. */
int balance_remove(struct balance *balance, uint32_t id);
/* The target of this id, valid as long as that of balance_pick; NULL if there is none. */
const struct target *balance_target(const struct balance *balance, uint32_t id);
/* The target at this address whose port is the one given or the packet's own; NULL if there is none. */
const struct target *balance_find(const struct balance *balance, const struct addr *addr, uint16_t port);
/* The target of the next flow, valid until the next put or remove; NULL if there is none. Only targets of
 * this family count; AF_UNSPEC: those of any. */
const struct target *balance_pick(struct balance *balance, uint8_t family);

#endif
