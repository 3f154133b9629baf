/*
 * The fixed table of relayed connections of one thread. A flow is named by
 * its index; events carry index and generation, so that one that was queued
 * for a flow that has ended since is recognised. No memory is allocated after
 * start.
 *
 * Theory of operation: a flow has two ends (sockets) and two directions.
 * Direction FLOW_CLIENT reads from the client's end and writes to the
 * target's, direction FLOW_TARGET the other way; each is moved, and ends, on
 * its own. Both sockets linger {1, 0} from the beginning: what ends all
 * processes that hold them is a reset for both peers. Only when both
 * directions have ended in order is lingering undone before the close.
 *
 * What every flow has lies in struct flow: an idle one costs this, and nothing
 * beside it that it does not need. The rest lies in
 * parts (base/parts.h) that a flow takes and gives back: of a flow in the
 * making, of one in the sockmap, of one that the kernel carries, of one with a
 * rate. Each flow has at most one part of each kind and the pools have as many as
 * the table has flows, so there is always one. What many flows have in common,
 * and IPv6 addresses, lie in pools as well (base/shared.h, base/addr_trio.h).
 */
#ifndef GW_RELAY_FLOW_H
#define GW_RELAY_FLOW_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gatewayd/base/addr.h"
#include "gatewayd/base/addr_trio.h"
#include "gatewayd/base/parts.h"
#include "gatewayd/base/stats.h"
#include "gatewayd/relay/load.h"
#include "gatewayd/relay/wheel.h"

/* Most targets that a connect is tried at after the first. */
#define FLOW_RETRIES_MAX 10

enum flow_side { FLOW_CLIENT, FLOW_TARGET, FLOW_SIDES };

enum flow_state {
	/* On the free list. Legal: flow_alloc. */
	FLOW_FREE,
	/* The client is accepted and polled, and its first bytes are awaited, which decide about the target or, in a
	 * PROXY header, say who it is; there is no socket towards a target. Legal: decided -> CONNECTING, reset ->
	 * FREE. */
	FLOW_PEEKING,
	/* The client is accepted, the target's connect() is under way, or the PROXY header that it is to be sent, and
	 * its socket polled; the client's socket is polled only once that takes longer (tcp.h). Legal: connected ->
	 * RELAYING, reset -> FREE. */
	FLOW_CONNECTING,
	/* Both sockets are polled and bytes move. A direction may have ended already (half-close).
	 * Legal: both directions ended -> close -> FREE, reset -> FREE. */
	FLOW_RELAYING,
	FLOW_STATES
};

/* One socket. Events are edge-triggered: a flag stays until a system call has shown the contrary. */
struct flow_end {
	int fd;
	bool polled : 1;
	bool readable : 1;
	bool writable : 1;
	bool hangup : 1; /* the peer's end of stream lies behind the bytes that wait */
	bool urgent : 1; /* urgent data was seen: a short read no longer means that nothing waits */
	bool broken : 1; /* the socket reported an error */
};

enum direction_state {
	DIRECTION_OPEN,
	DIRECTION_ENDING, /* end of stream was read; what is held still has to be written */
	DIRECTION_ENDED   /* and passed on to the other end */
};

/* Whose flow it is, by id: where it is counted. */
struct flow_objects {
	uint32_t listener;
	uint32_t upstream, target; /* 0: the packet's own destination */
};

/* Who talks to whom and why: set when the flow begins (the target: when it connects; the client behind a proxy: when
 * that has told), never changed, and true in whatever relay process it lives. */
struct flow_origin {
	uint64_t id;         /* of no other flow, also not of an earlier relay's (loop_next_flow_id) */
	uint64_t started_ms; /* CLOCK_MONOTONIC, which all processes share */
	struct addr client, original, target;
	uint16_t client_port, original_port, target_port;
	struct flow_objects objects;
	uint32_t ifindex; /* where the client's packets come in; 0: not known */
	uint8_t route;    /* number of the listener's route that it took, from 1; 0: none */
};

/* --- parts --- */

/* What only a flow that does not relay yet needs. */
struct flow_making {
	uint64_t deadline_ms;             /* of the first bytes or the connect; 0: none */
	uint32_t tried[FLOW_RETRIES_MAX]; /* ids of targets whose connect has failed */
	uint8_t proxy_sent;               /* bytes so far of the PROXY header that the target is sent */
	uint8_t syn_length, syn[60];      /* of a straight flow: the client's TCP header */
	uint8_t ports_taken;              /* of one: ports by which the target knows the client already */
	bool proxy_awaited;               /* the client's end is to begin with a PROXY header (proxy.h) */
};

/* What the sockmap mover knows of a direction (tcp_sockmap.h): bytes, and where their counts begin. */
struct flow_map_direction {
	uint64_t cookie;                  /* of the socket that is read from */
	uint64_t in_base, out_base;       /* read, and written, before the flow entered */
	uint64_t consumed;                /* of what the kernel passed to the relay: written */
	uint64_t counted;                 /* of all that moved: in the relay's counters */
	uint64_t drain_counted, drain_ms; /* since when an end of stream waits for so many to move on */
	uint64_t stuck;                   /* consumed, when more was said to be there than could be read */
	uint32_t looks;                   /* in vain, at once after another */
	bool passing;                     /* the kernel has passed something that is not written yet */
};

