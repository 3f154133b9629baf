/*
 * The health thread of the relay: checks targets by itself, beside the loops,
 * so that nothing that a target does to a check can delay traffic. Gets the same
 * configuration batches as the loops, writes what it finds into the targets'
 * states in shared memory (base/target_state.h), which the loops read when they
 * choose, and the daemon when somebody asks.
 *
 * The control thread reaches it by orders with one writer and one reader, and
 * sees how far it has come, as with the loops (loop.h).
 */
#ifndef GW_RELAY_HEALTH_H
#define GW_RELAY_HEALTH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "gatewayd/base/stats.h"

struct config_batch;
struct health;

/* First checks of targets that come together are spread over this time, or over one interval if that is shorter. */
#define HEALTH_SPREAD_MS 1000
/* Each pause between checks is the interval, more or less by at most this part of it, so that the checks of many
 * targets, and of many gateways, do not fall into step; and then by a little more (health_rule_meet). */
#define HEALTH_JITTER_PART 20

enum health_order_kind {
	HEALTH_ORDER_APPLY,  /* batch: carry it out */
	HEALTH_ORDER_MEMORY, /* memory: write there from now on */
	HEALTH_ORDER_PING    /* nothing but to be seen done */
};

struct health_order {
	enum health_order_kind kind;
	uint64_t sequence; /* ascending */
	union {
		const struct config_batch *batch;
		struct stats_memory *memory;
	};
};

/* Makes the thread's things, without starting it. reply_fd: an eventfd, written when an order was carried out or a
 * health has changed. max_checks: at most so many at once, and descriptors. 0 or a negative errno. */
int health_new(int reply_fd, uint32_t max_checks, struct health **ret);
/* Starts the thread, which runs until the process ends. 0 or a negative errno. */
int health_start(struct health *health);
/* For one that was never started. */
void health_free(struct health *health);

/* Called by the control thread. -EAGAIN if too many orders wait. */
int health_order(struct health *health, const struct health_order *order);
/* The sequence number of the last order carried out; and how the last batch went: 0 or a negative errno. */
uint64_t health_done(const struct health *health);
int health_apply_result(const struct health *health);
/* How many times a target's health has changed, and how many of these ask for flows to be reset. */
uint64_t health_changes(const struct health *health);
uint64_t health_resets(const struct health *health);

/* One turn of the thread, for tests: waits for events up to this long, or as long as nothing is due. */
void health_turn(struct health *health, int longest_ms);

#endif
