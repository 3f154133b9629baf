/*
 * From the outcome of checks to the health of a target: `rise` good ones in a
 * row make it up, `fall` bad ones in a row make it down. Called by health.c.
 *
 * A target of which nothing is known counts as healthy until `fall` checks have
 * failed, so that a gateway that starts refuses nobody; the first good check
 * makes it up. A check that could not be made here changes nothing but the cause
 * that is shown.
 */
#ifndef GW_RELAY_HEALTH_RULE_H
#define GW_RELAY_HEALTH_RULE_H

#include <stdbool.h>

#include "gatewayd/base/target_state.h"

struct health_rule {
	uint8_t rise, fall; /* at least 1 */
};

/* Checks begin together at multiples of this, in milliseconds, or of its half, quarter and so on while that is more
 * than this part of the interval. One by one each check would wake the thread for itself twice, which costs as much as
 * the rest of what the relay does for it. */
#define HEALTH_MEET_MS   32U
#define HEALTH_MEET_PART 30U

/* Checks in a row, by this relay. */
struct health_streak {
	uint8_t good, bad; /* one of them is 0; neither grows beyond what a rule can ask for */
};

/* How a check has ended. */
struct health_verdict {
	enum target_cause cause;
	uint32_t detail;     /* as the cause says */
	uint32_t latency_us; /* of one that was good */
};

/* Notes the outcome in the target's state. True if its health has become another. */
bool health_rule_note(const struct health_rule *rule, struct health_streak *streak, struct target_state *state,
        const struct health_verdict *verdict, uint64_t now_ms);
/* When a check begins that is due then: at the nearest time at which others do. All of these are times of one clock. */
uint64_t health_rule_meet(uint64_t due_ms, uint32_t interval_ms);
/* The target is not checked (any more): nothing is known of it. True if that is news. */
bool health_rule_forget(struct health_streak *streak, struct target_state *state, uint64_t now_ms);

#endif
