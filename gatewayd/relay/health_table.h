/*
 * What the health thread knows of the configuration: upstreams with their
 * check, and targets. Filled from the same batches as the loops' tables
 * (config_batch_apply_health). Targets stay where they are in memory as long as
 * they exist, also through a configuration that is sent as a whole, so that
 * checks go on with their timing.
 */
#ifndef GW_RELAY_HEALTH_TABLE_H
#define GW_RELAY_HEALTH_TABLE_H

#include "gatewayd/base/addr.h"
#include "gatewayd/base/proto.h"
#include "gatewayd/relay/health_http.h"
#include "gatewayd/relay/health_rule.h"
#include "gatewayd/relay/idmap.h"
#include "gatewayd/relay/wheel.h"

struct health_check;
struct health_upstream;

struct health_target {
	struct wheel_entry timer; /* the next check, or the time limit of the one that is under way */
	struct health_upstream *upstream;
	uint32_t id, slot;
	uint16_t port; /* 0: the packet's own */
	struct addr addr;
	struct health_streak streak;
	uint64_t due_ms;            /* of the timer */
	struct health_check *check; /* under way, or NULL */
	char *request;              /* what an HTTP check says, not terminated; NULL: not made since the last change */
	size_t n_request;
	struct health_target *queue; /* behind this one, of those that wait for a check to end; itself: the last one */
	bool waiting;
	bool stale; /* a whole configuration is being read and has not named it yet */
};

struct health_upstream {
	uint32_t id;
	bool stale;
	struct proto_health_put rules;
	struct health_http_want want;
	struct idmap targets; /* of struct health_target, owned */
};

struct health_table {
	struct idmap upstreams; /* of struct health_upstream, owned */
	void *userdata;
	/* The target is new, or is to be checked in another way. */
	void (*changed)(void *userdata, struct health_target *target);
	/* It is about to be freed. */
	void (*gone)(void *userdata, struct health_target *target);
};

/* A configuration follows: whole, or changes. */
void health_table_begin(struct health_table *table, bool whole);
/* And is complete: of a whole one, what it has not named is removed. */
void health_table_end(struct health_table *table, bool whole);
/* Each 0, -ENOMEM, or -ENOENT for what is not there. An upstream is not checked until its rules are put. */
int health_table_put_upstream(struct health_table *table, uint32_t id);
int health_table_remove_upstream(struct health_table *table, uint32_t id);
int health_table_put_rules(struct health_table *table, const struct proto_health_put *rules);
/* Of the target counts: id, addr, port, slot. */
int health_table_put_target(struct health_table *table, uint32_t upstream, const struct health_target *target);
int health_table_remove_target(struct health_table *table, uint32_t upstream, uint32_t id);
void health_table_clear(struct health_table *table);

/* The port that the target is checked at; 0: it is not checked. */
uint16_t health_table_port(const struct health_target *target);

#endif