/* Of a flow in the sockmap. */
struct flow_map {
	struct flow_map_direction direction[FLOW_SIDES];
	uint64_t wait_due_ms;
	uint32_t wait_at;    /* place among the flows that are looked at without an event (loop_wait), or FLOW_NONE */
	uint32_t wait_ms;    /* the last pause */
	uint32_t account_ms; /* pause between looks at the counters */
};

/* Of a flow that is in the maps of those that the kernel may carry, or carries; see tcp_stitch.h. */
struct flow_stitch {
	uint64_t bytes[FLOW_SIDES]; /* counted so far */
	uint32_t withdrawn;         /* since when it is to be taken out of the maps, a short while ago; 0: it is not */
	uint32_t look_ms;           /* pause between looks */
};

/* The limit of key flow that is in force for a flow; see shape.h. */
struct flow_shape {
	uint64_t rate;  /* bytes per second that it gives each direction; 0: there is none */
	uint64_t paced; /* what the sockets were told; 0: nothing, also with mode shadow */
	uint32_t limit, slot;
	uint32_t counted; /* limit that has counted the flow, with its rate of now */
	bool at_rate;     /* the flow has come to the rate */
	uint64_t since_ms,
	        since_bytes[FLOW_SIDES]; /* from where it is looked at whether it does; 0: from the next bytes */
};

/* --- what flows have in common --- */

/* Where a flow is counted and what holds for it: of many flows the same, so each of them has the number of one. It is
 * exchanged, never changed. */
struct flow_way {
	struct flow_objects objects; /* the origin's */
	uint32_t slot[STATS_KINDS];  /* where each of them counts */
	uint32_t ifindex;            /* the origin's */
	uint32_t idle_timeout_ms;    /* 0: none */
};

/* Where the counters of a kept flow begin (ledger.h), of the direction that reads from this side. base: what was taken
 * from the source beside the direction's bytes, a PROXY header; what that is of a flow outside the sockmap is known
 * before it is measured. offset: a few bytes, whatever the flow has moved. */
struct flow_ledger {
	uint64_t base[FLOW_SIDES];
	int32_t offset[FLOW_SIDES];
};

/* --- what every flow has --- */

struct flow_direction {
	uint64_t taken;  /* bytes taken from the source so far by a relay, whatever one; not those that the kernel
	                  * redirected */
	uint32_t store;  /* buffer or pipe that holds bytes, as the mover says */
	uint32_t held;   /* bytes read and not yet written */
	uint32_t offset; /* where they begin in the buffer */
	uint8_t mover;   /* enum mover_kind */
	uint8_t reason;  /* enum mover_reason: why this mover */
	uint8_t streak;  /* reads in a row that speak for the other mover */
	uint8_t state : 2;
	bool moved : 1;         /* any bytes so far */
	bool splice_denied : 1; /* no pipe was to be had: stays with copy */
};

/* What the daemon knows of a flow, so that it can be adopted when this process dies; see keep.h. */
#define FLOW_EPOCH_MASK ((1U << 30) - 1)
struct flow_kept {
	uint32_t ledger;     /* number of its struct flow_ledger, which most flows have in common; 0: all zero */
	uint32_t epoch : 30; /* the daemon's that has it; 0: none */
	bool shared : 1;     /* some daemon has, or had, its descriptors: a close alone tells the peers nothing */
	bool measured : 1;   /* the ledger is known; it never changes */
};

/* What is counted of a flow; see account.h. */
struct flow_account {
	uint64_t bytes[FLOW_SIDES];
	uint64_t started_us; /* CLOCK_MONOTONIC */
	uint32_t routed_us;  /* when it got its target, after the start: what the times of connect and first byte are
	                      * measured from */
	uint32_t connect_us;
	uint32_t sampled;  /* when its connections were last looked at (sample.h) */
	uint32_t hold_run; /* of its part in its target's count of flows (load.h); 0: it has none */
};

