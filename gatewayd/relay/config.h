/*
 * The relay's configuration: a batch of checked changes, collected by the
 * control thread, and the tables that each thread keeps for itself and
 * applies a committed batch to. Tables are never shared, so looking something
 * up takes no lock.
 */
#ifndef GW_RELAY_CONFIG_H
#define GW_RELAY_CONFIG_H

#include "gatewayd/base/match.h"
#include "gatewayd/base/proto.h"
#include "gatewayd/relay/balance.h"
#include "gatewayd/relay/first_routes.h"
#include "gatewayd/relay/health_table.h"
#include "gatewayd/relay/idmap.h"
#include "gatewayd/relay/trust.h"

/* Most changes in one batch: more than the daemon's own limits can produce; bounds the memory of a mad one. */
#define CONFIG_CHANGES_MAX (1U << 22)
#define CONFIG_NAME_MAX    63
/* Longest interval and timeout of checks: a day, more than the schema allows. */
#define CONFIG_HEALTH_MS_MAX 86400000U

/* A limit of key flow. */
struct config_shape {
	uint64_t rate;        /* bytes per second of each direction; 0: there is no limit */
	uint32_t limit, slot; /* its id, and where it is counted */
	bool shadow;          /* it only counts */
};

struct config_listener {
	uint32_t id;
	char name[CONFIG_NAME_MAX + 1];
	uint8_t source;                              /* enum connect_source */
	uint8_t mover;                               /* enum proto_mover */
	bool shortcut;                               /* its flows may take it (udp_shortcut.h, tcp_stitch.h) */
	uint8_t proxy;                               /* version of the PROXY header that targets are sent; 0: none */
	uint32_t upstream;                           /* 0: the packet's own destination */
	uint32_t connect_timeout_ms, idle_timeout_s; /* 0: none */
	uint32_t slot;                               /* where it is counted (base/stats.h) */
	struct config_shape shape;                   /* what its flows get (shape.h) */
	struct trust trust;                          /* who must begin with a PROXY header */
	struct first_routes routes;
};

struct config_upstream {
	uint32_t id;
	char name[CONFIG_NAME_MAX + 1];
	struct balance balance;
	uint32_t slot;
	bool reset_on_down; /* flows of a target that is down are reset (reap.h) */
	bool reaped;        /* reap.c's: some target's flows are to be reset */
};

/* The tables of one thread. */
struct config {
	struct match_table *match;
	struct idmap listeners; /* of struct config_listener, owned */
	struct idmap upstreams; /* of struct config_upstream, owned */
};

/* An empty configuration. -ENOMEM. */
int config_new(struct config **ret);
void config_free(struct config *config);
/* The row of this id, borrowed; NULL if there is none. */
struct config_listener *config_listener(const struct config *config, uint32_t id);
struct config_upstream *config_upstream(const struct config *config, uint32_t id);

struct config_batch;

/* A batch of changes against generation `base`; base 0 starts from nothing. -ENOMEM. */
int config_batch_new(uint64_t base, uint64_t generation, struct config_batch **ret);
void config_batch_free(struct config_batch *batch);
uint64_t config_batch_generation(const struct config_batch *batch);
/* Adds the change of an item's message. -EBADMSG (an illegal value), -E2BIG, -ENOMEM, -EINVAL (not an item). */
int config_batch_add(struct config_batch *batch, const struct proto_message *message);
uint32_t config_batch_count(const struct config_batch *batch);
/* Carries the batch out on a thread's tables. With base 0 *config is replaced as a whole, or not at all.
 * -ENOMEM, -EEXIST (ranges overlap), -ENOENT (a change of what is not there): then the tables of a batch with
 * another base are left half changed and only a batch with base 0 can follow. */
int config_batch_apply(const struct config_batch *batch, struct config **config);
/* The same for what the health thread keeps. */
int config_batch_apply_health(const struct config_batch *batch, struct health_table *table);

#endif
