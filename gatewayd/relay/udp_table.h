/*
 * The fixed table of relayed UDP flows of one thread. A flow is found by who
 * sent the datagram and where to (udp_table_find), by what epoll carries, and,
 * if its target sees the client's own port, by that pair of addresses and
 * ports too, because two sockets with the same ones would take away each
 * other's answers. No memory is allocated after start.
 *
 * Theory of operation: the buckets are chains of indices under a keyed hash,
 * since whoever can send datagrams can choose keys. The order of age is kept
 * lazily: using a flow only notes the time, and looking for the oldest moves
 * those that were used since they were placed to the young end.
 */
#ifndef GW_RELAY_UDP_TABLE_H
#define GW_RELAY_UDP_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "gatewayd/base/addr.h"
#include "gatewayd/relay/flow.h"
#include "gatewayd/relay/udp_hash.h"
#include "gatewayd/relay/wheel.h"

/* Looking for the oldest flow, at most so many are moved before the oldest of them has to do: bounds the work for one
 * datagram of a stranger's. */
#define UDP_OLDEST_TRIES 16
/* Most flows that are held at a time: those of the datagrams that were taken at once. */
#define UDP_HELD_MAX 65

struct udp_key {
	struct addr client, original;
	uint16_t client_port, original_port;
};

/* What is known of a flow that may take the short cut (udp_shortcut.h). */
struct udp_flow_shortcut {
	bool allowed;            /* by its listener */
	bool in;                 /* its elements are in the map, of this epoch */
	uint32_t epoch, ifindex; /* ifindex: where the client's datagrams come in */
	uint32_t long_way;       /* datagrams by way of the relay since it was last considered */
	uint32_t look_ms;        /* pause between looks */
	uint64_t datagrams[FLOW_SIDES], bytes[FLOW_SIDES]; /* as counted by the program at the last look */
};

struct udp_flow {
	struct wheel_entry timer;
	uint32_t generation;
	uint32_t next_by_key;   /* in its bucket, or in the free list */
	uint32_t next_by_tuple; /* in its bucket, if keeps_port */
	uint32_t older, newer;
	bool used;
	bool keeps_port; /* the target sees the client's address and port */
	bool held;       /* datagrams of it wait to be sent: it must not end now */
	bool answered;   /* the target has sent something */
	uint8_t proxy;   /* version of the PROXY header that the target is sent; 0: none */
	bool gathers;    /* its socket takes datagrams that the kernel has put together (UDP_GRO) */
	int fd;          /* connected to the target */
	uint32_t reply;  /* number of the socket that answers are sent from (udp_reply.h) */
	uint32_t idle_timeout_ms;
	uint32_t config_version;               /* of the configuration by which it was last classified */
	uint32_t from_client;                  /* datagrams so far; stays at the greatest number */
	uint16_t gso_to_target, gso_to_client; /* larger datagrams cannot be sent many at once (udp_outbox.h) */
	uint16_t burst;                        /* datagrams that its socket held when it was last read */
	uint64_t active_ms;                    /* when a datagram was last relayed */
	uint64_t placed_ms;                    /* when it was put at the young end */
	uint64_t bytes[FLOW_SIDES];            /* of the direction that comes from this side */
	uint32_t slot[STATS_KINDS];            /* where it is counted */
	struct flow_origin origin;
	struct load_hold hold; /* its part in its target's count of flows */
	struct udp_flow_shortcut shortcut;
};

struct udp_table {
	struct udp_flow *flows;
	uint32_t *by_key, *by_tuple; /* buckets; an index + 1, 0: empty */
	uint32_t size, mask;
	uint32_t open;
	uint32_t touched; /* flows behind this index were never used and have no memory yet */
	uint32_t free_head;
	uint32_t oldest, newest;
	struct udp_hash hash;
};

/* 0, or -ENOMEM. */
int udp_table_init(struct udp_table *table, uint32_t size);
void udp_table_destroy(struct udp_table *table);
/* The flow of the datagrams with this key, or NULL. */
struct udp_flow *udp_table_find(const struct udp_table *table, const struct udp_key *key);
/* A new flow for the origin, the youngest, without a descriptor; NULL if the table is full. There must be none of its
 * key. */
struct udp_flow *udp_table_add(struct udp_table *table, const struct flow_origin *origin, uint64_t now_ms);
/* Whether a flow of the same client, with the same port, has the target and sees that port. */
bool udp_table_tuple_is_taken(const struct udp_table *table, const struct flow_origin *origin);
/* Notes that the flow's target sees the client's port. Legal once. */
void udp_table_keep_port(struct udp_table *table, struct udp_flow *flow);
/* Takes the flow back; its cookies are stale from here on. The caller has closed what it held. */
void udp_table_remove(struct udp_table *table, struct udp_flow *flow);
/* A flow that has not been used for long, none of which is held; NULL if there is none. */
struct udp_flow *udp_table_oldest(struct udp_table *table);

/* The number of a flow, and the open flow of this number and id or NULL. */
uint32_t udp_table_index(const struct udp_table *table, const struct udp_flow *flow);
struct udp_flow *udp_table_at(struct udp_table *table, uint32_t index, uint64_t id);

/* What epoll carries for the flow's socket: a cookie of kind FLOW_COOKIE_UDP. */
uint64_t udp_table_cookie(const struct udp_table *table, const struct udp_flow *flow);
/* Whether it is such a cookie; then *ret is its flow, or NULL if that has ended. */
bool udp_table_from_cookie(const struct udp_table *table, uint64_t cookie, struct udp_flow **ret);
/* The flow whose timer it is, or NULL if it is none of this table. */
struct udp_flow *udp_table_from_timer(const struct udp_table *table, struct wheel_entry *timer);

#endif