/* Its members stand in the order in which moving bytes needs them. */
struct flow {
	uint32_t generation;
	uint8_t state : 2;
	uint8_t mode : 3; /* enum proto_mover: the listener's setting, or the relay's */
	uint8_t n_tried;  /* targets whose connect has failed */
	uint8_t little;   /* small reads in a row, in both directions together */
	uint8_t end_why;  /* enum flow_why: why it is ending */
	uint64_t id;      /* the origin's */
	struct flow_end end[FLOW_SIDES];
	uint64_t active_ms; /* when bytes last moved */
	struct flow_direction direction[FLOW_SIDES];
	struct flow_account account;
	uint32_t way;                        /* number of its struct flow_way; 0: all zero */
	uint32_t shape, map, stitch, making; /* parts that it has; 0: none */
	uint32_t next, prev;                 /* in the free list (next only), or in the list of flows with more to do */
	bool queued : 1;                     /* in the list of flows with more to do */
	bool begun : 1;                      /* it is counted */
	bool sockmap_tried : 1;              /* entry was tried once, or is not to be */
	bool stitch_tried : 1;               /* it was considered */
	bool carried : 1;                    /* the sockets see nothing any more, or there are none: */
	bool straight : 1;                   /* it is one of straight.h */
	uint8_t proxy : 2;                   /* version of the header that the target is sent; 0: none */
	uint8_t route;                       /* the origin's, and the rest of it below: flow_get_origin */
	uint16_t lag_ms; /* by which the loop's time, which others see, was behind when it started */
	struct wheel_entry timer;
	struct flow_kept kept;
	uint16_t client_port, original_port, target_port;
	struct addr_trio addrs;
};

/* What it costs to be idle is this, its row (base/stats_row.h), and in the daemon what that has of it
 * (keeper_entry.h). */
static_assert(sizeof(struct flow) <= 208, "an idle flow is small");
static_assert(sizeof(struct flow_stitch) <= 24 && sizeof(struct flow_shape) <= 56 && sizeof(struct flow_map) <= 168,
        "as docs/sizing.md says");

#define FLOW_NONE UINT32_MAX
/* Most flows of one thread, so that index and side fit into half of an event's cookie. */
#define FLOW_TABLE_MAX (1U << 30)

struct flow_table {
	struct flow *flows;
	struct parts shapes, maps, stitches, makings;
	struct addr_pool addrs;
	struct shared ways, ledgers;
	uint32_t size;
	uint32_t open;
	uint32_t touched; /* flows behind this index were never used and have no memory yet */
	uint32_t free_head;
};

/* 0, or -ENOMEM. */
int flow_table_init(struct flow_table *table, uint32_t size);
void flow_table_destroy(struct flow_table *table);
/* A flow in state CONNECTING with two ends without descriptors and without parts, or NULL if the table is full. */
struct flow *flow_alloc(struct flow_table *table);
/* Takes the flow and its parts back; its cookies are stale from here on. The caller has closed what it held. */
void flow_free(struct flow_table *table, struct flow *flow);
uint32_t flow_index(const struct flow_table *table, const struct flow *flow);

/* The flow has its target and relays: what was only for the making of it is given back. */
void flow_made(struct flow_table *table, struct flow *flow);
/* What it has in common with others; with another value in its place. */
const struct flow_way *flow_way(const struct flow_table *table, const struct flow *flow);
void flow_set_way(struct flow_table *table, struct flow *flow, const struct flow_way *way);
struct flow_ledger flow_ledger(const struct flow_table *table, const struct flow *flow);
void flow_set_ledger(struct flow_table *table, struct flow *flow, const struct flow_ledger *ledger);
/* Between an origin and where a flow has it. put: all but when it started, which is set with the account. */
void flow_put_origin(struct flow_table *table, struct flow *flow, const struct flow_origin *origin);
struct flow_origin flow_get_origin(const struct flow_table *table, const struct flow *flow);

/* A flow's parts; NULL if it has none of the kind. */
static inline struct flow_shape *flow_shape(const struct flow_table *table, const struct flow *flow)
{
	return (struct flow_shape *)parts_at(&table->shapes, flow->shape);
}

static inline struct flow_map *flow_map(const struct flow_table *table, const struct flow *flow)
{
	return (struct flow_map *)parts_at(&table->maps, flow->map);
}

static inline struct flow_stitch *flow_stitch(const struct flow_table *table, const struct flow *flow)
{
	return (struct flow_stitch *)parts_at(&table->stitches, flow->stitch);
}

static inline struct flow_making *flow_making(const struct flow_table *table, const struct flow *flow)
{
	return (struct flow_making *)parts_at(&table->makings, flow->making);
}

/* What epoll carries for one end of a flow; never equal to a cookie of flow_cookie_other. */
uint64_t flow_cookie(const struct flow_table *table, const struct flow *flow, enum flow_side side);
/* The kind of cookies that a UDP flow's socket has; see udp_table.h. */
#define FLOW_COOKIE_UDP 2U
/* A cookie of any kind from its parts, and its parts if it is of that kind. */
uint64_t flow_cookie_make(uint32_t generation, uint32_t index, uint32_t kind);
bool flow_cookie_split(uint64_t cookie, uint32_t kind, uint32_t *ret_generation, uint32_t *ret_index);
/* A cookie for something that is no flow, named by a small number. */
uint64_t flow_cookie_other(uint32_t number);
/* Whether the cookie is such; then its number. */
bool flow_cookie_is_other(uint64_t cookie, uint32_t *ret_number);
/* The flow and side that a cookie stands for, or NULL if that flow has ended. */
struct flow *flow_from_cookie(const struct flow_table *table, uint64_t cookie, enum flow_side *ret_side);

#endif
